"""One of several choices is right and nothing tells which: tries them one by one."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Click, Press
from dpo_driver.core.records import Element

TASK = (
    r"no hint|guess|one (?:by one|after another)|random|try (?:each|one|the next|your luck)|luck|blind|fortune"
    r"|nobody knows|does not say which|choose anew|another if need"
)
CHECK = r"check|test|try|\bask|right\?|fortune|verify|answer|submit|confirm"


def recognise(page: PuzzlePage) -> float:
    """How sure it is that a choice has to be guessed."""
    if page.says(TASK) is None or len(page.all("radio")) < 2:
        return 0.0
    return 0.9 if _button(page) is not None else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Choose the next one that was not checked in vain; check it."""
    button = _button(page)
    if button is None:
        raise Lost("there is nothing to check a choice with")
    tried = _tried(page, button)
    options = [e for e in page.all("radio") if "disabled" not in e.states and e.ref not in tried]
    if not options:
        raise Lost("every choice was tried")
    for option in options:
        if "checked" in option.states:
            return page.click(button)
    return page.click(options[0])


def _button(page: PuzzlePage) -> Element | None:
    """The first button after the choices that speaks of checking."""
    elements = page.observation.elements
    last = max((i for i, e in enumerate(elements) if e.role == "radio"), default=len(elements))
    buttons = [e for e in elements[last:] if e.role == "button" and e.ref is not None]
    return next((e for e in buttons if re.search(CHECK, e.name, re.IGNORECASE)), None)


def _tried(page: PuzzlePage, button: Element) -> set[str | None]:
    """Choices that were selected when the button was pressed, and not only aimed at."""
    after = [*(step.observation for step in page.history[1:]), page.observation]
    return {
        element.ref
        for step, then in zip(page.history, after, strict=False)
        if isinstance(step.action, Click | Press) and step.action.ref == button.ref and not then.last_error
        for element in step.observation.elements
        if element.role == "radio" and "checked" in element.states
    }
