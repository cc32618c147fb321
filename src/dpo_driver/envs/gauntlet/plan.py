"""What a run consists of, from its seed: the type of each step and what distracts from it. Used by visit.py, tokens.py.

The same arguments give the same plan; codes are no part of it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from dpo_driver.core.errors import ConfigError, UnknownNameError
from dpo_driver.envs.gauntlet.puzzles import HELD_OUT, TYPES
from dpo_driver.envs.gauntlet.puzzles.base import SKINS

STEPS = 30
ORDERS = ("band", "mixed")
MAX_STEPS = 500

# How hard a type is for a beginner: a "band" order goes through them from left to right.
BANDS: tuple[tuple[str, ...], ...] = (
    ("visible-text", "click-reveal", "delayed-reveal", "form-fill", "click-sequence", "math", "radio-force",
     "scroll-find"),
    ("hidden-text", "hover-reveal", "key-sequence", "encoded", "calculated-code", "slider", "split-parts", "multi-step",
     "storage", "animated-button", "conditional", "mutation"),
    ("memory", "drag-drop", "encrypted", "timing", "rotating-code", "shadow-dom", "frames", "multi-tab", "websocket",
     "service-worker", "computed-style", "draw", "audio", "video"),
)  # fmt: skip

# Distractors by difficulty: (how few, how many, out of which). Kinds are explained in distractors.py.
_EASY = ("cookies", "filler", "newsletter")
_MIDDLE = (*_EASY, "prize", "traps", "decoys", "modal")
DISTRACTORS: dict[int, tuple[int, int, tuple[str, ...]]] = {
    1: (0, 1, _EASY),
    2: (1, 3, _MIDDLE),
    3: (3, 5, _MIDDLE),
}


@dataclass(frozen=True)
class Step:
    """One step of a plan."""

    type: str
    distractors: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """``Plan.of(7, difficulty=2).step(1).type``."""

    seed: int
    steps: tuple[Step, ...]
    order: str
    difficulty: int
    skin: str

    @classmethod
    def of(
        cls,
        seed: int,
        *,
        steps: int = STEPS,
        order: str = "band",
        difficulty: int = 1,
        skin: str = "a",
        types: Sequence[str] | None = None,
        held_out: bool = False,
    ) -> Plan:
        """Types as evenly as possible; those that are held out only if asked for by name or with ``held_out``.

        Raises:
            ConfigError: an order, difficulty, skin, type or number of steps that does not exist.
        """
        for kind, given, known in (("order", order, ORDERS), ("skin", skin, SKINS)):
            if given not in known:
                raise UnknownNameError(kind, str(given), known)
        if difficulty not in DISTRACTORS or not 1 <= steps <= MAX_STEPS:
            raise ConfigError(f"there is no plan of {steps} steps at difficulty {difficulty}",
                              remedy=f"difficulty is 1, 2 or 3; steps are 1 to {MAX_STEPS}")  # fmt: skip
        chosen = list(types) if types else [name for name in TYPES if held_out or name not in HELD_OUT]
        for name in chosen:
            if name not in TYPES:
                raise UnknownNameError("type of puzzle", name, TYPES)
        rng = random.Random(f"gauntlet/{seed}/plan")
        named = _evenly(chosen, steps, rng)
        if order == "band":
            named.sort(key=_band)  # stable: within a band the order stays as it was drawn
        few, many, kinds = DISTRACTORS[difficulty]
        drawn = [tuple(sorted(rng.sample(kinds, rng.randint(few, many)))) for _ in named]
        return cls(seed, tuple(map(Step, named, drawn)), order, difficulty, skin)

    @property
    def count(self) -> int:
        return len(self.steps)

    def step(self, number: int) -> Step:
        """The first is 1."""
        return self.steps[number - 1]

    def rng(self, step: int, purpose: str) -> random.Random:
        """A generator for one purpose on one step, the same for the same seed, step and type."""
        name = self.step(step).type if step else ""
        return random.Random(f"gauntlet/{self.seed}/{step}/{name}/{purpose}")


def _evenly(names: Sequence[str], count: int, rng: random.Random) -> list[str]:
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += rng.sample(list(names), min(len(names), count - len(drawn)))
    rng.shuffle(drawn)
    return drawn


def _band(name: str) -> int:
    return next((number for number, band in enumerate(BANDS) if name in band), len(BANDS))
