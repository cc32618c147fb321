"""Timing: press a button in the moment in which the page says that something is as it should be.

Called by the agent of agents/solver through `recognise` and `solve`; imports nothing of the gauntlet's.
"""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.answers import await_answer
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Click
from dpo_driver.core.records import Element

WHEN = r"\b(?:while|when|as long as|as soon as|once|until|whenever)\s+(?P<thing>the \w+) is (?P<good>[\w-]+)"
QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]")
LOOK_MS = 220


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    when = page.says(WHEN)
    if when is None or not QUOTED.search(when.string[slice(*_line(when))]):
        return 0.0
    return 0.95 if _state(page, when["thing"]) else 0.3


def solve(page: PuzzlePage) -> Decision:
    """Set it going, look until the moment is there, press."""
    when = page.says(WHEN)
    assert when is not None
    label = QUOTED.search(when.string[slice(*_line(when))])
    assert label is not None
    button = page.named(label[1], "button")
    if not any(isinstance(step.action, Click) for step in page.history):
        return page.click(_starter(page, button))
    if (waiting := await_answer(page)) is not None:
        return waiting
    state = _state(page, when["thing"])
    if state is None:
        raise Lost(f"the page does not say how {when['thing']} is")
    if state.casefold() == when["good"].casefold():
        return page.click(button)
    return page.wait(LOOK_MS, f"wait until {when['thing']} is {when['good']}")


def _line(found: re.Match[str]) -> tuple[int, int]:
    """Where the line begins and ends in which something was found."""
    text = found.string
    end = text.find("\n", found.end())
    return text.rfind("\n", 0, found.start()) + 1, len(text) if end < 0 else end


def _state(page: PuzzlePage, thing: str) -> str | None:
    """How the page says that the thing is now."""
    found = re.search(rf"^{thing} is ([\w-]+)\.?$", page.text, re.IGNORECASE | re.MULTILINE)
    return found[1] if found else None


def _starter(page: PuzzlePage, button: Element) -> Element:
    """The button that another line names in quotes; else the one beside it."""
    for line in page.text.split("\n"):
        for name in QUOTED.findall(line):
            found = page.maybe(name, "button")
            if found is not None and found.ref != button.ref:
                return found
    raise Lost("nothing sets it going")
