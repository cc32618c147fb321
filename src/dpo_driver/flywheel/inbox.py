"""What agents did outside of runs, and what came of it: kept until the next training reads it.

    with Inbox("runs") as inbox:
        inbox.append(Interaction(id="7", at=time.time(), role="support", ...))

One SQLite file, ``inbox.db``, that only grows; a row is on disk when ``append`` returns, and the same id again is the
same row. Several processes may append: each transaction takes the file's write lock. Called by the server, by
``record_episode`` and by the loop that keeps learning. Must not import torch, agents or environments.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from dpo_driver.core.errors import DataError, StoreError
from dpo_driver.core.records import Interaction, Message, Trajectory

FILE = "inbox.db"
DEFAULT_ROOT = Path("runs")
BUSY_S = 30.0
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS interactions (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, role TEXT NOT NULL,
        body TEXT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS by_role ON interactions (role, seq)",
    """CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON interactions
        BEGIN SELECT RAISE(ABORT, 'the inbox is append-only'); END""",
    """CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON interactions
        BEGIN SELECT RAISE(ABORT, 'the inbox is append-only'); END""",
)


class Inbox:
    """The interactions below one folder of runs. Safe to use from several threads.

    Args:
        root: the folder; made when missing.

    Raises:
        StoreError: it cannot be opened or written, here and in every call.
    """

    def __init__(self, root: str | Path = DEFAULT_ROOT) -> None:
        self.path = Path(root) / FILE
        self._mutex = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            for statement in _SCHEMA:
                self._db.execute(statement)
        except (OSError, sqlite3.Error) as error:
            raise self._error(error) from error

    def __enter__(self) -> Inbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._db.close()

    def append(self, interaction: Interaction) -> int:
        """Keep one; returns its number."""
        return self.append_many([interaction])[0]

    def append_many(self, interactions: Iterable[Interaction]) -> list[int]:
        """Keep several in one transaction, all or none; returns their numbers, from 1 on."""
        rows = [(each.id, each.at, each.role, each.model_dump_json()) for each in interactions]
        with self._mutex:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    found = [self._number(row) for row in rows]
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._error(error) from error
        return found

    def _number(self, row: tuple[str, float, str, str]) -> int:
        """Its number; written unless its id is known. Inside a transaction."""
        known = self._db.execute("SELECT seq FROM interactions WHERE id=?", row[:1]).fetchone()
        if known is not None:
            return int(known[0])
        made = self._db.execute("INSERT INTO interactions (id, at, role, body) VALUES (?,?,?,?)", row)
        return int(made.lastrowid or 0)

    def since(self, seq: int = 0, *, role: str | None = None, limit: int = 1000) -> list[tuple[int, Interaction]]:
        """Those behind a number, oldest first; of one role, or of all."""
        where, values = ("", ()) if role is None else (" AND role=?", (role,))
        with self._mutex:
            try:
                rows = self._db.execute(
                    f"SELECT seq, body FROM interactions WHERE seq>?{where} ORDER BY seq LIMIT ?", (seq, *values, limit)
                ).fetchall()
            except sqlite3.Error as error:
                raise self._error(error) from error
        return [(number, Interaction.model_validate_json(body)) for number, body in rows]

    def get(self, name: str) -> Interaction | None:
        """The one of an id."""
        with self._mutex:
            try:
                row = self._db.execute("SELECT body FROM interactions WHERE id=?", (name,)).fetchone()
            except sqlite3.Error as error:
                raise self._error(error) from error
        return Interaction.model_validate_json(row[0]) if row else None

    def last(self, role: str) -> int:
        """The number of a role's last one; 0: there is none."""
        with self._mutex:
            try:
                row = self._db.execute("SELECT MAX(seq) FROM interactions WHERE role=?", (role,)).fetchone()
            except sqlite3.Error as error:
                raise self._error(error) from error
        return int(row[0] or 0)

    def count(self, role: str | None = None, *, after: int = 0) -> int:
        """How many there are behind a number."""
        where, values = ("", ()) if role is None else (" AND role=?", (role,))
        with self._mutex:
            try:
                row = self._db.execute(
                    f"SELECT COUNT(*) FROM interactions WHERE seq>?{where}", (after, *values)
                ).fetchone()
            except sqlite3.Error as error:
                raise self._error(error) from error
        return int(row[0])

    def _error(self, error: Exception) -> StoreError:
        return StoreError(f"the inbox cannot be used: {error}", where=str(self.path),
                          remedy="check the folder's rights and space")  # fmt: skip


def record_episode(
    *,
    role: str = "",
    trajectory: Trajectory | None = None,
    messages: Sequence[Mapping[str, Any] | Message] = (),
    response: str = "",
    success: bool | None = None,
    reward: float | None = None,
    rating: float | None = None,
    preferred: str = "",
    model: str = "",
    id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    root: str | Path = DEFAULT_ROOT,
) -> str:
    """Write down what an agent did and what came of it, for the next training.

        record_episode(role="support", messages=[{"role": "user", "content": "Where is my order?"}],
                       response="On its way.", rating=-1.0, preferred="It left Lyon this morning; here is the link.")

    Args:
        role: whose answer it was; empty for the browser agent.
        trajectory: what a browser agent did; or else
        messages, response: what was asked and answered.
        success, reward: what came of it, as far as it is known.
        rating: from -1 to 1, by whoever was served.
        preferred: an answer that would have been better.
        model: which version acted.
        id: names it; the same id again is the same episode. Made up when None.
        metadata: kept with it.
        root: folder of the runs.

    Returns:
        The id.

    Raises:
        DataError: a value that cannot be used; nothing was written. StoreError: it could not be written.
    """
    name = id or uuid.uuid4().hex
    if trajectory is None and not response:
        raise DataError("an episode needs a trajectory, or messages and a response", where="record_episode",
                        remedy="nothing was written")  # fmt: skip
    try:
        found = Interaction(
            id=name, at=time.time(), role=role, source="python", model=model, trajectory=trajectory,
            messages=tuple(each if isinstance(each, Message) else Message.model_validate(each) for each in messages),
            response=response, success=success, reward=reward, rating=rating, preferred=preferred,
            metadata=dict(metadata or {}),
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", where="record_episode",
                        remedy="nothing was written") from None  # fmt: skip
    with Inbox(root) as inbox:
        inbox.append(found)
    return name
