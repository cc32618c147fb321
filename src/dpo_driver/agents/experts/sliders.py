"""Experts for sliders, colour fields and scrolling. Listed in agents/oracle.py."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, Page
from dpo_driver.core.actions import Press
from dpo_driver.core.records import Element, Observation

_HEX = {
    "black": "000000", "white": "FFFFFF", "aqua": "00FFFF", "blue": "0000FF", "gray": "808080", "green": "008000",
    "lime": "00FF00", "maroon": "800000", "navy": "000080", "olive": "808000", "purple": "800080", "red": "FF0000",
    "silver": "C0C0C0", "teal": "008080", "yellow": "FFFF00", "pink": "FFC0CB", "magenta": "FF00FF", "gold": "FFD700",
    "orange": "FFA500",
}  # fmt: skip
_PAGE_KEYS = ("PageUp", "PageDown")


def use_slider(page: Page) -> Decision:
    """Select 42 with the slider and hit Submit."""
    wanted = int(page.read(r"Select (-?\d+) with the slider")[1])
    return _slide(page, page.nth(1, "slider"), 0, wanted) or page.submit()


def use_sliders(page: Page) -> Decision:
    """Set the sliders to the combination [4,20,7] and submit."""
    numbers = [int(number) for number in page.read(r"\[(.*)\]")[1].split(",")]
    for index, (slider, wanted) in enumerate(zip(page.all("slider"), numbers, strict=True)):
        decision = _slide(page, slider, index, wanted)
        if decision:
            return decision
    return page.submit()


def _numbers(observation: Observation) -> list[int]:
    """The values that are shown beside the sliders, in page order."""
    return [int(e.name) for e in observation.elements if e.role == "text" and re.fullmatch(r"-?\d+", e.name)]


def _slide(page: Page, slider: Element, index: int, wanted: int) -> Decision | None:
    """One key towards the wanted value: a page's worth where that comes nearer, else one step."""
    value = _numbers(page.observation)[index]
    if value == wanted:
        return None
    leap = _leap(page, slider, index)
    far = abs(wanted - value) > (leap / 2 if leap is not None else 3)
    up, down = ("PageUp", "PageDown") if far else ("ArrowRight", "ArrowLeft")
    return page.press(slider, up if wanted > value else down)


def _leap(page: Page, slider: Element, index: int) -> int | None:
    """How far the slider went at one of its page keys, seen in earlier steps; None before the first."""
    seen = [step.observation for step in page.history] + [page.observation]
    leaps = [
        abs(_numbers(after)[index] - _numbers(before)[index])
        for step, before, after in zip(page.history, seen, seen[1:], strict=False)
        if isinstance(step.action, Press) and step.action.ref == slider.ref and step.action.key in _PAGE_KEYS
    ]
    return max(leaps, default=None)


def pick_color(page: Page) -> Decision:
    """Select red (or: the following color #1fa2c3) with the color picker and hit Submit."""
    found = page.read(r"Select (?:the following color )?(\S+) with the color picker")[1]
    wanted = found[1:].upper() if found.startswith("#") else _HEX.get(found)
    if wanted is None:
        raise Lost(f"{found} is no known colour")
    field = page.nth(1, "textbox")
    return page.submit() if (field.value or "").upper() == wanted else page.fill(field, wanted)


def scroll_to_end(page: Page) -> Decision:
    """Scroll the textarea to the bottom of the text hit submit."""
    area = page.nth(1, "textarea")
    key = "Control+End" if page.read(r"to the (bottom|top)")[1] == "bottom" else "Control+Home"
    pressed = any(isinstance(step.action, Press) and step.action.key == key for step in page.history)
    return page.submit() if pressed else page.press(area, key)
