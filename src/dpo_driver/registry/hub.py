"""Push a version to a folder laid out as the hub's cache is, or to the hub itself.

``models--pocket--dpo-1/snapshots/REVISION/...`` with ``refs/main``: a program that has ``HF_HUB_CACHE`` set to the
folder loads ``pocket/dpo-1`` by its name, with Transformers or PEFT, without a network. Every push is a revision of its
own; earlier ones stay. Called by ``dpo-driver models push``.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
from pathlib import Path

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import ModelVersion
from dpo_driver.registry.card import model_card
from dpo_driver.registry.versions import Registry

HUB = "hf://"
CARD = "README.md"
_OURS = ("manifest.json",)  # means something here only


def push(registry: Registry, reference: str, destination: str) -> str:
    """Push a version, after its files were checked.

    Args:
        reference: see ``Registry.get``.
        destination: a folder, or ``hf://owner/name``.

    Returns:
        The snapshot's folder, or the repository's address.

    Raises:
        ModelError: unknown or changed files; the destination cannot be written, or reached.
    """
    version = registry.load(reference)
    card = model_card(registry, version)
    if destination.startswith(HUB):
        return _upload(version, card, destination.removeprefix(HUB))
    return str(_to_folder(version, registry.files(version), card, Path(destination)))


def _to_folder(version: ModelVersion, files: dict[str, str], card: str, root: Path) -> Path:
    listed = {name: digest for name, digest in files.items() if name not in (*_OURS, CARD)}
    text = "".join(f"{name} {digest}\n" for name, digest in sorted(listed.items())) + card
    revision = hashlib.sha256(text.encode()).hexdigest()[:40]
    home = root / ("models--" + version.name.replace("/", "--"))
    target, refs = home / "snapshots" / revision, home / "refs"
    fresh = target.with_name(f".{revision}.new")
    try:
        if not target.is_dir():
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            for name in listed:
                shutil.copyfile(Path(version.path) / name, fresh / name)
            (fresh / CARD).write_text(card, encoding="utf-8")
            _sync(fresh)
            fresh.rename(target)
        refs.mkdir(parents=True, exist_ok=True)
        pointer = refs / ".main.new"
        pointer.write_text(revision, encoding="utf-8")
        pointer.replace(refs / "main")
    except OSError as error:
        remedy = "check the folder's rights and space; what was pushed before is untouched"
        raise ModelError(f"the push failed: {error.strerror or error}", where=str(home), remedy=remedy) from None
    return target


def _sync(folder: Path) -> None:
    """Its files are on disk before it gets its name."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _upload(version: ModelVersion, card: str, repository: str) -> str:
    from huggingface_hub import HfApi, get_session
    from huggingface_hub.errors import HfHubHTTPError

    # The hub's client changes its HTTP library between versions; whichever it is, its errors have this root.
    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_file(path_or_fileobj=card.encode(), path_in_repo=CARD, repo_id=repository)
        ignored = [*_OURS, CARD]
        done = api.upload_folder(repo_id=repository, folder_path=version.path, ignore_patterns=ignored,
                                 commit_message=f"{version.name}, {version.content_hash}")  # fmt: skip
    except (HfHubHTTPError, ValueError) as error:
        remedy = "check the name, log in with `hf auth login`, or push to a folder"
        raise ModelError(f"the hub refused: {_first_line(error)}", where=HUB + repository, remedy=remedy) from None
    except (OSError, library.HTTPError) as error:
        remedy = "check the network and HF_ENDPOINT, or push to a folder"
        raise ModelError(f"no hub was reached: {_first_line(error)}", where=HUB + repository, remedy=remedy) from None
    return str(done)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
