"""Experts for the families that click or draw at a point that is worked out. Listed in agents/oracle.py."""

from __future__ import annotations

import math
from collections.abc import Callable

from dpo_driver.agents.experts.page import Decision, Lost, Page, first
from dpo_driver.agents.experts.places import (
    Point,
    center,
    click_at,
    drag,
    hold_at,
    let_go_at,
    move_to,
    shown,
    size,
)
from dpo_driver.core.actions import MouseClick, MouseDragAndDrop, MouseMove, MouseUp

_MARGIN = 4  # pixels that a drawn point keeps from the frame
_WIDTH, _TOP = 150, 52  # of the drawing, pixels
_RADIUS = 15.0  # of the circle that is drawn, pixels
_TURNS = 12  # points of it
_HALF_LINE = 20.0  # pixels on either side of the dot
_SIGNALS = {"HOT": (0.0, 5.0), "WARM": (5.0, 10.0), "COLD": (10.0, 40.0), "ICE COLD": (40.0, math.inf)}


def _mark(page: Page, wanted: Point) -> Decision:
    """Put the blue mark where it is wanted, then submit. A mark that came out beside the click shows by how much."""
    clicks = [step.action for step in page.history if isinstance(step.action, MouseClick)]
    if not clicks:
        return click_at("mark", wanted)
    made = clicks[-1]
    marks = shown(page, "blue circle")
    if not marks:
        raise Lost("there is no mark")
    x, y = center(marks[-1])
    off = made.x - x, made.y - y
    if len(clicks) == 1 and (abs(x - wanted[0]) >= 1 or abs(y - wanted[1]) >= 1):
        return click_at("mark", (wanted[0] + off[0], wanted[1] + off[1]))
    return page.submit()


def _best_point(page: Page, error: Callable[[Point], float]) -> Point:
    """The whole pixel where an error is least, of the drawing, which lies between the goal and the button."""
    button = page.named("Submit", "button")
    bottom = center(button)[1] - size(button)[1] / 2
    points = [(float(x), float(y)) for x in range(_MARGIN, _WIDTH) for y in range(_TOP + _MARGIN, int(bottom))]
    return min(points, key=error)


def _angle(a: Point, vertex: Point, b: Point) -> float:
    """Angle a-vertex-b in radians, 0 to pi."""
    first = math.atan2(a[1] - vertex[1], a[0] - vertex[0])
    second = math.atan2(b[1] - vertex[1], b[0] - vertex[0])
    turn = abs(first - second) % (2 * math.pi)
    return min(turn, 2 * math.pi - turn)


def bisect_angle(page: Page) -> Decision:
    """Create a line that bisects the angle evenly in two, then press submit."""
    first, second = (center(e) for e in shown(page, "black circle")[:2])
    vertex = center(shown(page, "blue circle")[0])

    def error(point: Point) -> float:
        if math.dist(point, vertex) < 20:
            return math.inf
        one, other = _angle(first, vertex, point), _angle(point, vertex, second)
        outside = one + other - _angle(first, vertex, second)  # 0 between the two sides
        return abs(one - other) + max(0.0, outside - 1e-6)

    return _mark(page, _best_point(page, error))


def right_angle(page: Page) -> Decision:
    """Add a third point to create a right angle, then press submit."""
    end = center(shown(page, "black circle")[0])
    vertex = center(shown(page, "blue circle")[0])

    def error(point: Point) -> float:
        # The page measures between corners of the points' boxes; its mark is half a pixel smaller than the others.
        return abs(_angle(end, vertex, (point[0] + 0.5, point[1] + 0.5)) - math.pi / 2)

    return _mark(page, _best_point(page, error))


def find_midpoint(page: Page) -> Decision:
    """Find and click on the shortest mid-point between the two points, then press submit."""
    (x1, y1), (x2, y2) = (center(e) for e in shown(page, "black circle")[:2])
    return _mark(page, ((x1 + x2) / 2, (y1 + y2) / 2))


def circle_center(page: Page) -> Decision:
    """Find and click on the center of the circle, then press submit."""
    return _mark(page, center(max(page.all("image", "clickable"), key=lambda e: size(e)[0])))


def draw_line(page: Page) -> Decision:
    """Draw a horizontal line that runs through the dot, then press submit."""
    if any(isinstance(step.action, MouseDragAndDrop) for step in page.history):
        return page.submit()
    dot = first(e for e in page.all("image", "clickable") if e.name.endswith(" circle"))
    x, y = center(dot)
    # Pixels are whole numbers: the line goes through the dot's upper left part, where the page looks for it.
    x, y = x - 2, y - 2
    if "horizontal" in page.goal:
        return drag(dot.label, (x - _HALF_LINE, y), (x + _HALF_LINE, y))
    return drag(dot.label, (x, y - _HALF_LINE), (x, y + _HALF_LINE))


def draw_circle(page: Page) -> Decision:
    """Draw a circle centered around the marked point by dragging the mouse. Press submit when done."""
    dot = first(e for e in page.all("image", "clickable") if e.name.endswith(" circle"))
    x, y = center(dot)
    moves = sum(isinstance(step.action, MouseMove) for step in page.history)
    if any(isinstance(step.action, MouseUp) for step in page.history):
        return page.submit()
    turn = 2 * math.pi * moves / _TURNS
    there = (x + _RADIUS * math.cos(turn), y + _RADIUS * math.sin(turn))
    if not page.history:
        return hold_at(dot.label, there)
    if moves < _TURNS:
        turn = 2 * math.pi * (moves + 1) / _TURNS
        return move_to(dot.label, (x + _RADIUS * math.cos(turn), y + _RADIUS * math.sin(turn)))
    return let_go_at(dot.label, there)


def find_hot_spot(page: Page) -> Decision:
    """Find and click on the HOT area."""
    area = first(e for e in page.all() if e.name == "empty box")
    (x, y), (width, height) = center(area), size(area)
    told = _told(page)
    if told and told[-1][1] == "HOT":
        return click_at(area.label, told[-1][0])
    inside = [
        (float(px), float(py))
        for px in range(math.ceil(x - width / 2) + 4, math.floor(x + width / 2) - 3, 3)
        for py in range(math.ceil(y - height / 2) + 4, math.floor(y + height / 2) - 3, 3)
    ]
    possible = [p for p in inside if all(_fits(math.dist(p, at), signal) for at, signal in told)]
    if not possible:
        raise Lost("no spot fits what was told")
    if not told:
        return move_to(area.label, (round(x), round(y)))
    return move_to(area.label, min(possible[:: len(possible) // 50 + 1], key=lambda p: _largest_rest(p, possible)))


def _told(page: Page) -> list[tuple[Point, str]]:
    """Where the pointer was and what the page said there."""
    seen = [step.observation for step in page.history[1:]] + [page.observation]
    told = []
    for step, after in zip(page.history, seen, strict=False):
        signal = next((e.name for e in after.elements if e.name in _SIGNALS), None)
        if isinstance(step.action, MouseMove) and signal:
            told.append(((step.action.x, step.action.y), signal))
    return told


def _fits(distance: float, signal: str) -> bool:
    least, most = _SIGNALS[signal]
    return least - 4 <= distance < most + 4  # the page counts from a point up to 3 pixels away


def _largest_rest(point: Point, possible: list[Point]) -> float:
    """How many spots would remain in the worst case after looking at a point."""
    counts = dict.fromkeys(_SIGNALS, 0)
    for spot in possible:
        distance = math.dist(point, spot)
        counts[next(signal for signal, (_, most) in _SIGNALS.items() if distance < most)] += 1
    return max(counts.values())
