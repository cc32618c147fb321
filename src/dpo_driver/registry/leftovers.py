"""Weights that nobody needs any more: found, and removed on request. Called by ``dpo-driver models gc``.

A version's record always stays. Weights stay where an alias points at them or at a descendant, among the newest of a
model, where an unfinished run has made them or descends from them, and wherever they lie outside of the root.
"""

from __future__ import annotations

import json
import shutil
import time
from calendar import timegm
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dpo_driver.core.config import SAVED_CONFIG
from dpo_driver.core.errors import StoreError
from dpo_driver.core.records import ModelVersion
from dpo_driver.core.store import RunStore
from dpo_driver.core.store_files import DATABASE
from dpo_driver.registry.standing import Move
from dpo_driver.registry.versions import Registry, model_of

KEEP = 3
MODELS, CHECKPOINTS = "models", "checkpoints"
_GONE = ".removed"  # behind a folder's name while it is being removed
_RUNS = ("*", "*/*")  # where runs lie below the root; deeper ones for a sweep's and a role's


@dataclass(frozen=True)
class Leftover:
    """A folder that may go: with ``versions``, their weights; without, a finished training's checkpoints, or what a
    removal that was killed has left."""

    folder: Path
    bytes: int
    versions: tuple[ModelVersion, ...] = ()


def leftovers(registry: Registry, *, keep: int = KEEP, older_than_days: float = 0.0) -> list[Leftover]:
    """What may go.

    Args:
        keep: so many newest versions of each model stay.
        older_than_days: younger ones stay.
    """
    before = time.time() - older_than_days * 86_400
    needed, folders = _needed(registry, keep), _folders(registry)
    found = [Leftover(stray, _size(stray)) for stray in _strays(set(folders))]
    for folder, versions in folders.items():
        young = any(timegm(time.strptime(one.created, "%Y-%m-%dT%H:%M:%SZ")) > before for one in versions)
        if young or any(one.content_hash in needed for one in versions) or not _finished(_run(folder)):
            continue
        if folder.is_dir():
            found.append(Leftover(folder, _size(folder), versions))
        checkpoint = _run(folder) / CHECKPOINTS / folder.name
        if checkpoint.is_dir():
            found.append(Leftover(checkpoint, _size(checkpoint)))
    return found


def remove(registry: Registry, items: list[Leftover]) -> int:
    """Remove them; returns bytes freed. What somebody came to need since it was listed stays.

    The history is told first, then a folder loses its name in one step: at any moment its weights are whole or gone. A
    removal that is killed leaves a folder that the next listing finds.

    Raises:
        StoreError: a folder cannot be removed.
    """
    freed = 0
    for item in items:
        gone = item.folder
        try:
            if not gone.name.endswith(_GONE):
                with registry.turn():
                    if any(one.content_hash in _needed(registry, 0) for one in item.versions):
                        continue
                    for version in item.versions:
                        _tell(registry, version, item.bytes)
                    gone = item.folder.with_name(item.folder.name + _GONE)
                    item.folder.rename(gone)
            shutil.rmtree(gone)
        except OSError as error:
            raise StoreError(f"it cannot be removed: {error.strerror or error}", where=str(item.folder),
                             remedy="check the folder's rights, and repeat the command") from None  # fmt: skip
        freed += item.bytes
    return freed


def _tell(registry: Registry, version: ModelVersion, size: int) -> None:
    champion = registry.find(f"{model_of(version.name)}@champion")
    standing = champion.name if champion else ""
    registry.note(Move("remove", model_of(version.name), standing, version.name, f"{size} bytes"))
    registry.mark_removed(version)


# -- what is needed --------------------------------------------------------------------------------------------------


def _needed(registry: Registry, keep: int) -> set[str]:
    """Content hashes that aliases, the newest of each model and unfinished runs have, and all that these build on."""
    versions = registry.list()
    by_model: dict[str, list[ModelVersion]] = {}
    for version in versions:
        by_model.setdefault(model_of(version.name), []).append(version)
    wanted = [version for group in by_model.values() for version in group[-keep:] if keep]
    wanted += registry.holders().values()
    folders = _folders(registry)
    wanted += [one for folder in folders if _undecided(folder) for one in folders[folder]]
    by_path = {Path(version.path).resolve(): version for version in versions}
    wanted += [by_path[path] for path in _named(registry.root) if path in by_path]
    builds_on: dict[str, set[str]] = {}
    for version in versions:
        base = by_path.get(_base(Path(version.path)))
        under = {version.parent or "", base.content_hash if base else ""} - {""}
        builds_on.setdefault(version.content_hash, set()).update(under)
    needed: set[str] = set()
    waiting = [version.content_hash for version in wanted]
    while waiting:
        if (one := waiting.pop()) not in needed:
            needed.add(one)
            waiting += builds_on.get(one, ())
    return needed


def _named(root: Path) -> set[Path]:
    """Folders that the configurations of unfinished runs name: such a run may not have registered anything yet."""
    found: set[Path] = set()
    for pattern in _RUNS:
        for config in root.glob(f"{pattern}/{SAVED_CONFIG}"):
            if _unfinished(config.parent):
                try:
                    texts = list(_texts(yaml.safe_load(config.read_text(encoding="utf-8"))))
                except (OSError, ValueError, yaml.YAMLError):  # nobody can go on with such a run
                    continue
                found |= {Path(text).expanduser().resolve() for text in texts if "/" in text}
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _base(folder: Path) -> Path:
    """The folder that an adapter lies on; its own where it is none."""
    try:
        named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        return Path(named).resolve()
    except (OSError, ValueError, KeyError, TypeError):
        return folder.resolve()


def _finished(run: Path) -> bool:
    """Its promotion is decided: no stage will ask for these weights again."""
    try:
        with RunStore(run, "read") as store:
            stages = {one.stage: one.done for one in store.stages()}
    except StoreError:
        return False
    if "promote" in stages or "sft" in stages:
        return stages.get("promote/online" if "grpo" in stages else "promote", False)
    trainings = [stage for stage in stages if stage.startswith("dpo/")]  # a role's, each with its own gate
    return bool(trainings) and all(stages.get(stage.replace("dpo/", "held_out/"), False) for stage in trainings)


def _unfinished(run: Path) -> bool:
    """It is there and not finished; a run whose folder is gone will never ask for anything."""
    return (run / DATABASE).is_file() and not _finished(run)


def _undecided(folder: Path) -> bool:
    """A model of an unfinished run, or of one that does not say how far it came."""
    return _unfinished(_run(folder)) or (folder.is_dir() and not _finished(_run(folder)))


# -- folders ---------------------------------------------------------------------------------------------------------


def _folders(registry: Registry) -> dict[Path, tuple[ModelVersion, ...]]:
    """The versions in each model folder of a run below the root; a folder may hold several, trained over each other."""
    found: dict[Path, tuple[ModelVersion, ...]] = {}
    for version in registry.list():
        folder = Path(version.path)
        if folder.resolve().is_relative_to(registry.root) and folder.parent.name == MODELS:
            found[folder] = (*found.get(folder, ()), version)
    return found


def _run(folder: Path) -> Path:
    return folder.parent.parent


def _strays(folders: set[Path]) -> list[Path]:
    """What killed removals have left beside weights and checkpoints."""
    runs = sorted({_run(folder) for folder in folders})
    found = [stray for run in runs for name in (MODELS, CHECKPOINTS) for stray in (run / name).glob(f"*{_GONE}")]
    return sorted(stray for stray in found if stray.is_dir() and stray not in folders)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
