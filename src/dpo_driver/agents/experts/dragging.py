"""Experts for the families that drag, sort, resize or highlight with the mouse. Listed in agents/oracle.py."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, Page, first
from dpo_driver.agents.experts.places import (
    Point,
    center,
    drag,
    hold_at,
    let_go_at,
    move_to,
    shown,
    size,
    wait,
    within,
)
from dpo_driver.core.actions import DragAndDrop, Hover, MouseDown, MouseDragAndDrop, MouseMove, Noop
from dpo_driver.core.records import Element

_STEP = {"left": (-25.0, 0.0), "right": (25.0, 0.0), "up": (0.0, -25.0), "down": (0.0, 25.0)}
_KINDS = {"rectangles": "rectangle", "circles": "circle", "triangles": "triangle"}
_ORDER = {"1st": 0, "2nd": 1, "3rd": 2, "4th": 3, "5th": 4, "top": 0, "bottom": -1}
_ROWS = {"top": 0, "center": 1, "bottom": 2}
_COLUMNS = {"left": 0, "center": 1, "right": 2}
_BEYOND = 5.0  # pixels past the middle
_LEFT_OF_ALL, _RIGHT_OF_ALL = 2.0, 156.0  # beside the grid
_LETTERS = re.compile(r"\W+")
# Pixels to drag a cube from its first position so that a side comes to the front.
_FRONT = "red"
_TURNS = {1: (0.0, -105.0), 2: (-105.0, 0.0), 3: (-30.0, 0.0), 4: (55.0, 0.0), 5: (110.0, 0.0), 6: (0.0, 35.0)}


def _dragged(page: Page) -> bool:
    return any(isinstance(step.action, MouseDragAndDrop | DragAndDrop) for step in page.history)


def _onto(source: Element, target: Element) -> Decision:
    """Drag an item of a list a little past the middle of another, which then makes room for it."""
    (x, y), (to_x, to_y) = center(source), center(target)
    return drag(source.label, (x, y), (to_x, to_y + (_BEYOND if to_y > y else -_BEYOND)))


def drag_into_box(page: Page) -> Decision:
    """Drag the smaller box so that it is completely inside the larger box."""
    small, large = sorted(page.all("draggable"), key=lambda e: size(e)[0])[:2]
    (x, y), (at_x, at_y) = center(large), center(small)
    if abs(x - at_x) < 2 and abs(y - at_y) < 2:
        return page.submit()
    return drag(small.label, (at_x, at_y), (x, y))


def drag_shape_aside(page: Page) -> Decision:
    """Drag the circle left then press Submit."""
    if _dragged(page):
        return page.submit()
    x, y = _STEP[page.read(r"(left|right|up|down) then")[1]]
    shape = page.nth(1, "image", "clickable", "text")
    at = center(shape)
    return drag(shape.label, at, (at[0] + x, at[1] + y))


def drag_shapes_into_box(page: Page) -> Decision:
    """Drag all circles into the black box."""
    kind = _KINDS[page.read(r"all (\w+) into")[1]]
    box = shown(page, "black rectangle outline")[0]
    return _sort_shapes(page, [(e, box) for e in _shapes(page) if e.name.endswith(" " + kind)])


def sort_shapes_into_boxes(page: Page) -> Decision:
    """Drag all circles (or: all red shapes) into the left box, and everything else into the right box."""
    word = page.read(r"all (\w+)(?: shapes)? into the left box")[1]
    left, right = sorted(shown(page, "black rectangle outline"), key=lambda e: center(e)[0])
    wanted = []
    for shape in _shapes(page):
        chosen = shape.name.endswith(" " + _KINDS[word]) if word in _KINDS else shape.name.startswith(word + " ")
        wanted.append((shape, left if chosen else right))
    return _sort_shapes(page, wanted)


def _shapes(page: Page) -> list[Element]:
    return [e for e in page.all("clickable", "image") if e.name.endswith((" rectangle", " circle", " triangle"))]


def _sort_shapes(page: Page, wanted: list[tuple[Element, Element]]) -> Decision:
    for shape, box in wanted:
        if not within(center(shape), box):
            return drag(shape.label, center(shape), center(box))
    return page.submit()


def drag_item_in_list(page: Page) -> Decision:
    """Drag Germain up by one position. (to the top, to the 3rd position, ...)"""
    found = page.read(r"Drag (.*?) (?:(up|down) by one position|to the (\w+)(?: position)?)\.")
    items = page.all("draggable")
    item = page.named(found[1], "draggable")
    at = items.index(item)
    target = at + (-1 if found[2] == "up" else 1) if found[2] else _ORDER[found[3]]
    return _onto(item, items[target])


def drag_item_in_grid(page: Page) -> Decision:
    """Drag Ingunna to the center. (to the top left, left by one, ...)"""
    found = page.read(
        r"Drag (.*?) (?:(up|down|left|right) by one|to the (top|center|bottom)(?: (left|center|right))?)\."
    )
    items = [e for e in page.start.elements if e.role == "draggable"]
    item = first(e for e in items if e.name == found[1])
    row, column = divmod(items.index(item), 3)
    if found[2]:
        row += {"up": -1, "down": 1}.get(found[2], 0)
        column += {"left": -1, "right": 1}.get(found[2], 0)
    else:
        row, column = _ROWS[found[3]], _COLUMNS[found[4] or "center"]
    return _through_the_side(page, item, items[3 * row + column], backwards=3 * row + column < items.index(item))


def _through_the_side(page: Page, item: Element, target: Element, *, backwards: bool) -> Decision:
    """Carry an item out of the grid and in again from the side: it comes to lie before an element that is entered from
    the right, and behind one that is entered from the left."""
    moves = sum(isinstance(step.action, MouseMove) for step in page.history)
    if not page.history:
        return hold_at(item.label, center(item))
    x, y = center(target)
    if moves == 0:
        return move_to(item.label, (_RIGHT_OF_ALL if backwards else _LEFT_OF_ALL, y))
    there = (x - _BEYOND if backwards else x + _BEYOND, y)
    return move_to(item.label, there) if moves == 1 else let_go_at(item.label, there)


def sort_numbers(page: Page) -> Decision:
    """Sort the numbers in increasing order, starting with the lowest number at the top of the list."""
    items = page.all("draggable")
    for item, target in zip(sorted(items, key=lambda e: int(e.name)), items, strict=True):
        if item.name != target.name:
            return _onto(item, target)
    return page.submit()


def resize_textarea(page: Page) -> Decision:
    """Resize the textarea so that the width is smaller than its initial size then press Submit."""
    if _dragged(page):
        return page.submit()
    found = page.read(r"the (width|height) is (smaller|larger)")
    by = 15.0 if found[2] == "larger" else -15.0
    handle = page.named("se", "handle")
    x, y = center(handle)
    return drag(handle.label, (x, y), (x + by, y) if found[1] == "width" else (x, y + by))


def highlight_text(page: Page) -> Decision:
    """Highlight the text in the paragraph below and click submit. (in the 2nd paragraph)"""
    paragraphs = [e for e in page.all() if e.role not in ("button", "selection")]
    found = re.search(r"the (\w+) paragraph", page.goal)
    paragraph = paragraphs[_ORDER[found[1]] if found and found[1] in _ORDER else 0]
    chosen = next((e.name for e in page.observation.elements if e.role == "selection"), "")
    if _LETTERS.sub("", chosen) == _LETTERS.sub("", paragraph.name):
        return page.submit()
    assert paragraph.box is not None
    left, top, width, height = paragraph.box
    return drag(paragraph.label, (left + 1, top + 3), (left + width - 1, top + height - 3))


def turn_cube(page: Page) -> Decision:
    """Move the cube around so that "1" is the active side facing the user."""
    wanted = page.read(r'"(\d)"')[1]
    side = page.named(wanted)
    done = [type(step.action) for step in page.history]
    if MouseDown not in done and (side.value == _FRONT or Hover in done):
        return _submit_gently(page)
    by = _TURNS[int(wanted)]
    grip: Point = (320.0 if by[0] < 0 else 200.0, 107.0)  # beside the cube, and so is the end of the way
    there = (grip[0] + by[0], grip[1] + by[1])
    # The cube follows what the pointer does between two ticks of its own, so each move is given a tick.
    moves: list[Decision] = [
        move_to(side.label, grip),
        wait(80),
        hold_at(side.label, grip),
        move_to(side.label, there),
        wait(700),
        let_go_at(side.label, there),
    ]
    if len(done) < len(moves):
        return moves[len(done)]
    if side.value != _FRONT and done.count(Noop) < 6:
        return wait(300)  # the colours change slowly
    if side.value != _FRONT:
        raise Lost(f"side {wanted} did not come to the front")
    return _submit_gently(page)


def _submit_gently(page: Page) -> Decision:
    """Submit with a pointer that already rests: what is pressed while moving turns the cube."""
    if not any(isinstance(step.action, Hover) for step in page.history):
        return page.hover(page.named("Submit", "button"))
    return page.submit() if isinstance(page.history[-1].action, Noop) else wait(80)
