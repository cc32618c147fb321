"""Codes that a page hands out in numbered pieces, and the instruction that speaks of them.

Used by the solvers of types that show pieces in turn, in tabs, in messages, in frames. General English, no site's own
phrases: a piece is told by its number, by how many there are, and by capitals and digits of the right length.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import CODE, STEP, PuzzlePage
from dpo_driver.core.actions import Click, Noop, Press
from dpo_driver.core.records import Element, Observation

LENGTH = 6  # of a code
ANSWER_MS, ANSWER_WAITS = 120.0, 3
PARTS = r"\b(?:parts?|pieces?|fragments?|shards?|bits|portions?)\b"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
NUMBERS = ("one", "two", "three", "four", "five", "six")
COUNT = re.compile(
    rf"(?<![\w-])(?P<i>\d|{'|'.join(ORDINALS)})\s*(?:/|of|out of|from)\s*(?P<n>\d|{'|'.join(NUMBERS)})(?![\w-])",
    re.IGNORECASE,
)
TOKEN = re.compile(r"(?<![\w-])[A-HJ-NP-Z2-9]{1,6}(?![\w-])")
QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
PRESSED = ("button", "tab", "link", "clickable")


@dataclass(frozen=True)
class Told:
    """The page's instruction: where it stands, and the names that it puts in quotes."""

    page: PuzzlePage
    index: int

    @property
    def text(self) -> str:
        return squash(self.page.observation.elements[self.index].name)

    @property
    def names(self) -> list[str]:
        """Everything in quotes, in order."""
        return [squash(name) for name in QUOTED.findall(self.text)]

    @property
    def buttons(self) -> list[Element]:
        """The quoted names that are buttons or links on the page now, in order."""
        found = (self.page.maybe(name, *PRESSED) for name in self.names)
        return [element for element in found if element is not None]

    @property
    def others(self) -> list[str]:
        """The quoted names that are not."""
        return [name for name in self.names if self.page.maybe(name, *PRESSED) is None]

    @property
    def region(self) -> Sequence[Element]:
        """What follows the instruction: the puzzle, up to the field for the code if that comes later."""
        elements = self.page.observation.elements
        try:
            end = elements.index(self.page.code_field)
        except Lost:
            end = len(elements)
        return elements[self.index + 1 : end if end > self.index else len(elements)]

    def controls(self, *roles: str) -> list[Element]:
        """What can be pressed in the puzzle, and perhaps after it."""
        return [e for e in self.region if e.ref is not None and e.role in (roles or PRESSED)]

    def alike(self, pattern: str = "", besides: Sequence[Element] = ()) -> list[Element]:
        """The buttons whose labels begin like that of the first one that matches: they belong together, and what
        else stands around does not."""
        buttons = [e for e in self.controls("button") if e.ref not in [other.ref for other in besides]]
        begins = next((_begin(e) for e in buttons if re.search(pattern, e.name, re.IGNORECASE)), None)
        return [e for e in buttons if _begin(e) == begins and re.search(pattern, e.name, re.IGNORECASE)]


def _begin(element: Element) -> str:
    return squash(element.name).partition(" ")[0]


def told(page: PuzzlePage, *patterns: str) -> Told | None:
    """The first running text that matches every pattern, ignoring case."""
    for index, element in enumerate(page.observation.elements):
        if element.role in ("text", "listitem", "label") and all(
            re.search(pattern, element.name, re.IGNORECASE) for pattern in patterns
        ):
            return Told(page, index)
    return None


def _number(word: str, words: Sequence[str]) -> int:
    return int(word) if word.isdigit() else words.index(word.lower()) + 1


def piece(text: str) -> tuple[int, int, str] | None:
    """(number, how many there are, the piece) of a text that tells one."""
    count = COUNT.search(text)
    if count is None or STEP.search(text):
        return None
    number, many = _number(count["i"], ORDINALS), _number(count["n"], NUMBERS)
    if not 1 <= number <= many or LENGTH % many:
        return None
    rest = f"{text[: count.start()]} {text[count.end() :]}"
    tokens = [token for token in TOKEN.findall(rest) if len(token) * many == LENGTH]
    return (number, many, tokens[0]) if len(tokens) == 1 else None


def joined(texts: Iterable[str]) -> str | None:
    """The code that the pieces in some texts make; None while one is missing."""
    found: dict[int, dict[int, str]] = defaultdict(dict)
    for text in texts:
        read = piece(squash(text))
        if read is not None:
            found[read[1]][read[0]] = read[2]
    for many, pieces in found.items():
        if len(pieces) == many:
            return "".join(pieces[number] for number in sorted(pieces))
    return None


def whole(texts: Iterable[str]) -> str | None:
    """The only code that stands in some texts as a whole."""
    codes = {code for text in texts for code in CODE.findall(text)}
    return codes.pop() if len(codes) == 1 else None


def seen(page: PuzzlePage) -> Iterator[Observation]:
    """What the page showed on this step, oldest first, now included."""
    yield from (step.observation for step in page.history)
    yield page.observation


def times(page: PuzzlePage, element: Element) -> int:
    """How often an element was pressed on this step and was reached."""
    if not page.history:
        return 0
    after = [*(step.observation for step in page.history[1:]), page.observation]
    pressed = [isinstance(s.action, Click | Press) and s.action.ref == element.ref for s in page.history]
    return sum(hit and now.last_error is None for hit, now in zip(pressed, after, strict=True))


def least(page: PuzzlePage, elements: Sequence[Element]) -> Element:
    """The first of those that were pressed least often. Lost if there is none."""
    if not elements:
        raise Lost("there is nothing to press")
    return min(elements, key=lambda element: times(page, element))


def waits(page: PuzzlePage) -> int:
    """How many of the last steps were waits."""
    count = 0
    for step in reversed(page.history):
        if not isinstance(step.action, Noop):
            break
        count += 1
    return count


def unanswered(page: PuzzlePage) -> Decision | None:
    """A short wait while the page still shows what it did before the last press; what comes late would be missed."""
    count = waits(page)
    if count >= ANSWER_WAITS or len(page.history) <= count:
        return None
    step = page.history[-1 - count]
    same = step.observation.state_hash == page.observation.state_hash
    return page.wait(ANSWER_MS, "wait for the page") if isinstance(step.action, Click | Press) and same else None


def submit(page: PuzzlePage, code: str) -> Decision:
    """Enter a code that was put together. Lost if it was tried in vain."""
    if code in page.submissions():
        raise Lost(f"{code} is not the code")
    return page.enter(code)
