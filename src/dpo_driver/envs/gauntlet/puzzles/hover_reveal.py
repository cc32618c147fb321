"""Hover to reveal: the pointer has to rest on the right thing for a moment.

Evidence: trusted pointer events on the thing, and none elsewhere on the floor around it until the time has passed by
the server's clock. Whoever uses the keyboard rests on it with the focus: the keyup of Tab arrives there. At
difficulty 3 two things, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.wordlists import THINGS, some

TITLE: Phrases = (
    ("Hold still", "A patient pointer", "Rest here", "Warm it up", "Hover and wait"),
    ("A quiet moment", "Linger", "Where the pointer sleeps", "Do not move"),
)
TEXT_ONE: Phrases = (
    (
        'Rest the pointer on "{first}" for {time} s. No click is needed.',
        'Hover over "{first}" and hold still for {time} seconds.',
        'Move the pointer onto "{first}" and leave it there for {time} s.',
        'Only "{first}" reacts to a pointer that stays: keep it there for {time} seconds.',
    ),
    (
        'Let the pointer linger on "{first}" for {time} s; a touch will not do.',
        'Bring the pointer to "{first}" and let it sleep there, {time} seconds long.',
        'Hover where "{first}" is, and do not stir for {time} s.',
    ),
)
TEXT_TWO: Phrases = (
    (
        'Rest the pointer on "{first}" for {time} s, then as long on "{second}".',
        'Hover over "{first}" for {time} seconds, and after that over "{second}".',
        'Hold the pointer still on "{first}", then on "{second}", for {time} s each.',
        'First "{first}", then "{second}": keep the pointer on each for {time} seconds.',
    ),
    (
        'Let the pointer linger on "{first}", and next on "{second}", {time} s on each.',
        'Hover where "{first}" is for {time} s, then where "{second}" is, just as long.',
        'The pointer must sleep {time} seconds on "{first}" and then on "{second}".',
    ),
)
WARM: Phrases = (
    ("It gets warm ...", "Something glows. Stay.", "Hold on ...", "Do not move now."),
    ("A faint hum. Linger.", "It stirs ...", "Hush. Wait."),
)
COLD: Phrases = (
    ("Cold as stone.", "Nothing here.", "Not this one.", "This one keeps quiet."),
    ("Only dust.", "It sleeps on.", "No answer."),
)
HALF: Phrases = (
    ("Good. Now the other one.", "Half done. On to the second.", "The first is done."),
    ("One is awake. Go to the other.", "Well lingered. The next one now.", "The first has stirred."),
)
COUNTS = (3, 5, 8)
TIMES = (0.6, 0.8, 1.0)
NEAR = frozenset({"pointermove", "pointerdown", "pointerup", "click", "keydown", "keyup"})  # what tells where one is


class HoverReveal(Puzzle):
    """Solved by staying; leaving too early starts the moment again."""

    name: ClassVar[str] = "hover-reveal"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        count, self._time = COUNTS[setup.difficulty - 1], TIMES[setup.difficulty - 1]
        labels = some(setup, THINGS, count)
        wanted = labels[: 2 if setup.difficulty == 3 else 1]
        phrases = TEXT_TWO if len(wanted) == 2 else TEXT_ONE
        self._title = setup.say(TITLE)
        self._text = setup.say(phrases, first=wanted[0], second=wanted[-1], time=f"{self._time:.1f}")
        setup.rng.shuffle(labels)
        self._labels = labels
        self._wanted = [f"thing/{labels.index(label)}" for label in wanted]
        self._warm, self._cold, self._half = setup.say(WARM), setup.say(COLD), setup.say(HALF)
        self._columns = setup.rng.choice((1, 2, 3))
        self._done = 0
        self._over, self._since = "", 0.0

    @property
    def parts(self) -> Sequence[str]:
        return ["floor", *(f"thing/{i}" for i in range(len(self._labels)))]

    def view(self) -> dict[str, Json]:
        self._pass(self.setup.clock())
        return {
            "title": self._title,
            "text": self._text,
            "floor": self.setup.part("floor"),
            "columns": self._columns,
            "things": [
                {**self.setup.control(f"thing/{i}", label), "warm": self._rests and self._over == f"thing/{i}"}
                for i, label in enumerate(self._labels)
            ],
            "note": self._note(),
            "reveal": self.revealed(),
        }

    @property
    def _rests(self) -> bool:
        """Whether the pointer is where it should be."""
        return not self.solved and self._over == self._wanted[self._done]

    def _note(self) -> str | None:
        if self.solved:
            return None
        if self._rests:
            return self._warm
        if self._over.startswith("thing/") and self._over not in self._wanted[: self._done]:
            return self._cold
        return self._half if self._done else None

    def on(self, event: Event) -> None:
        self._pass(event.at)
        if event.kind in NEAR and event.part != self._over:
            self._over, self._since = event.part, event.at

    def wakes(self) -> float | None:
        return self._since + self._time if self._rests else None

    def _pass(self, now: float) -> None:
        """What the time that has passed has brought."""
        if self._rests and now >= self._since + self._time:
            self._done += 1
            if self._done == len(self._wanted):
                self.solve()
