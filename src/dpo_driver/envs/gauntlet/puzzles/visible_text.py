"""Visible text: notices with several codes, of which the words beside them say that all but one are of no use.

Reading is the task, so the code is in the view from the start. Four kinds: the notice says whether it is valid; a
register names what each code is for; each code has its days; codes were replaced by others, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.wordlists import some

TITLE: Phrases = (
    ("On the notice board", "Which code is valid?", "Read the notices", "The right code among many", "Small print"),
    ("Pinned to the door", "Many keys, one lock", "Words on the wall", "The keeper's papers"),
)
STATUS_TEXT: Phrases = (
    (
        "One of these notices gives the code that is valid now. The others are out of date or mere samples.",
        "Several notices hang here, but only one code is still valid. Enter that one.",
        "Read the board: a single code is in force, all the others are not.",
        "Enter the code that is current. Ignore those that have run out and those that are examples.",
        "Find the notice whose code counts today; the rest are old or were never real.",
    ),
    (
        "Of all that is pinned up here, one key is in use today. Copy that one.",
        "Old keys hang beside the one that still opens. Which one is it?",
        "Look through the papers and pick the key that is good today.",
        "Among worn-out keys and mere patterns hangs the one in use. Write it down below.",
    ),
)
LIVE: Phrases = (
    (
        "Valid now: {code}",
        "Current code: {code}",
        "Today's code is {code}.",
        "{code} is the code in force.",
        "Please use {code}; it is valid today.",
        "Active code: {code}",
    ),
    (
        "In use: {code}",
        "{code} is the key of today.",
        "Good at this hour: {code}",
        "{code} still opens.",
        "The lock takes {code} now.",
    ),
)
DEAD: Phrases = (
    (
        "Expired last week: {code}",
        "Sample only: {code}",
        "{code} was withdrawn in March.",
        "Yesterday's code: {code}",
        "{code} is void.",
        "Not yet valid: {code}",
        "{code} expired on Sunday.",
        "Example of a code: {code}",
        "{code} is no longer valid.",
        "Code of the previous tenant: {code}",
    ),
    (
        "Retired in spring: {code}",
        "An example of a key: {code}",
        "{code} no longer opens.",
        "Old key: {code}",
        "{code} was replaced long ago.",
        "For practice only: {code}",
        "Formerly {code}",
        "{code} is a mere specimen.",
        "Will be good next year: {code}",
    ),
)
HEADS: Phrases = (
    (
        "Reception,Night shift,Caretaker,Library desk,Loading bay,Canteen,Workshop,Porter,Archive room,Car park,"
        "Mail room,Print shop"
    ).split(","),
    (
        "Harbour office,Lamp room,Stables,Bell loft,Glasshouse,Mill house,Ferry landing,Observatory,Smithy,Bakehouse,"
        "Cooper's yard"
    ).split(","),
)
ROW_TEXT: Phrases = (
    (
        'You are at "{label}". Enter the code listed for it.',
        'Look up "{label}" in the list: its code opens this step.',
        'The code that you need stands beside "{label}".',
        'Find the entry "{label}" and copy its code.',
    ),
    (
        'Every door has its own key. Yours is the one for "{label}".',
        'Go down the register to "{label}" and take the key noted there.',
        'The key noted for "{label}" is the one.',
    ),
)
KINDS_OF: Phrases = (
    "north,south,east,west,lower,upper,old,new,inner,outer,main,rear".split(","),
    "first,second,third,humble,narrow,wide,silent,crooked,stone,wooden,painted,broken".split(","),
)
DOORS: Phrases = (
    "gate,hall,office,depot,cellar,storeroom,studio,garage,corridor,lift".split(","),
    "tower,bridge,chapel,stable,cottage,wharf,granary,vault,arch,lodge".split(","),
)
DATE_TEXT: Phrases = (
    (
        "Today is {day} {month}. Enter the code that is valid today.",
        "It is {day} {month}. Each code is valid for some days only; which one is valid today?",
        "Each of these codes has its own days. Today is {day} {month}: enter the one that is current.",
        "Codes change every few days. Enter the code valid today; today is {day} {month}.",
    ),
    (
        "The calendar says {day} {month}. Which key is good on that day?",
        "It is {day} {month}. Every key opens on certain days; copy the one that opens today.",
        "Today, {day} {month}, just one of the keys is good. Which?",
    ),
)
DATE_LINES: Phrases = (
    (
        "Valid from {a} to {b} {month}: {code}",
        "{code} (valid {a} to {b} {month})",
        "{a} to {b} {month}: {code}",
        "Code {code}, from {a} {month} up to {b} {month}",
    ),
    (
        "{code} opens between {a} and {b} {month}.",
        "Key {code}, good from {a} until {b} {month}",
        "From the dawn of {a} to the dusk of {b} {month}: {code}",
    ),
)
MONTHS: Phrases = (("March", "May", "July", "October"), ("April", "June", "August", "November"))
CHAIN_TEXT: Phrases = (
    (
        "These notes arrived in no particular order. Which code is in force after all replacements?",
        "Codes were replaced again and again. Enter the last one, the one that is valid now.",
        "Follow the notes from one code to the next: the code that was never replaced is the valid one.",
        "Each note replaces one code by another. Enter the code that is current in the end.",
    ),
    (
        "One key followed another. Which key is in use now that all has been replaced?",
        "Read who followed whom: the key that was never replaced is in use today.",
        "The keeper's notes are out of order. Find the key that came last and still opens.",
    ),
)
CHAIN_LINES: Phrases = (
    (
        "{old} was replaced by {new}.",
        "{new} takes the place of {old}.",
        "Instead of {old} please use {new}.",
        "{new} replaces {old}.",
    ),
    (
        "{old} gave way to {new}.",
        "{new} succeeded {old}.",
        "After {old} came {new}.",
        "{new} followed {old}.",
    ),
)
KINDS = {1: ("status", "row"), 2: ("status", "row", "dates"), 3: ("status", "row", "dates", "chain")}
COUNTS = {"status": (3, 5, 7), "row": (3, 6, 9), "dates": (3, 4, 5), "chain": (3, 3, 4)}
LAYOUTS = ("cards", "list", "table")

Item = tuple[str, str]  # a notice's head and what it says


class VisibleText(Puzzle):
    """Solved by reading: there is no evidence but the right code."""

    name: ClassVar[str] = "visible-text"
    reads: ClassVar[bool] = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._title = setup.say(TITLE)
        kind = setup.rng.choice(KINDS[setup.difficulty])
        count = COUNTS[kind][setup.difficulty - 1]
        make = {"status": self._status, "row": self._row, "dates": self._dates, "chain": self._chain}[kind]
        self._text, self._items = make(count)
        setup.rng.shuffle(self._items)
        # A register is no register without its names in one line with the codes.
        self._layout = setup.rng.choice(LAYOUTS[1:] if kind == "row" else LAYOUTS)

    def _status(self, count: int) -> tuple[str, list[Item]]:
        setup = self.setup
        lines = [setup.say(LIVE, code=setup.code)]
        lines += [dead.format(code=setup.decoy()) for dead in some(setup, DEAD, count - 1)]
        return setup.say(STATUS_TEXT), list(zip(some(setup, HEADS, count), lines, strict=True))

    def _row(self, count: int) -> tuple[str, list[Item]]:
        setup = self.setup
        kinds, doors = some(setup, KINDS_OF, count), some(setup, DOORS, max(2, count // 2))
        names = [f"{kind} {setup.rng.choice(doors)}" for kind in kinds]
        codes = [setup.code, *(setup.decoy() for _ in names[1:])]
        return setup.say(ROW_TEXT, label=names[0]), list(zip(names, codes, strict=True))

    def _dates(self, count: int) -> tuple[str, list[Item]]:
        setup = self.setup
        month = setup.say(MONTHS)
        ends = sorted(setup.rng.sample(range(1, 29), 2 * count))
        spans = list(zip(ends[::2], ends[1::2], strict=True))
        setup.rng.shuffle(spans)
        lines = [
            setup.say(DATE_LINES, a=a, b=b, month=month, code=setup.decoy() if i else setup.code)
            for i, (a, b) in enumerate(spans)
        ]
        day = setup.rng.randint(*spans[0])
        return setup.say(DATE_TEXT, day=day, month=month), list(zip(some(setup, HEADS, count), lines, strict=True))

    def _chain(self, count: int) -> tuple[str, list[Item]]:
        setup = self.setup
        codes = [*(setup.decoy() for _ in range(count)), setup.code]
        lines = [setup.say(CHAIN_LINES, old=old, new=new) for old, new in pairwise(codes)]
        return setup.say(CHAIN_TEXT), list(zip(some(setup, HEADS, count), lines, strict=True))

    @property
    def parts(self) -> Sequence[str]:
        return ()

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "layout": self._layout,
            "items": [{"head": head, "text": text} for head, text in self._items],
            "reveal": None,
        }

    def on(self, event: Event) -> None:
        """Nothing to do but read."""
