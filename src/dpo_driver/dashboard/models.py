"""Registered models: versions, aliases, what the gate said, what became of them. Called by app.py.

Asked of the registry only when MLflow's files changed: opening it takes 0.6 to 2 s, and each decision 10 ms.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from dpo_driver.core.records import ModelVersion
from dpo_driver.registry import Registry
from dpo_driver.tracking.client import DATABASE


class Models:
    """Below one root: ``Models("runs").list()``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mutex = threading.Lock()
        self._stamp: tuple[tuple[int, int], ...] = ()
        self._kept: dict[str, Any] = {"models": []}

    def list(self) -> dict[str, Any]:
        """``{"models": [{"name": "pocket", "versions": [...], "history": [...]}]}``, versions the newest first.

        Raises:
            ModelError: the registry cannot be read; DriverError: MLflow is not installed.
        """
        if not (self.root / DATABASE).is_file():  # opening would make one
            return {"models": []}
        with self._mutex:
            stamp = self._now()
            if stamp != self._stamp:
                self._kept = self._read()
                self._stamp = stamp
            return self._kept

    def _now(self) -> tuple[tuple[int, int], ...]:
        found = []
        for name in (DATABASE, f"{DATABASE}-wal"):
            path = self.root / name
            if path.is_file():
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _read(self) -> dict[str, Any]:
        registry = Registry(self.root)
        versions = registry.list()
        aliases: dict[tuple[str, int], list[str]] = {}
        for alias, holder in registry.holders().items():
            aliases.setdefault((holder.name, holder.version), []).append(alias.rpartition("@")[2])
        names = {version.content_hash: version.name for version in versions}
        models: dict[str, list[dict[str, Any]]] = {}
        for version in reversed(versions):
            models.setdefault(version.name.partition("/")[0], []).append(
                {**self._brief(version), "parent_name": names.get(version.parent or "", ""),
                 "aliases": aliases.get((version.name, version.version), []), **_said(registry, version)}
            )  # fmt: skip
        return {
            "models": [
                {"name": name, "versions": found, "history": [move.__dict__ for move in registry.history(name)[::-1]]}
                for name, found in sorted(models.items())
            ]
        }

    def _brief(self, version: ModelVersion) -> dict[str, Any]:
        path = Path(version.path)
        inside = path.is_relative_to(self.root)
        return {**version.model_dump(mode="json", exclude={"schema_version"}),
                "path": str(path.relative_to(self.root)) if inside else str(path)}  # fmt: skip


def _said(registry: Registry, version: ModelVersion) -> dict[str, Any]:
    decision = registry.decision(version)
    return {"decision": decision.model_dump(mode="json") if decision else None, "removed": registry.removed(version)}
