"""A code that is in the document but not at sight: opens what is folded, reads, and enters it.

An observation reads text in the colour of its background and beyond the edge of a box as it reads any other.
"""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.agents.solver.wanted import fresh, lines_with_codes, standing
from dpo_driver.core.records import Element

ENTERS = True

TASK = (
    r"hidden|conceal|invisible|unseen|out of sight|secret ink|colour of the (?:paper|page|background)|cut short"
    r"|not (?:shown|visible|seen) yet|(?:read|show) (?:more|the rest)"
)
LOOK = (
    r"fold|flap|sections?\b|scroll|sideways|right\b|select|mark\b|drag over|read (?:on|more)|rest\b|beginning|tales?\b"
    r"|first lines|cut short|shown yet"
)
MORE = r"more|rest|all\b|read|continue|whole|unroll|expand|full"

TRIES = 3  # at one fold: something may lie over it


def recognise(page: PuzzlePage) -> float:
    """How sure it is that the page hides a code from the eye only."""
    if page.says(TASK) is None or page.says(LOOK) is None:
        return 0.0
    return 0.9 if _shown(page) is not None or _folds(page) else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Enter what can be read; else open the next fold, one that the task names first."""
    code = _shown(page)
    if code is not None:
        return page.enter(code)
    for fold in _folds(page):
        if sum(getattr(step.action, "ref", None) == fold.ref for step in page.history) < TRIES:
            return page.click(fold)
    raise Lost("everything is open and no code is to be read")


def _shown(page: PuzzlePage) -> str | None:
    """The likeliest code that is not said to be of no use."""
    found = [(-standing(line), code) for line, codes in lines_with_codes(page) if standing(line) >= 0 for code in codes]
    found = [(rank, code) for rank, code in found if fresh(page, code)]
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _folds(page: PuzzlePage) -> list[Element]:
    """What can be opened: the ones that the task names first, then those whose labels promise more text."""

    def rank(element: Element) -> int:
        if page.says(rf"[\"“]{re.escape(element.name)}[\"”]"):
            return 0
        return 1 if element.tag == "summary" or re.search(MORE, element.name, re.IGNORECASE) else 2

    folds = [e for e in page.all() if "collapsed" in e.states and e.role in ("button", "link", "clickable", "item")]
    return sorted(folds, key=rank)
