"""A note holds the code in Base64, as numbers, in ROT13 or backwards, perhaps twice over: decode it and enter it.

What is named in the instruction is undone in every order; what comes out has to be a code, alone or among plain words.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import CODE, PuzzlePage

ENTERS = True

WAYS = {
    "base64": r"base[\s-]*64",
    "hex": r"\bhex|base sixteen",
    "decimal": r"ascii|character (?:codes|numbers)",
    "rot13": r"rot[\s-]*13",
    "reversed": r"back to front|backward|revers|wrong way round|mirror|from the end",
}
SUBJECT = r"\b(?:code|key|note|slip|message|it)\b"
OTHER_RULES = r"\bswap|\bhal(?:f|ves)\b|every (?:other|second)|\bshift|\bposition|\balphabet"
STALE = r"yesterday|expired|\bold\b|\blast\b|\bvoid\b|\bformer\b|\bstale\b|out of date|previous|no longer"
PLAIN = re.compile(r"\b(?:the|is|it|to|at|your|code|key|use|say|write|below|today|opens?|pass|door|gate)\b")


def _base64(text: str) -> str:
    return base64.b64decode(text, validate=True).decode("ascii")


def _numbers(base: int) -> Callable[[str], str]:
    return lambda text: bytes(int(number, base) for number in text.split()).decode("ascii")


UNDO: dict[str, Callable[[str], str]] = {
    "base64": _base64,
    "hex": _numbers(16),
    "decimal": _numbers(10),
    "rot13": lambda text: codecs.decode(text, "rot13"),
    "reversed": lambda text: text[::-1],
}


def _ways(page: PuzzlePage) -> tuple[str, list[str]]:
    """The instruction, and the ways of writing that it names."""
    for element in page.observation.elements:
        found = [way for way, words in WAYS.items() if re.search(words, element.name, re.IGNORECASE)]
        if found and element.role == "text" and re.search(SUBJECT, element.name, re.IGNORECASE):
            return element.name, found
    return "", []


def _undone(text: str, ways: Sequence[str]) -> str | None:
    try:
        for way in ways:
            text = UNDO[way](text)
    except (binascii.Error, ValueError):
        return None
    return text if text.isprintable() else None


def _candidates(page: PuzzlePage) -> Iterator[tuple[bool, str]]:
    """(whether it is said to be no longer valid, code), in reading order."""
    instruction, ways = _ways(page)
    heading = ""
    for element in page.observation.elements:
        text = squash(element.name)
        if element.role == "heading":
            heading = text
        if element.name == instruction or len(text) < 6 or element.role != "text" or not ways:
            continue
        for order in itertools.permutations(ways):
            plain = _undone(text, order)
            found = CODE.search(plain) if plain else None
            if plain and found and (found[0] == plain or (PLAIN.search(plain) and not PLAIN.search(text))):
                yield bool(re.search(STALE, heading, re.IGNORECASE)), found[0]
                break


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    instruction, ways = _ways(page)
    if not ways:
        return 0.0
    if not any(True for _ in _candidates(page)):
        return 0.1
    return 0.5 if ways == ["reversed"] and re.search(OTHER_RULES, instruction, re.IGNORECASE) else 0.9


def solve(page: PuzzlePage) -> Decision:
    """Enter what the note says, the valid one first."""
    for _, code in sorted(_candidates(page), key=lambda candidate: candidate[0]):
        if not page.refused(code):
            return page.enter(code)
    raise Lost("no note decodes to a code")
