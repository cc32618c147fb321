"""Where things lie, read from an element's text ("at 40,60 size 20x20"), and mouse actions at points.

All in CSS pixels of the viewport. Used by the experts for drawn and geometric families only; nothing here reaches into
a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dpo_driver.agents.experts.page import Decision, Lost, Page
from dpo_driver.core.actions import (
    MouseClick,
    MouseDown,
    MouseDragAndDrop,
    MouseMove,
    MouseUp,
    Noop,
)
from dpo_driver.core.records import Element

Point = tuple[float, float]
_NUMBER = r"(-?[\d.]+)"
_AT = re.compile(rf"at {_NUMBER},{_NUMBER}")
_SIZE = re.compile(rf"size {_NUMBER}x{_NUMBER}")
_RADIUS = re.compile(rf"radius {_NUMBER}")
_LINE = re.compile(rf"from {_NUMBER},{_NUMBER} to {_NUMBER},{_NUMBER}")
_CORNERS = re.compile(r"(\d+) corners")


def center(element: Element) -> Point:
    """The middle of an element: from its text, else of its box."""
    found = _AT.search(element.value or "")
    if found:
        return float(found[1]), float(found[2])
    if element.box is None:
        raise Lost(f"{element.label} has no place")
    left, top, width, height = element.box
    return left + width / 2, top + height / 2


def size(element: Element) -> Point:
    """Width and height of an element: from its text, else of its box."""
    value = element.value or ""
    if found := _RADIUS.search(value):
        return 2 * float(found[1]), 2 * float(found[1])
    if found := _SIZE.search(value):
        return float(found[1]), float(found[2])
    if element.box is None:
        raise Lost(f"{element.label} has no size")
    return element.box[2], element.box[3]


def corners(element: Element) -> int | None:
    """How many corners a drawn shape is said to have."""
    found = _CORNERS.search(element.value or "")
    return int(found[1]) if found else None


def within(point: Point, element: Element) -> bool:
    """Whether a point lies in an element."""
    (x, y), (width, height) = center(element), size(element)
    return abs(point[0] - x) <= width / 2 and abs(point[1] - y) <= height / 2


def shown(page: Page, name: str) -> list[Element]:
    """Elements of exactly that name, such as "black circle", whether or not they can be referred to."""
    return [element for element in page.observation.elements if element.name == name]


def last(page: Page, *kinds: type) -> object | None:
    """The latest earlier action of one of the kinds."""
    return next((s.action for s in reversed(page.history) if isinstance(s.action, kinds)), None)


def click_at(thing: str, point: Point) -> Decision:
    """Click a point; ``thing`` says what lies there."""
    return thing, MouseClick(x=point[0], y=point[1])


def drag(thing: str, start: Point, end: Point) -> Decision:
    """Drag from one point to another."""
    return thing, MouseDragAndDrop(from_x=start[0], from_y=start[1], to_x=end[0], to_y=end[1])


def move_to(thing: str, point: Point) -> Decision:
    """Move the pointer to a point."""
    return thing, MouseMove(x=point[0], y=point[1])


def hold_at(thing: str, point: Point) -> Decision:
    """Press the left button at a point."""
    return thing, MouseDown(x=point[0], y=point[1])


def let_go_at(thing: str, point: Point) -> Decision:
    """Release the left button at a point."""
    return thing, MouseUp(x=point[0], y=point[1])


def wait(milliseconds: float) -> Decision:
    """Let time pass."""
    return "wait", Noop(wait_ms=milliseconds)


def ranks(numbers: Iterable[float], apart: float = 4.0) -> list[float]:
    """The distinct values in increasing order; values closer than ``apart`` are one."""
    found: list[float] = []
    for number in sorted(numbers):
        if not found or number - found[-1] > apart:
            found.append(number)
    return found
