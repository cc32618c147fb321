"""Animated button: hit a moving button as often as the page says; its number stays the same wherever it is.

Called by the agent of agents/solver through `recognise` and `solve`; imports nothing of the gauntlet's.
"""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, first
from dpo_driver.agents.solver.answers import await_answer
from dpo_driver.agents.solver.page import PuzzlePage

TIMES = r"^(?=[^\n]*\b\d+ times)[^\n]*[\"“](?P<label>[^\"”\n]+)[\"”]"
MOVES = r"mov(es|ing)|drift|wander|roam|run(s|ning)? away|restless|not rest|chase|catch|dodge|flee|stand still"


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    named = re.search(TIMES, page.text, re.MULTILINE)
    if named is None or page.maybe(named["label"], "button", "clickable") is None:
        return 0.0
    return 0.95 if page.says(MOVES) else 0.4


def solve(page: PuzzlePage) -> Decision:
    """Once more."""
    named = re.search(TIMES, page.text, re.MULTILINE)
    assert named is not None
    if (waiting := await_answer(page)) is not None:
        return waiting
    return page.click(first(e for e in page.all("button", "clickable") if e.name == named["label"]))
