"""Whether a page has answered yet: what was done on it shows a moment later, and doing it twice may spoil it.

Used by the solvers of types in which each press counts. Imports nothing of the gauntlet's.
"""

from __future__ import annotations

from dpo_driver.agents.experts.page import Decision
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Hover, Noop, Scroll

ANSWER_MS = 80.0


def await_answer(page: PuzzlePage) -> Decision | None:
    """A short wait when the page looks as it did before the last action; None when it has changed or was waited for."""
    if not page.history:
        return None
    last = page.history[-1]
    if last.action is None or isinstance(last.action, Hover | Noop | Scroll) or page.observation.last_error:
        return None
    same = last.observation.state_hash == page.observation.state_hash
    return page.wait(ANSWER_MS, "wait for the page to answer") if same else None
