"""Numbered pieces of the code lie behind tabs, folds and notes: open one after the other, join what was seen."""

from __future__ import annotations

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.agents.solver.parts import PARTS, joined, least, seen, submit, told, unanswered

ENTERS = True
HOW_MANY = r"\b\d\b"
OPENS = r"\bopen(?:s|ed)?\b|\bbehind\b|\bplaces?\b|\blies?\b|\btucked\b|\bhidden\b"


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    text = told(page, PARTS, OPENS, HOW_MANY)
    if text is None or text.names:
        return 0.0
    controls = text.controls("button", "tab")
    folded = any(e.role == "tab" or {"collapsed", "expanded"} & set(e.states) for e in controls)
    return 0.9 if folded else 0.7 if len(controls) > 2 else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Open whatever was opened least often, until the pieces make a code."""
    code = joined(e.name for observation in seen(page) for e in observation.elements)
    if code is not None:
        return submit(page, code)
    text = told(page, PARTS, OPENS, HOW_MANY)
    if text is None:
        raise Lost("nothing speaks of parts")
    return unanswered(page) or page.click(least(page, text.controls("button", "tab")))
