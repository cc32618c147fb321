"""Mutation: letters come and go, one at each press; those that came in make a word, which is typed in the end.

The component inserts and removes nodes by itself and has a MutationObserver count it. Difficulty 1 shows one letter at
a time; 2 and 3 a row of them, of which one press replaces one. Nothing but the whole series, and then the word, typed,
solves it; a wrong word starts the series again. Used by envs/gauntlet/visit.py. Imports the base only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("Letters come and go", "Watch the change", "What is new?", "A word in passing"),
    ("The flip board", "Arrivals", "Now you see it"),
)
ALONE: Phrases = (
    (
        "Press {next} again and again: letters appear one at a time. Type the word that they make, then press {check}.",
        "Each press of {next} shows one letter and takes the last one away. Write the word down and press {check}.",
        "A word passes by letter by letter when you press {next}. Type it and press {check}.",
        "With {next} a new letter takes the place of the old. Note them all, type the word, press {check}.",
    ),
    (
        "Use {next}: a letter turns up, the one before is gone. Spell out the word and confirm with {check}.",
        "Letter after letter arrives at {next}. Collect them, fill in the word, use {check}.",
        "The board turns with {next} and keeps only the latest letter. Report the word, then {check}.",
    ),
)
AMONG: Phrases = (
    (
        "Each press of {next} puts one new letter into the row and takes another out. The new ones, in order, "
        "make a word: type it and press {check}.",
        "Press {next} and see which letter is new in the row; another leaves. Type the word of the new letters, "
        "then press {check}.",
        "The row changes by one letter at each {next}. Those that come in spell a word; write it and press {check}.",
        "Watch the row while you press {next}: one letter comes in, one goes. Type what came in, in order, and "
        "press {check}.",
    ),
    (
        "At {next} one letter arrives in the line and another departs. Arrivals spell a word: fill it in, use {check}.",
        "Use {next} and compare: one arrival, one departure. Report the word of all arrivals, then {check}.",
        "The line swaps a single letter at {next}. Spell the word from arrivals only, and confirm with {check}.",
    ),
)
NEXT: Phrases = (
    ("Next", "Go on", "Change", "Next letter", "Forward"),
    ("Turn", "Flip", "Advance", "Move along"),
)
AGAIN: Phrases = (("Start over", "From the start", "Show again", "Rewind"), ("Replay", "Reset the board", "Anew"))
CHECK: Phrases = (("Check", "That is it", "Try the word", "Done"), ("Confirm", "Report", "Hand in"))
FIELD: Phrases = (("Word", "The word", "Your word", "Letters in order"), ("Spelled word", "Arrivals", "Reading"))
SEEN: Phrases = (
    ("{n} of {total} shown", "{n} of {total} letters", "Letter {n} of {total}", "Change {n} of {total}"),
    ("Turn {n} of {total}", "{n} of {total} arrived", "Arrival {n} of {total}"),
)
COUNTER: Phrases = (
    ("Changes to the page", "Nodes added", "Changes noticed", "Added so far"),
    ("Movements", "Changes on the board", "Board changes"),
)
WRONG: Phrases = (
    ("That is not the word. The letters start again.", "No; watch them once more.", "Another word. Back to the first."),
    ("Not what was spelled. The board is reset.", "Wrong reading; from the top.", "No. All letters return."),
)
# Words without a letter twice.
WORDS = {
    4: "LAMP BIRD SNOW FISH GOLD RAIN TENT SHIP CORN DUST FARM GATE HAND IRON JUMP KITE LION MILK NEST OVAL PATH ROCK "
    "SALT TURN VASE WIND YARD ZINC BOLT CLAY DRUM FLAG HORN LEAF MAST",
    5: "BREAD CLOUD DREAM EARTH FLAME GRAPE HOUSE JUICE KNIFE LEMON MOUSE NIGHT OCEAN PLANT QUICK RIVER SUGAR TIGER "
    "UNCLE VOICE WATER YOUTH ZEBRA BRICK CHAIR FROST GLOBE HONEY LUNCH MARCH PEARL STORM TRAIN WHEAT",
    6: "BASKET CASTLE DONKEY FAMILY GARDEN HAMLET ISLAND JACKET KINDLY LADIES MARKET NUMBER ORANGE PENCIL RANDOM "
    "SILVER TURKEY UPSIDE VELCRO WINTER YELPED BRIDGE COUNTS DRAGON FRIEND HUNTER LAPTOP MONKEY PLANET STRONG",
}
LENGTH = {1: 4, 2: 5, 3: 6}
ROW = {1: 1, 2: 4, 3: 6}
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Board = tuple[tuple[int, str], ...]  # (number of the node, letter)


class Mutation(Puzzle):
    """Solved by the whole series of trusted presses, then Check (or Enter) while the field holds the word, typed."""

    name: ClassVar[str] = "mutation"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, hard = setup.rng, setup.difficulty
        self._labels = {key: setup.say(of) for key, of in (("next", NEXT), ("again", AGAIN), ("check", CHECK))}
        quote = '"{}"' if setup.skin == "a" else "“{}”"
        named = {key: quote.format(label) for key, label in self._labels.items()}
        self._title, self._text = setup.say(TITLE), setup.say(ALONE if hard == 1 else AMONG, **named)
        self._field, self._wrong, self._counter = setup.say(FIELD), setup.say(WRONG), setup.say(COUNTER)
        words = [word for word in WORDS[LENGTH[hard]].split() if len(set(word)) == len(word)]
        self._word = rng.choice(words)
        seen = setup.say(SEEN, n="{n}", total=len(self._word))
        self._seen = [seen.format(n=n) for n in range(len(self._word) + 1)]
        self._boards = self._series(ROW[hard])
        self._at = 0
        self._round = 0
        self._note = ""

    def _series(self, size: int) -> list[Board]:
        """The row before each press and after the last."""
        rng = self.setup.rng
        others = [letter for letter in ALPHABET if letter not in self._word]
        row = list(enumerate(rng.sample(others, size))) if size > 1 else []
        boards = [tuple(row)]
        for number, letter in enumerate(self._word, start=size):
            if row:
                del row[rng.randrange(len(row))]
            row.insert(rng.randint(0, len(row)), (number, letter))
            boards.append(tuple(row))
        return boards

    @property
    def parts(self) -> Sequence[str]:
        return ["next", "again", "check", "word"]

    def view(self) -> dict[str, Json]:
        setup, labels = self.setup, self._labels
        return {
            "title": self._title,
            "text": self._text,
            "board": [{"id": f"{self._round}.{number}", "letter": letter} for number, letter in self._boards[self._at]],
            "seen": self._seen[self._at],
            "counter": self._counter,
            "next": setup.control("next", labels["next"]),
            "again": setup.control("again", labels["again"]),
            "check": setup.control("check", labels["check"]),
            "field": setup.control("word", self._field),
            "ended": self._at == len(self._word),
            "note": self._note,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if self.solved:
            return
        if (event.kind, event.part, event.key) == ("keydown", "word", "Enter"):
            self._check(event)
        elif event.kind != "click":
            return
        elif event.part == "next" and self._at < len(self._word):
            self._at += 1
            self._note = ""
        elif event.part == "again":
            self._rewind("")
        elif event.part == "check":
            self._check(event)

    def _check(self, event: Event) -> None:
        typed = "".join(event.fields.get("word", "").upper().split())
        if self._at == len(self._word) and typed == self._word:
            self._note = ""
            self.solve()
        elif typed:
            self.mistakes += 1
            self._rewind(self._wrong)

    def _rewind(self, note: str) -> None:
        self._at, self._note = 0, note
        self._round += 1
