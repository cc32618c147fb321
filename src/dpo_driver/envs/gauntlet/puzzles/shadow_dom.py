"""Shadow DOM: things inside things, each in a shadow root of its own; unpacked in the order given, the last one rings.

What lies inside is drawn, and its parts are told, only once the right one around it was opened. A wrong one shuts all
of them. Difficulty 1 has two levels without a choice, 2 three levels of two, 3 four levels of three. Used by
envs/gauntlet/visit.py. Imports the base only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("One inside the other", "Unpacking", "Box in a box", "Inside out"),
    ("The traveller's luggage", "Wrapped up", "Layer by layer"),
)
TEXT: Phrases = (
    (
        "Unpack in this order: {path}. Then press {last}.",
        "Things lie one inside the other. Open {path} and then press {last}.",
        "What you need lies deep: open {path}; inside, press {last}.",
        "All of this is packed. Open {path} and, last of all, press {last}.",
    ),
    (
        "Unwrap {path}, each within the one before, and pull {last}.",
        "Undo {path} from the outside in. Beneath it all, use {last}.",
        "Everything is wrapped in something: undo {path}, then use {last}.",
    ),
)
AND: Phrases = ((", then ", " and in it ", ", inside it "), (", followed by ", ", under that ", ", then "))
EMPTY: Phrases = (
    ("Nothing in there. All shut again.", "Empty, and everything falls shut.", "Wrong one: back to the start."),
    ("Nothing but paper. Wrapped up anew.", "That held nothing; all is closed again.", "No. From the top."),
)
WHERE: Phrases = (
    ("On the floor", "Before you", "In the corner", "On the shelf"),
    ("On the platform", "In the rack", "On the cart"),
)
OPENED: Phrases = (
    ("Inside the {thing}", "In the {thing}", "The {thing}, open", "Contents of the {thing}"),
    ("Within the {thing}", "Beneath the {thing}", "Under the {thing}"),
)
KINDS: Phrases = (
    tuple("oak tin velvet copper paper glass cedar leather wicker marble silver rusty striped painted".split()),
    tuple("linen canvas bamboo felt enamel woollen lacquered checked dotted quilted brass plaid".split()),
)
THINGS: Phrases = (
    tuple("chest box drawer trunk basket crate case jar casket cabinet".split()),
    tuple("bundle sack suitcase parcel hatbox rucksack pouch wrapper envelope holdall".split()),
)
ENDS: Phrases = (
    tuple("bell switch button lever knob key buzzer pedal".split()),
    tuple("ribbon cord chain strap tassel zip string latch".split()),
)
SIZES = {1: (1, 1), 2: (2, 2, 2), 3: (3, 3, 3, 3)}  # things at each level, outermost first


@dataclass(frozen=True)
class Level:
    """What one shadow root shows: things to open, one of which leads on (``right``)."""

    names: tuple[str, ...]
    right: int
    heading: str


class ShadowDom(Puzzle):
    """Solved by trusted clicks on the right thing of each level, outermost first."""

    name: ClassVar[str] = "shadow-dom"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, skin = setup.rng, SKINS.index(setup.skin)
        sizes = SIZES[setup.difficulty]
        self._title = setup.say(TITLE)
        pool = [f"{kind} {thing}" for kind in KINDS[skin] for thing in THINGS[skin]]
        ends = [f"{kind} {thing}" for kind in KINDS[skin] for thing in ENDS[skin]]
        self._levels: list[Level] = []
        taken, heading = iter(rng.sample(pool, sum(sizes))), setup.say(WHERE)
        for level, size in enumerate(sizes):
            last = level == len(sizes) - 1
            names = tuple(rng.sample(ends, size)) if last else tuple(next(taken) for _ in range(size))
            right = rng.randrange(size)
            self._levels.append(Level(names, right, heading))
            heading = setup.say(OPENED, thing=names[right])
        quote = '"{}"' if skin == 0 else "“{}”"
        way = [quote.format(level.names[level.right]) for level in self._levels]
        join = setup.say(AND)
        self._text = setup.say(TEXT, path=join.join(way[:-1]), last=way[-1])
        self._empty = setup.say(EMPTY)
        self._open = 0  # how many levels have been opened
        self._note = ""

    @property
    def parts(self) -> Sequence[str]:
        return [f"{at}/{index}" for at, level in enumerate(self._levels) for index in range(len(level.names))]

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "levels": [self._drawn(at) for at in range(min(self._open + 1, len(self._levels)))],
            "note": self._note,
            "reveal": self.revealed(),
        }

    def _drawn(self, at: int) -> dict[str, Json]:
        level = self._levels[at]
        items = [self.setup.control(f"{at}/{index}", name) for index, name in enumerate(level.names)]
        return {"heading": level.heading, "items": items, "open": level.right if at < self._open else None}

    def on(self, event: Event) -> None:
        if self.solved or event.kind != "click" or "/" not in event.part:
            return
        at, index = map(int, event.part.split("/"))
        if at != self._open:
            return  # what has been opened stays open; what is further in is not there yet
        self._note = ""
        if index != self._levels[at].right:
            self.mistakes += 1
            self._open, self._note = 0, self._empty
            return
        self._open += 1
        if self._open == len(self._levels):
            self.solve()
