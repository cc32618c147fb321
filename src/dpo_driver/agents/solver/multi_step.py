"""A list of things to do in order: press, write, tick, choose, press. What is done is read off the controls."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element

QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
ABOUT = r"\border\b|\bsequence\b|one after another|\blist\b|\bchecklist\b|line by line|step by step|top to bottom"


def _lines(page: PuzzlePage) -> list[list[str]]:
    """What each line of the list quotes."""
    found = [QUOTED.findall(e.name) for e in page.observation.elements if e.role == "listitem"]
    return [[squash(name) for name in names] for names in found if names]


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    lines = _lines(page)
    if len(lines) < 3 or not any(len(line) == 2 for line in lines):
        return 0.0
    begins = page.maybe(lines[0][0], "button") is not None
    return 0.9 if begins and page.says(ABOUT) else 0.3


def _undone(page: PuzzlePage, line: list[str]) -> Decision | None:
    """The decision that a line between the first and the last still asks for; None when it is done."""
    if len(line) >= 2:
        fields: list[tuple[Element, str]] = []
        for name, value in (line[:2], line[1::-1]):
            field = page.maybe(name, "textbox", "textarea")
            fields += [(field, value)] if field is not None else []
        if not fields:
            raise Lost("the field of the list is not on the page")
        return page.fill_all(fields[:1])
    control = page.named(line[0], "checkbox", "radio")
    return None if "checked" in control.states else page.click(control)


def solve(page: PuzzlePage) -> Decision:
    """Begin; then the first line that is not done; then the last."""
    lines = _lines(page)
    if len(lines) < 3:
        raise Lost("there is no list")
    last = page.maybe(lines[-1][0], "button")
    if last is None:
        return page.click(page.named(lines[0][0], "button"))
    for line in lines[1:-1]:
        decision = _undone(page, line)
        if decision is not None:
            return decision
    return page.click(last)
