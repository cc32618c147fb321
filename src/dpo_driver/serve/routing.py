"""Which version answers: a name, an alias, or one of several by share; and who answers instead of one that tripped.

Names are looked up in the registry from time to time, by one task: what an alias means changes between two requests,
never within one. Called by app.py.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from dpo_driver.core.errors import ConfigError
from dpo_driver.serve.health import Health
from dpo_driver.serve.protocol import RequestError

CHAMPION, PREVIOUS, BASE = "champion", "previous", "base"
DEFAULTS = ("auto", "default", "dpo-driver")  # model names that leave the choice to the server


@dataclass(frozen=True)
class Choice:
    """Who answers: ``arm`` is what was chosen (a name, or an alias), ``version`` whom it means, ``instead_of`` the one
    that tripped, "" where none did."""

    arm: str
    version: str
    instead_of: str = ""


@dataclass(frozen=True)
class Split:
    """Arms with their shares: ``Split({"champion": 0.9, "candidate": 0.1})``."""

    shares: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Split:
        """Read ``champion=90,candidate=10``; shares are taken relative to their sum.

        Raises:
            ConfigError: it cannot be read.
        """
        shares: dict[str, float] = {}
        for part in text.split(","):
            arm, equals, share = part.strip().partition("=")
            try:
                value = float(share)
            except ValueError:
                value = -1.0
            if not arm or not equals or value < 0 or arm in shares:
                raise ConfigError(f"{part.strip()!r} is no arm with a share", where="--split",
                                  remedy="write --split champion=90,candidate=10")  # fmt: skip
            shares[arm] = value
        total = sum(shares.values())
        if total <= 0:
            raise ConfigError("the shares are all 0", where="--split", remedy="write --split champion=90,candidate=10")
        return cls({arm: share / total for arm, share in shares.items()})

    def arm(self, key: str) -> str:
        """The arm of a session: the same key always gets the same one, as long as the shares stay."""
        point = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        for arm, share in self.shares.items():
            point -= share
            if point < 0:
                return arm
        return list(self.shares)[-1]


class Router:
    """Says which version answers.

    Args:
        health: knows who tripped.
        split: for requests that leave the choice to the server; without one the champion answers them.
    """

    def __init__(self, health: Health, split: Split | None = None) -> None:
        self._health = health
        self.split = split
        self.aliases: dict[str, str] = {}  # alias -> version, as far as it is in memory

    def choose(self, model: str, loaded: set[str], *, key: str = "", forced: str = "") -> Choice:
        """Who answers a request.

        Args:
            model: of the request.
            loaded: names of versions in memory.
            key: session; requests of one session stay with their arm.
            forced: an arm that the request asks for.

        Raises:
            RequestError: 404 for an unknown name, 503 where nobody can answer.
        """
        arm = forced or model
        if not forced and model in DEFAULTS:
            arm = self.split.arm(key or secrets.token_hex(8)) if self.split and self.split.shares else CHAMPION
        version = self.aliases.get(arm, arm)
        if version not in loaded:
            if arm in DEFAULTS or arm == CHAMPION:
                version = self.aliases.get(BASE, "")
            if version not in loaded:
                known = ", ".join(sorted(loaded | self.aliases.keys() | {DEFAULTS[0]}))
                raise RequestError(404, f"no model {arm!r}; known: {known}", "model_not_found", "model")
        return self._standing(arm, version, loaded)

    def before(self, version: str) -> str | None:
        """Whom a version is measured against: the previous champion, else the base model."""
        for alias in (PREVIOUS, BASE):
            found = self.aliases.get(alias)
            if found is not None and found != version:
                return found
        return None

    def _standing(self, arm: str, version: str, loaded: set[str]) -> Choice:
        """A version that tripped is passed over only where an alias or a share led to it: who names it gets it."""
        if arm == version or not self._health.of(version).tripped:
            return Choice(arm, version)
        for other in (self.aliases.get(PREVIOUS), self.aliases.get(BASE)):
            if other is not None and other != version and other in loaded and not self._health.of(other).tripped:
                return Choice(arm, other, instead_of=version)
        return Choice(arm, version)
