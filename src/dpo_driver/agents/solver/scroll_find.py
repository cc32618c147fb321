"""A button far down a page: scrolls like a person until it is in sight, then clicks it."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Scroll
from dpo_driver.core.records import Element

ABOUT = r"scroll|bottom|far(?:ther)? down|further down|floors? below|descend|go down as|lowest"
QUOTED = r"[\"“]([^\"”\n]+)[\"”]"
STRIDE = 1200.0
MOST = 24  # strides before it gives up
IN_SIGHT = 560.0  # a button above this line of the window can be seen


def recognise(page: PuzzlePage) -> float:
    """How sure it is that something has to be scrolled to."""
    line, label = _task(page)
    if not label:
        return 0.0
    return 0.9 if re.search(r"\bdown|bottom|below|descend|lower", line, re.IGNORECASE) else 0.5


def solve(page: PuzzlePage) -> Decision:
    """Scroll until the button is in sight; at least once, for nobody finds it without."""
    _, label = _task(page)
    strides = sum(isinstance(step.action, Scroll) for step in page.history)
    target = page.maybe(label, "button", "link", "clickable")
    if target is not None and strides and (_in_sight(target) or _came_close(page, target)):
        return page.click(target)
    if strides >= MOST:
        raise Lost(f"there is no {label!r} however far one scrolls")
    # No two strides alike: the same action in a page that looks the same would count as getting nowhere.
    distance = STRIDE + 10 * strides
    if target is not None and target.box is not None:
        distance = max(STRIDE / 4, target.box[1] - IN_SIGHT / 2)
    return f"scroll to {label}", Scroll(delta_x=0, delta_y=float(round(distance)))


def _task(page: PuzzlePage) -> tuple[str, str]:
    """The line that says what to scroll to, and the label that it quotes; empty if none does."""
    for line in page.text.split("\n"):
        quoted = re.search(QUOTED, line)
        if quoted and re.search(ABOUT, line, re.IGNORECASE):
            return line, quoted[1]
    return "", ""


def _came_close(page: PuzzlePage, target: Element) -> bool:
    """Whether the last stride was made with the button on the page already: nearer than that it does not come."""
    last = page.history[-1]
    return isinstance(last.action, Scroll) and any(e.ref == target.ref for e in last.observation.elements)


def _in_sight(element: Element) -> bool:
    return element.box is None or 0 <= element.box[1] <= IN_SIGHT
