"""Draw: hold the pointer down at the first point that the page names, pass the others in order, let go at the last.

Called by the agent of agents/solver through `recognise` and `solve`; imports nothing of the gauntlet's.
"""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.experts.places import center, hold_at, let_go_at, move_to
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Hover, MouseDown, MouseMove, MouseUp
from dpo_driver.core.records import Element

ABOUT = r"\bdraw\b|\bstroke\b|\btrace\b|\bsketch\b|\bpull the line\b"
VIEW_HEIGHT = 720.0  # what lies below is brought into view first
TRIES = 3


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    if _canvas(page) is None or page.says(ABOUT) is None:
        return 0.0
    return 0.95 if _way(page) else 0.3


def solve(page: PuzzlePage) -> Decision:
    """The next piece of the stroke."""
    canvas, way = _canvas(page), _way(page)
    if canvas is None or not way:
        raise Lost("no points to draw through are named")
    done: list[object] = []
    strokes = 0
    for step in page.history:
        if isinstance(step.action, MouseDown | MouseMove):
            done.append(step.action)
        elif isinstance(step.action, MouseUp):
            done, strokes = [], strokes + 1
    if strokes >= TRIES:
        raise Lost("the line was drawn, but not taken")
    last = page.history[-1].action if page.history else None
    if not done and not _in_view(canvas) and not isinstance(last, Hover):
        return page.hover(canvas)
    point = way[min(len(done), len(way) - 1)]
    if not done:
        return hold_at(point.name, center(point))
    # The pointer goes to the last point and only then is let go.
    return move_to(point.name, center(point)) if len(done) < len(way) else let_go_at(point.name, center(point))


def _canvas(page: PuzzlePage) -> Element | None:
    return next((e for e in page.observation.elements if e.tag == "canvas"), None)


def _in_view(canvas: Element) -> bool:
    if canvas.box is None:
        return True
    _, top, _, height = canvas.box
    return top >= 0 and top + height <= VIEW_HEIGHT


def _way(page: PuzzlePage) -> list[Element]:
    """The points that one line of the page names, in its order."""
    canvas = _canvas(page)
    points = {squash(e.name): e for e in page.observation.elements if e.tag == "text" and canvas and _over(e, canvas)}
    for element in page.observation.elements:
        if element.tag == "text":
            continue
        line = squash(element.name)
        at = [(found.start(), name) for name in points if (found := re.search(rf"\b{re.escape(name)}\b", line))]
        if len(at) > 1:
            return [points[name] for _, name in sorted(at)]
    return []


def _over(point: Element, canvas: Element) -> bool:
    """Whether a label lies on the canvas."""
    if point.box is None or canvas.box is None:
        return False
    (left, top, width, height), (x, y) = canvas.box, center(point)
    return left <= x <= left + width and top <= y <= top + height
