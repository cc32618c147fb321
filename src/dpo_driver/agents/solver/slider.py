"""Slider: put every slider on the page to the value that is told for it, then press the button that ends it.

Called by the agent of agents/solver through `recognise` and `solve`; imports nothing of the gauntlet's.
"""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, first, squash
from dpo_driver.agents.experts.places import click_at
from dpo_driver.agents.solver.answers import await_answer
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Hover, MouseClick, Noop
from dpo_driver.core.records import Element

NUMBER = re.compile(r"[-\u2212]?\d+")
QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]")
VIEW_HEIGHT = 720.0  # what lies below is brought into view first
LEAP = 10  # from this distance on a page key is worth a try


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    sliders = page.all("slider")
    if not sliders:
        return 0.0
    return 0.95 if all(_line(page, slider) for slider in sliders) else 0.3


def solve(page: PuzzlePage) -> Decision:
    """Move the first slider that stands wrong; confirm when none does."""
    if (waiting := await_answer(page)) is not None:
        return waiting
    for slider in page.all("slider"):
        wanted = _wanted(page, slider, [])
        value = _integer(slider.value or "")
        if value != wanted:
            return _towards(page, slider, value, wanted)
    named = [name for line in page.text.split("\n") for name in QUOTED.findall(line)]
    return page.click(first(button for name in named if (button := page.maybe(name, "button")) is not None))


def _integer(text: str) -> int:
    found = NUMBER.search(text)
    if found is None:
        raise Lost(f"{text!r} is no number")
    return int(found[0].replace("\u2212", "-"))


def _mentioned(page: PuzzlePage, line: str) -> list[Element]:
    """The sliders that a line names, in its order."""
    at = [(found.start(), s) for s in page.all("slider") if (found := re.search(rf"\b{re.escape(s.name)}\b", line))]
    return [slider for _, slider in sorted(at, key=lambda pair: pair[0])]


def _line(page: PuzzlePage, slider: Element) -> str | None:
    """What is told of a slider: the line that names it first and has a number."""
    for element in page.observation.elements:
        line = squash(element.name)
        if element.role != "slider" and NUMBER.search(line):
            mentioned = _mentioned(page, line)
            if mentioned and mentioned[0].ref == slider.ref:
                return line
    return None


def _wanted(page: PuzzlePage, slider: Element, asking: list[str]) -> int:
    """The value that a slider should have, be it told or relative to another's."""
    line = _line(page, slider)
    if line is None or slider.name in asking:
        raise Lost(f"no value is told for {slider.name}")
    number = _integer(line.replace(slider.name, ""))
    others = _mentioned(page, line)[1:]
    if not others:
        return number
    base = _wanted(page, others[0], [*asking, slider.name])
    return base - number if re.search(r"\b(less|below|under|lower)\b", line, re.IGNORECASE) else base + number


def _ends(page: PuzzlePage, slider: Element) -> tuple[int, int] | None:
    """The numbers written beside the slider: its lowest and its highest value."""
    elements = page.observation.elements
    at = elements.index(slider)
    beside = [elements[i].name for i in (at - 1, at + 1) if 0 <= i < len(elements)]
    if len(beside) < 2 or not all(NUMBER.fullmatch(name) for name in beside):
        return None
    return _integer(beside[0]), _integer(beside[1])


def _towards(page: PuzzlePage, slider: Element, value: int, wanted: int) -> Decision:
    """A click where the value should lie on the scale; what is missing then by keys."""
    ends = _ends(page, slider)
    if ends is not None and slider.box is not None and ends[0] < ends[1]:
        left, top, width, height = slider.box
        last = page.history[-1].action if page.history else None
        if not 0 <= top <= VIEW_HEIGHT - height and not isinstance(last, Hover | Noop):
            return page.hover(slider)
        point = (left + width * (wanted - ends[0]) / (ends[1] - ends[0]), top + height / 2)
        point = (min(left + width - 1, max(left + 1, point[0])), point[1])
        clicks = [step.action for step in page.history if isinstance(step.action, MouseClick)]
        if not any(abs(click.x - point[0]) < 1 and abs(click.y - point[1]) < height for click in clicks):
            return click_at(slider.label, point)
    if ends is not None and wanted in ends:
        return page.press(slider, "Home" if wanted == ends[0] else "End")
    far = abs(wanted - value) >= LEAP
    up, down = ("PageUp", "PageDown") if far else ("ArrowRight", "ArrowLeft")
    return page.press(slider, up if wanted > value else down)
