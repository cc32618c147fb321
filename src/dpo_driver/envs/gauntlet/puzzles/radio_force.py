"""Radio force: one of several choices is right, and nothing tells which. Choose, check, and choose again.

Evidence: a trusted click (or key) that chooses the right one, then a trusted click on the check button. What was tried
is struck out, so nobody has to keep a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.wordlists import THINGS, some

TITLE: Phrases = (
    ("Lucky dip", "Trial and error", "One of these", "Take a guess", "No hint at all"),
    ("The oracle is silent", "Blind choice", "Which of them?", "Fortune's wheel"),
)
TEXT: Phrases = (
    (
        "One of these choices is right, and there is no hint. Choose one and check it, until you have found it.",
        "Guess! Select an option and check it; if it is wrong, try the next.",
        "Just one option is correct. Nobody knows which, so try them one by one.",
        "Here only patience helps: pick one, have it checked, and pick another if need be.",
        "The right choice was drawn at random. Try one option after another.",
    ),
    (
        "One of these pleases the oracle; it does not say which. Choose, ask, and choose anew.",
        "Choose blindly and ask. If fortune frowns, make another choice.",
        "No sign points to the right one. Try each in turn and ask.",
        "Among them is one that fortune favours. Try your luck as often as it takes.",
    ),
)
LEGEND: Phrases = (
    ("Your choice", "Options", "Choose one", "Which one is it?"),
    ("The lots", "What will it be?", "Draw one", "Make a choice"),
)
CHECK: Phrases = (
    ("Check", "Check choice", "Test this one", "Is it right?", "Try it"),
    ("Ask", "Ask the oracle", "Put it to the test", "Tempt fortune"),
)
WRONG: Phrases = (
    ('"{label}" is wrong. Try another.', 'Not "{label}".', 'It is not "{label}"; choose again.'),
    ('Fortune frowns at "{label}".', '"{label}" does not please.', 'Alas, not "{label}".'),
)
NONE: Phrases = (
    ("Choose an option first.", "Nothing is selected yet.", "Select something before checking."),
    ("You have not chosen.", "First draw a lot.", "Silence: nothing was chosen."),
)
COUNTS = (4, 6, 9)


class RadioForce(Puzzle):
    """Solved by checking the right choice."""

    name: ClassVar[str] = "radio-force"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        count = COUNTS[setup.difficulty - 1]
        self._title, self._text, self._legend = setup.say(TITLE), setup.say(TEXT), setup.say(LEGEND)
        self._labels = some(setup, THINGS, count)
        self._right = setup.rng.randrange(count)
        self._check_label, self._none = setup.say(CHECK), setup.say(NONE)
        self._notes = [setup.say(WRONG, label=label) for label in self._labels]
        self._columns = setup.rng.choice((1, 2, 3))
        self._chosen: int | None = None
        self._tried: set[int] = set()
        self._note: str | None = None

    @property
    def parts(self) -> Sequence[str]:
        return [*(f"option/{i}" for i in range(len(self._labels))), "check"]

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "legend": self._legend,
            "columns": self._columns,
            "options": [
                {**self.setup.control(f"option/{i}", label), "on": i == self._chosen, "tried": i in self._tried}
                for i, label in enumerate(self._labels)
            ],
            "check": self.setup.control("check", self._check_label),
            "note": self._note,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if event.kind != "click" or self.solved:
            return
        if event.part.startswith("option/"):
            option = int(event.part.partition("/")[2])
            if option not in self._tried:
                self._chosen, self._note = option, None
        elif event.part == "check":
            self._check()

    def _check(self) -> None:
        if self._chosen is None:
            self._note = self._none
        elif self._chosen == self._right:
            self._note = None
            self.solve()
        else:
            self.mistakes += 1
            self._note = self._notes[self._chosen]
            self._tried.add(self._chosen)
            self._chosen = None
