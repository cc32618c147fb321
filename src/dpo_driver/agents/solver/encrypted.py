"""A message in cipher, and a key that the instruction says where to find: type it into the field, press the button."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, first, squash
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element

QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
ABOUT = r"caesar|vigen|\bcipher|shifted|slid along|\bkeyed\b|key word|unlocks?\b|is the key\b"
ENTRY = re.compile(r"^(\w[\w ]*): ([A-Z]{3,})$")


def _task(page: PuzzlePage) -> tuple[str, Element, Element] | None:
    """The instruction, the field that it names, and the button that it names."""
    for element in page.observation.elements:
        names = [squash(name) for name in QUOTED.findall(element.name)]
        fields = [found for name in names if (found := page.maybe(name, "textbox"))]
        buttons = [found for name in names if (found := page.maybe(name, "button"))]
        if fields and buttons and re.search(ABOUT, element.name, re.IGNORECASE):
            return element.name, fields[0], buttons[-1]
    return None


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    return 0.9 if _task(page) else 0.0


def _shifted(text: str, by: int) -> str:
    return "".join(chr((ord(sign) - 65 + by) % 26 + 65) for sign in text)


def key_of(page: PuzzlePage, instruction: str) -> str:
    """The number that is said, or the word of the entry that is named, moved back where entries are shifted."""
    said = QUOTED.sub("", instruction).lower()
    number = re.search(r"\d+", said)
    entries = [found for element in page.observation.elements if (found := ENTRY.match(squash(element.name)))]
    if not entries:
        if number is None:
            raise Lost("no key is named")
        return number[0]
    named = [entry for entry in entries if re.search(rf"\b{re.escape(entry[1].lower())}\b", said)]
    word = first_of(named)
    return _shifted(word, -int(number[0])) if number else word


def first_of(entries: list[re.Match[str]]) -> str:
    """The word of the entry with the longest name: "first mate" before "mate"."""
    if not entries:
        raise Lost("no entry is named")
    return str(max(entries, key=lambda entry: len(entry[1]))[2])


def solve(page: PuzzlePage) -> Decision:
    """Type the key, then press the button."""
    task = _task(page)
    if task is None:
        raise Lost("no field and button are named")
    instruction, field, button = task
    key = key_of(page, instruction)
    filling = page.fill_all([(field, key)])
    return filling or page.click(first([button]))
