"""Questions that open one another, with the answers on the card of the person that is named; then a button."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element

QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
ABOUT = r"\bcards?\b|\bnotes\b|\brepl(?:y|ies)\b|\banswers?\b|\bquestions?\b"


def _task(page: PuzzlePage) -> tuple[str, Element] | None:
    """The instruction and the button that it names."""
    for element in page.observation.elements:
        if element.role != "text" or not re.search(ABOUT, element.name, re.IGNORECASE):
            continue
        for name in QUOTED.findall(element.name):
            button = page.maybe(squash(name), "button")
            if button is not None:
                return element.name, button
    return None


def facts_of(page: PuzzlePage, instruction: str) -> list[str]:
    """The lines of the card whose heading has a name that the instruction has, too."""
    names = set(re.findall(r"\b[A-Z][a-z]+\b", QUOTED.sub("", instruction)))
    lines: list[str] = []
    inside = False
    for element in page.observation.elements:
        if element.role == "heading":
            inside = bool(names & set(re.findall(r"\b[A-Z][a-z]+\b", element.name)))
        elif element.role != "listitem":
            inside = False
        elif inside:
            lines.append(squash(element.name).lower())
    return lines


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    task = _task(page)
    if task is None or len(page.all("radio")) < 2:
        return 0.0
    return 0.9 if facts_of(page, task[0]) else 0.2


def solve(page: PuzzlePage) -> Decision:
    """Choose the first answer of the card that is not chosen yet; when all are, press the button."""
    task = _task(page)
    if task is None:
        raise Lost("no button is named")
    instruction, button = task
    lines = facts_of(page, instruction)
    for option in page.all("radio"):
        named = re.compile(rf"\b{re.escape(squash(option.name).lower())}\b")
        if "checked" not in option.states and any(named.search(line) for line in lines):
            return page.click(option)
    return page.click(button)
