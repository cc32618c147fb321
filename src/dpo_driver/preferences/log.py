"""The preference log: judgements of people, models and rules, and the pairs they give, in the order they came.

Append-only: what was written is never changed, a judgement is withdrawn by a later entry. Every entry carries the hash
of the one before, so an edit, a deletion or another order shows in :meth:`PreferenceLog.verify`; a cut-off end shows
against the witness beside the file, or against a head that somebody noted down. Several processes may append. Called by
the sources of this folder, the label page and the command line; knows no source by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from dpo_driver.core.errors import StoreError
from dpo_driver.core.secrets import known
from dpo_driver.core.store_files import vault_around
from dpo_driver.core.vault import Vault, is_sealed

LOG = "preferences.db"  # its name in a run directory
EMPTY = "0" * 64  # the hash before the first entry
WITNESS = ".head"  # added to the log's name: count and hash of the last entry, for what was cut off
BUSY_S = 30.0

# comparison: two continuations put up for judgement; label: a judgement of one; preference: a pair; withdrawn: the
# sequence number of an entry that no longer counts.
Kind = Literal["comparison", "label", "preference", "withdrawn"]

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS entries (
        seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL, hash TEXT NOT NULL)""",
    """CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entries
        BEGIN SELECT RAISE(ABORT, 'the preference log is append-only'); END""",
    """CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entries
        BEGIN SELECT RAISE(ABORT, 'the preference log is append-only'); END""",
)


class Cipher(Protocol):
    """What keeps bodies unreadable on disk. ``about`` is authenticated with the content and not kept in it."""

    def seal(self, content: bytes, about: bytes) -> bytes: ...

    def open(self, sealed: bytes, about: bytes) -> bytes: ...


@dataclass(frozen=True)
class Entry:
    """One line of the log. ``Entry(seq=7, at=1790000000.0, kind="label", body={...}, hash="9f...")``; ``at`` in seconds
    since 1970, ``hash`` over this entry and all before it."""

    seq: int
    at: float
    kind: Kind
    body: dict[str, Any]
    hash: str


@dataclass(frozen=True)
class Head:
    """How long a log is and the hash of its last entry."""

    count: int
    hash: str


@dataclass(frozen=True)
class Verdict:
    """What verification found: ``problems`` is empty where the chain holds from end to end."""

    head: Head
    problems: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return not self.problems


class PreferenceLog:
    """``with PreferenceLog("runs/pocket/preferences.db") as log: log.append("label", [{...}])``.

    Threads of one process take turns; processes wait for each other up to 30 s.

    Args:
        path: the log's file; made where it is missing unless ``mode`` is "read".
        cipher: seals bodies; a log is sealed from its first entry or not at all. One that is sealed, or lies in a
            sealed run, finds its own, and needs the key only when a body is read or written.

    Raises:
        StoreError: it is missing, damaged, locked, or cannot be written.
    """

    def __init__(
        self, path: str | Path, mode: Literal["write", "read"] = "write", cipher: Cipher | None = None
    ) -> None:
        self.path, self.mode, self._cipher = Path(path), mode, cipher
        self._looked = cipher is not None
        self._mutex = threading.RLock()
        if mode == "read" and not self.path.is_file():
            raise StoreError("there is no preference log", where=str(self.path),
                             remedy="add a preference first: dpo-driver prefs add, or dpo-driver label")  # fmt: skip
        with self._errors():
            self._db = self._connect()

    def _connect(self) -> sqlite3.Connection:
        if self.mode == "read":
            address = f"{self.path.resolve().as_uri()}?mode=ro"
            return sqlite3.connect(address, uri=True, check_same_thread=False, timeout=BUSY_S, isolation_level=None)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, check_same_thread=False, timeout=BUSY_S, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        for statement in _SCHEMA:
            database.execute(statement)
        return database

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._mutex:
            self._db.close()

    def __enter__(self) -> PreferenceLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"the preference log: {error}", where=str(self.path),
                             remedy="check the file, its permissions and the room on the disk") from error  # fmt: skip
        except OSError as error:
            what = f"the preference log cannot be used: {error.strerror or error}"
            remedy = "check that the directory exists and that you may write to it"
            raise StoreError(what, where=str(self.path), remedy=remedy) from error

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, kind: Kind, bodies: Iterable[dict[str, Any]]) -> list[Entry]:
        """Write entries of one kind: all of them or none, on disk when this returns."""
        return self.append_all((kind, body) for body in bodies)

    def append_all(self, rows: Iterable[tuple[Kind, dict[str, Any]]]) -> list[Entry]:
        """Write entries in their order in one commit, whoever else is writing."""
        secrets = known()
        rows = [(kind, secrets.cover_json(body)) for kind, body in rows]
        written: list[Entry] = []
        with self._mutex, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                head = self._last()
                for kind, body in rows:
                    seq, at = head.count + 1, time.time()
                    stored = self._stored(seq, kind, body)
                    digest = _link(head.hash, seq, at, kind, stored)
                    self._db.execute("INSERT INTO entries VALUES (?,?,?,?,?)", (seq, at, kind, stored, digest))
                    written.append(Entry(seq, at, kind, body, digest))
                    head = Head(seq, digest)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            if written:
                self._bear_witness(head)
        return written

    def withdraw(self, seq: int, why: str, **about: Any) -> Entry:
        """Take an entry back: it stays in the log and no longer counts."""
        return self.append("withdrawn", [{"seq": seq, "why": why, **about}])[0]

    def _stored(self, seq: int, kind: Kind, body: dict[str, Any]) -> bytes:
        text = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        cipher = self._sealing()
        return text if cipher is None else cipher.seal(text, _about(seq, kind))

    def _sealing(self) -> Cipher | None:
        """What seals this log, looked for once."""
        if not self._looked:
            first = self._rows("SELECT body FROM entries ORDER BY seq LIMIT 1", ())
            of_run = vault_around(self.path)
            if first and is_sealed(first[0][0]):
                self._cipher = of_run or Vault.of(first[0][0])
            elif first and of_run is not None:
                raise StoreError("the run is sealed and its preference log is not", where=str(self.path),
                                 remedy="restore the log from a copy, or move it elsewhere")  # fmt: skip
            else:
                self._cipher = of_run
            self._looked = True
        return self._cipher

    def _bear_witness(self, head: Head) -> None:
        """Not flushed to disk: a witness that is behind is still a witness."""
        path = self.path.with_name(self.path.name + WITNESS)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        draft.write_text(f"{head.count} {head.hash}\n")
        draft.replace(path)

    # -- reading -----------------------------------------------------------------------------------------------------

    def entries(
        self, *kinds: Kind, after: int = 0, upto: int | None = None, broken: list[tuple[int, str]] | None = None
    ) -> Iterator[Entry]:
        """Entries in their order, withdrawn ones too; of some kinds, or of all; those after a sequence number, and up
        to another one. Number and kind of what cannot be read go into ``broken``, if that is given; else the first of
        it is an error."""
        named = ",".join("?" * len(kinds))
        query = "SELECT seq, at, kind, body, hash FROM entries WHERE seq>? AND seq<=?"
        query += f" AND kind IN ({named})" if kinds else ""
        last = 2**62 if upto is None else upto
        for seq, at, kind, stored, digest in self._rows(f"{query} ORDER BY seq", (after, last, *kinds)):
            try:
                entry = Entry(seq, at, kind, self._body(seq, kind, stored), digest)
            except StoreError:
                if broken is None or not self._looked:  # without the key nothing can be read
                    raise
                broken.append((seq, kind))
                continue
            yield entry

    def standing(self, *kinds: Kind) -> list[Entry]:
        """Like :meth:`entries` without what was withdrawn."""
        gone = {entry.body["seq"] for entry in self.entries("withdrawn")}
        return [entry for entry in self.entries(*kinds) if entry.seq not in gone]

    @property
    def head(self) -> Head:
        """Length and last hash; worth noting down elsewhere."""
        with self._mutex, self._errors():
            return self._last()

    def verify(self, noted: Sequence[Head] = ()) -> Verdict:
        """Go through the whole chain. Needs no key: hashes are over what is stored.

        Args:
            noted: heads that were written down at earlier times; each must still be in the chain. A hash may be cut.
        """
        problems: list[str] = []
        before, at_count = Head(0, EMPTY), {0: EMPTY}
        with self._mutex, self._errors():
            for seq, at, kind, stored, digest in self._db.execute(
                "SELECT seq, at, kind, body, hash FROM entries ORDER BY seq"
            ):
                if seq != before.count + 1:
                    problems.append(f"entries {before.count + 1} to {seq - 1} are missing")
                if _link(before.hash, seq, at, kind, stored) != digest:
                    problems.append(f"entry {seq} does not follow from the one before: it or that one was changed")
                before = Head(seq, digest)
                at_count[seq] = digest
        for head in [*noted, *self._witnessed(problems)]:
            if not at_count.get(head.count, "").startswith(head.hash):
                kept = f"it ends at {before.count}" if head.count > before.count else "another hash stands there"
                problems.append(f"the log once held entry {head.count} with hash {head.hash[:12]}: {kept}")
        return Verdict(before, tuple(problems))

    def _witnessed(self, problems: list[str]) -> list[Head]:
        path = self.path.with_name(self.path.name + WITNESS)
        try:
            count, digest = path.read_text().split()
            return [Head(int(count), digest)]
        except FileNotFoundError:
            if self._last().count:
                problems.append(f"the witness {path.name} is missing: a cut-off end could not be seen")
        except (OSError, ValueError):
            problems.append(f"the witness {path.name} cannot be read")
        return []

    def _body(self, seq: int, kind: Kind, stored: bytes) -> dict[str, Any]:
        cipher = self._sealing()
        text = stored if cipher is None else cipher.open(stored, _about(seq, kind))
        try:
            body = json.loads(text)
        except ValueError:
            remedy = "if it is sealed, give its key; else run: dpo-driver prefs audit"
            raise StoreError(f"entry {seq} of the preference log cannot be read", where=str(self.path),
                             remedy=remedy) from None  # fmt: skip
        assert isinstance(body, dict)
        return body

    def _last(self) -> Head:
        row = self._db.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        return Head(0, EMPTY) if row is None else Head(*row)

    def _rows(self, query: str, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._mutex, self._errors():
            return self._db.execute(query, arguments).fetchall()


def _about(seq: int, kind: str) -> bytes:
    return f"{seq}/{kind}".encode()


def _link(before: str, seq: int, at: float, kind: str, stored: bytes) -> str:
    """SHA-256 over the hash before and everything that is stored of this entry: 64 hex digits."""
    heading = json.dumps([before, seq, at, kind, len(stored)]).encode()
    return hashlib.sha256(heading + b"\n" + stored).hexdigest()
