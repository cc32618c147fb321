"""A worker in the background answers what is asked: start it, ask everything, join the answers."""

from __future__ import annotations

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.agents.solver.parts import joined, least, submit, times, told, waits, whole

ENTERS = True
ABOUT = r"\bworker\b|\bservants?\b|\bin the background\b|behind the page"
LOOK_MS = 250
PATIENCE = 12


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    text = told(page, ABOUT)
    return 0.9 if text and text.buttons and (text.buttons[1:] or text.alike(besides=text.buttons)) else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Start first, then every other button of the puzzle; wait for what the frames show."""
    text = told(page, ABOUT)
    if text is None or not text.buttons:
        raise Lost("nothing starts the worker")
    start = text.buttons[0]
    asking = text.buttons[1:] or text.alike(besides=[start])
    before = {e.name for e in page.start.elements}
    said = [e.name for e in text.region if e.name not in before]
    code = joined(said) or (whole(said) if len(asking) == 1 else None)
    if code is not None:
        return submit(page, code)
    if not times(page, start):
        return page.click(start)
    following = least(page, asking)
    if not times(page, following):
        return page.click(following)
    if waits(page) >= PATIENCE:
        return page.click(least(page, [start, *asking]))
    return page.wait(LOOK_MS, "wait for the answers")
