"""Something reveals the code when the pointer rests on it: moves there and holds still."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Hover, Noop
from dpo_driver.core.records import Element

POINTER = r"pointer|hover|cursor|mouse"
STAY = r"\brests?\b|hover|hold|still|linger|stays?\b|sleep|leave it|keep|stir"
QUOTED = r"[\"“]([^\"”\n]+)[\"”]"
TIME = r"(?P<seconds>\d+(?:\.\d+)?)\s*s(?:ec|econds?)?\b"
MARGIN_MS = 120.0
DEFAULT_S = 0.8
WAITS = 2  # on one thing, before the next


def recognise(page: PuzzlePage) -> float:
    """How sure it is that the pointer has to rest somewhere."""
    said = _task(page)
    if not _things(page, said):
        return 0.0
    return 0.9 if re.search(TIME, said) else 0.7


def solve(page: PuzzlePage) -> Decision:
    """Hover over the things that the task names, in its order, and wait after each."""
    said = _task(page)
    things = _things(page, said)
    stated = re.search(TIME, said, re.IGNORECASE)
    stay = 1000 * float(stated["seconds"] if stated else DEFAULT_S) + MARGIN_MS
    waited = _waited(page)
    last = next((s.action.ref for s in reversed(page.history) if isinstance(s.action, Hover)), None)
    if not things:
        raise Lost("what the pointer should rest on is not there")
    places = [thing.ref for thing in things]
    if last not in places:
        return page.hover(things[0])
    index = places.index(last)
    # The first one of several is done after one wait: only the last one shows the code.
    if waited < (1 if index + 1 < len(things) else WAITS):
        return page.wait(stay, f"rest on {things[index].label}")
    return page.hover(things[(index + 1) % len(things)])


def _waited(page: PuzzlePage) -> int:
    """Waits since the pointer was moved last."""
    count = 0
    for step in reversed(page.history):
        if isinstance(step.action, Hover):
            break
        count += isinstance(step.action, Noop)
    return count


def _task(page: PuzzlePage) -> str:
    """The line that says where the pointer has to stay; "" if none does."""
    for line in page.text.split("\n"):
        if all(re.search(words, line, re.IGNORECASE) for words in (POINTER, STAY, QUOTED)):
            return line
    return ""


def _things(page: PuzzlePage, said: str) -> list[Element]:
    """What the task names in quotes, in its order, as far as it is on the page."""
    return [found for name in re.findall(QUOTED, said) if (found := page.maybe(name)) is not None]
