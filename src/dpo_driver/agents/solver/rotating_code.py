"""Pieces of the code take turns on a board: start it, look often enough to see each, join them by number."""

from __future__ import annotations

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.agents.solver.parts import PARTS, joined, seen, submit, times, told, waits

ENTERS = True
TURNS = r"\bturns?\b|rotat|\bat a time\b|\bby one\b|after another|\b(?:go|pass|come)(?:es)? (?:by|round|one)\b|\bpass\b"
SHORT = r"\bmoment|briefly|\bin turn\b|\bturns\b|rotat|at a time|\bagain\b|\bpass\b"
LOOK_MS = 500  # shorter than pieces stand
PATIENCE = 18  # looks before it is started once more


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    text = told(page, PARTS, TURNS, SHORT)
    return 0.85 if text and len(text.names) == 1 and text.buttons else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Start, look again and again, enter what the pieces make."""
    code = joined(e.name for observation in seen(page) for e in observation.elements)
    if code is not None:
        return submit(page, code)
    text = told(page, PARTS, TURNS)
    if text is None or not text.buttons:
        raise Lost("nothing starts the board")
    start = text.buttons[0]
    if not times(page, start) or waits(page) >= PATIENCE:
        return page.click(start)
    return page.wait(LOOK_MS, "watch the parts")
