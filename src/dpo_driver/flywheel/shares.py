"""Rollouts shared by several processes: each takes its part of the tasks, on browsers of its own.

The main process is the store's only writer. What the others roll out reaches it through files in the run directory, to
which they append as trajectories finish and which it empties into the store while it works; what a killed run left in
them, the next one takes in first. With one process there are no such files. Called by flywheel/collect.py.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from dpo_driver.core import blobs, plugins, ranks, redact
from dpo_driver.core.protocols import Agent
from dpo_driver.core.records import Task, Trajectory
from dpo_driver.core.store import BLOBS, RunStore
from dpo_driver.core.store_files import vault_of
from dpo_driver.core.vault import Vault
from dpo_driver.rollout.pool import RolloutProgress, rollout_sync

SPOOL = "spool"  # folder in the run directory
_SPOOLED = b"spool"  # what a sealed line is about
FLUSH_S = 0.25  # a kill loses at most what finished in this time


@dataclass(frozen=True)
class Rollouts:
    """What is to be rolled out: all that a process must know for its part of it. Pickles."""

    run_dir: Path
    stage: str
    tasks: tuple[Task, ...]  # each with a sibling that is missing
    agent: Agent
    source: str  # of the environments
    workers: int  # of all processes on this machine
    group_size: int
    skip: frozenset[str]
    start_hashes: Mapping[str, str]
    screenshots: bool

    def part(
        self,
        on_trajectory: Callable[[Trajectory], None],
        on_progress: Callable[[RolloutProgress], None] | None = None,
    ) -> RolloutProgress:
        """Roll out this process's part; siblings stay together."""
        environments: Callable[[], AbstractAsyncContextManager[Any]] = plugins.load("environments", self.source)
        with one_thread():
            return rollout_sync(
                ranks.dealt(self.tasks),
                self.agent,
                environments=environments,
                stage=self.stage,
                on_trajectory=on_trajectory,
                workers=max(1, self.workers // ranks.count_here()),
                group_size=self.group_size,
                skip=self.skip,
                start_hashes=self.start_hashes,
                screenshots="all" if self.screenshots else "none",
                put_blob=partial(blobs.put, self.run_dir / BLOBS, vault=vault_of(self.run_dir)),
                on_progress=on_progress,
            )


def part_of_another(rollouts: Rollouts) -> RolloutProgress:
    """What a process that is not the main one does."""
    file = _folder(rollouts.run_dir) / f"{rollouts.stage.replace('/', '_')}.{ranks.rank()}.jsonl"
    with Spool(file, vault_of(rollouts.run_dir)) as spool:
        return rollouts.part(spool.add)


def added_up(parts: Sequence[RolloutProgress]) -> RolloutProgress:
    """The progress of all processes as one; the seconds are the longest's."""
    whole = RolloutProgress(total=0)
    for part in parts:
        for each in fields(part):
            value = getattr(whole, each.name) + getattr(part, each.name)
            setattr(whole, each.name, value)
    whole.seconds = max(part.seconds for part in parts)
    return whole


@contextmanager
def one_thread() -> Iterator[None]:
    """Generate with one thread: the browser needs the other cores, and threads that wait for each other waste them."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Spool:
    """Trajectories on their way to the main process: one a line, on disk a few times a second, without secrets, and
    sealed where the run is."""

    def __init__(self, path: Path, vault: Vault | None = None) -> None:
        path.parent.mkdir(exist_ok=True)
        self._vault = vault
        self._file = path.open("a", encoding="utf-8")
        self._last = time.monotonic()

    def add(self, trajectory: Trajectory) -> None:
        line = redact.redacted(trajectory).model_dump_json()
        self._file.write((line if self._vault is None else self._vault.seal_text(line, _SPOOLED)) + "\n")
        if time.monotonic() - self._last > FLUSH_S:
            self._flush()

    def _flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._last = time.monotonic()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()


class Arrivals:
    """The main process's side: its own trajectories and those that the others spooled, into the store."""

    def __init__(self, store: RunStore, stage: str) -> None:
        self._store, self._stage = store, stage
        self._waiting: list[Trajectory] = []
        self._read: dict[Path, int] = {}  # bytes of each file that are in the store
        self._last = time.monotonic()
        self.finished, self.failed, self.succeeded = 0, 0, 0  # of the others

    def add(self, trajectory: Trajectory) -> None:
        """Keep one of our own; it is in the store a quarter of a second later at most, when the next one comes."""
        self._waiting.append(trajectory)
        if time.monotonic() - self._last > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Put everything that is there into the store."""
        arrived = self._waiting + self._spooled()
        if arrived:
            self._store.add_trajectories(self._stage, arrived)
            self._waiting.clear()
        self._last = time.monotonic()

    def _spooled(self) -> list[Trajectory]:
        found = []
        for path in self._files():
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                lines = file.read()
            lines = lines[: lines.rfind(b"\n") + 1]  # the last one may be half written
            self._read[path] = self._read.get(path, 0) + len(lines)
            found += [Trajectory.model_validate_json(self._opened(line)) for line in lines.splitlines()]
        self.finished += len(found)
        self.failed += sum(trajectory.failure is not None for trajectory in found)
        self.succeeded += sum(bool(trajectory.success) for trajectory in found)
        return found

    def _opened(self, line: bytes) -> str | bytes:
        vault = self._store.vault
        return line if vault is None else vault.open_text(line.decode(), _SPOOLED)

    def clear(self) -> None:
        """Take in what is left, and remove the files. Nobody may be writing them."""
        self.flush()
        for path in self._files():
            path.unlink()
        self._read.clear()
        with suppress(OSError):  # another stage's are in it, or there is none
            _folder(self._store.run_dir).rmdir()

    def _files(self) -> list[Path]:
        folder = _folder(self._store.run_dir)
        return sorted(folder.glob(f"{self._stage.replace('/', '_')}.*.jsonl")) if folder.is_dir() else []

    def __enter__(self) -> Arrivals:
        self.clear()  # what a killed run left
        self.finished, self.failed, self.succeeded = 0, 0, 0
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.clear()
        else:
            self.flush()


def _folder(run_dir: Path) -> Path:
    return run_dir / SPOOL
