"""Drag and drop: bring each named thing to its place, by pointer or by keyboard (Enter takes it up and puts it down).

A drag is a trusted pointerdown on the thing and a trusted pointerup over the place; the server says what lies where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("Tidy up", "Everything in its place", "Sort it out", "Put things away"),
    ("Moving house", "Where does it go?", "Clear the table"),
)
TEXT: Phrases = (
    (
        "Drag each thing to its place.",
        "Move the things where they belong, by dragging.",
        "Drag and drop them as the list says.",
        "Drop every thing on the right place.",
    ),
    (
        "Carry all pieces to where they go.",
        "Pull each piece over and let go at its spot.",
        "Haul the pieces as ordered and drop them.",
    ),
)
PAIR: Phrases = (
    ("{item} \u2192 {slot}", "Put {item} into {slot}.", "{item} belongs in {slot}.", "{item} goes to {slot}."),
    ("Carry {item} over to {slot}.", "{item} must land on {slot}.", "{item} wants to be at {slot}."),
)
REST: Phrases = (
    ("Leave the rest where it is.", "Nothing else may be moved there.", "Other things stay.", "All else stays out."),
    ("What is not named stays put.", "The others remain.", "Touch up nothing more."),
)
KEYS: Phrases = (
    (
        "By keyboard: Enter takes up, Enter puts down.",
        "Keys: Enter to lift, Tab to the place, Enter to drop.",
        "Without a mouse: Enter on the thing, Enter on the place.",
        "Or use Enter to pick up and Enter to put down.",
    ),
    (
        "Keyboard: lift with Enter, set down with Enter.",
        "Enter grabs a piece, Enter at a spot releases it.",
        "No mouse? Enter lifts it and Enter lets it go.",
    ),
)
ITEMS: Phrases = (
    (
        "Lamp", "Cup", "Map", "Hat", "Coin", "Brush", "Rope", "Ball", "Key ring", "Pencil", "Shell", "Clock", "Bottle",
        "Scarf", "Stamp", "Bell", "Torch", "Glove", "Button", "Spade", "Whisk", "Ticket",
    ),
    (
        "Fiddle", "Teapot", "Compass", "Crown", "Lens", "Dice", "Marble", "Mask", "Parcel", "Quill", "Ring", "Sponge",
        "Trumpet", "Vase", "Wallet", "Yo-yo", "Acorn", "Chisel",
    ),
)  # fmt: skip
SLOTS: Phrases = (
    (
        "Drawer", "Shelf", "Basket", "Cupboard", "Suitcase", "Chest", "Barrel", "Crate", "Locker", "Bucket", "Tray",
        "Cellar", "Attic", "Garage",
    ),
    (
        "Wardrobe", "Balcony", "Hamper", "Pantry", "Trolley", "Vault", "Stable", "Bin", "Niche", "Workshop", "Hall",
        "Porch",
    ),
)  # fmt: skip
TABLE: Phrases = (
    ("Loose things", "Lying about", "Not put away", "Still outside"),
    ("Unsorted", "To be moved", "Waiting"),
)
PLACED: Phrases = (("{item}, in {slot}", "{item} ({slot})", "{item} in {slot}", "{item} at {slot}"),) * 2
SLOT_COUNT = {1: 2, 2: 3, 3: 3}
PAIR_COUNT = {1: 2, 2: 3, 3: 4}
DECOYS = {1: 0, 2: 1, 3: 2}


class DragDrop(Puzzle):
    """Solved when every named thing lies in its place and nothing else does in any."""

    name: ClassVar[str] = "drag-drop"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, skin = setup.rng, SKINS.index(setup.skin)
        named = PAIR_COUNT[setup.difficulty]
        self._items = rng.sample(list(ITEMS[skin]), named + DECOYS[setup.difficulty])
        self._slots = rng.sample(list(SLOTS[skin]), SLOT_COUNT[setup.difficulty])
        wanted = [rng.randrange(len(self._slots)) for _ in range(named)]
        wanted[: len(self._slots)] = rng.sample(range(len(self._slots)), len(self._slots))  # each place is used
        self._wanted = dict(enumerate(wanted))
        phrase = rng.choice(PAIR[skin])
        self._lines = [phrase.format(item=self._items[i], slot=self._slots[s]) for i, s in self._wanted.items()]
        if DECOYS[setup.difficulty]:
            self._lines.append(setup.say(REST))
        self._shown = rng.sample(range(len(self._items)), len(self._items))  # in which order they lie on the table
        self._title, self._text, self._keys = setup.say(TITLE), setup.say(TEXT), setup.say(KEYS)
        self._table, self._placed = setup.say(TABLE), rng.choice(PLACED[skin])
        self._where: dict[int, int] = {}  # thing -> place
        self._held: int | None = None  # by keyboard
        self._dragged: int | None = None  # by pointer

    @property
    def parts(self) -> Sequence[str]:
        items = [f"item/{i}" for i in range(len(self._items))]
        return [*items, *(f"slot/{i}" for i in range(len(self._slots))), "table"]

    def _thing(self, index: int) -> dict[str, Json]:
        slot = self._where.get(index)
        name = self._items[index]
        if slot is not None:
            name = self._placed.format(item=name, slot=self._slots[slot])
        return {
            **self.setup.control(f"item/{index}", self._items[index]),
            "name": name,
            "held": self._held == index,
        }

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "lines": self._lines,
            "keys": self._keys,
            "slots": [
                {
                    **self.setup.control(f"slot/{s}", label),
                    "items": [self._thing(i) for i in self._shown if self._where.get(i) == s],
                }
                for s, label in enumerate(self._slots)
            ],
            "table": {
                **self.setup.control("table", self._table),
                "items": [self._thing(i) for i in self._shown if i not in self._where],
            },
            "flip": self.setup.skin == "b",
            "reveal": self.revealed(),
        }

    def _place_of(self, part: str) -> int | None:
        """The place that a part is or lies in; -1 the table; None: neither."""
        kind, _, number = part.partition("/")
        if kind == "item":
            return self._where.get(int(number), -1)
        return {"slot": int(number or -1), "table": -1}.get(kind)

    def on(self, event: Event) -> None:
        if self.solved:
            return
        if event.kind == "pointerdown":
            self._dragged = self._item_of(event.part) if event.button == 0 else None
        elif event.kind == "pointerup":
            thing, self._dragged = self._dragged, None
            # Both ends of the drag must agree on what was taken hold of.
            if thing is not None and event.source == f"item/{thing}" and event.part != event.source:
                self._put(thing, event.part)
        elif event.kind == "keydown" and event.key in ("Enter", " "):
            self._key(event.part)
        elif event.kind == "keydown" and event.key == "Escape":
            self._held = None

    @staticmethod
    def _item_of(part: str) -> int | None:
        kind, _, number = part.partition("/")
        return int(number) if kind == "item" else None

    def _key(self, part: str) -> None:
        thing = self._item_of(part)
        if thing is not None:
            self._held = None if self._held == thing else thing
        elif self._held is not None:
            held, self._held = self._held, None
            self._put(held, part)

    def _put(self, thing: int, part: str) -> None:
        place = self._place_of(part)
        if place is None:
            return
        if place < 0:
            self._where.pop(thing, None)
        else:
            self._where[thing] = place
            if self._wanted.get(thing) != place:
                self.mistakes += 1
        if self._where == self._wanted:
            self.solve()
