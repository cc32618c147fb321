"""What a solver of one type of puzzle may use: the page of the current step, and what was done on it so far.

The same observation and actions that a model has; nothing here knows the gauntlet's code. Used by agents/solver only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from dpo_driver.agents.experts.page import Decision, Lost, Page, squash
from dpo_driver.core.actions import Fill, Noop, Press
from dpo_driver.core.records import Element, Observation, Step

CODE = re.compile(r"\b[A-HJ-NP-Z2-9]{6}\b")
STEP = re.compile(r"\b(?:step|stage|level|door|challenge|puzzle|room)\s+(\d+)\s*(?:of|/)\s*(\d+)", re.IGNORECASE)
_ADDRESS = re.compile(r"/(?:step|stage|level|door|challenge|puzzle|room)s?/(\d+)/?$", re.IGNORECASE)
_ABOUT_CODE = re.compile(r"code|key|pass", re.IGNORECASE)


def step_of(observation: Observation) -> tuple[int, int] | None:
    """(number, count) of the step that the page says it is, or None. A heading counts before running text, which may
    count steps of its own; an address alone gives no count (0)."""
    for among in (("heading",), ()):
        for element in observation.elements:
            found = STEP.search(element.name) if not among or element.role in among else None
            if found:
                return int(found[1]), int(found[2])
    address = _ADDRESS.search(urlsplit(observation.url).path)
    return (int(address[1]), 0) if address else None


def step_number(observation: Observation) -> int | None:
    """The number of the step, or None."""
    found = step_of(observation)
    return found[0] if found else None


def of_this_step(observation: Observation, history: Sequence[Step]) -> list[Step]:
    """The steps already taken on the puzzle that the page shows now. What names no step in between, such as a second
    tab, belongs to it; what came before it, such as the start page, does not."""
    now = step_number(observation)
    begin = len(history)
    while begin:
        before = step_number(history[begin - 1].observation)
        if now is None:
            now = before
        elif before not in (None, now):
            break
        begin -= 1
    while now is not None and begin < len(history) and step_number(history[begin].observation) is None:
        begin += 1
    return list(history[begin:])


@dataclass(frozen=True)
class PuzzlePage(Page):
    """``PuzzlePage(observation, history of this step)``; finding and acting as in agents/experts/page.py."""

    @classmethod
    def of(cls, observation: Observation, history: Sequence[Step]) -> PuzzlePage:
        """Leaves out what was done on earlier steps."""
        return cls(observation, of_this_step(observation, history))

    @cached_property
    def text(self) -> str:
        """All words of the page in reading order, one element a line."""
        return "\n".join(squash(element.name) for element in self.observation.elements if element.name)

    def says(self, pattern: str) -> re.Match[str] | None:
        """The first match of a pattern (ignoring case) in the page's text."""
        return re.search(pattern, self.text, re.IGNORECASE)

    def codes(self) -> list[str]:
        """Everything that looks like a code, in reading order, once each."""
        return list(dict.fromkeys(CODE.findall(self.text)))

    @property
    def code_field(self) -> Element:
        """Where the code goes: a text field between the step's heading and the next one; without such a form on top,
        the last field whose name speaks of a code or key, else the last one."""
        fields = self.all("textbox")
        if not fields:
            raise Lost("there is no field for the code")
        elements = self.observation.elements
        headings = [i for i, e in enumerate(elements) if e.role == "heading"]
        top = next((n for n, i in enumerate(headings) if STEP.search(elements[i].name)), None)
        if top is not None:
            end = headings[top + 1] if top + 1 < len(headings) else headings[top]
            above = [e for e in elements[headings[top] : end] if e.ref is not None and e.role == "textbox"]
            if above:
                return above[0]
        named = [field for field in fields if _ABOUT_CODE.search(field.name)]
        return (named or fields)[-1]

    @cached_property
    def _sends(self) -> Element | None:
        """The button that sends the code off: the first one after the code's field."""
        try:
            place = self.observation.elements.index(self.code_field)
        except Lost:
            return None
        return next((e for e in self.observation.elements[place:] if e.role == "button" and e.ref is not None), None)

    def maybe(self, name: str, *roles: str) -> Element | None:
        """The first element of exactly that name, or None. Where the code's form has a button of the same name as the
        puzzle, the puzzle's is meant."""
        found = [e for e in self.all(*roles) if squash(e.name) == squash(name)]
        return next((e for e in found if e is not self._sends), found[0] if found else None)

    def revealed(self) -> list[str]:
        """Codes that the page shows now and did not show when this step began, the likeliest first: those with a
        digit (a word in capitals has none), then those nearest to the code's field."""
        if not self.history:
            return []
        known = set(PuzzlePage(self.start, ()).codes())
        elements = self.observation.elements
        try:
            place = elements.index(self.code_field)
        except Lost:
            return []
        found: dict[str, tuple[bool, int]] = {}
        for index, element in enumerate(elements):
            for code in CODE.findall(element.name):
                rank = (not re.search(r"\d", code), abs(index - place))
                if code not in known:
                    found[code] = min(rank, found.get(code, rank))
        return sorted(found, key=lambda code: found[code])

    def submissions(self) -> list[str]:
        """The codes that were sent off on this step, oldest first: each Enter in a field with one."""
        sent: list[str] = []
        written: dict[str, str] = {}
        for step in self.history:
            if isinstance(step.action, Fill) and CODE.fullmatch(step.action.value):
                written[step.action.ref] = step.action.value
            elif isinstance(step.action, Press) and step.action.key == "Enter" and step.action.ref in written:
                sent.append(written[step.action.ref])
        return sent

    def refused(self, code: str) -> bool:
        """Whether this code was submitted on this step already."""
        return any(isinstance(step.action, Fill) and step.action.value == code for step in self.history[:-1])

    def enter(self, code: str) -> Decision:
        """Write the code into its field; once it is there, submit it with Enter."""
        field = self.code_field
        if self.holds(field, code):
            return self.press(field, "Enter")
        return self.fill(field, code)

    def wait(self, milliseconds: float, thought: str = "wait") -> Decision:
        """Do nothing for a moment."""
        return thought, Noop(wait_ms=milliseconds)
