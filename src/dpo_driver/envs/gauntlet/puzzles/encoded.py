"""Encoded: the code stands on the page in Base64, as numbers, backwards or in ROT13; which, is said. A reading type.

The task is to read, so what is read is handed out at once; there is nothing to press. Difficulty 2 encodes a whole
sentence, 3 does so twice and lays a note that is no longer valid beside it. Every note has a table for those who decode
by hand. Used by envs/gauntlet/visit.py. Imports the base only.
"""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable, Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import ALPHABET, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("Written in signs", "A coded note", "Between the letters", "The clerk's script"),
    ("A puzzling slip", "Odd writing", "Plain only to some"),
)
ONCE: Phrases = (
    (
        "The note holds the code, written {way}. Turn it back and enter the code.",
        "Someone wrote the code down {way}. Work out what it was and type it in below.",
        "Decode the note: it was put down {way}. What comes out has the code in it.",
        "The code is on the note, but {way}. Read it back and enter it.",
    ),
    (
        "This slip was set down {way}; restore it and you have your key.",
        "Your key has been disguised: it stands here {way}. Undo that.",
        "Translate the slip. It is kept {way}, and the key is in it.",
    ),
)
TWICE: Phrases = (
    (
        "The note was first written {way}, and the result was then put down {after}. Undo both and enter the code.",
        "Two turns hide the code: first it was set {way}, then what came of it {after}. Work back.",
        "Decode the note in two goes. It was put down {way} at first, and that {after} afterwards.",
        "Before it was written {after}, the note had been put {way}. Turn both back to get the code.",
    ),
    (
        "The slip wears two coats: it was put {way} to begin with, and {after} on top. Take both off for the key.",
        "Disguised twice over: set down {way}, and then the outcome {after}. Undo them for your key.",
        "Someone kept it {way}, then {after} to be sure. Restore the slip; the key is in it.",
    ),
)
WAYS: dict[str, Phrases] = {
    "base64": (
        ("in Base64", "as Base64", "with Base64", "in the Base64 alphabet"),
        ("in base 64 characters", "by way of Base-64", "as base 64 text"),
    ),
    "hex": (
        ("in hexadecimal", "as hexadecimal bytes", "in hex", "as hex numbers"),
        ("in bytes of base sixteen (hex)", "by hexadecimal pairs", "as a hex dump"),
    ),
    "decimal": (
        ("as decimal ASCII numbers", "in ASCII numbers", "as decimal character codes", "in decimal ASCII"),
        ("as ASCII values", "by the decimal ASCII number of each sign", "in numbers of the ASCII table"),
    ),
    "rot13": (
        ("in ROT13", "with ROT13", "in ROT13, thirteen letters on", "by ROT13"),
        ("in rot-13", "by a turn of ROT13", "with each letter moved on by 13 (ROT13)"),
    ),
    "reversed": (
        ("back to front", "backwards", "in reverse", "reversed, last sign first"),
        ("from the end to the beginning (reversed)", "the wrong way round, reversed", "mirrored, that is backwards"),
    ),
}
SENTENCES: Phrases = (
    ("the code is {code}", "today it is {code}", "use {code} to pass", "{code} opens the door", "write {code} below"),
    ("say {code} at the gate", "{code} is the key", "your key reads {code}", "the lock wants {code}"),
)
VALID: Phrases = (
    ("Today's note", "Current note", "Valid note", "Note of this morning", "New note"),
    ("Slip in force", "Fresh slip", "Slip for now", "Latest slip"),
)
STALE: Phrases = (
    ("Yesterday's note", "Expired note", "Old note", "Note of last week", "Void note"),
    ("Slip out of date", "Stale slip", "Slip of last month", "Former slip"),
)
NOTE: Phrases = (
    ("Note", "The note", "On the table", "A sheet of paper", "Pinned to the wall"),
    ("Slip", "The slip", "Found in a pocket", "A scrap of paper"),
)
TABLE: Phrases = (
    ("Table", "Decoding table", "Help with the signs", "Key to the signs"),
    ("List of signs", "Crib", "Sign by sign"),
)
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
ENCODE: dict[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: " ".join(f"{byte:02X}" for byte in text.encode()),
    "decimal": lambda text: " ".join(str(byte) for byte in text.encode()),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
}
SECOND = {"base64": ("reversed",), "hex": ("reversed",), "decimal": ("reversed",), "rot13": ("base64", "hex")}
TABLES = {
    "base64": f"Four signs are three bytes, six bits each: {BASE64}, counted from 0.",
    "hex": " ".join(f"{sign}={ord(sign):02X}" for sign in ALPHABET),
    "decimal": " ".join(f"{sign}={ord(sign)}" for sign in ALPHABET),
    "rot13": "ABCDEFGHIJKLM = NOPQRSTUVWXYZ and the other way round; digits stay",
    "reversed": "first = last, second = last but one, and so on",
}


class Encoded(Puzzle):
    """Read, decoded, entered: no evidence but the code itself."""

    name: ClassVar[str] = "encoded"
    reads: ClassVar[bool] = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, hard = setup.rng, setup.difficulty
        self._title = setup.say(TITLE)
        first = rng.choice(sorted(WAYS if hard < 3 else SECOND))
        ways = [first] if hard < 3 else [first, rng.choice(SECOND[first])]
        if len(ways) == 2 and rng.random() < 0.5 and "reversed" in ways:
            ways.reverse()
        said = [setup.say(WAYS[way]) for way in ways]
        self._text = setup.say(ONCE, way=said[0]) if hard < 3 else setup.say(TWICE, way=said[0], after=said[1])
        sentence = setup.say(SENTENCES, code="{code}") if hard > 1 else "{code}"
        self._notes = [(setup.say(VALID if hard == 3 else NOTE), self._written(sentence, setup.code, ways))]
        if hard == 3:
            self._notes.append((setup.say(STALE), self._written(sentence, setup.decoy(), ways)))
            rng.shuffle(self._notes)
        self._tables = [TABLES[way] for way in ways]
        self._table = setup.say(TABLE)

    @staticmethod
    def _written(sentence: str, code: str, ways: Sequence[str]) -> str:
        text = sentence.format(code=code)
        for way in ways:
            text = ENCODE[way](text)
        return text

    @property
    def parts(self) -> Sequence[str]:
        return []

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "notes": [{"title": title, "text": text} for title, text in self._notes],
            "table": {"label": self._table, "lines": self._tables},
            "reveal": None,
        }

    def on(self, event: Event) -> None:
        """Reading leaves no trace; nothing to see here."""
