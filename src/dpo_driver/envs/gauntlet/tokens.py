"""Signed starts: an address that opens the gauntlet at any step, made by whoever holds the server's secret.

The environment makes them (``GauntletServer.start_url``), envs/gauntlet/server.py reads them. Imports nothing of ours
but errors and the plan's names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dpo_driver.core.errors import ConfigError
from dpo_driver.envs.gauntlet.plan import Plan

VALID_S = 3600.0


@dataclass(frozen=True)
class Start:
    """Where and how a visit begins.

    Args:
        seed: of the plan: order, types, content, distractors.
        step: 1 is the first; 0 shows the START page.
        steps: how many there are.
        types: only these; None: all (see ``Plan.of``).
        key: pins the codes: starts with equal fields and equal keys get equal pages. None: they are random.
        visit: the visit's id, which ``/status?visit=`` asks for; whoever makes the start chooses it.
        until: seconds since the epoch; 0: an hour from now. An id that is known already is continued, not begun again.
    """

    seed: int
    step: int = 1
    steps: int = 30
    order: str = "band"
    difficulty: int = 1
    skin: str = "a"
    types: tuple[str, ...] | None = None
    held_out: bool = False
    key: str | None = None
    visit: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    until: float = 0.0

    def plan(self) -> Plan:
        """Raises ConfigError when the fields make no plan."""
        return Plan.of(
            self.seed, steps=self.steps, order=self.order, difficulty=self.difficulty, skin=self.skin, types=self.types,
            held_out=self.held_out,
        )  # fmt: skip

    def check(self) -> Start:
        """Itself. Raises ConfigError when there is no such plan or step."""
        plan = self.plan()
        if not 0 <= self.step <= plan.count:
            raise ConfigError(
                f"there is no step {self.step}", remedy=f"steps are 1 to {plan.count}; 0 is the START page"
            )
        return self


def sign(start: Start, secret: bytes) -> str:
    """The token of a start: ``/start?token=...``."""
    values = asdict(start) | {"until": start.until or time.time() + VALID_S}
    body = _encode(json.dumps(values, separators=(",", ":")).encode())
    return f"{body}.{_encode(_seal(body, secret))}"


def read(token: str, secret: bytes, now: float | None = None) -> Start | None:
    """The start that a token stands for; None when it was not made with this secret, was changed, or has expired."""
    body, dot, seal = token.partition(".")
    try:
        if not dot or not hmac.compare_digest(_decode(seal), _seal(body, secret)):
            return None
        values: dict[str, Any] = json.loads(_decode(body))
    except (ValueError, binascii.Error):
        return None
    known = {entry.name for entry in fields(Start)}
    kept: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items() if n in known}
    start = Start(**kept)
    return start if start.until > (time.time() if now is None else now) else None


def _seal(body: str, secret: bytes) -> bytes:
    return hmac.new(secret, f"start/{body}".encode(), hashlib.sha256).digest()


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
