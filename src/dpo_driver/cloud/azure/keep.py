"""Carries runs over an eviction: ``python -m dpo_driver.cloud.azure.keep --store DIR --runs runs -- COMMAND``.

A store that outlives the machine is slow and has no locks, so runs lie on the machine's own disk, and snapshots of them
in the store: every file once under its hash, and a list of files that is written last. The newest whole list is
restored before the command starts, so the same job goes on where an earlier machine was taken away; SIGTERM, which
announces that, stops the command and takes a last snapshot. Databases are copied by SQLite's own backup, before the
files that they name.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

OBJECTS, LISTS = "objects", "lists"
KEPT_LISTS = 3
STOP_S = 25.0  # between SIGTERM and the machine's end there are about 30 s
DATABASES = (".db",)
LEFT_OUT = (".db-wal", ".db-shm", ".tmp", ".lock")


class Store:
    """Snapshots of a folder.

    Args:
        store: where they are kept.
        folder: what is kept.
    """

    def __init__(self, store: Path, folder: Path) -> None:
        self.store, self.folder = store, folder
        self._known: dict[str, tuple[int, int, str]] = {}  # path -> size, time, hash, of what was not touched since

    def save(self) -> int:
        """Keep the folder as it is now; returns how many files were new.

        Raises:
            OSError: the store cannot be written; earlier snapshots are whole.
        """
        for name in (OBJECTS, LISTS):
            (self.store / name).mkdir(parents=True, exist_ok=True)
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file() and not path.is_symlink()
                 and not path.name.endswith(LEFT_OUT)]  # fmt: skip
        paths.sort(key=lambda path: path.suffix not in DATABASES)  # databases first: what they name is there already
        files, fresh = {}, 0
        for path in paths:
            name = path.relative_to(self.folder).as_posix()
            try:
                digest, new = self._database(path) if path.suffix in DATABASES else self._file(name, path)
            except FileNotFoundError:  # it was temporary
                continue
            files[name], fresh = digest, fresh + new
        body = json.dumps({"files": files}).encode()
        numbers = self._numbers()
        number = max(numbers, default=0) + 1
        _put(self.store / LISTS / f"{number:08d}-{hashlib.sha256(body).hexdigest()[:16]}.json", body)
        for old in sorted(numbers)[: -KEPT_LISTS + 1]:
            for path in (self.store / LISTS).glob(f"{old:08d}-*.json"):
                path.unlink(missing_ok=True)
        return fresh

    def restore(self) -> int:
        """Bring back the newest whole snapshot; returns how many files that were. 0: there is none."""
        for path in sorted((self.store / LISTS).glob("*-*.json"), reverse=True):
            body = path.read_bytes()
            if not path.stem.endswith(hashlib.sha256(body).hexdigest()[:16]):
                continue
            files: dict[str, str] = json.loads(body)["files"]
            if all((self.store / OBJECTS / digest).is_file() for digest in files.values()):
                for name, digest in files.items():
                    target = self.folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self.store / OBJECTS / digest, target)
                return len(files)
        return 0

    def _numbers(self) -> list[int]:
        return [int(path.name[:8]) for path in (self.store / LISTS).glob("*-*.json")]

    def _file(self, name: str, path: Path) -> tuple[str, bool]:
        about = path.stat()
        known = self._known.get(name)
        if known is not None and known[:2] == (about.st_size, about.st_mtime_ns):
            return known[2], False
        digest, new = self._keep(path.read_bytes())
        self._known[name] = (about.st_size, about.st_mtime_ns, digest)
        return digest, new

    def _database(self, path: Path) -> tuple[str, bool]:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "copy.db"
            with (
                contextlib.closing(sqlite3.connect(path, timeout=30)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
            return self._keep(copy.read_bytes())

    def _keep(self, content: bytes) -> tuple[str, bool]:
        digest = hashlib.sha256(content).hexdigest()
        path = self.store / OBJECTS / digest
        if path.is_file() and path.stat().st_size == len(content):
            return digest, False
        _put(path, content)
        return digest, True


def keep(store: Path, runs: Path, every: float, command: Sequence[str]) -> int:
    """Restore, run the command, keep its runs as it goes; returns its exit code."""
    found = Store(store, runs)
    print(f"restored {found.restore()} files", flush=True)
    runs.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(command)
    ended = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGTERM)
        late = threading.Timer(STOP_S, process.kill)
        late.daemon = True  # it must not keep this process once the command has ended
        late.start()

    with _handling(stop):
        threading.Thread(target=_wait, args=(process, ended), daemon=True).start()
        last = time.monotonic()
        while not ended.wait(min(1.0, every)):
            if time.monotonic() - last >= every:
                _saved(found)
                last = time.monotonic()
        _saved(found)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _wait(process: subprocess.Popen[bytes], ended: threading.Event) -> None:
    process.wait()
    ended.set()


def _saved(store: Store) -> None:
    try:
        fresh = store.save()
    except (OSError, sqlite3.Error) as error:  # the run goes on; the next try may work
        print(f"no snapshot: {error}", file=sys.stderr, flush=True)
    else:
        print(f"kept; {fresh} files were new", flush=True)


@contextlib.contextmanager
def _handling(stop: object) -> Iterator[None]:
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _put(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Run a command whose runs outlive their machine.")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--every", type=float, default=60.0, help="seconds between snapshots")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        parser.error("there is no command")
    return keep(given.store, given.runs, given.every, command)


if __name__ == "__main__":
    sys.exit(main())
