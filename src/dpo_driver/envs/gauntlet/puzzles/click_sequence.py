"""Click sequence: tiles to be clicked in the order asked; a wrong one starts it again.

The order is given outright, or as a rule: numbers up or down, the alphabet, the calendar, even or odd numbers only.
Evidence: trusted clicks on the tiles, in that order and without another between them.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.wordlists import THINGS, some

TITLE: Phrases = (
    ("One after the other", "In the right order", "Tile by tile", "First things first", "Row of tiles"),
    ("A matter of sequence", "Stepping stones", "In due turn", "The order of things"),
)
GIVEN: Phrases = (
    (
        "Click the tiles in this order: {order}.",
        "Press the tiles one after the other: {order}.",
        "The right order is {order}. Click the tiles accordingly.",
        "Order matters. Click {order}.",
    ),
    (
        "Step on the stones in this sequence: {order}.",
        "Touch each in turn: {order}.",
        "The sequence runs {order}. Press the stones so.",
    ),
)
RISING: Phrases = (
    (
        "Click the numbers in ascending order.",
        "Click all tiles from the smallest number to the largest.",
        "Press the tiles in order, the lowest number first.",
        "Put the tiles in order by clicking: small numbers before large ones.",
    ),
    (
        "Press the stones in rising sequence.",
        "Touch every number in turn, the least one first.",
        "Press in sequence, please: from low to high.",
    ),
)
FALLING: Phrases = (
    (
        "Click the numbers in descending order.",
        "Click all tiles from the largest number to the smallest.",
        "Press the tiles in order, the highest number first.",
        "Put the tiles in order by clicking: large numbers before small ones.",
    ),
    (
        "Press the stones in falling sequence.",
        "Touch every number in turn, the greatest one first.",
        "Press in sequence, please: from high to low.",
    ),
)
SIFTED: Phrases = (
    (
        "Click only the {kind} numbers, in ascending order.",
        "Of these tiles only the {kind} numbers count. Click them from the smallest to the largest.",
        "Leave out all numbers that are not {kind}; press the others in order, the lowest first.",
        "Click the {kind} numbers in order, small ones before large ones. Do not touch the rest.",
    ),
    (
        "Press the {kind} stones alone, in rising sequence.",
        "Only {kind} numbers bear your weight. Touch them in turn, the least one first.",
        "Press in sequence, from low to high, and {kind} ones only.",
    ),
)
ALPHABET: Phrases = (
    (
        "Click the letters in alphabetical order.",
        "Press all tiles in the order of the alphabet.",
        "Order the letters as in the alphabet by clicking them one by one.",
        "Click the letters from A towards Z.",
    ),
    (
        "Touch the letters in turn, as the alphabet has them.",
        "Press the stones in alphabetical sequence.",
        "Press in sequence, as in the alphabet, please.",
    ),
)
BACKWARDS: Phrases = (
    (
        "Click the letters in reverse alphabetical order.",
        "Press all tiles in the order of the alphabet, but backwards.",
        "Click the letters against the order of the alphabet, the last letter first.",
        "Click the letters from Z towards A.",
    ),
    (
        "Touch the letters in turn, the alphabet read backwards.",
        "Press the stones in reversed alphabetical sequence.",
        "Press in sequence, as in the alphabet but the other way round, last letter first.",
    ),
)
CALENDAR: Phrases = (
    (
        "Click the tiles in the order of the calendar, beginning with {first}.",
        "Press the tiles in the order in which they come in the calendar. {first} is the first.",
        "In what order do these come after {first}? Begin with {first} and click them all.",
        "Start with {first} and click the others in the order in which they follow it.",
    ),
    (
        "As time passes, so press: {first} first, and the rest in sequence.",
        "Touch them in the sequence of the calendar. {first} comes first.",
        "From {first} on, press them in turn, as the calendar has them.",
    ),
)
WRONG: Phrases = (
    ("Wrong tile. Start again from the first.", "That breaks the order: back to the beginning.", "No. Begin again."),
    ("A false step. From the first stone again.", "Out of turn. Start over.", "The sequence is broken; begin anew."),
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
KINDS = {
    1: ("given", "rising", "alphabet"),
    2: ("given", "rising", "falling", "alphabet", "backwards", "calendar"),
    3: ("given", "falling", "sifted", "backwards", "calendar"),
}
COUNTS = (3, 5, 7)
NUMBERS = (range(1, 10), range(1, 60), range(-40, 100))  # by difficulty
RULES = {
    "rising": RISING,
    "falling": FALLING,
    "alphabet": ALPHABET,
    "backwards": BACKWARDS,
}


class ClickSequence(Puzzle):
    """Solved by the whole order without a mistake in it."""

    name: ClassVar[str] = "click-sequence"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, self._count = setup.rng, COUNTS[setup.difficulty - 1]
        self._title = setup.say(TITLE)
        kind = rng.choice(KINDS[setup.difficulty])
        self._text, order, others = self._drawn(kind)
        labels = [*order, *others]
        while labels == [*order, *others]:  # the tiles never lie in the right order already
            rng.shuffle(labels)
        self._labels = labels
        self._order = [labels.index(label) for label in order]
        self._columns = rng.choice((2, 3, 4))
        self._note = setup.say(WRONG)
        self._done = 0
        self._failed = False

    def _drawn(self, kind: str) -> tuple[str, list[str], list[str]]:
        """Instruction, labels in the right order, and labels of tiles to be left alone."""
        setup, rng, count = self.setup, self.setup.rng, self._count
        if kind == "given":
            words = some(setup, THINGS, count + 2 * (setup.difficulty - 1))
            return setup.say(GIVEN, order=", ".join(words[:count])), words[:count], words[count:]
        if kind == "calendar":
            return self._calendar()
        if kind in ("alphabet", "backwards"):
            signs = sorted(rng.sample(string.ascii_uppercase, count))
            return setup.say(RULES[kind]), signs if kind == "alphabet" else signs[::-1], []
        numbers = NUMBERS[setup.difficulty - 1]
        if kind == "sifted":
            even = rng.random() < 0.5
            picked = sorted(rng.sample([n for n in numbers if n % 2 == (not even)], count - 2))
            others = rng.sample([n for n in numbers if n % 2 == even], 3)
            text = setup.say(SIFTED, kind="even" if even else "odd")
            return text, [str(n) for n in picked], [str(n) for n in others]
        picked = sorted(rng.sample(numbers, count), reverse=kind == "falling")
        return setup.say(RULES[kind]), [str(n) for n in picked], []

    def _calendar(self) -> tuple[str, list[str], list[str]]:
        setup, rng = self.setup, self.setup.rng
        names = list(DAYS if self._count < len(DAYS) and rng.random() < 0.5 else MONTHS)
        begin = rng.randrange(len(names))
        round_ = names[begin:] + names[:begin]
        order = [round_[0], *(round_[i] for i in sorted(rng.sample(range(1, len(names)), self._count - 1)))]
        return setup.say(CALENDAR, first=order[0]), order, []

    @property
    def parts(self) -> Sequence[str]:
        return [f"tile/{i}" for i in range(len(self._labels))]

    def view(self) -> dict[str, Json]:
        pressed = set(self._order[: self._done])
        return {
            "title": self._title,
            "text": self._text,
            "columns": self._columns,
            "tiles": [
                {**self.setup.control(f"tile/{i}", label), "on": i in pressed} for i, label in enumerate(self._labels)
            ],
            "note": self._note if self._failed else None,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if event.kind != "click" or self.solved or not event.part.startswith("tile/"):
            return
        tile = int(event.part.partition("/")[2])
        self._failed = tile != self._order[self._done]
        if self._failed:
            self.mistakes += 1
            self._done = 0
            return
        self._done += 1
        if self._done == len(self._order):
            self.solve()
