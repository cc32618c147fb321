"""Delayed reveal: a button starts something that takes a few seconds by the server's clock; then the code is there.

Patience is the task: whatever else is pressed meanwhile makes it start over or stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("Patience", "It takes a while", "Slow but sure", "Wait for it"),
    ("In due time", "The slow brew", "Nothing is rushed"),
)
TEXT: Phrases = (
    (
        'Press "{label}", then wait {n} seconds.',
        'After "{label}" it takes {n} seconds. Be patient.',
        '"{label}" sets it going; it is done {n} seconds later.',
        'Start with "{label}" and do nothing for {n} seconds.',
    ),
    (
        'Once "{label}" is pressed, {n} seconds must pass.',
        'Hit "{label}" and let {n} seconds go by.',
        'The work behind "{label}" lasts {n} seconds: stay calm.',
    ),
)
WARNING: Phrases = (
    (
        "Press nothing else meanwhile.",
        "Any other button stops it.",
        "Hands off the rest until then.",
        "Do not disturb it.",
    ),
    ("Leave all else alone.", "Whoever fiddles begins anew.", "Other buttons break it off."),
)
LABELS: Phrases = (
    ("Start", "Begin", "Heat up", "Develop", "Launch", "Warm up", "Print it", "Unlock slowly", "Count down", "Charge"),
    ("Brew", "Set off", "Wind up", "Bake", "Ripen", "Get going", "Grow", "Melt", "Thaw"),
)
OTHERS: Phrases = (
    ("Cancel", "Hurry", "Faster", "Skip", "Refresh", "Stop", "Reload", "Shortcut", "Ask again", "Poke"),
    ("Break off", "Speed up", "Shake", "Jump ahead", "Peek", "Push", "Nudge", "Stir"),
)
LEFT: Phrases = (
    ("{n} s to go", "Still {n} s", "Ready in {n} s", "{n} s remain"),
    ("{n} s more", "Another {n} s", "Done in {n} s"),
)
BROKEN: Phrases = (
    ("It was stopped. Start once more.", "Interrupted: back to the beginning.", "That stopped it.", "It is off again."),
    ("Spoilt. Begin anew.", "It broke off.", "All for nothing: once more."),
)
SECONDS = {1: (2,), 2: (2, 3), 3: (4, 5)}  # by difficulty


class DelayedReveal(Puzzle):
    """Solved when the time since the trusted click on the right button has passed undisturbed."""

    name: ClassVar[str] = "delayed-reveal"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._label = setup.say(LABELS)
        self._seconds = setup.rng.choice(SECONDS[setup.difficulty])
        self._title, self._text = setup.say(TITLE), setup.say(TEXT, label=self._label, n=self._seconds)
        others = setup.rng.sample(list(OTHERS[SKINS.index(setup.skin)]), setup.difficulty - 1)
        self._lines = [setup.say(WARNING)] if others else []
        self._buttons = [("start", self._label), *((f"other/{i}", label) for i, label in enumerate(others))]
        setup.rng.shuffle(self._buttons)
        self._left, self._broken = setup.rng.choice(LEFT[SKINS.index(setup.skin)]), setup.say(BROKEN)
        self._since: float | None = None
        self._note: str | None = None

    @property
    def parts(self) -> Sequence[str]:
        return [name for name, _ in self._buttons]

    def _remaining(self) -> float:
        """Seconds to go; what is over is solved."""
        if self._since is None:
            return math.inf
        left = self._since + self._seconds - self.setup.clock()
        if left <= 0 and not self.solved:
            self.solve()
        return left

    def view(self) -> dict[str, Json]:
        left = self._remaining()
        running = not self.solved and self._since is not None
        note = self._left.format(n=max(1, math.ceil(left - 1e-6))) if running else self._note
        return {
            "title": self._title,
            "text": self._text,
            "lines": self._lines,
            "buttons": [self.setup.control(name, label) for name, label in self._buttons],
            "note": None if self.solved else note,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        self._remaining()
        if self.solved or event.kind != "click":
            return
        if event.part == "start":
            self._since, self._note = event.at, None
        elif event.part.startswith("other/") and self._since is not None:
            self.mistakes += 1
            self._since, self._note = None, self._broken

    def wakes(self) -> float | None:
        left = self._remaining()
        if self.solved or self._since is None:
            return None
        return self._since + self._seconds - max(0, math.ceil(left - 1e-6) - 1)
