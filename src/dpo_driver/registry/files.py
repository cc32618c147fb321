"""Content of a model folder: hashes of its files, what it may not hold, and what changed since. Called by versions.py;
imports no MLflow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from dpo_driver.core.errors import ModelError

MANIFEST = "manifest.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_CHUNK = 1 << 20


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


def folder_hash(hashes: Mapping[str, str]) -> str:
    """16 hex digits over names and hashes of a folder's files."""
    text = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_manifest(folder: Path, hashes: Mapping[str, str]) -> None:
    """A folder that carries a manifest must agree with it: a half-written model is never registered.

    Raises:
        ModelError: the manifest cannot be read, or a file is not what it says.
    """
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


def check_unchanged(name: str, folder: Path, registered: Mapping[str, str]) -> None:
    """Compare a version's folder with the hashes that it was registered with.

    Raises:
        ModelError: a file is missing, added or changed; the first is named.
    """
    present = file_hashes(folder)
    for file in sorted(registered.keys() | present.keys()):
        if registered.get(file) != present.get(file):
            problem = "is missing" if file not in present else "was added" if file not in registered else "was changed"
            raise ModelError(
                f"{file} {problem} since {name} was registered",
                where=str(folder / file),
                remedy="restore the folder from a copy, or register it again under a new name",
            )
