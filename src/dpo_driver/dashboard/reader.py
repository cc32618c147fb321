"""Reads a SQLite file that somebody else writes: read-only, in short reads, never in a writer's way.

Called by everything in this folder that lists rows. What was worked out from a state of the file is kept until another
connection commits. Must not import anything of ours but errors.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dpo_driver.core.errors import StoreError

BUSY_S = 5.0
MOST_KEPT = 64  # results in memory for one state of a file
Value = TypeVar("Value")


class Reader:
    """``Reader("runs/pocket/run.db").rows("SELECT stage FROM stages")``. Threads take turns.

    Args:
        path: of the file; opened on first use, and again when another file has taken its place.

    Raises:
        StoreError: it cannot be read, in every call.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._mutex = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._inode = self._version = -1
        self._kept: dict[Hashable, Any] = {}

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        with self._mutex:
            if self._db is not None:
                self._db.close()
            self._db = None
            self._kept.clear()

    def rows(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._mutex:
            try:
                return self._open().execute(query, arguments).fetchall()
            except (sqlite3.Error, OSError) as error:
                self.close()
                raise StoreError(f"cannot be read: {error}", where=str(self.path)) from error

    def kept(self, key: Hashable, work: Callable[[], Value]) -> Value:
        """What ``work`` gives for this state of the file; worked out once, until somebody commits."""
        with self._mutex:
            version = self.version()
            if version != self._version:
                self._kept.clear()
                self._version = version
            if key not in self._kept:
                if len(self._kept) >= MOST_KEPT:
                    self._kept.clear()
                self._kept[key] = work()
            found: Value = self._kept[key]
            return found

    def version(self) -> int:
        """Another number after every commit of another connection."""
        return int(self.rows("PRAGMA data_version")[0][0])

    def _open(self) -> sqlite3.Connection:
        inode = self.path.stat().st_ino
        if self._db is None or inode != self._inode:
            self.close()
            self._db = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S, check_same_thread=False,
                isolation_level=None,
            )  # fmt: skip
            self._db.execute("PRAGMA query_only=ON")
            self._inode, self._version = inode, -1
        return self._db
