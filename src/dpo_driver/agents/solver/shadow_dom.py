"""Things packed into each other, to be opened in the order told; only what was opened shows what lies in it."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import PuzzlePage

QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
ABOUT = (
    r"\bunpack|\bpacked\b|\bunwrap|\bwrapped\b|\bundo\b|inside (?:the other|it)|lies deep"
    r"|one inside|outside in|each within"
)


def _way(page: PuzzlePage) -> list[str]:
    """The names of the things in the order of opening."""
    for element in page.observation.elements:
        names = [squash(name) for name in QUOTED.findall(element.name)]
        if len(names) >= 2 and element.role == "text" and re.search(ABOUT, element.name, re.IGNORECASE):
            return names
    return []


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    way = _way(page)
    buttons = [page.maybe(name, "button") is not None for name in way]
    there = [page.maybe(name) is not None for name in way]
    # What lies deeper is not drawn yet, and what was opened is no button any more.
    return 0.9 if any(buttons) and sum(there) == 1 else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Open the innermost thing of the way that is to be seen."""
    for name in reversed(_way(page)):
        button = page.maybe(name, "button")
        if button is not None:
            return page.click(button)
    raise Lost("nothing of the way is on the page")
