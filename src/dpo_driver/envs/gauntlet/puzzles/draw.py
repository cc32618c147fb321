"""Draw: one stroke over a canvas through named points, in the order told, and through no others.

The stroke is what trusted pointer events say, in pixels from the pad's left and top edge; the page draws it back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("Draw a line", "On the map", "A way to draw", "One stroke"),
    ("Connect the stars", "A line in the sky", "Without lifting"),
)
TEXT: Phrases = (
    (
        "Draw one line without letting go.",
        "Draw the route in one stroke of the pointer.",
        "With the button held, draw the way.",
        "Trace the path below in a single stroke.",
    ),
    (
        "Link them by a single stroke of your pointer.",
        "Press, pull the line through, and let go at the end.",
        "Sketch the line in one go, never lifting.",
    ),
)
# What lies between the ends comes in the order of the way.
DIRECT: Phrases = (
    (
        "From {first} to {last}",
        "Start at {first}, end at {last}.",
        "{first} \u2013 {last}",
        "Go from {first} to {last}.",
    ),
    ("Out of {first} into {last}", "Let {first} meet {last}.", "Leave {first}, reach {last}."),
)
OVER: Phrases = (
    (
        "From {first} over {middle} to {last}",
        "Start at {first}, pass {middle}, end at {last}.",
        "{first} \u2013 {middle} \u2013 {last}",
        "Go from {first} through {middle} to {last}.",
    ),
    (
        "Out of {first}, across {middle}, into {last}",
        "Let {first} meet {middle} and then {last}.",
        "Leave {first}, visit {middle}, reach {last}.",
    ),
)
JOINT: Phrases = ((" and ", ", ", " \u2013 ", ", then "), (" and then ", ", ", ", next "))
REST: Phrases = (
    ("Keep clear of all others.", "Avoid every other point.", "Touch no other point.", "Stay off the rest."),
    ("Go round what is not named.", "Shun the other ones.", "Nothing else may be crossed."),
)
POINTS: Phrases = (
    (
        "Mill", "Port", "Tower", "Farm", "Oak", "Well", "Inn", "Cave", "Lake", "Fort", "Dam", "Hill", "Camp", "Pier",
        "Moor", "Quarry", "Chapel", "Ford",
    ),
    (
        "Vega", "Rigel", "Deneb", "Mira", "Spica", "Altair", "Castor", "Pollux", "Sirius", "Algol", "Mizar", "Atlas",
        "Maia", "Electra", "Nashira",
    ),
)  # fmt: skip
WRONG: Phrases = (
    (
        "That was not the way. Draw it again.",
        "The line missed its way.",
        "Another line was asked for.",
        "Not quite: begin once more.",
    ),
    ("The line went astray.", "Not these, or not so. Anew!", "That links the wrong ones."),
)
NAMED = {1: 2, 2: 3, 3: 4}
OTHERS = {1: 0, 2: 2, 3: 3}
REACH = 26.0  # pixels around a point that belong to it
CLEAR = 34.0  # the straight way between two named points keeps this far from all others
WIDTHS = (300.0, 560.0)  # of the pad, on a phone and at its widest
HEIGHT = 280.0
MAX_POINTS = 400
LEAST_SIDE = 150.0  # a pad shrunk to a speck, where any stroke meets everything, is none

Point = tuple[float, float]


def distance(point: Point, start: Point, end: Point) -> float:
    """From a point to a straight line between two others."""
    (x, y), (x0, y0), (x1, y1) = point, start, end
    length = (x1 - x0) ** 2 + (y1 - y0) ** 2
    along = 0.0 if length == 0 else min(1.0, max(0.0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length))
    return math.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))


class Draw(Puzzle):
    """Solved by one trusted stroke that meets the named points, all of them and only them, in their order."""

    name: ClassVar[str] = "draw"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, skin = setup.rng, SKINS.index(setup.skin)
        self._named = NAMED[setup.difficulty]
        self._names = rng.sample(list(POINTS[skin]), self._named + OTHERS[setup.difficulty])
        self._places = self._lay_out()
        first, *middle, last = self._names[: self._named]
        if middle:
            way = setup.say(OVER, first=first, middle=setup.say(JOINT).join(middle), last=last)
        else:
            way = setup.say(DIRECT, first=first, last=last)
        self._lines = [way, setup.say(REST)] if OTHERS[setup.difficulty] else [way]
        self._title, self._text, self._wrong = setup.say(TITLE), setup.say(TEXT), setup.say(WRONG)
        self._shown = rng.sample(range(len(self._names)), len(self._names))
        self._stroke: list[Point] = []  # in pixels of the pad
        self._met: list[int] = []
        self._down = False
        self._size: Point = (WIDTHS[1], HEIGHT)
        self._note: str | None = None

    def _lay_out(self) -> list[Point]:
        """Places as fractions of the pad, such that straight lines between the named points are a solution."""
        rng = self.setup.rng
        while True:
            places = [(rng.randint(10, 90) / 100, rng.randint(12, 88) / 100) for _ in self._names]
            if all(self._fits(places, width) for width in WIDTHS):
                return places

    def _fits(self, places: Sequence[Point], width: float) -> bool:
        at = [(x * width, y * HEIGHT) for x, y in places]
        if any(math.dist(a, b) < 2.2 * REACH for i, a in enumerate(at) for b in at[:i]):
            return False
        legs = [(i, i + 1) for i in range(self._named - 1)]
        return all(
            distance(point, at[a], at[b]) >= CLEAR for a, b in legs for i, point in enumerate(at) if i not in (a, b)
        )

    @property
    def parts(self) -> Sequence[str]:
        return ["pad"]

    def view(self) -> dict[str, Json]:
        width, height = self._size
        return {
            "title": self._title,
            "text": self._text,
            "lines": self._lines,
            "pad": self.setup.part("pad"),
            "height": HEIGHT,
            "reach": REACH,
            "points": [
                {"label": self._names[i], "x": self._places[i][0], "y": self._places[i][1]} for i in self._shown
            ],
            "stroke": [[round(x / width, 4), round(y / height, 4)] for x, y in self._stroke],
            "note": self._note,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if self.solved:
            return
        size = (event.width, event.height)
        on_pad = event.part == "pad" and min(size) >= LEAST_SIDE
        if event.kind == "pointerdown" and on_pad and event.button == 0:
            self._down, self._note, self._stroke, self._met, self._size = True, None, [], [], size
            self._go(event)
        elif event.kind in ("pointermove", "pointerup") and self._down:
            if on_pad and math.dist(self._size, size) < 2:
                self._go(event)
            if event.kind == "pointerup":
                self._end()

    def _go(self, event: Event) -> None:
        """The stroke goes on to where the pointer is; which points does it meet on the way?"""
        to = (event.x, event.y)
        since = self._stroke[-1] if self._stroke else to
        width, height = self._size
        met = []
        for index, (x, y) in enumerate(self._places):
            at = (x * width, y * height)
            if distance(at, since, to) <= REACH and self._met[-1:] != [index]:
                met.append((math.dist(at, since), index))
        self._met += [index for _, index in sorted(met)]
        if len(self._stroke) < MAX_POINTS:
            self._stroke.append(to)
        else:
            self._stroke[-1] = to

    def _end(self) -> None:
        self._down = False
        if self._met == list(range(self._named)):
            self.solve()
            return
        self.mistakes += 1
        self._note = self._wrong
