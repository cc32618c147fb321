"""Storage: a trusted click lets the page put entries into cookies, local or session storage; one key holds the code.

The page writes them for real and lists what it then reads back. What a store is to hold is sent only once that store
was opened, and the page takes its entries away again when the step is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.pieces import false_piece, split
from dpo_driver.envs.gauntlet.puzzles.wordlists import THINGS, some

STORES = ("cookie", "local", "session")

TITLE: Phrases = (
    ("What the browser keeps", "Stored away", "Look into the store", "Kept by the browser"),
    ("The pantry", "Put by for later", "In the browser's pockets"),
)
ONE: Phrases = (
    (
        'Press "{open}": entries are put into the {store} and listed. The code is the value of the key "{key}".',
        'The code will be kept in the {store} under the key "{key}". "{open}" stores it and shows what is there.',
        '"{open}" fills the {store} and inspects it. Look for the entry "{key}": its value is the code.',
        'Have the {store} filled with "{open}", then read the code from the row with the key "{key}".',
    ),
    (
        '"{open}" puts some things into the {store}. What hangs on "{key}" is the key that you need.',
        'After "{open}" the {store} holds your key: it is the value that is named "{key}".',
        'The {store} keeps what you need under the name "{key}". "{open}" lays everything out.',
    ),
)
MANY: Phrases = (
    (
        "The code is kept in {n} stores of the browser, in this order: {where}. Open each and join the values.",
        "Open the stores below; each gets entries that are then listed. The code is, one after the other: {where}.",
        "Values from {n} stores make the code. Put together {where}.",
        "Each store below is filled when you open it. Read the values of these keys and join them: {where}.",
    ),
    (
        "Your key is split over {n} of the browser's pockets. Turn them out and string together {where}.",
        "Lay the stores open and take from them, in this order, {where}. Together they are the key.",
        "In {n} places lies what you need: {where}. Line the values up as they are named here.",
    ),
)
WHERE: Phrases = (
    ('"{key}" in the {store}', '"{key}" from the {store}'),
    ('"{key}" ({store})', 'what "{key}" holds in the {store}'),
)
NAMES: dict[str, Phrases] = {
    "cookie": (("cookies", "cookie jar"), ("cookie tin", "cookies")),
    "local": (("local storage",), ("local storage", "localStorage")),
    "session": (("session storage",), ("session storage", "sessionStorage")),
}
OPEN: Phrases = (
    ("Open the {store}", "Fill the {store}", "Inspect the {store}", "Show the {store}"),
    ("Lay out the {store}", "Turn out the {store}", "Lay open the {store}"),
)
COLUMNS: Phrases = (("Key|Value", "Name|Content", "Entry|Stored value"), ("Label|What it holds", "Tag|Kept"))
BROKEN: Phrases = (
    ("This browser keeps nothing here: storage is switched off.",),
    ("Nothing can be kept: the browser forbids it.",),
)
# A key's near relations, which differ in an ending.
ENDINGS: Phrases = (("-old", "-copy", "-2", "-test", "-backup"), ("-spare", "-lost", "-x", "-former", "-twin"))
# by difficulty: stores that hold a piece, entries beside it, relations of the key among them
LAYOUT = {1: (1, 2, 0), 2: (2, 3, 1), 3: (3, 4, 2)}


class Storage(Puzzle):
    """A trusted click on a store's button gives the page that store's entries. Solved when all were opened."""

    name: ClassVar[str] = "storage"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        count, others, relations = LAYOUT[setup.difficulty]
        self._stores = setup.rng.sample(list(STORES), count)
        names = {store: setup.say(NAMES[store]) for store in self._stores}
        pattern = setup.say(OPEN, store="{store}")
        self._labels = {store: pattern.format(store=names[store]) for store in self._stores}
        words = some(setup, THINGS, count * (1 + others))
        keys = [words.pop() for _ in self._stores]
        self._entries: dict[str, list[tuple[str, str]]] = {}
        for store, key, piece in zip(self._stores, keys, split(setup.code, count), strict=True):
            endings = ENDINGS[0 if setup.skin == "a" else 1]
            besides = [key + ending for ending in setup.rng.sample(list(endings), relations)]
            besides += [words.pop() for _ in range(others - relations)]
            entries = [(key, piece), *((name, false_piece(setup, len(piece))) for name in besides)]
            setup.rng.shuffle(entries)
            self._entries[store] = entries
        self._title, self._broken = setup.say(TITLE), setup.say(BROKEN)
        self._columns = setup.say(COLUMNS).split("|")
        first = self._stores[0]
        if count == 1:
            self._text = setup.say(ONE, open=self._labels[first], store=names[first], key=keys[0])
        else:
            place = setup.say(WHERE, key="{key}", store="{store}")
            told = [place.format(key=key, store=names[store]) for store, key in zip(self._stores, keys, strict=True)]
            self._text = setup.say(MANY, n=count, where=", ".join(told[:-1]) + " and " + told[-1])
        self._shown = setup.rng.sample(self._stores, count)  # the buttons' order
        self._opened: set[str] = set()

    @property
    def parts(self) -> Sequence[str]:
        return [f"open/{store}" for store in self._stores]

    def view(self) -> dict[str, Json]:
        stores = []
        for store in self._shown:
            entries = self._entries[store] if store in self._opened else []
            control = self.setup.control(f"open/{store}", self._labels[store])
            stores.append({**control, "store": store, "entries": [list(entry) for entry in entries]})
        return {
            "title": self._title,
            "text": self._text,
            "stores": stores,
            "columns": self._columns,
            "broken": self._broken,
            "reveal": None,
        }

    def on(self, event: Event) -> None:
        if event.kind == "click" and event.part in self.parts:
            self._opened.add(event.part.removeprefix("open/"))
            if len(self._opened) == len(self._stores):
                self.solve()
