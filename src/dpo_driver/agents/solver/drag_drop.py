"""Drag and drop: bring the things that the page names to the places that it names with them.

Called by the agent of agents/solver through `recognise` and `solve`; imports nothing of the gauntlet's.
"""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.answers import await_answer
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import DragAndDrop, Hover, Noop
from dpo_driver.core.records import Element

ABOUT = r"\bdrag|\bdrop\b|\bcarry\b|\bpull\b|\bhaul\b|\bmove the things\b|\bput\b"
VIEW_HEIGHT = 720.0
ROLES = ("button", "clickable", "draggable", "item")


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    if page.says(ABOUT) is None or page.all("slider"):
        return 0.0
    return 0.9 if len(_pairs(page)) > 1 else 0.0


def solve(page: PuzzlePage) -> Decision:
    """The first thing that is not in its place, by the pointer; by keys where that was tried."""
    if (waiting := await_answer(page)) is not None:
        return waiting
    for thing, place in _pairs(page):
        item, placed = _thing(page, thing, place)
        if placed:
            continue
        slot = page.named(place, *ROLES)
        if "pressed" in item.states:
            return page.press(slot, "Enter")
        assert item.ref is not None and slot.ref is not None
        tried = [s.action for s in page.history if isinstance(s.action, DragAndDrop)]
        if any(drag.from_ref == item.ref and drag.to_ref == slot.ref for drag in tried):
            return page.press(item, "Enter")
        below = max((item, slot), key=_bottom)
        last = page.history[-1].action if page.history else None
        if _bottom(below) > VIEW_HEIGHT and not isinstance(last, Hover | Noop):
            return page.hover(below)  # a page that scrolls under a drag would lose it
        return f"{item.label} to {slot.label}", DragAndDrop(from_ref=item.ref, to_ref=slot.ref)
    raise Lost("everything is in its place")


def _bottom(element: Element) -> float:
    return element.box[1] + element.box[3] if element.box else 0.0


def _labels(page: PuzzlePage) -> list[str]:
    """Names of all that can be dragged or dropped on, before anything was moved."""
    found = [squash(e.name) for e in page.start.elements if e.ref is not None and e.role in ROLES and e.name]
    return list(dict.fromkeys(found))


def _pairs(page: PuzzlePage) -> list[tuple[str, str]]:
    """(thing, place) of each line that names just two of them: the first goes to the second."""
    labels, pairs = _labels(page), []
    for element in page.observation.elements:
        line = squash(element.name)
        if element.role in ROLES or len(line) < 5:
            continue
        at = {name: found.start() for name in labels if (found := re.search(rf"\b{re.escape(name)}(?!\w)", line))}
        # "Ring" is not named by "Key ring".
        named = [name for name in at if not any(name != other and name in other for other in at)]
        if len(named) == 2:
            thing, place = sorted(named, key=lambda name: at[name])
            pairs.append((thing, place))
    return pairs


def _thing(page: PuzzlePage, thing: str, place: str) -> tuple[Element, bool]:
    """The element of a thing, and whether its name says that it is in its place."""
    for element in page.all(*ROLES):
        name = squash(element.name)
        if name == thing:
            return element, False
        if name.startswith(thing) and not name[len(thing)].isalnum():
            return element, re.search(rf"\b{re.escape(place)}\b", name[len(thing) :]) is not None
    raise Lost(f"{thing} is not on the page")
