"""A puzzle of the gauntlet under a clock that the test turns, fed with events by hand. Used by tests of the puzzles."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from dpo_driver.envs.gauntlet.puzzles import load_puzzle
from dpo_driver.envs.gauntlet.puzzles.base import Event, Puzzle, Setup

CODE = "K7QM2P"
ALL = [(difficulty, skin) for difficulty in (1, 2, 3) for skin in ("a", "b")]


class Game:
    """A puzzle and its clock; events happen now."""

    def __init__(self, name: str, seed: int = 0, difficulty: int = 2, skin: str = "a") -> None:
        self.now = 100.0
        rng = random.Random(seed)
        self.setup = Setup(rng, CODE, difficulty, skin, clock=lambda: self.now, secret=b"of the test")
        self.puzzle: Puzzle = load_puzzle(name)(self.setup)

    @property
    def view(self) -> dict[str, Any]:
        return self.puzzle.view()

    @property
    def solved(self) -> bool:
        """By the view, which has to agree with the state."""
        assert (self.view["reveal"] is not None) == self.puzzle.solved
        return self.puzzle.solved

    def name(self, token: str) -> str:
        """The puzzle's own name of a part that the view shows."""
        return next(name for name in self.puzzle.parts if self.setup.part(name) == token)

    def on(self, kind: str, part: str = "", **more: Any) -> None:
        self.puzzle.on(Event(kind, part, at=self.now, **more))

    def click(self, part: str, **more: Any) -> None:
        self.on("pointerdown", part)
        self.on("pointerup", part, source=part)
        self.on("click", part, **more)

    def wake(self) -> None:
        """Turn the clock to where the view changes by itself."""
        at = self.puzzle.wakes()
        assert at is not None and at > self.now
        self.now = at


def games(name: str, seeds: int = 12) -> Iterator[Game]:
    for difficulty, skin in ALL:
        for seed in range(seeds):
            yield Game(name, seed, difficulty, skin)
