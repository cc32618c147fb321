"""Frames in frames, each with a heading and perhaps a button of the same label: press it in those that are named."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Click, Press
from dpo_driver.core.records import Element

QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
ABOUT = r"\bframes?\b|\bpanes?\b|\bwindows? in"


def _told(page: PuzzlePage) -> tuple[str, list[str]]:
    """The instruction and the names that it quotes: a button and at least two frames."""
    for element in page.observation.elements:
        names = list(dict.fromkeys(squash(name) for name in QUOTED.findall(element.name)))
        if element.role == "text" and len(names) >= 3 and re.search(ABOUT, element.name, re.IGNORECASE):
            return element.name, names
    return "", []


def _task(page: PuzzlePage) -> tuple[str, list[str]]:
    """The button's label and the names of the frames where it is to be pressed, in order."""
    text, names = _told(page)
    labels = [name for name in names if page.maybe(name, "button")]
    rooms = [squash(name) for name in QUOTED.findall(text) if squash(name) not in labels]
    # A chain of names leads to its last; without a chain every name is a place to go to.
    rooms = rooms[-1:] if ">" in text else list(dict.fromkeys(rooms))
    headings = {squash(e.name) for e in page.observation.elements if e.role == "heading"}
    if len(labels) != 1 or not rooms or not headings.issuperset(rooms):
        raise Lost("the frames are not all there yet")
    return labels[0], rooms


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1. Frames load one after the other; the text about them is there at once."""
    return 0.95 if _told(page)[1] else 0.0


def _button(page: PuzzlePage, room: str, label: str) -> Element:
    inside = False
    for element in page.observation.elements:
        if element.role == "heading":
            inside = squash(element.name) == room
        elif inside and element.role == "button" and squash(element.name) == label:
            return element
    raise Lost(f"there is no {label!r} in {room!r}")


def solve(page: PuzzlePage) -> Decision:
    """Press the button of the frame that is next."""
    label, rooms = _task(page)
    buttons = [_button(page, room, label) for room in rooms]
    refs = [button.ref for button in buttons]
    pressed = [s.action.ref for s in page.history if isinstance(s.action, Click | Press) and s.action.ref in refs]
    done = refs.index(pressed[-1]) + 1 if pressed else 0
    return page.click(buttons[done % len(buttons)])
