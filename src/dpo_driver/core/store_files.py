"""The files of a run directory: who may write them, what they are sealed with, and what went wrong in words.

Called by core/store.py; :func:`vault_around` also by whatever else writes into a run directory.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from dpo_driver.core import blobs
from dpo_driver.core.errors import StoreError
from dpo_driver.core.vault import VARIABLE, Vault, VaultError

DATABASE = "run.db"
LOCK = "run.lock"
SEALED = "sealed"  # the fact that says so; itself in the clear
_PROOF = b"dpo-driver"  # what its proof is about: another key is told at once


def take_lock(run_dir: Path) -> int:
    """The write lock of a run directory as a file descriptor. The kernel drops it when the process dies."""
    path = run_dir / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise blobs.store_error(error, path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise blobs.store_error(error, path) from error
        raise StoreError(
            f"the run directory is in use by process {owner or 'unknown'}",
            where=str(run_dir),
            remedy="wait for it to finish, stop it, or use another run directory",
        ) from None
    return descriptor


def from_sqlite(error: sqlite3.Error, path: Path) -> StoreError:
    """What SQLite says, as what a person can act on."""
    text = str(error)
    if "full" in text:
        return StoreError("no space left for the run directory", where=str(path), remedy=blobs.ROOM)
    if "locked" in text:
        return StoreError(
            "the run's database is locked by another process",
            where=str(path),
            remedy="close the program that has run.db open and run the same command again",
        )
    if "not a database" in text or "malformed" in text:
        return StoreError(
            f"run.db is damaged: {text}", where=str(path), remedy="restore it, or start a new run directory"
        )
    if "readonly" in text or "unable to open" in text:
        return StoreError(
            f"run.db cannot be opened: {text}", where=str(path), remedy="check the directory's permissions"
        )
    return StoreError(f"run.db: {text}", where=str(path), remedy="see docs/troubleshooting.md")


def as_fact(vault: Vault) -> dict[str, Any]:
    """What a run says of its encryption: nothing secret."""
    return {"kind": vault.kind, "salt": vault.salt.hex(), "proof": vault.seal_text("", _PROOF)}


def vault_of(run_dir: Path) -> Vault | None:
    """What seals a run; None where it is not sealed, or there is no run.

    Raises:
        VaultError: there is no key, or it is another one.
        StoreError: run.db cannot be read.
    """
    path = run_dir / DATABASE
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name='facts'").fetchone():
                return None
            row = database.execute("SELECT value FROM facts WHERE key=?", (SEALED,)).fetchone()
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from error
    if row is None:
        return None
    try:
        told = json.loads(row[0])
        found, proof = Vault(told["kind"], bytes.fromhex(told["salt"])), told["proof"]
    except (ValueError, KeyError, TypeError):
        raise VaultError("what run.db says of its encryption has been changed", where=str(path),
                               remedy="restore it from a copy") from None  # fmt: skip
    try:
        found.open_text(proof, _PROOF)
    except VaultError:
        raise VaultError("this run was sealed with another key", where=str(run_dir),
                         remedy=f"give its key: {VARIABLE} or the keyring") from None  # fmt: skip
    return found


def vault_around(path: Path) -> Vault | None:
    """What seals the run that a file or folder belongs to; None where it belongs to none."""
    return next((vault_of(folder) for folder in path.resolve().parents if (folder / DATABASE).is_file()), None)
