"""What an expert may use: the goal, the elements, the steps already taken, and words for finding and acting.

Experts see exactly what a model sees and act through the same actions; nothing here reaches into a page. A lookup that
finds nothing raises :class:`Lost`, which OracleAgent turns into a recorded noop. Used by experts only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dpo_driver.core.actions import Action, Click, Fill, Hover, Press, SelectOption
from dpo_driver.core.records import Element, Observation, Step

Decision = tuple[str, Action]
TEXT_ROLES = ("textbox", "textarea", "date", "time", "number", "spinbutton", "combobox")
_BLANKS = re.compile(r"\s+")


class Lost(Exception):
    """The page does not show what the expert looks for."""


def squash(text: str) -> str:
    """Text with runs of white space as one space."""
    return _BLANKS.sub(" ", text).strip()


def first(elements: Iterable[Element]) -> Element:
    """The first of some elements; Lost if there is none."""
    for element in elements:
        return element
    raise Lost("no such element is on the page")


@dataclass(frozen=True)
class Page:
    """One decision's view: ``Page(observation, history)``."""

    observation: Observation
    history: Sequence[Step]

    @property
    def goal(self) -> str:
        return squash(self.observation.goal)

    @property
    def start(self) -> Observation:
        """What the page showed before the first step."""
        return self.history[0].observation if self.history else self.observation

    # -- finding -----------------------------------------------------------------------------------------------------

    def read(self, pattern: str) -> re.Match[str]:
        """The first match of a pattern in the goal."""
        found = re.search(pattern, self.goal)
        if found is None:
            raise Lost(f"the goal does not match {pattern!r}")
        return found

    def all(self, *roles: str) -> list[Element]:
        """Elements that can be acted on, of the given roles (any role if none is given), in page order."""
        return [e for e in self.observation.elements if e.ref is not None and (not roles or e.role in roles)]

    def nth(self, number: int, *roles: str) -> Element:
        """The number-th (from 1) element of the given roles."""
        found = self.all(*roles)
        if not 1 <= number <= len(found):
            raise Lost(f"there are {len(found)} elements of {roles}, no number {number}")
        return found[number - 1]

    def maybe(self, name: str, *roles: str) -> Element | None:
        """The first element of exactly that name, or None."""
        return next((e for e in self.all(*roles) if squash(e.name) == squash(name)), None)

    def named(self, name: str, *roles: str) -> Element:
        """The first element of that name and one of the roles."""
        found = self.maybe(name, *roles)
        if found is None:
            raise Lost(f"nothing is called {name!r}")
        return found

    # -- remembering -------------------------------------------------------------------------------------------------

    def clicked(self, element: Element) -> bool:
        """Whether an earlier step clicked the element."""
        return any(isinstance(step.action, Click) and step.action.ref == element.ref for step in self.history)

    def holds(self, element: Element, text: str) -> bool:
        """Whether a field has a text, by its value or, for a masked one, by what was last written into it."""
        if element.value == text:
            return True
        if not element.value or set(element.value) - set("•*●"):
            return False
        written = [s.action.value for s in self.history if isinstance(s.action, Fill) and s.action.ref == element.ref]
        return bool(written) and written[-1] == text

    # -- acting ------------------------------------------------------------------------------------------------------

    def click(self, element: Element) -> Decision:
        """Click an element; one that could not be reached with the mouse is pressed with Enter instead."""
        assert element.ref is not None
        last = self.history[-1].action if self.history else None
        if self.observation.last_error and isinstance(last, Click) and last.ref == element.ref:
            return element.label, Press(ref=element.ref, key="Enter")
        return element.label, Click(ref=element.ref)

    def hover(self, element: Element) -> Decision:
        """Hold the pointer over an element."""
        assert element.ref is not None
        return element.label, Hover(ref=element.ref)

    def press(self, element: Element, key: str) -> Decision:
        """Send a key to an element."""
        assert element.ref is not None
        return element.label, Press(ref=element.ref, key=key)

    def fill(self, element: Element, text: str) -> Decision:
        """Write a text into a field."""
        assert element.ref is not None
        return element.label, Fill(ref=element.ref, value=text)

    def select(self, element: Element, *options: str) -> Decision:
        """Choose options of a list."""
        assert element.ref is not None
        return element.label, SelectOption(ref=element.ref, options=options)

    def fill_all(self, wanted: Sequence[tuple[Element, str]]) -> Decision | None:
        """Fill the first field that does not hold its text yet; None when all do."""
        for element, text in wanted:
            if not self.holds(element, text):
                return self.fill(element, text)
        return None

    def submit(self, name: str = "Submit") -> Decision:
        """Click the button of that name."""
        return self.click(self.named(name, "button", "clickable", "link"))
