"""Encrypted: a message in cipher and its key somewhere on the page; the key, typed and tried, uncovers the code.

Difficulty 1 shifts letters by a number that is said. 2 takes a key word (Vigenère) that is one entry of a list. 3 has
the entries of the list shifted themselves. The message never holds the code: it only shows that the key fits. Used by
envs/gauntlet/visit.py. Imports the base only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("A message in cipher", "The locked letter", "Secret post", "Signals at night"),
    ("Sealed words", "A telegram nobody can read", "The spy's card"),
)
SHIFT: Phrases = (
    (
        "Every letter was moved {by} places on in the alphabet (Caesar). Type that number as the {key} and press {go}.",
        "A Caesar cipher with {by} as its number. Put the number into the field {key} and press {go}.",
        "The message is in Caesar's cipher, shifted by {by}. Enter the shift as {key}, then press {go}.",
        "To read this, write by how much it was shifted, {by}, into {key}; then press {go}.",
    ),
    (
        "Caesar would have known: {by} letters onward. Hand the number over under {key} and choose {go}.",
        "Letters slid along by {by}. Note that figure in {key}, and then {go}.",
        "A plain Caesar wheel, set to {by}. Fill the setting in at {key} and use {go}.",
    ),
)
WORD: Phrases = (
    (
        "The message is in Vigenère's cipher. Its key word is the entry for the {entry}. Type it as {key}, press {go}.",
        "A key word (Vigenère) locks this text: look up the {entry} in the list, put it into {key} and press {go}.",
        "Find the {entry} in the list: that word is the key. Enter it as {key} and press {go}.",
        "What the list gives for the {entry} is the key word. Write it into {key}, then press {go}.",
    ),
    (
        "Vigenère, keyed with what the register says of the {entry}. Supply it under {key} and choose {go}.",
        "The register names the {entry}; that name unlocks the telegram. Put it in {key}, then {go}.",
        "Keyed by one word: the register's {entry}. Fill it in at {key} and use {go}.",
    ),
)
SHIFTED: Phrases = (
    (
        "But the entries of the list are in cipher, too: each letter was moved {by} places on.",
        "Mind that all entries were shifted by {by} letters first (Caesar); shift them back.",
        "The entries themselves are Caesar-shifted by {by}; use the word as it was before.",
        "Each entry was written with every letter {by} places further on. Turn the word back first.",
    ),
    (
        "The register is disguised as well: {by} letters onward (Caesar). Undo that before use.",
        "Careful: names in the register slid along by {by}; slide the name back.",
        "The register's names went through a Caesar wheel set to {by}. The original is wanted.",
    ),
)
KEY: Phrases = (
    ("Key", "Key to the message", "Cipher key", "Your key"),
    ("Cipher word", "Unlocking word", "Setting"),
)
GO: Phrases = (
    ("Decrypt", "Try the key", "Decipher", "Unlock the message", "Read it"),
    ("Apply", "Turn the wheel", "Make it plain", "Unscramble"),
)
MESSAGE: Phrases = (
    ("Message", "The letter", "Intercepted", "In cipher"),
    ("Telegram", "On the card", "As received"),
)
LIST: Phrases = (
    ("List", "From the log", "Facts", "List of names"),
    ("Register", "Register of names", "From the register"),
)
WRONG: Phrases = (
    ("That key does not fit.", "It makes no sense yet.", "Still gibberish.", "Not this key."),
    ("Nobody could read that.", "The wheel turns, but no words come.", "This is no language."),
)
# Either list names a lookup that a stranger could make.
ENTRIES: Phrases = (
    tuple(
        "captain|harbour|first mate|island|flagship|lighthouse|river|mountain|baker|town|castle|village|"
        "teacher|street|bridge|painter|horse|parrot|pilot|valley".split("|")
    ),
    tuple(
        "admiral|station|conductor|lake|locomotive|tower|canyon|glacier|miller|capital|palace|hamlet|"
        "professor|avenue|tunnel|sculptor|donkey|owl|engineer|desert".split("|")
    ),
)
NAMES = (
    "LANTERN MERCURY ORCHID WILLOW FALCON COPPER HARBOR MEADOW VELVET SUMMIT TOPAZ JASPER AMBER CEDAR QUARTZ BASALT "
    "SAFFRON NUTMEG GINGER PEPPER CLOVER THISTLE BRAMBLE HAZEL LAUREL MAPLE POPLAR ROWAN ALDER JUNIPER HERON SPARROW "
    "MAGPIE OTTER BADGER MARTEN LYNX BISON CONDOR PELICAN TURBOT MARLIN STURGEON PILLAR GRANITE COBALT INDIGO SCARLET"
).split()
WHO = "THE PILOT|THE COOK|A FRIEND|THE TWINS|OUR AGENT|THE BAKER|A STRANGER|THE CLERK|NOBODY|THE DOCTOR".split("|")
DOES = "WAITS|SINGS|LEAVES|ARRIVES|SLEEPS|LISTENS|DANCES|RETURNS|WHISTLES|HIDES".split("|")
WHERE = "AT NOON|BY THE MILL|IN THE ATTIC|UNDER THE BRIDGE|AT DAWN|NEAR THE PIER|ON THE ROOF|BEHIND THE INN".split("|")


def turned(text: str, shifts: Sequence[int]) -> str:
    """Capital letters moved on by the shifts in turn; all else stays and uses none up."""
    out, used = [], 0
    for sign in text:
        if "A" <= sign <= "Z":
            sign = chr((ord(sign) - 65 + shifts[used % len(shifts)]) % 26 + 65)
            used += 1
        out.append(sign)
    return "".join(out)


def shifts_of(key: str) -> list[int] | None:
    """A key as shifts: "3", or a word of capital letters; None for what is neither."""
    if key.isdecimal() and len(key) <= 3:
        return [int(key)]
    return [ord(sign) - 65 for sign in key] if key.isascii() and key.isalpha() else None


class Encrypted(Puzzle):
    """Solved by a trusted click on the button (or Enter) while the field holds the key, or the plain message, typed."""

    name: ClassVar[str] = "encrypted"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng = setup.rng
        self._title, self._go, self._label = setup.say(TITLE), setup.say(GO), setup.say(KEY)
        self._headings = setup.say(MESSAGE), setup.say(LIST)
        self._wrong = setup.say(WRONG)
        self._plain = f"{rng.choice(WHO)} {rng.choice(DOES)} {rng.choice(WHERE)}"
        by = rng.randrange(2, 25)
        quote = '"{}"' if setup.skin == "a" else "“{}”"
        named = {"key": quote.format(self._label), "go": quote.format(self._go)}
        self._list: list[str] = []
        if setup.difficulty == 1:
            self._key = str(by)
            self._text = setup.say(SHIFT, by=by, **named)
        else:
            entries = rng.sample(list(ENTRIES[SKINS.index(setup.skin)]), 3 if setup.difficulty == 2 else 6)
            words = rng.sample(NAMES, len(entries))
            self._key = words[0]
            self._text = setup.say(WORD, entry=entries[0], **named)
            if setup.difficulty == 3:
                self._text += " " + setup.say(SHIFTED, by=by)
                words = [turned(word, [by]) for word in words]
            self._list = [f"{entry.capitalize()}: {word}" for entry, word in zip(entries, words, strict=True)]
            rng.shuffle(self._list)
        self._cipher = turned(self._plain, shifts_of(self._key) or [0])
        self._tried: str | None = None  # what the last wrong key made of the message

    @property
    def parts(self) -> Sequence[str]:
        return ["key", "go"]

    def view(self) -> dict[str, Json]:
        setup = self.setup
        tried = None if self._tried is None else {"note": self._wrong, "text": self._tried}
        return {
            "title": self._title,
            "text": self._text,
            "message": {"title": self._headings[0], "text": self._plain.capitalize() if self.solved else self._cipher},
            "list": {"title": self._headings[1], "lines": self._list},
            "field": setup.control("key", self._label),
            "go": setup.control("go", self._go),
            "tried": None if self.solved else tried,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        entered = (event.kind, event.part, event.key) == ("keydown", "key", "Enter")
        if self.solved or not (entered or (event.kind, event.part) == ("click", "go")):
            return
        typed = " ".join(event.fields.get("key", "").upper().split())
        if typed in (self._key, self._plain):
            self.solve()
            return
        self.mistakes += 1
        shifts = shifts_of(typed)
        self._tried = turned(self._cipher, [-shift for shift in shifts]).capitalize() if shifts else ""
