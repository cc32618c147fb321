"""Model versions with lineage, aliases and content hashes, kept by MLflow's model registry on the runs' sqlite.

The flywheel registers what it trained and promotes what its gate let through; ``dpo-driver models`` and the report
read. A version is called ``pocket/dpo-1``: the part before the slash is the MLflow model, the rest says what made it,
and MLflow numbers the versions of a model 1, 2, 3. Aliases are ``champion`` (what is served and what the next turn
starts from), ``candidate`` (waits for the gate) and ``previous`` (the champion before). mlflow is imported on first
use: opening takes 0.6 to 2 s, each call 10 ms. Must not import flywheel, report or cli.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Decision, ModelVersion
from dpo_driver.tracking import open_client

Alias = Literal["champion", "candidate", "previous"]
ALIASES: tuple[Alias, ...] = ("champion", "candidate", "previous")
MANIFEST = "manifest.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_CHUNK = 1 << 20
_LONGEST_WHY = 2000  # characters; MLflow's tags hold 5,000

MoveKind = Literal["promote", "refuse", "demote", "rollback", "remove"]


@dataclass(frozen=True)
class Move:
    """What became of a model: ``Move("promote", "pocket", "pocket/sft", "pocket/dpo-1", "+19.3 % ...")``.

    ``before`` and ``after`` are the champions' names, ``""`` for none; of a refusal ``after`` is who was refused, of a
    removal who was removed. ``at`` in UTC.
    """

    kind: MoveKind
    model: str
    before: str
    after: str
    why: str
    who: str = ""
    at: str = ""


def file_hashes(folder: str | Path) -> dict[str, str]:
    """SHA-256 by name of the files that lie directly in a model folder.

    Raises:
        ModelError: there is no such folder, it holds no safetensors weights, or it holds pickled ones.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(
            "there is no such model folder", where=str(folder), remedy="train it again, or restore it from a copy"
        )
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    pickled = [path.name for path in files if path.suffix in _PICKLES and path.name != "training_args.bin"]
    if pickled:
        raise ModelError(
            f"pickled weights are refused: {', '.join(pickled)}",
            where=str(folder),
            remedy="convert them to safetensors",
        )
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            "the model folder holds no safetensors weights", where=str(folder), remedy="name another folder"
        )
    return {path.name: _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def folder_hash(hashes: dict[str, str]) -> str:
    """16 hex digits over names and hashes of a folder's files."""
    text = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Registry:
    """Model versions below one root. ``Registry("runs").get("champion")``.

    Args:
        root: folder of ``mlflow.db``, usually the parent of the run directories.
        model: the MLflow model that bare aliases mean; needed only where a root has several.
    """

    def __init__(self, root: str | Path, model: str | None = None) -> None:
        self.root = Path(root).resolve()
        self.model = model
        self._client: Any = None

    # -- writing -----------------------------------------------------------------------------------------------------

    def register(self, version: ModelVersion) -> ModelVersion:
        """Add a version and return it with its number, absolute path, content hash and time filled in.

        ``version.version`` is ignored: MLflow counts. An empty ``content_hash`` becomes the hash of the folder's files.
        The same name with the same content is registered once, so a resumed run adds nothing.

        Raises:
            ModelError: the folder is missing or unsafe, its manifest does not hold, or the parent is unknown.
        """
        model = model_of(version.name)
        folder = Path(version.path).resolve()
        hashes = file_hashes(folder)
        _check_manifest(folder, hashes)
        content = version.content_hash or folder_hash(hashes)
        known = self._versions(model)
        for old in known:
            if (old.name, old.content_hash) == (version.name, content) and Path(old.path) == folder:
                return old
        if version.parent is not None and all(old.content_hash != version.parent for old in self.list()):
            raise ModelError(
                f"the parent {version.parent} of {version.name} is not registered",
                where=str(self.root),
                remedy="register the parent first, or give parent=None for a model that has none",
            )
        client = self._open()
        if not known and model not in self._models():
            client.create_registered_model(model)
        record = version.model_copy(
            update={
                "path": self._relative(folder),
                "content_hash": content,
                "created": version.created or _now(),
            }
        )
        # Everything goes into the one call that makes the version: a version without its record cannot exist.
        tags = _readable(record) | {
            "record": record.model_dump_json(exclude={"version"}),
            "files": json.dumps(hashes, sort_keys=True),
        }
        made = client.create_model_version(model, source=folder.as_uri(), tags=tags, description=_describe(record))
        return self._absolute(record.model_copy(update={"version": int(made.version)}))

    def set_alias(self, alias: Alias, reference: str) -> ModelVersion:
        """Point an alias at a version; it leaves whatever it pointed at before.

        Raises:
            ModelError: no such alias or version.
        """
        if alias not in ALIASES:
            raise ModelError(f"unknown alias {alias!r}", where=reference, remedy=f"known: {', '.join(ALIASES)}")
        version = self.get(reference)
        self._open().set_registered_model_alias(model_of(version.name), alias, str(version.version))
        return version

    def promote(self, candidate: str, decision: Decision) -> ModelVersion:
        """Make the candidate the champion, the champion ``previous``, and drop the alias ``candidate``.

        The decision is kept with the candidate either way.

        Raises:
            ModelError: the decision says no, is about another model, or its gain's interval does not lie above 0; no
                alias moved. Also when the candidate's files changed since it was registered.
        """
        version = self.get(candidate)
        model = model_of(version.name)
        client = self._open()
        client.set_model_version_tag(model, str(version.version), "decision", decision.model_dump_json())
        reason = _refusal(version, decision)
        before = self._aliases(model).get("champion")
        champion = next((known.name for known in self._versions(model) if known.version == before), "")
        if reason:
            self.note(Move("refuse", model, champion, version.name, reason))
            raise ModelError(
                f"promotion refused: {reason}",
                where=version.name,
                remedy="the champion stays; train further or measure more",
            )
        self.verify(version)
        if before == version.version:
            return version
        if before is not None:
            client.set_registered_model_alias(model, "previous", str(before))
        client.set_registered_model_alias(model, "champion", str(version.version))
        if self._aliases(model).get("candidate") == version.version:
            client.delete_registered_model_alias(model, "candidate")
        self.note(Move("promote", model, champion, version.name, "; ".join(decision.reasons)))
        return version

    def drop_alias(self, model: str, alias: Alias) -> None:
        """Nobody has this alias any more."""
        if alias in self._aliases(model):
            self._open().delete_registered_model_alias(model, alias)

    def note(self, move: Move) -> Move:
        """Add to the history, which only grows; who and when are filled in."""
        filled = Move(**{**asdict(move), "why": move.why[:_LONGEST_WHY], "who": move.who or _user(),
                         "at": move.at or _now()})  # fmt: skip
        count = len(self.history(move.model))
        self._open().set_registered_model_tag(move.model, f"move.{count + 1:06d}", json.dumps(asdict(filled)))
        return filled

    def mark_removed(self, version: ModelVersion) -> None:
        """Its weights are gone or about to go; its record stays."""
        self._open().set_model_version_tag(model_of(version.name), str(version.version), "removed", _now())

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, reference: str) -> ModelVersion:
        """A version by alias (``champion``, ``pocket@champion``), number (``pocket:3``), name (``pocket/dpo-1``: the
        newest of that name) or content hash. Its files are not looked at; :meth:`load` does that.

        Raises:
            ModelError: nothing or more than one model matches.
        """
        found = self.find(reference)
        if found is None:
            known = sorted({version.name for version in self.list()})
            raise ModelError(
                f"no registered model {reference!r}",
                where=str(self.root),
                remedy=f"known: {', '.join([*known, *ALIASES])}"
                if known
                else "nothing is registered yet; start a run first",
            )
        return found

    def find(self, reference: str) -> ModelVersion | None:
        """Like :meth:`get`, but None when there is none: the first run has no champion."""
        model, at, alias = reference.rpartition("@")
        if at or reference in ALIASES:
            holders = [model] if at else [self.model] if self.model else self._models()
            matches = [
                v for name in holders for v in self._versions(name) if self._aliases(name).get(alias) == v.version
            ]
            if len(matches) > 1:
                raise ModelError(
                    f"several models have a {alias}",
                    where=str(self.root),
                    remedy="name one: " + ", ".join(f"{model_of(match.name)}@{alias}" for match in matches),
                )
            return matches[0] if matches else None
        model, colon, number = reference.rpartition(":")
        if colon:
            return next((v for v in self._versions(model) if str(v.version) == number), None)
        return next((v for v in reversed(self.list()) if reference in (v.name, v.content_hash)), None)

    def load(self, reference: str) -> ModelVersion:
        """A version whose files were just checked against the hashes they were registered with.

        Raises:
            ModelError: unknown, missing, changed or unsafe; the file is named.
        """
        version = self.get(reference)
        self.verify(version)
        return version

    def verify(self, version: ModelVersion) -> None:
        """Compare a version's files with what was registered.

        Raises:
            ModelError: a file is missing, added or changed.
        """
        if when := self.removed(version):
            raise ModelError(f"the weights of {version.name} were removed on {when}", where=version.path,
                             remedy="restore the folder from a copy, or name another version")  # fmt: skip
        registered = self.files(version)
        present = file_hashes(version.path)
        for name in sorted(registered.keys() | present.keys()):
            if registered.get(name) != present.get(name):
                problem = (
                    "is missing" if name not in present else "was added" if name not in registered else "was changed"
                )
                raise ModelError(
                    f"{name} {problem} since {version.name} was registered",
                    where=str(Path(version.path) / name),
                    remedy="restore the folder from a copy, or register it again under a new name",
                )

    def history(self, model: str) -> tuple[Move, ...]:
        """What became of a model, oldest first."""
        for found in self._open().search_registered_models(f"name='{model}'"):
            tags = {key: value for key, value in found.tags.items() if key.startswith("move.")}
            return tuple(Move(**json.loads(tags[key])) for key in sorted(tags))
        return ()

    def models(self) -> tuple[str, ...]:
        """Names of the models that have versions here."""
        return tuple(sorted({model_of(version.name) for version in self.list()}))

    def decision(self, version: ModelVersion) -> Decision | None:
        """What the gate, or a person, said of a version."""
        kept = self._tags(version).get("decision")
        return Decision.model_validate_json(kept) if kept else None

    def files(self, version: ModelVersion) -> dict[str, str]:
        """SHA-256 of its files, as registered."""
        return dict(json.loads(self._tags(version)["files"]))

    def removed(self, version: ModelVersion) -> str:
        """When its weights were removed, in UTC; "" while they should be there."""
        return str(self._tags(version).get("removed", ""))

    def _tags(self, version: ModelVersion) -> dict[str, str]:
        return dict(self._open().get_model_version(model_of(version.name), str(version.version)).tags)

    def lineage(self, reference: str) -> tuple[ModelVersion, ...]:
        """The version, its parent, and so on to the model that was not trained here."""
        by_hash: dict[str, ModelVersion] = {}
        for version in self.list():
            by_hash.setdefault(version.content_hash, version)
        line = [self.get(reference)]
        seen = {line[0].content_hash}
        while (parent := line[-1].parent) is not None and parent in by_hash and parent not in seen:
            seen.add(parent)
            line.append(by_hash[parent])
        return tuple(line)

    def aliases(self) -> dict[str, str]:
        """Name of the version behind each alias, as ``{"pocket@champion": "pocket/dpo-1"}``."""
        found: dict[str, str] = {}
        for model in self._models():
            names = {version.version: version.name for version in self._versions(model)}
            found |= {f"{model}@{alias}": names[number] for alias, number in sorted(self._aliases(model).items())}
        return found

    def list(self) -> tuple[ModelVersion, ...]:
        """All versions of all models, in the order they were registered."""
        models = [self.model] if self.model else self._models()
        found = [version for model in models for version in self._versions(model)]
        return tuple(sorted(found, key=lambda version: (version.created, model_of(version.name), version.version)))

    # -- MLflow ------------------------------------------------------------------------------------------------------

    def _open(self) -> Any:
        if self._client is None:
            self._client = open_client(self.root)
        return self._client

    def _models(self) -> tuple[str, ...]:
        return tuple(model.name for model in _pages(self._open().search_registered_models))

    def _aliases(self, model: str) -> dict[str, int]:
        for found in self._open().search_registered_models(f"name='{model}'"):
            return {alias: int(number) for alias, number in found.aliases.items()}
        return {}

    def _versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Versions of one model, oldest first; those that something else put into the registry are not ours to read."""
        found = []
        for row in _pages(self._open().search_model_versions, filter_string=f"name='{model}'"):
            if "record" in row.tags:
                record = ModelVersion.model_validate({**json.loads(row.tags["record"]), "version": int(row.version)})
                found.append(self._absolute(record))
        return tuple(sorted(found, key=lambda version: version.version))

    def _relative(self, folder: Path) -> str:
        """Below the root a path is kept relative, so that the folder of runs can be moved as a whole."""
        return str(folder.relative_to(self.root)) if folder.is_relative_to(self.root) else str(folder)

    def _absolute(self, version: ModelVersion) -> ModelVersion:
        return version.model_copy(update={"path": str(self.root / version.path)})


def model_of(name: str) -> str:
    """The MLflow model of a version's name."""
    model = name.partition("/")[0]
    if not model or any(sign in name for sign in ":@'"):
        raise ModelError(f"{name!r} is no name for a model", remedy="write project/stage, such as pocket/dpo-1")
    return model


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return ""


def _pages(search: Any, **arguments: Any) -> Iterable[Any]:
    """All results of an MLflow search, page after page."""
    token = None
    while True:
        page = search(max_results=500, page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def _check_manifest(folder: Path, hashes: dict[str, str]) -> None:
    """A folder that carries a manifest must agree with it: a half-written model is never registered."""
    if MANIFEST not in hashes:
        return
    try:
        listed = json.loads((folder / MANIFEST).read_text())["files"]
        entries = listed.items() if isinstance(listed, dict) else ((entry["name"], entry) for entry in listed)
        expected = {name: entry["sha256"] if isinstance(entry, dict) else entry for name, entry in entries}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the manifest cannot be read: {error}", where=str(folder / MANIFEST), remedy="train the model again"
        ) from None
    for name, digest in expected.items():
        if hashes.get(name, digest if "/" in name else None) != digest:
            raise ModelError(
                f"{name} does not match the manifest",
                where=str(folder / name),
                remedy="train it again, or restore it from a copy",
            )


def _refusal(version: ModelVersion, decision: Decision) -> str | None:
    """Why a decision does not allow promotion, or None. The interval is checked again here, behind the gate."""
    if decision.candidate not in (version.name, version.content_hash, f"{model_of(version.name)}:{version.version}"):
        return f"the decision is about {decision.candidate}, not about {version.name}"
    if not decision.promoted:
        return "; ".join(decision.reasons) or "the decision gives no reason"
    if decision.gain is not None and (decision.gain.low is None or decision.gain.low <= 0):
        return "the interval of the gain contains 0"
    return None


def _readable(record: ModelVersion) -> dict[str, str]:
    """What a person looks for in MLflow's pages."""
    fields = ("algorithm", "base_model", "content_hash", "config_hash", "data_hash", "parent", "adapter", "git")
    tags = {field: str(getattr(record, field)) for field in fields if getattr(record, field) not in (None, "")}
    return {"name": record.name} | tags | {f"metric.{name}": f"{value:.6g}" for name, value in record.metrics.items()}


def _describe(record: ModelVersion) -> str:
    origin = f"from {record.parent}" if record.parent else f"base {record.base_model}"
    return f"{record.name}: {record.algorithm}, {origin}"
