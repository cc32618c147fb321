"""The run directory: one SQLite file of rows and a folder of content-addressed blobs.

Every verb of the flywheel reads and writes through :class:`RunStore`; reports open it read-only. A row that a call has
returned for is on disk: each call is one commit with ``synchronous=FULL``, so kill -9 loses nothing acknowledged. There
is one writer: a second process that opens the directory for writing is refused by a file lock, and threads of one
process take turns. Secrets are taken out of what comes in (core/redact.py); a run that is sealed (core/vault.py) keeps
bodies, facts and blobs encrypted, and is opened with its key only. Knows no stage by name.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import zstandard
from pydantic import ValidationError

from dpo_driver.core import blobs, redact
from dpo_driver.core.errors import StoreError
from dpo_driver.core.records import Preference, Task, Trajectory
from dpo_driver.core.secrets import known
from dpo_driver.core.store_files import DATABASE, SEALED, as_fact, from_sqlite, take_lock, vault_of
from dpo_driver.core.vault import Vault

BLOBS = "blobs"

# One entry per schema version; an older run.db is brought forward by the entries it lacks. Append, never edit.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE trajectories (
            id TEXT PRIMARY KEY, stage TEXT NOT NULL, task_id TEXT NOT NULL, task_name TEXT NOT NULL,
            seed INTEGER NOT NULL, start_hash TEXT NOT NULL, stop_reason TEXT NOT NULL, success INTEGER, reward REAL,
            failure TEXT, body BLOB NOT NULL) WITHOUT ROWID""",
        "CREATE INDEX trajectories_by_stage ON trajectories (stage, task_name, seed)",
        """CREATE TABLE preferences (
            round INTEGER NOT NULL, id TEXT NOT NULL, position INTEGER NOT NULL, body BLOB NOT NULL,
            PRIMARY KEY (round, id)) WITHOUT ROWID""",
        """CREATE TABLE metrics (
            stage TEXT NOT NULL, step INTEGER NOT NULL, name TEXT NOT NULL, value REAL,
            PRIMARY KEY (stage, step, name)) WITHOUT ROWID""",
        "CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE stages (
            stage TEXT PRIMARY KEY, started REAL NOT NULL, finished REAL, seconds REAL NOT NULL DEFAULT 0,
            facts TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID""",
    ),
)
SCHEMA = len(_MIGRATIONS)


@dataclass(frozen=True)
class StageStatus:
    """How far a stage came. ``seconds`` is its working time, ``facts`` what it wants to be remembered by."""

    stage: str
    state: Literal["new", "running", "done"] = "new"
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.state == "done"


class RunStore:
    """All rows and blobs of one run. ``with RunStore("runs/pocket") as store: store.add_trajectory("collect/1", t)``.

    Args:
        run_dir: the run directory; mode "create" makes it where it is missing.
        mode: "create" (the default), "write" (it must be a run directory already) or "read" (no lock is taken, so a
            report can be made while a run is going).
        encrypt: seal a new run. One that is sealed stays so without being asked.

    Raises:
        StoreError: not a run directory, written by a newer version, in use by another process, damaged, or no space.
        VaultError: it is sealed or to be sealed, and there is no key or another one; nothing was changed.
    """

    def __init__(
        self, run_dir: str | Path, mode: Literal["create", "write", "read"] = "create", *, encrypt: bool = False
    ) -> None:
        self.run_dir = Path(run_dir)
        self.mode = mode
        self._mutex = threading.RLock()
        self._lock_fd: int | None = None
        # The key comes first: without it nothing is made or changed.
        fresh = Vault.new() if encrypt and not (self.run_dir / DATABASE).is_file() else None
        self.vault: Vault | None = vault_of(self.run_dir) or fresh
        self._check_directory()
        try:
            if mode != "read":
                self._lock_fd = take_lock(self.run_dir)
            with self._errors():
                self._db = self._connect()
                self._migrate()
            if encrypt or fresh is not None:
                self._seal(fresh)
        except BaseException:
            self.close()
            raise

    # -- opening and closing -----------------------------------------------------------------------------------------

    def _check_directory(self) -> None:
        if self.run_dir.exists() and not self.run_dir.is_dir():
            raise StoreError("the run directory is a file", where=str(self.run_dir), remedy="name another directory")
        if self.mode == "create":
            try:
                self.run_dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise blobs.store_error(error, self.run_dir) from error
        elif not (self.run_dir / DATABASE).is_file():
            raise StoreError(
                "not a run directory: there is no run.db in it",
                where=str(self.run_dir),
                remedy="name the directory of an earlier run, or start one with: dpo-driver run CONFIG",
            )

    def _connect(self) -> sqlite3.Connection:
        path = self.run_dir / DATABASE
        if self.mode == "read":
            database = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False, timeout=30
            )
            database.isolation_level = None
            return database
        database = sqlite3.connect(path, check_same_thread=False, timeout=30, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        return database

    def _migrate(self) -> None:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA:
            raise StoreError(
                f"the run was written by a newer DPO-Driver (schema {version}, this one reads up to {SCHEMA})",
                where=str(self.run_dir / DATABASE),
                remedy="upgrade DPO-Driver, or start a new run directory",
            )
        if self.mode == "read" and version < SCHEMA:
            raise StoreError(
                f"the run has the older schema {version}",
                where=str(self.run_dir / DATABASE),
                remedy="run the command that wrote it once more: opening for writing brings it forward",
            )
        for number in range(version, SCHEMA):
            with self._write() as database:
                for statement in _MIGRATIONS[number]:
                    database.execute(statement)
                database.execute(f"PRAGMA user_version={number + 1}")

    def _seal(self, fresh: Vault | None) -> None:
        """Make this a sealed run, unless it is one."""
        if self._rows("SELECT 1 FROM facts WHERE key=?", (SEALED,)):
            return
        if self._rows("SELECT 1 FROM trajectories UNION ALL SELECT 1 FROM preferences LIMIT 1"):
            raise StoreError("this run was begun without encryption", where=str(self.run_dir),
                             remedy="give the new run a name of its own: --set project.name=NAME")  # fmt: skip
        self.vault = fresh or Vault.new()
        with self._write() as database:
            database.execute("INSERT INTO facts VALUES (?,?)", (SEALED, json.dumps(as_fact(self.vault))))

    def close(self) -> None:
        """Close the database and release the lock. May be called twice."""
        with self._mutex:
            database = self.__dict__.get("_db")
            if database is not None:
                database.close()
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- transactions ------------------------------------------------------------------------------------------------

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what SQLite says into what a person can act on."""
        try:
            yield
        except sqlite3.Error as error:
            raise from_sqlite(error, self.run_dir / DATABASE) from error

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed and on disk when the block ends, undone if it raises."""
        with self._mutex, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _rows(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._mutex, self._errors():
            return self._db.execute(query, arguments).fetchall()

    # -- trajectories ------------------------------------------------------------------------------------------------

    def add_trajectory(self, stage: str, trajectory: Trajectory) -> None:
        """Store one trajectory; one with the same id is replaced (a failure that was rolled out again)."""
        self.add_trajectories(stage, [trajectory])

    def add_trajectories(self, stage: str, trajectories: Sequence[Trajectory]) -> None:
        """Store several in one commit: all of them or none. Secrets are taken out, see core/redact.py."""
        rows = [
            (t.id, stage, t.task.id, t.task.name, t.task.seed, t.start_hash, t.stop_reason.value, t.success, t.reward,
             t.failure, self._pack(t.model_dump_json(), f"trajectory/{t.id}"))
            for t in map(redact.redacted, trajectories)
        ]  # fmt: skip
        with self._write() as database:
            database.executemany("INSERT OR REPLACE INTO trajectories VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)

    def trajectories(self, stage: str) -> list[Trajectory]:
        """All trajectories of a stage, by task, seed and sibling: the order does not depend on who finished first."""
        return list(self.iterate(stage))

    def iterate(self, stage: str) -> Iterator[Trajectory]:
        """Like :meth:`trajectories`, one body in memory at a time."""
        order = "SELECT id FROM trajectories WHERE stage=? ORDER BY task_name, seed, length(id), id"
        for (identity,) in self._rows(order, (stage,)):
            yield self.trajectory(identity)

    def trajectory(self, identity: str) -> Trajectory:
        """One trajectory by id; StoreError if there is none."""
        rows = self._rows("SELECT body FROM trajectories WHERE id=?", (identity,))
        if not rows:
            raise StoreError(
                f"no trajectory {identity!r}", where=str(self.run_dir), remedy="list ids with: report --json"
            )
        return Trajectory.model_validate_json(self._unpack(rows[0][0], f"trajectory/{identity}"))

    def has_trajectory(self, identity: str) -> bool:
        """Whether there is one of that id."""
        return bool(self._rows("SELECT 1 FROM trajectories WHERE id=?", (identity,)))

    def siblings(self, identity: str, task: Task) -> list[Trajectory]:
        """All trajectories of a task in the stage of one of them, itself included, by id."""
        query = """SELECT id FROM trajectories WHERE task_name=? AND seed=? AND task_id=?
                   AND stage=(SELECT stage FROM trajectories WHERE id=?) ORDER BY length(id), id"""
        return [self.trajectory(one) for (one,) in self._rows(query, (task.name, task.seed, task.id, identity))]

    def trajectory_ids(self) -> list[str]:
        """Ids of all trajectories, in alphabetical order."""
        return [identity for (identity,) in self._rows("SELECT id FROM trajectories ORDER BY id")]

    def count(self, stage: str) -> int:
        """How many trajectories a stage has, failures included."""
        return int(self._rows("SELECT count(*) FROM trajectories WHERE stage=?", (stage,))[0][0])

    def done_task_keys(self, stage: str) -> set[str]:
        """Keys ``"{task.id}/{sibling}"`` of the trajectories that did not fail: what a resumed rollout skips."""
        rows = self._rows("SELECT id FROM trajectories WHERE stage=? AND failure IS NULL", (stage,))
        return {identity.removeprefix(f"{stage}/") for (identity,) in rows}

    def start_hashes(self, stage: str) -> dict[str, str]:
        """Start-state hash by task id, so that siblings rolled out after a resume are held to the same start."""
        query = "SELECT task_id, start_hash FROM trajectories WHERE stage=? AND failure IS NULL AND start_hash<>''"
        return dict(self._rows(query, (stage,)))

    def outcomes(self, stage: str) -> dict[tuple[str, int], tuple[str, bool | None]]:
        """(trajectory id, success) by (task name, seed); success is None where the world failed."""
        rows = self._rows(
            "SELECT task_name, seed, id, success FROM trajectories WHERE stage=? ORDER BY id DESC", (stage,)
        )
        return {(name, seed): (identity, None if won is None else bool(won)) for name, seed, identity, won in rows}

    def trajectory_stages(self) -> list[str]:
        """Stages that have trajectories, in alphabetical order."""
        return [stage for (stage,) in self._rows("SELECT DISTINCT stage FROM trajectories ORDER BY stage")]

    # -- preferences, metrics, facts ---------------------------------------------------------------------------------

    def add_preferences(self, round_number: int, rows: Sequence[Preference]) -> None:
        """Make ``rows`` the preferences of a round, in their order, replacing what the round had: all or none."""
        packed = [
            (round_number, row.id, i, self._pack(row.model_dump_json(), f"preference/{round_number}/{row.id}"))
            for i, row in enumerate(map(redact.covered, rows))
        ]
        with self._write() as database:
            database.execute("DELETE FROM preferences WHERE round=?", (round_number,))
            database.executemany("INSERT OR REPLACE INTO preferences VALUES (?,?,?,?)", packed)

    def preferences(self, round_number: int | None = None, broken: list[str] | None = None) -> list[Preference]:
        """Preferences of one round, or of all rounds one after the other. Ids of those that cannot be read go into
        ``broken``, if that is given; else the first one is an error."""
        query = "SELECT round, id, body FROM preferences WHERE ? IS NULL OR round=? ORDER BY round, position"
        rows = self._rows(query, (round_number, round_number))
        found = []
        for number, identity, body in rows:
            try:
                found.append(Preference.model_validate_json(self._unpack(body, f"preference/{number}/{identity}")))
            except (StoreError, ValidationError):
                if broken is None:
                    raise
                broken.append(identity)
        return found

    def rounds(self) -> list[int]:
        """The rounds that have preferences."""
        return [number for (number,) in self._rows("SELECT DISTINCT round FROM preferences ORDER BY round")]

    def set_fact(self, key: str, value: Any) -> None:
        """Remember a JSON value under a key."""
        text = json.dumps(known().cover_json(value))
        if self.vault is not None:
            text = self.vault.seal_text(text, f"fact/{key}".encode())
        with self._write() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES (?,?)", (key, text))

    def get_fact(self, key: str, default: Any = None) -> Any:
        """The value kept under a key, or ``default``."""
        rows = self._rows("SELECT value FROM facts WHERE key=?", (key,))
        if not rows or self.vault is None or key == SEALED:
            return json.loads(rows[0][0]) if rows else default
        return json.loads(self.vault.open_text(rows[0][0], f"fact/{key}".encode()))

    def log_metric(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Keep numbers of one step; a step logged again after a resume replaces the earlier numbers."""
        rows = [(stage, step, name, float(value)) for name, value in values.items()]
        with self._write() as database:
            database.executemany("INSERT OR REPLACE INTO metrics VALUES (?,?,?,?)", rows)

    def metrics(self, stage: str) -> dict[str, list[tuple[int, float]]]:
        """(step, value) by metric name, steps ascending."""
        found: dict[str, list[tuple[int, float]]] = {}
        for name, step, value in self._rows(
            "SELECT name, step, value FROM metrics WHERE stage=? ORDER BY name, step", (stage,)
        ):
            # SQLite has no NaN: it stores NULL.
            found.setdefault(name, []).append((step, math.nan if value is None else value))
        return found

    # -- stages ------------------------------------------------------------------------------------------------------

    def stage_status(self, stage: str) -> StageStatus:
        """ "new" if the stage never began, "running" if it began and did not finish, else "done"."""
        rows = self._rows("SELECT finished, seconds, facts FROM stages WHERE stage=?", (stage,))
        if not rows:
            return StageStatus(stage)
        finished, seconds, facts = rows[0]
        return StageStatus(stage, "running" if finished is None else "done", seconds, json.loads(facts))

    def begin_stage(self, stage: str) -> StageStatus:
        """Mark a stage as begun unless it is already; returns what was known of it before."""
        before = self.stage_status(stage)
        with self._write() as database:
            database.execute("INSERT OR IGNORE INTO stages (stage, started) VALUES (?,?)", (stage, time.time()))
        return before

    def add_stage_seconds(self, stage: str, seconds: float) -> None:
        """Add working time to a stage that was interrupted, so that its total survives the resume."""
        with self._write() as database:
            database.execute("INSERT OR IGNORE INTO stages (stage, started) VALUES (?,?)", (stage, time.time()))
            database.execute("UPDATE stages SET seconds = seconds + ? WHERE stage=?", (seconds, stage))

    def finish_stage(self, stage: str, seconds: float, facts: Mapping[str, Any] | None = None) -> None:
        """Mark a stage as done. ``seconds`` is added to what :meth:`add_stage_seconds` counted earlier."""
        self.add_stage_seconds(stage, seconds)
        with self._write() as database:
            database.execute(
                "UPDATE stages SET finished=?, facts=? WHERE stage=?",
                (time.time(), json.dumps(dict(facts or {})), stage),
            )

    def stages(self) -> list[StageStatus]:
        """All stages that began, in the order they began."""
        rows = self._rows("SELECT stage FROM stages ORDER BY started, stage")
        return [self.stage_status(stage) for (stage,) in rows]

    # -- blobs -------------------------------------------------------------------------------------------------------

    def put_blob(self, content: bytes) -> str:
        """Keep bytes under their SHA-256 (64 hex digits), which is returned; the same content is kept once."""
        return blobs.put(self.run_dir / BLOBS, content, self.vault)

    def get_blob(self, sha256: str) -> bytes:
        """The bytes of a blob; StoreError if it is missing or does not match its name."""
        return blobs.get(self.run_dir / BLOBS, sha256, self.vault)

    def _pack(self, text: str, about: str) -> bytes:
        packed = zstandard.compress(text.encode(), 3)
        return packed if self.vault is None else self.vault.seal(packed, about.encode())

    def _unpack(self, body: bytes, about: str) -> bytes:
        if self.vault is not None:
            body = self.vault.open(body, about.encode())
        try:
            return zstandard.decompress(body)
        except zstandard.ZstdError as error:
            raise StoreError(f"{about} cannot be read: {error}", where=str(self.run_dir / DATABASE),
                             remedy="restore run.db from a copy") from None  # fmt: skip
