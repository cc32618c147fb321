"""Encryption at rest: AES-256-GCM for blobs, bodies, log entries and exports, under one key of the user's.

The key is ``DPO_DRIVER_KEY`` or, where that is not set, the entry ``dpo-driver`` / ``key`` of the OS keyring (package
keyring). 32 bytes in hexadecimal or base64 are a key; any other text of 12 characters and more is a passphrase. Either
is stretched with the salt of a run or of a file: HKDF-SHA256 for a key, scrypt for a passphrase, once a process.

What is sealed begins with ``DPOV``, version, kind of key, salt (16 bytes), key's mark (4) and nonce (12, random); then
comes the ciphertext with its tag (16). The header and what the content is about (its id) are authenticated, so nothing
can be changed, cut or put in another's place. Called by core/store.py, preferences/log.py and the writers and readers
of data files. The package cryptography is imported when it is needed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dpo_driver.core.errors import StoreError

VARIABLE = "DPO_DRIVER_KEY"
KEYRING = ("dpo-driver", "key")  # service and name
MAGIC = b"DPOV\x01"
KEY_BYTES, SALT_BYTES, MARK_BYTES, NONCE_BYTES, TAG_BYTES = 32, 16, 4, 12, 16
LEAST_PASSPHRASE = 12
# 64 MiB and a fifth of a second: a guess costs an attacker the same.
SCRYPT = {"n": 1 << 16, "r": 8, "p": 1, "maxmem": 128 << 20}
_KINDS = {"key": 0, "passphrase": 1}
_HEADER = len(MAGIC) + 1 + SALT_BYTES + MARK_BYTES
_EXPORT = b"export"
REMEDY = f"set {VARIABLE}, or put the key into the keyring: keyring set {' '.join(KEYRING)}"
INSTALL = "pip install 'dpo-driver[vault]'"


class VaultError(StoreError):
    """There is no key, it is another one, or what was sealed has been changed."""


@dataclass(frozen=True)
class _Given:
    """What the user gave. Never shown."""

    kind: str
    secret: bytes

    def __repr__(self) -> str:
        return f"_Given({self.kind})"


class Vault:
    """Seals and opens under one key and one salt. Threads may share it; pickled, it is its salt alone.

    ``vault = Vault.new(); vault.open(vault.seal(b"content", b"blob/5f.."), b"blob/5f..") == b"content"``.
    """

    def __init__(self, kind: str, salt: bytes) -> None:
        """Raises VaultError: there is no key, it is none, or one of the other kind."""
        given = _given()
        if given.kind != kind:
            words = {"key": "a key", "passphrase": "a passphrase"}
            raise VaultError(f"this was sealed with {words.get(kind, kind)}, and {words[given.kind]} was given",
                             where=VARIABLE, remedy="give the one that it was sealed with")  # fmt: skip
        key = _stretched(given.secret, kind, salt)
        self.kind, self.salt = kind, salt
        mark = hmac.digest(key, b"mark", "sha256")[:MARK_BYTES]
        self._header = MAGIC + bytes([_KINDS[kind]]) + salt + mark
        self._cipher = _aead()(key)

    @classmethod
    def new(cls) -> Vault:
        """One with a fresh salt. Raises VaultError: there is no key."""
        return cls(_given().kind, os.urandom(SALT_BYTES))

    @classmethod
    def of(cls, sealed: bytes) -> Vault:
        """The one that sealed something, by its header.

        Raises:
            VaultError: it is no sealed content, or there is no key.
        """
        if not is_sealed(sealed) or len(sealed) < _HEADER + NONCE_BYTES + TAG_BYTES:
            raise VaultError("this is not sealed, or it was cut off", remedy="restore it from a copy")
        kind = next((name for name, number in _KINDS.items() if number == sealed[len(MAGIC)]), None)
        if kind is None:
            raise VaultError("the header of what was sealed has been changed", remedy="restore it from a copy")
        return cls(kind, sealed[len(MAGIC) + 1 : len(MAGIC) + 1 + SALT_BYTES])

    def __reduce__(self) -> tuple[Any, ...]:
        return Vault, (self.kind, self.salt)

    def seal(self, content: bytes, about: bytes) -> bytes:
        """The content, encrypted; ``about`` says whose it is and must be given again to open it."""
        nonce = os.urandom(NONCE_BYTES)
        return self._header + nonce + self._cipher.encrypt(nonce, content, self._header + b"\0" + about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """What :meth:`seal` was given.

        Raises:
            VaultError: another key or another run's, changed content, or content that is not sealed.
        """
        what = about.decode(errors="replace")
        if not is_sealed(sealed):
            raise VaultError("this should be sealed and is not: it was put there by somebody without the key",
                             where=what, remedy="restore it from a copy")  # fmt: skip
        if sealed[:_HEADER] != self._header:
            raise VaultError("this was sealed with another key, or its header was changed", where=what,
                             remedy=f"give its key ({VARIABLE} or the keyring), or restore it from a copy")  # fmt: skip
        nonce, rest = sealed[_HEADER : _HEADER + NONCE_BYTES], sealed[_HEADER + NONCE_BYTES :]
        try:
            return bytes(self._cipher.decrypt(nonce, rest, self._header + b"\0" + about))
        except (_invalid_tag(), ValueError):  # the latter for a nonce that was cut
            raise VaultError("what was sealed has been changed, cut or put in another's place", where=what,
                             remedy="restore it from a copy") from None  # fmt: skip

    def seal_text(self, text: str, about: bytes) -> str:
        """The same for what must stay text: base64."""
        return base64.b64encode(self.seal(text.encode(), about)).decode()

    def open_text(self, sealed: str, about: bytes) -> str:
        """What :meth:`seal_text` was given. Raises VaultError as :meth:`open` does."""
        try:
            content = base64.b64decode(sealed, validate=True)
        except (binascii.Error, ValueError):
            content = sealed.encode()
        return self.open(content, about).decode()


def is_sealed(content: bytes) -> bool:
    """Whether it begins as sealed content does."""
    return content.startswith(MAGIC)


def seal_export(content: bytes) -> bytes:
    """A file that is handed on, with a salt of its own. Raises VaultError: there is no key."""
    return Vault.new().seal(content, _EXPORT)


def open_export(content: bytes) -> bytes:
    """The content of such a file; content that is not sealed stays as it is.

    Raises:
        VaultError: there is no key, it is another one, or the file was changed.
    """
    return Vault.of(content).open(content, _EXPORT) if is_sealed(content) else content


# -- the key -----------------------------------------------------------------------------------------------------------


def _given() -> _Given:
    written = os.environ.get(VARIABLE, "").strip()
    where = VARIABLE
    if not written:
        written, where = _from_keyring(), "the keyring"
    key = _as_key(written)
    if key is not None:
        return _Given("key", key)
    if len(written) < LEAST_PASSPHRASE:
        raise VaultError(f"neither a key nor a passphrase of {LEAST_PASSPHRASE} characters and more", where=where,
                         remedy="make a key: openssl rand -hex 32")  # fmt: skip
    return _Given("passphrase", written.encode())


def _as_key(written: str) -> bytes | None:
    """32 bytes in hexadecimal or in base64, with or without its padding; None for anything else."""
    if len(written) == 2 * KEY_BYTES:
        try:
            return bytes.fromhex(written)
        except ValueError:
            return None
    if len(written.rstrip("=")) == 43:
        try:
            plain = written.rstrip("=").replace("-", "+").replace("_", "/")
            return base64.b64decode(plain + "=", validate=True)
        except (binascii.Error, ValueError):
            return None
    return None


def _from_keyring() -> str:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise VaultError("this is sealed or to be sealed, and there is no key", where=VARIABLE,
                         remedy=f"set it; for the keyring: {INSTALL}") from None  # fmt: skip
    try:
        found = keyring.get_password(*KEYRING)
    except KeyringError as error:
        raise VaultError(f"the keyring cannot be read: {error}", where="keyring", remedy=f"set {VARIABLE}") from None
    if not found:
        raise VaultError("this is sealed or to be sealed, and there is no key", where=VARIABLE, remedy=REMEDY)
    return str(found)


@lru_cache(maxsize=32)
def _stretched(secret: bytes, kind: str, salt: bytes) -> bytes:
    """The 32 bytes that content is encrypted with. A salt has its own, so nonces of different runs never meet."""
    if kind == "passphrase":
        return hashlib.scrypt(secret, salt=salt, dklen=KEY_BYTES, **SCRYPT)
    # HKDF (RFC 5869) with one block: extract with the salt, expand with our name.
    return hmac.digest(hmac.digest(salt, secret, "sha256"), b"dpo-driver vault 1\x01", "sha256")


def _aead() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise VaultError("encryption needs the package cryptography", remedy=INSTALL) from None
    return AESGCM


def _invalid_tag() -> type[Exception]:
    from cryptography.exceptions import InvalidTag

    return InvalidTag
