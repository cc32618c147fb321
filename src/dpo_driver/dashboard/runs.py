"""The runs below a folder, and how far each is. Called by app.py; must not open a run for writing or take its lock."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import DataError, StoreError
from dpo_driver.core.store_files import DATABASE, LOCK, SEALED
from dpo_driver.dashboard.reader import Reader

DEPTH = 5  # folders below the root; sweeps lie two deep
NOT_RUNS = frozenset({"blobs", "models", "checkpoints", "mlartifacts", "jobs", "site", "node_modules"})
LOOK_S = 2.0  # between two looks for new runs
AGENTS = ("random", "oracle", "base", "memory", "control", "sft", "sft_best", "dpo", "grpo")  # the most telling last
LOCKS = Path("/proc/locks")


class Runs:
    """``Runs("runs").list()``. A run's id is its folder relative to the root.

    Args:
        root: folder of runs, or one run's folder: then that run is the only one, and its parent the root.
    """

    def __init__(self, root: str | Path) -> None:
        given = Path(root).resolve()
        self.only = given if (given / DATABASE).is_file() else None
        self.root = given.parent if self.only else given
        self._mutex = threading.Lock()
        self._readers: dict[str, Reader] = {}
        self._looked = float("-inf")

    def ids(self) -> list[str]:
        """Ids of all runs, in alphabetical order."""
        with self._mutex:
            if time.monotonic() - self._looked > LOOK_S:
                found = [self.only] if self.only else list(_below(self.root, DEPTH))
                names = {folder.relative_to(self.root).as_posix(): folder for folder in found}
                for gone in self._readers.keys() - names.keys():
                    self._readers.pop(gone).close()
                for name, folder in names.items():
                    self._readers.setdefault(name, Reader(folder / DATABASE))
                self._looked = time.monotonic()
            return sorted(self._readers)

    def reader(self, run: str) -> Reader:
        """The open database of a run.

        Raises:
            DataError: there is no such run.
        """
        if run not in self._readers:
            self._looked = float("-inf")
            self.ids()
        found = self._readers.get(run)
        if found is None:
            raise DataError(f"there is no run {run!r}", where=str(self.root))
        return found

    def folder(self, run: str) -> Path:
        """Its folder; DataError if there is no such run."""
        return self.reader(run).path.parent

    def list(self) -> list[dict[str, Any]]:
        """A summary of each run, the one that changed last first. A run that cannot be read says why."""
        found = []
        for run in self.ids():
            try:
                found.append(self.summary(run))
            except StoreError as error:
                found.append({"id": run, "state": "unreadable", "error": str(error), "changed": 0.0})
        return sorted(found, key=lambda each: (-each["changed"], each["id"]))

    def summary(self, run: str) -> dict[str, Any]:
        """How far a run is: stages with their seconds, counts of episodes, rates of its evaluations."""
        reader = self.reader(run)
        kept = reader.kept("summary", lambda: _summary(reader))
        state = "empty" if not kept["stages"] and not kept["episodes"] else "done"
        if any(stage["state"] == "running" for stage in kept["stages"]):
            state = "stopped"
        if is_written(reader.path.parent):
            state = "running"
        return {"id": run, "state": state, "changed": _changed(reader.path), **kept}


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Run directories below a folder; one does not lie in another."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not entry.is_dir(follow_symlinks=True) or entry.name.startswith(".") or entry.name in NOT_RUNS:
            continue
        path = Path(entry.path)
        if (path / DATABASE).is_file():
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _summary(reader: Reader) -> dict[str, Any]:
    rows = reader.rows("SELECT stage, started, finished, seconds, facts FROM stages ORDER BY started, stage")
    sealed = bool(reader.rows("SELECT 1 FROM facts WHERE key=?", (SEALED,)))
    told = {stage: json.loads(facts) for stage, _, _, _, facts in rows}
    stages = [
        {"name": stage, "state": "running" if finished is None else "done", "started": started, "finished": finished,
         "seconds": seconds, "summary": str(told[stage].get("summary", ""))}
        for stage, started, finished, seconds, _ in rows
    ]  # fmt: skip
    counts = dict(reader.rows("SELECT stage, count(*) FROM trajectories GROUP BY stage"))
    return {
        "stages": stages, "sealed": sealed, "episodes": sum(counts.values()), "by_stage": counts,
        "pairs": int(reader.rows("SELECT count(*) FROM preferences")[0][0]),
        "evaluations": _evaluations(reader, told, sealed=sealed),
    }  # fmt: skip


def _evaluations(reader: Reader, told: dict[str, Any], *, sealed: bool) -> list[dict[str, Any]]:
    """Strict success of every agent that was measured, with its interval."""
    reports = {stage: facts["report"] for stage, facts in told.items() if isinstance(facts.get("report"), dict)}
    if not sealed:
        facts = reader.rows("SELECT key, value FROM facts WHERE key LIKE 'eval/%'")
        by_name = {key: json.loads(value) for key, value in facts}
        # An evaluation on test seeds is a stage and a fact: told once.
        known = {json.dumps(report.get("strict"), sort_keys=True) + str(report.get("agent"))
                 for report in reports.values()}  # fmt: skip
        for key, report in sorted(by_name.items(), key=lambda each: (_rank(each[0]), each[0])):
            if json.dumps(report.get("strict"), sort_keys=True) + str(report.get("agent")) not in known:
                reports[key] = report
    return [
        {"stage": stage, "agent": report.get("agent", ""), "split": report.get("split", ""), **report["strict"]}
        for stage, report in reports.items() if isinstance(report.get("strict"), dict)
    ]  # fmt: skip


def _rank(key: str) -> int:
    agent = key.removeprefix("eval/")
    return AGENTS.index(agent) if agent in AGENTS else -1


def _changed(database: Path) -> float:
    """When it was written to last, in seconds since 1970."""
    found = 0.0
    for path in (database, database.with_name(database.name + "-wal")):
        try:
            found = max(found, path.stat().st_mtime)
        except OSError:
            continue
    return round(found, 2)


def is_written(folder: Path) -> bool:
    """Whether a process has the run open for writing: asked of the kernel, without touching the lock. False where the
    kernel does not tell (it does on Linux)."""
    try:
        held = (folder / LOCK).stat().st_ino
        owner = (folder / LOCK).read_text().strip()
        lines = LOCKS.read_text().splitlines()
    except (OSError, ValueError):
        return False
    # 1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF. The device is not compared: overlays call it otherwise.
    parts = [line.split() for line in lines]
    return any(
        len(part) > 5 and part[1] == "FLOCK" and part[4] == owner and part[5].rpartition(":")[2] == str(held)
        for part in parts
    )
