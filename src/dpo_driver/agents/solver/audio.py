"""The code is sent in Morse: let the transcript be written, read its dots and dashes."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.agents.solver.parts import LENGTH, Told, least, submit, times, told, waits

ENTERS = True
ABOUT = r"\bmorse\b|\bdots? and dash|\bdits?\b"
MARKS = re.compile(r"(?<![\w.\-])[.\-·–−]{1,6}(?![\w.\-])")
NUMBER = re.compile(r"\b\d+\b")
WANTED = re.compile(r"\b(?:only|code is in|key is in|yours|heed|just)\b[^.;]*?\b(low|high|deep|short)\b", re.IGNORECASE)
LOOK_MS = 400
PATIENCE = 16
# International Morse code
MORSE = dict(
    pair.split()
    for pair in (
        ".- A,-... B,-.-. C,-.. D,. E,..-. F,--. G,.... H,.. I,.--- J,-.- K,.-.. L,-- M,-. N,--- O,.--. P,--.- Q,.-. R,"
        "... S,- T,..- U,...- V,.-- W,-..- X,-.-- Y,--.. Z,----- 0,.---- 1,..--- 2,...-- 3,....- 4,..... 5,-.... 6,"
        "--... 7,---.. 8,----. 9"
    ).split(",")
)


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    text = told(page, ABOUT)
    return 0.95 if text and text.buttons else 0.0


def _signs(text: Told) -> list[str]:
    """The characters that are written down so far, in the order of their numbers, only those that count."""
    wanted = WANTED.search(text.text)
    found: dict[int, str] = {}
    for element in text.region:
        said = squash(element.name)
        marks, rest = MARKS.findall(said), MARKS.sub(" ", said)
        number = NUMBER.search(rest)
        if (element.ref is not None and element.role == "button") or len(marks) != 1 or number is None:
            continue
        if wanted is None or re.search(rf"\b{wanted[1]}\b", rest, re.IGNORECASE):
            found[int(number[0])] = MORSE.get(re.sub("[–−]", "-", marks[0]).replace("·", "."), "?")
    return [sign for _, sign in sorted(found.items())]


def solve(page: PuzzlePage) -> Decision:
    """Press what writes, the last button that the text names; wait until six characters are there."""
    text = told(page, ABOUT)
    if text is None or not text.buttons:
        raise Lost("nothing plays")
    signs = _signs(text)
    if len(signs) == LENGTH and "?" not in signs:
        return submit(page, "".join(signs))
    script = text.buttons[-1]
    if not times(page, script):
        return page.click(script)
    if waits(page) >= PATIENCE:
        return page.click(least(page, text.buttons))
    return page.wait(LOOK_MS, "wait for the transcript")
