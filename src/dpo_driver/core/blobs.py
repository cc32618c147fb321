"""Content-addressed files: bytes under the SHA-256 of their content, zstd-compressed. Called by core/store.py.

A blob is written under a temporary name, synced and renamed, so a name that exists has its whole content. With a vault
it is sealed on disk, under the hash of what is in it. Imports the standard library and zstandard only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import zstandard

from dpo_driver.core.errors import StoreError
from dpo_driver.core.vault import Vault

ROOM = "free some space and run the same command again; every finished row was kept"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_RESTORE = "restore the blobs folder of the run from a copy"


def put(root: Path, content: bytes, vault: Vault | None = None) -> str:
    """Keep bytes under ``root``; returns their SHA-256 (64 hex digits). The same content is kept once."""
    sha256 = hashlib.sha256(content).hexdigest()
    path = _path(root, sha256)
    if path.exists():
        return sha256
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                packed = zstandard.compress(content, 3)
                file.write(packed if vault is None else vault.seal(packed, _about(sha256)))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise store_error(error, path) from error
    return sha256


def get(root: Path, sha256: str, vault: Vault | None = None) -> bytes:
    """The bytes of a blob; StoreError if it is missing, damaged or does not match its name, VaultError if it was sealed
    otherwise."""
    path = _path(root, sha256)
    try:
        packed = path.read_bytes()
        content = zstandard.decompress(packed if vault is None else vault.open(packed, _about(sha256)))
    except FileNotFoundError:
        raise StoreError("a blob is missing", where=str(path), remedy=_RESTORE) from None
    except zstandard.ZstdError as error:
        raise StoreError(f"a blob is damaged: {error}", where=str(path), remedy=_RESTORE) from None
    except OSError as error:
        raise store_error(error, path) from error
    # What is sealed was authenticated together with its name.
    if vault is None and hashlib.sha256(content).hexdigest() != sha256:
        raise StoreError("a blob does not match its hash", where=str(path), remedy=_RESTORE)
    return content


def store_error(error: OSError, path: Path) -> StoreError:
    """What the operating system said, with what to do about it."""
    if error.errno in _NO_SPACE:
        return StoreError("no space left for the run directory", where=str(path), remedy=ROOM)
    return StoreError(
        f"cannot use the run directory: {error.strerror or error}",
        where=str(path),
        remedy="check that the directory exists and that you may write to it",
    )


def _about(sha256: str) -> bytes:
    return f"blob/{sha256}".encode()


def _path(root: Path, sha256: str) -> Path:
    return root / sha256[:2] / sha256[2:]


def _sync_directory(path: Path) -> None:
    """Make a rename durable: the name lives in the directory, not in the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
