"""Calculated code: the code stands there scrambled, with rules that turn it into the real one, one after another.

A type whose task is to read and to work out: there is nothing to press, and nothing else that looks like a code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import ALPHABET, SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("Scrambled", "A recipe for a code", "Work out the code", "By the rules"),
    ("Riddle of signs", "The shuffled key", "Unravel it"),
)
TEXT: Phrases = (
    (
        "Apply the rules in order to get the code.",
        "These rules, one after another, give the code.",
        "Do what is listed below; the code comes out.",
        "The code is what the rules make of this row.",
    ),
    (
        "Obey each rule in turn and obtain the key.",
        "The key appears once all rules are carried out.",
        "Rework the row, rule by rule, into the key.",
    ),
)
GIVEN: Phrases = (("Given", "The row", "Start from", "Characters"), ("Material", "Raw row", "What you have"))
LIST: Phrases = (
    ("Alphabet (and again)", "List, in a circle", "Alphabet, round and round", "List (it goes round)"),
    ("Wheel of signs", "Ring of signs", "Circle of signs"),
)
REVERSE: Phrases = (
    (
        "Read it backwards.",
        "Reverse the order.",
        "Write it from right to left.",
        "Turn the row around: last comes first.",
    ),
    ("Mirror the row.", "Go through it from the end to the start.", "Flip the order of all signs."),
)
HALVES: Phrases = (
    ("Swap the two halves.", "Exchange its halves.", "Put the second half in front.", "Let both halves trade places."),
    ("The halves change seats.", "Move the back half to the front.", "The latter half goes before the former half."),
)
PAIRS: Phrases = (
    (
        "Cut it into pairs and swap within each pair.",
        "In every pair, swap the two.",
        "Exchange neighbours, pair by pair.",
        "Trade places within each pair.",
    ),
    ("In each pair the two change seats.", "Turn every pair round by itself.", "Pair by pair, flip the two signs."),
)
ROTATE: Phrases = (
    (
        "Move the first {k} to the end.",
        "Take the first {k} off and put them last.",
        "The first {k} go behind the rest.",
        "Put the {k} leading ones at the end.",
    ),
    (
        "Carry the {k} foremost signs to the back.",
        "The opening {k} follow after the others.",
        "Let the first {k} be the last ones.",
    ),
)
LATER: Phrases = (
    (
        "Replace each by the one {k} later in the list.",
        "Move every one {k} forward in the list.",
        "Go {k} further in the list for each.",
        "Shift each by {k} to the right in the list.",
    ),
    (
        "Advance every sign by {k} on the circle.",
        "For each take the sign {k} later on the circle.",
        "Each sign steps {k} forward on the circle.",
    ),
)
EARLIER: Phrases = (
    (
        "Replace each by the one {k} earlier in the list.",
        "Move every one {k} back in the list.",
        "Go {k} backward in the list for each.",
        "Shift each by {k} to the left in the list.",
    ),
    (
        "Withdraw every sign by {k} on the circle.",
        "For each take the sign {k} earlier on the circle.",
        "Each sign steps {k} back on the circle.",
    ),
)
PICK: Phrases = (
    (
        "Take those at positions {list}.",
        "Keep numbers {list}, in this order.",
        "Pick positions {list}.",
        "Choose places {list} of the row.",
    ),
    ("Gather the signs at places {list}.", "Collect numbers {list} of the row.", "Only places {list}, in that order."),
)

Turn = Callable[[str], str]


def moved(text: str, by: int) -> str:
    """Each character replaced by the one ``by`` places later in the alphabet, which is a circle."""
    return "".join(ALPHABET[(ALPHABET.index(letter) + by) % len(ALPHABET)] for letter in text)


def _halves(text: str) -> str:
    middle = len(text) // 2
    return text[middle:] + text[:middle]


def _pairs(text: str) -> str:
    return "".join(text[i + 1] + text[i] for i in range(0, len(text), 2))


class CalculatedCode(Puzzle):
    """Never solved by anything but entering the code. Each rule is written down with its inverse applied."""

    name: ClassVar[str] = "calculated-code"
    reads: ClassVar[bool] = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._title, self._text = setup.say(TITLE), setup.say(TEXT)
        self._given_label, self._list_label = setup.say(GIVEN), setup.say(LIST)
        makers = [self._reverse, self._swap_halves, self._swap_pairs, self._rotate]
        chosen = setup.rng.sample(makers, 1 if setup.difficulty < 3 else 2)
        if setup.difficulty > 1:
            chosen.insert(setup.rng.randint(0, len(chosen)), self._shift)
        self._shifts = setup.difficulty > 1
        row = setup.code
        rules: list[str] = []
        for maker in reversed(chosen):  # from the code back to what is given
            rule, undo = maker()
            rules.insert(0, rule)
            row = undo(row)
        if setup.difficulty == 3:
            rule, row = self._hide(row)
            rules.insert(0, rule)
        self._row, self._rules = " ".join(row), rules

    def _reverse(self) -> tuple[str, Turn]:
        return self.setup.say(REVERSE), lambda text: text[::-1]

    def _swap_halves(self) -> tuple[str, Turn]:
        return self.setup.say(HALVES), _halves

    def _swap_pairs(self) -> tuple[str, Turn]:
        return self.setup.say(PAIRS), _pairs

    def _rotate(self) -> tuple[str, Turn]:
        by = self.setup.rng.choice((2, 4))
        return self.setup.say(ROTATE, k=by), lambda text: text[-by:] + text[:-by]

    def _shift(self) -> tuple[str, Turn]:
        """Small at difficulty 2."""
        by = self.setup.rng.randint(2, 3 if self.setup.difficulty == 2 else 5)
        if self.setup.rng.random() < 0.5:
            return self.setup.say(LATER, k=by), lambda text: moved(text, -by)
        return self.setup.say(EARLIER, k=by), lambda text: moved(text, by)

    def _hide(self, row: str) -> tuple[str, str]:
        """The characters among others, and where to find them."""
        rng = self.setup.rng
        longer = [rng.choice(ALPHABET) for _ in range(len(row) + 3)]
        places = rng.sample(range(len(longer)), len(row))
        for place, letter in zip(places, row, strict=True):
            longer[place] = letter
        return self.setup.say(PICK, list=", ".join(str(place + 1) for place in places)), "".join(longer)

    @property
    def parts(self) -> Sequence[str]:
        return []

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "given": f"{self._given_label}: {self._row}",
            "list": f"{self._list_label}: {ALPHABET}" if self._shifts else None,
            "rules": self._rules,
            "flip": SKINS.index(self.setup.skin) == 1,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        """There is nothing to do on the page."""
