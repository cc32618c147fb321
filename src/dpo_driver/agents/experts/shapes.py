"""Experts for the families that ask what is drawn: kind, colour, size, number of shapes. Listed in agents/oracle.py."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, Page
from dpo_driver.agents.experts.places import center, corners, ranks, shown, size, wait
from dpo_driver.core.records import Element

_COLORS = "red green blue aqua black magenta yellow"
_DRAWN = ("clickable", "image", "text")
_LARGE = 15.0  # pixels; the small shapes measure 10, the large ones 20
_CLEAR = 10.0  # pixels; a slice of a menu that is still unfolding measures less


def _traits(element: Element) -> tuple[str, str, str, str]:
    """(size, colour, type, text) of a shape, letter or digit."""
    large = "large" if max(size(element)) >= _LARGE else "small"
    if len(element.name) == 1:
        color = (element.value or "").split(" ")[0]
        return large, color, "digit" if element.name.isdigit() else "letter", element.name
    color, _, kind = element.name.partition(" ")
    return large, color, "shape", kind


def matching(page: Page, description: str) -> list[Element]:
    """Elements that a description such as "large red letter", "green item" or "q" fits."""
    found = re.fullmatch(rf"(large )?(small )?(?:({_COLORS.replace(' ', '|')}) )?(\S+)", description)
    if found is None:
        raise Lost(f"no description: {description!r}")
    wanted_size = (found[1] or found[2] or "").strip()
    drawn = [e for e in page.all(*_DRAWN) if " at " in f" {e.value or ''}"]
    found_here = []
    for element in drawn:
        its_size, color, kind, text = _traits(element)
        if wanted_size in ("", its_size) and found[3] in (None, color) and found[4] in ("item", kind, text):
            found_here.append(element)
    return found_here


def click_shape(page: Page) -> Decision:
    """Click on a large red letter"""
    fitting = matching(page, page.read(r"Click on a (.*)")[1])
    if not fitting:
        raise Lost("no shape fits")
    return page.click(fitting[0])


def count_shapes(page: Page) -> Decision:
    """How many small blue items are there?"""
    fitting = matching(page, page.read(r"How many (.*)s are there")[1])
    return page.click(page.named(str(len(fitting)), "button"))


def identify_shape(page: Page) -> Decision:
    """Click the button that best describes the figure below."""
    _size, _color, kind, text = _traits(page.nth(1, *_DRAWN))
    word = {"letter": "Letter", "digit": "Number"}.get(kind, text.capitalize())
    return page.click(page.named(word, "button"))


def count_sides(page: Page) -> Decision:
    """Press the button that correctly denotes how many sides the shape has."""
    sides = next((corners(e) for e in page.observation.elements if corners(e)), None)
    return page.click(page.named(str(sides), "button"))


def click_color(page: Page) -> Decision:
    """Click on the cyan colored box."""
    return page.click(page.named(page.read(r"the (.*) colored box")[1] + " box"))


def click_shades(page: Page) -> Decision:
    """Select all the shades of red and press Submit."""
    wanted = ("red", "green", "blue").index(page.read(r"shades of (\w+)")[1])
    for box in page.all("image", "clickable"):
        found = re.match(r"#(..)(..)(..) box", box.name)
        if found is None:
            continue
        parts = [int(part, 16) for part in found.groups()]
        if parts.index(max(parts)) == wanted and "border" not in (box.value or ""):
            return page.click(box)
    return page.submit()


def add_blocks(page: Page) -> Decision:
    """Type the total number of blocks into the textbox and press Submit."""
    blocks = [e for e in page.all() if e.name.endswith(" box")]
    return page.fill_all([(page.nth(1, "textbox"), str(len(blocks)))]) or page.submit()


def tick_like_picture(page: Page) -> Decision:
    """Draw the number "3" in the checkboxes using the example on the right and press Submit when finished."""
    cells = [e for e in page.observation.elements if e.role == "shape"]
    columns, rows = ranks(center(e)[0] for e in cells), ranks(center(e)[1] for e in cells)
    lit = {(_rank(center(e)[1], rows), _rank(center(e)[0], columns)) for e in shown(page, "white rectangle")}
    for index, box in enumerate(page.all("checkbox")):
        if (divmod(index, len(columns)) in lit) != ("checked" in box.states):
            return page.click(box)
    return page.submit()


def _rank(value: float, ranked: list[float]) -> int:
    return min(range(len(ranked)), key=lambda index: abs(ranked[index] - value))


def click_coordinate(page: Page) -> Decision:
    """Click on the grid coordinate (-2,1)."""
    goal = page.read(r"\((-?\d),(-?\d)\)")
    points = [e for e in page.all() if e.name == "blue circle"]
    columns, rows = ranks(center(e)[0] for e in points), ranks(center(e)[1] for e in points)
    middle = len(columns) // 2
    wanted = columns[middle + int(goal[1])], rows[middle - int(goal[2])]
    return page.click(min(points, key=lambda e: abs(center(e)[0] - wanted[0]) + abs(center(e)[1] - wanted[1])))


def open_pie(page: Page) -> Decision:
    """Expand the pie menu below and click on the item labeled "p"."""
    item = page.maybe(page.read(r'labeled "(.*)"')[1])
    if item is not None and max(size(item)) > _CLEAR:
        return page.click(item)
    opener = page.maybe("+", "clickable", "text")
    return page.click(opener) if opener else wait(300)
