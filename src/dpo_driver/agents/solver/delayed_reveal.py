"""Delayed reveal: press the named button once, then wait the seconds that the page speaks of.

Called by the agent of agents/solver through `recognise` and `solve`; imports nothing of the gauntlet's.
"""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Click, Noop

TOLD = re.compile(r"^(?=[^\n]*\b\d+ seconds?\b)[^\n]*[\"“](?P<label>[^\"”\n]+)[\"”]", re.MULTILINE)
LEFT = r"\b(\d+) s\b"
SLACK_MS = 100
LONGEST_MS = 2000  # a page may be disturbed meanwhile: look now and then


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    told = TOLD.search(page.text)
    if told is None or page.maybe(told["label"], "button") is None:
        return 0.0
    return 0.9 if page.says(r"wait|patient|later|nothing for|must pass|go by|calm|lasts|takes") else 0.5


def solve(page: PuzzlePage) -> Decision:
    """Press, then wait; press again only once nothing says that it runs."""
    told = TOLD.search(page.text)
    assert told is not None
    left = page.says(LEFT)
    if left is not None:
        return page.wait(min(LONGEST_MS, int(left[1]) * 1000 + SLACK_MS))
    last = page.history[-1].action if page.history else None
    if isinstance(last, Click) and not any(isinstance(step.action, Noop) for step in page.history):
        return page.wait(SLACK_MS)  # what was pressed has not shown yet
    return page.click(page.named(told["label"], "button"))
