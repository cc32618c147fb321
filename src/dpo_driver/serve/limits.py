"""Who may ask, and how much at once. Knows HTTP's numbers and no models."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dpo_driver.serve.protocol import RequestError


@dataclass(frozen=True)
class Limits:
    """``body`` in bytes, ``timeout`` in seconds; ``at_once``: requests under way, of all and of one token's holder."""

    body: int = 1_000_000
    default_tokens: int = 256
    most_tokens: int = 2048
    timeout: float = 60.0
    at_once: int = 128
    at_once_each: int = 64


class Tokens:
    """Bearer tokens; compared by hash, so how long it takes says nothing.

    Args:
        tokens: any of these lets in; none: everybody is.
    """

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._hashes = tuple(_hash(token) for token in tokens)

    def holder(self, header: str) -> str:
        """A short name for whoever sent an Authorization header.

        Raises:
            RequestError: 401.
        """
        if not self._hashes:
            return "anybody"
        scheme, _, token = header.partition(" ")
        given = _hash(token.strip())
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        if scheme.lower() != "bearer" or not any(matches):
            raise RequestError(401, "a bearer token is needed, and this is none of ours", "invalid_api_key")
        return given.hex()[:8]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Turnstile:
    """Counts requests under way."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inside: Counter[str] = Counter()

    @property
    def inside(self) -> int:
        """Requests under way."""
        return self._inside.total()

    @contextlib.contextmanager
    def enter(self, holder: str) -> Iterator[None]:
        """One request more, until the block ends.

        Raises:
            RequestError: 429, with the seconds after which another try is worth it.
        """
        if self.inside >= self._limits.at_once or self._inside[holder] >= self._limits.at_once_each:
            raise RequestError(429, "too many requests at once", "rate_limit_exceeded", retry_s=1.0)
        self._inside[holder] += 1
        try:
            yield
        finally:
            self._inside[holder] -= 1
            if not self._inside[holder]:
                del self._inside[holder]
