"""Frames: pages inside pages inside pages; the button in the frame that is named, and no other of its like, counts.

Each frame is a document of its own, served as an asset; the sealed script listens inside of it as it does on the page.
Difficulty 1 has two frames, one in the other; 2 has three, each with a button of the same label; 3 has four deep with a
side frame at every level, and two innermost ones to be pressed in the order given. Used by envs/gauntlet/visit.py.
Imports the base only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Asset, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("A page in a page", "Frames within frames", "The house of rooms", "Door behind door"),
    ("Windows into windows", "Panes", "Looking further in"),
)
ONE: Phrases = (
    (
        'The frames lie inside each other: {path}. Press "{label}" in the frame {last}.',
        'Go through the frames {path}. In {last}, press "{label}".',
        'A frame holds a frame: {path}. Only "{label}" in {last} counts.',
        'From frame to frame, {path}: the button "{label}" to press is the one in {last}.',
    ),
    (
        "Each pane shows another pane: {path}. Choose “{label}” in the pane {last}.",
        "Look on through the panes {path}; there, in {last}, choose “{label}”.",
        "Pane behind pane, {path}. What you want is “{label}” in {last}.",
    ),
)
TWO: Phrases = (
    (
        'Frames lie in frames. Press "{label}" first in {last}, then in {then}.',
        'Of all frames here, two matter: press "{label}" in {last} and after that in {then}.',
        'Find the frames {last} and {then}, and press "{label}" in the one and then in the other.',
        'Somewhere among the frames are {last} and {then}. Press "{label}" in both, in this order.',
    ),
    (
        "Panes in panes. Choose “{label}” in {last} to begin with, and in {then} afterwards.",
        "Two panes count: choose “{label}” in {last}, followed by “{label}” in {then}.",
        "Among the panes, seek {last} and {then}; choose “{label}” in the former, then in the latter.",
    ),
)
LABELS: Phrases = (
    ("Open", "Unlock", "Ring the bell", "Knock", "Lift the latch", "Turn the handle"),
    ("Enter", "Draw the blind", "Tap the glass", "Slide aside", "Look in"),
)
ASIDE: Phrases = (
    ("A side room.", "Nothing much here.", "Dust and boxes.", "It smells of paint.", "An empty corner."),
    ("A blind spot.", "The view is poor.", "Cobwebs.", "The glass is dull."),
)
ON: Phrases = (
    ("It goes on inside.", "There is more within.", "One door further.", "Another frame follows."),
    ("Look further in.", "Beyond is another.", "The view goes on."),
)
WRONG: Phrases = (
    ("That was not the one.", "Wrong frame; begin again.", "Nothing opens there.", "No, another one."),
    ("The wrong pane.", "Not in this pane.", "Nothing behind that one."),
)
HALF: Phrases = (
    ("Good. Now the other one.", "One is done, one is left.", "Half way: on to the second.", "That was the first."),
    ("One down.", "And the next.", "The former is done."),
)
NAMES: Phrases = (
    tuple(
        "Library|Pantry|Cellar|Attic|Kitchen|Study|Parlour|Nursery|Workshop|Gallery|Hall|Larder|Chapel|Stable|"
        "Laundry|Salon|Vault|Veranda|Archive|Observatory|Conservatory|Boathouse".split("|")
    ),
    tuple(
        "Meadow|Orchard|Harbour|Glacier|Lagoon|Prairie|Canyon|Delta|Forest|Volcano|Oasis|Reef|Tundra|Island|"
        "Geyser|Marsh|Fjord|Plateau|Waterfall|Dunes".split("|")
    ),
)
TINTS = (
    ("#f3efe4", "#e7eef3", "#eef3e7", "#f3e7ec", "#ece7f3"),
    ("#fff7ed", "#ecfeff", "#f0fdf4", "#fdf4ff", "#fefce8"),
)
DEEP = {1: 2, 2: 3, 3: 4}
OWN, AROUND = 108, 18  # pixels: a frame's own lines, and what surrounds a frame in it


@dataclass
class Room:
    """One frame's document: its name, whether it has a button, and the frames in it."""

    name: str
    line: str
    button: bool
    inner: list[Room] = field(default_factory=list)

    @property
    def height(self) -> int:
        return OWN + sum(room.height + AROUND for room in self.inner)


class Frames(Puzzle):
    """Solved by a trusted click on the button of the innermost frame; at difficulty 3 of two frames in order."""

    name: ClassVar[str] = "frames"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, skin, hard = setup.rng, SKINS.index(setup.skin), setup.difficulty
        self._title, self._label = setup.say(TITLE), setup.say(LABELS)
        deep = DEEP[hard]
        names = rng.sample(list(NAMES[skin]), deep + (deep - 1 if hard == 3 else 0))
        self._tints = rng.sample(TINTS[skin], len(TINTS[skin]))
        self._chain = [Room(name, setup.say(ON), hard > 1) for name in names[:deep]]
        self._chain[-1].line, self._chain[-1].button = setup.say(ASIDE), True
        sides = [Room(name, setup.say(ASIDE), True) for name in names[deep:]]
        for level, room in enumerate(self._chain[:-1]):
            room.inner = [self._chain[level + 1], *sides[level : level + 1]]
            rng.shuffle(room.inner)
        self._rooms = [*self._chain, *sides]
        self._number = {room.name: index for index, room in enumerate(self._rooms)}
        self._targets = [self._chain[-1]]
        path = " > ".join(f'"{name}"' if skin == 0 else f"“{name}”" for name in names[:deep])
        quote = '"{}"' if skin == 0 else "“{}”"
        if hard == 3:
            self._targets = rng.sample([self._chain[-1], rng.choice(sides)], 2)
            last, then = (quote.format(room.name) for room in self._targets)
            self._text = setup.say(TWO, last=last, then=then, label=self._label)
        else:
            self._text = setup.say(ONE, path=path, last=quote.format(names[deep - 1]), label=self._label)
        self._wrong, self._half = setup.say(WRONG), setup.say(HALF)
        self._note = ""
        self._done = 0

    @property
    def parts(self) -> Sequence[str]:
        return [f"press/{index}" for index, room in enumerate(self._rooms) if room.button]

    def view(self) -> dict[str, Json]:
        outer = self._chain[0]
        return {
            "title": self._title,
            "text": self._text,
            "frame": {"src": self.setup.asset("frame-0"), "title": outer.name, "height": outer.height},
            "note": self._note,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if self.solved or event.kind != "click" or not event.part.startswith("press/"):
            return
        pressed = self._rooms[int(event.part.partition("/")[2])]
        if pressed is self._targets[self._done]:
            self._done += 1
            self._note = self._half
            if self._done == len(self._targets):
                self._note = ""
                self.solve()
        else:
            self.mistakes += 1
            self._done, self._note = 0, self._wrong

    def asset(self, name: str) -> Asset | None:
        kind, _, number = name.partition("-")
        if kind != "frame" or not number.isdecimal() or int(number) >= len(self._rooms):
            return None
        return Asset(self._document(self._rooms[int(number)]).encode(), "text/html; charset=utf-8")

    def _document(self, room: Room) -> str:
        number = self._number[room.name]
        corner = 0 if self.setup.skin == "a" else 10
        style = (
            f"body{{margin:0;padding:8px 10px;font:15px/1.4 system-ui,sans-serif;color:#222;"
            f"background:{self._tints[number % len(self._tints)]}}}"
            "h3{margin:0;font-size:16px}p{margin:2px 0 6px}"
            f"button{{font:inherit;padding:4px 12px;border:1px solid #555;border-radius:{corner}px;background:#fff}}"
            f"iframe{{display:block;box-sizing:border-box;width:100%;margin-top:10px;border:2px solid #777;"
            f"border-radius:{corner}px}}"
        )
        button = ""
        if room.button:
            part = escape(self.setup.part(f"press/{number}"))
            button = f'<button type="button" data-part="{part}">{escape(self._label)}</button>'
        frames = "".join(
            f'<iframe title="{escape(inner.name)}" style="height:{inner.height + 4}px" '
            f'src="{escape(self.setup.asset(f"frame-{self._number[inner.name]}"))}"></iframe>'
            for inner in room.inner
        )
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(room.name)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{style}</style></head>'
            f"<body><h3>{escape(room.name)}</h3><p>{escape(room.line)}</p>{button}{frames}</body></html>"
        )
