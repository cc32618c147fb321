"""A password for people on other machines: kept as a salted scrypt hash in memory, guesses limited.

scrypt takes about 50 ms and 16 MB on purpose, so it runs in a thread and a few at a time. Standard library only.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

from dpo_driver.core.errors import ConfigError

SHORTEST = 10
GUESSES = 5
WINDOW_S = 60.0
MOST_ADDRESSES = 10_000
_COST = {"n": 2**14, "r": 8, "p": 1}  # OWASP's second choice; 16 MB


class TooManyGuesses(Exception):
    """``seconds``: when to come again."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"too many wrong passwords; try again in {seconds:.0f} s")


class Password:
    """``await Password("correct horse").check("correct horse", "10.0.0.7")`` is True.

    Args:
        password: at least ``SHORTEST`` characters; only its hash is kept.
        clock: seconds, any zero.
        guesses: wrong ones that an address has in a minute; all together have ten times as many.

    Raises:
        ConfigError: it is too short.
    """

    def __init__(self, password: str, clock: Callable[[], float] = time.monotonic, guesses: int = GUESSES) -> None:
        if len(password) < SHORTEST:
            raise ConfigError(f"the password has fewer than {SHORTEST} characters", remedy="choose a longer one")
        self._salt = secrets.token_bytes(16)
        self._hash = self._digest(password)
        self._clock, self._guesses = clock, guesses
        self._failures: dict[str, list[float]] = {}
        self._at_once = asyncio.Semaphore(2)

    def _digest(self, password: str) -> bytes:
        return hashlib.scrypt(password.encode(), salt=self._salt, **_COST, maxmem=64 * 2**20, dklen=32)

    async def check(self, password: str, address: str) -> bool:
        """Whether it is the password; takes as long for a wrong one.

        Raises:
            TooManyGuesses: this address, or all together, failed too often. Nothing was compared.
        """
        self._refuse_if_many(address)
        # Counted before it is known, so that guesses sent at the same time count too.
        moment = self._clock()
        self._failures.setdefault(address, []).append(moment)
        async with self._at_once:
            found = await asyncio.to_thread(self._digest, password[:1000])
        if not hmac.compare_digest(found, self._hash):
            return False
        self._failures[address].remove(moment)
        return True

    def _refuse_if_many(self, address: str) -> None:
        since = self._clock() - WINDOW_S
        for known in list(self._failures):
            self._failures[known] = [moment for moment in self._failures[known] if moment > since]
            if not self._failures[known]:
                del self._failures[known]
        own = self._failures.get(address, [])
        everybody = sorted(moment for moments in self._failures.values() for moment in moments)
        for moments, most in ((own, self._guesses), (everybody, 10 * self._guesses)):
            if len(moments) >= most:
                raise TooManyGuesses(max(1.0, moments[-most] - since))
        if len(self._failures) >= MOST_ADDRESSES:
            raise TooManyGuesses(WINDOW_S)
