"""Split parts: numbered pieces of the code lie in tabs, folds and notes; one of a kind is open at a time. Held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.pieces import Teller, split
from dpo_driver.envs.gauntlet.puzzles.wordlists import THINGS, some

KINDS = ("tabs", "folds", "notes")  # notes open while the pointer is on them, or on a click

TITLE: Phrases = (
    ("A code in parts", "Tabs, folds and notes", "Piece it together", "Scattered parts"),
    ("Torn to fragments", "Here and there", "A mosaic"),
)
TEXT: Phrases = (
    (
        "The code is split into {n} numbered parts. Look into everything that opens here and join the parts in order.",
        "{n} parts of the code are tucked away below, one behind a label. Find all and put them together by number.",
        "Open what can be opened: {n} of these places hold a part of the code. Their numbers give the order.",
        "Collect the {n} parts of the code from the places below; of each kind one is open at a time, so note "
        "what you see.",
    ),
    (
        "{n} fragments of the key are hidden in what can be opened here. Gather them and line them up by number.",
        "Behind these labels lie {n} fragments; each tells its number. Together they are the key.",
        "Turn everything over: the key lies about in {n} fragments, numbered, and some places are empty.",
    ),
)
HEADINGS: dict[str, Phrases] = {
    "tabs": (("Cards", "Tabs", "Registers"), ("Dividers", "Leaves")),
    "folds": (("Folds", "Drawers", "Sections"), ("Lids", "Shutters")),
    "notes": (("Notes", "Hints: point at them or press them", "Margin notes"), ("Whispers: point or press", "Flags")),
}
NOTHING: Phrases = (
    ("Nothing here.", "This one is empty.", "No part of the code in here.", "Only dust."),
    ("Bare.", "No fragment here.", "Someone was here before."),
)
# by difficulty: pieces, kinds, places of each kind
LAYOUT = {1: (2, 1, 3), 2: (3, 2, 3), 3: (6, 3, 3)}


@dataclass(frozen=True)
class Place:
    """Something that opens: name of its part, label, what it holds, the number of the piece or 0."""

    name: str
    label: str
    holds: str
    piece: int


class SplitParts(Puzzle):
    """Trusted input opens one place of a kind at a time. Solved when each piece was open; joining is left to do."""

    name: ClassVar[str] = "split-parts"
    held_out: ClassVar[bool] = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        pieces, kinds, each = LAYOUT[setup.difficulty]
        teller = Teller.drawn(setup)
        told = [(teller.tell(i, pieces, piece), i) for i, piece in enumerate(split(setup.code, pieces), start=1)]
        told += [(setup.say(NOTHING), 0) for _ in range(kinds * each - pieces)]
        setup.rng.shuffle(told)
        labels = [thing.capitalize() for thing in some(setup, THINGS, len(told))]
        self._kinds = setup.rng.sample(list(KINDS), kinds)
        self._headings = [setup.say(HEADINGS[kind]) for kind in self._kinds]
        self._places: list[list[Place]] = []
        for group in range(kinds):
            first = group * each
            names = [f"{self._kinds[group]}/{i}" for i in range(each)]
            self._places.append([Place(name, labels[first + i], *told[first + i]) for i, name in enumerate(names)])
        self._title, self._text = setup.say(TITLE), setup.say(TEXT, n=pieces)
        self._count = pieces
        self._open = dict.fromkeys(self._kinds, "")  # kind -> name of the place that is open
        self._seen: set[int] = set()

    @property
    def parts(self) -> Sequence[str]:
        return [place.name for group in self._places for place in group]

    def view(self) -> dict[str, Json]:
        groups = []
        for kind, heading, places in zip(self._kinds, self._headings, self._places, strict=True):
            items = [
                {
                    **self.setup.control(place.name, place.label),
                    "holds": place.holds if place.name == self._open[kind] else None,
                }
                for place in places
            ]
            groups.append({"kind": kind, "heading": heading, "items": items})
        return {"title": self._title, "text": self._text, "groups": groups, "reveal": None}

    def on(self, event: Event) -> None:
        place = next((place for group in self._places for place in group if place.name == event.part), None)
        if place is None:
            return
        kind = place.name.partition("/")[0]
        if event.kind != "click" and not (event.kind == "pointermove" and kind == "notes"):
            return
        closes = kind == "folds" and self._open[kind] == place.name
        self._open[kind] = "" if closes else place.name
        if not closes and place.piece:
            self._seen.add(place.piece)
        if len(self._seen) == self._count:
            self.solve()
