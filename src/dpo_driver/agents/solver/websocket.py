"""A live feed brings pieces of the code among other messages: connect, wait, join what the named sender says."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.agents.solver.parts import PARTS, joined, seen, submit, times, told, waits

ENTERS = True
ABOUT = r"web ?socket|\bfeed\b|\bmessages?\b|\bchannels?\b|\bstations?\b|on the air|over the air|\bsignals?\b|\blive\b"
LOOK_MS = 500
PATIENCE = 14


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    text = told(page, PARTS, ABOUT)
    return 0.9 if text and text.buttons and text.others else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Connect, wait for the pieces of the right sender, enter what they make."""
    text = told(page, PARTS, ABOUT)
    if text is None or not text.buttons or not text.others:
        raise Lost("nothing connects")
    sender = re.compile(rf"\b{re.escape(text.others[0])}\b", re.IGNORECASE)
    lines = (squash(e.name) for observation in seen(page) for e in observation.elements)
    code = joined(line for line in lines if sender.search(line) and line != text.text)
    if code is not None:
        return submit(page, code)
    connect = text.buttons[0]
    if not times(page, connect) or waits(page) >= PATIENCE:
        return page.click(connect)
    return page.wait(LOOK_MS, "wait for messages")
