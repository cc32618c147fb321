"""Weights that nobody needs any more: found, and removed on request. Called by ``dpo-driver models gc``.

A version's record always stays. Weights stay where an alias points at them or at a descendant, among the newest of a
model, where their run is unfinished, and wherever they lie outside of the root.
"""

from __future__ import annotations

import shutil
import time
from calendar import timegm
from dataclasses import dataclass
from pathlib import Path

from dpo_driver.core.errors import StoreError
from dpo_driver.core.records import ModelVersion
from dpo_driver.core.store import RunStore
from dpo_driver.registry.versions import Move, Registry, model_of

KEEP = 3
CHECKPOINTS = "checkpoints"
_GONE = ".removed"  # behind a folder's name while it is being removed


@dataclass(frozen=True)
class Leftover:
    """A folder that may go: of a version's weights, or, without one, of a finished training's checkpoints."""

    folder: Path
    bytes: int
    version: ModelVersion | None


def leftovers(registry: Registry, *, keep: int = KEEP, older_than_days: float = 0.0) -> list[Leftover]:
    """What may go.

    Args:
        keep: so many newest versions of each model stay.
        older_than_days: younger ones stay.
    """
    needed, before = _needed(registry, keep), time.time() - older_than_days * 86_400
    found, kept_paths = [], {version.path for version in registry.list() if version.content_hash in needed}
    for version in registry.list():
        folder = Path(version.path)
        young = timegm(time.strptime(version.created, "%Y-%m-%dT%H:%M:%SZ")) > before
        if version.path in kept_paths or young or not _ours(registry, folder) or registry.removed(version):
            continue
        if folder.is_dir() and _finished(folder.parent.parent):
            found.append(Leftover(folder, _size(folder), version))
    for run in sorted({item.folder.parent.parent for item in found}):
        for checkpoint in sorted((run / CHECKPOINTS).glob("*")):
            if any(checkpoint.name == item.folder.name for item in found):
                found.append(Leftover(checkpoint, _size(checkpoint), None))
    return found


def remove(registry: Registry, items: list[Leftover]) -> int:
    """Remove them; returns bytes freed. The registry is told before anything goes, so a crash leaves no version that
    claims weights it has lost."""
    freed = 0
    for item in items:
        if item.version is not None:
            registry.mark_removed(item.version)
            name = item.version.name
            champion = registry.find(f"{model_of(name)}@champion")
            standing = champion.name if champion else ""
            registry.note(Move("remove", model_of(name), standing, name, f"{item.bytes} bytes"))
        gone = item.folder.with_name(item.folder.name + _GONE)
        item.folder.rename(gone)
        shutil.rmtree(gone)
        freed += item.bytes
    for stray in registry.root.glob(f"*/models/*{_GONE}"):  # of an earlier removal that was stopped
        shutil.rmtree(stray)
    return freed


def _needed(registry: Registry, keep: int) -> set[str]:
    """Content hashes that aliases, their ancestors and the newest of each model have."""
    versions = registry.list()
    by_model: dict[str, list[ModelVersion]] = {}
    for version in versions:
        by_model.setdefault(model_of(version.name), []).append(version)
    wanted = [version for group in by_model.values() for version in group[-keep:] if keep]
    wanted += [registry.get(name) for name in registry.aliases()]
    return {ancestor.content_hash for version in wanted for ancestor in registry.lineage(version.content_hash)}


def _ours(registry: Registry, folder: Path) -> bool:
    return folder.resolve().is_relative_to(registry.root) and folder.parent.name == "models"


def _finished(run: Path) -> bool:
    """Its promotion is decided: no stage will ask for these weights again."""
    try:
        with RunStore(run, "read") as store:
            last = "promote/online" if store.stage_status("grpo").state != "new" else "promote"
            return store.stage_status(last).state == "done"
    except StoreError:
        return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
