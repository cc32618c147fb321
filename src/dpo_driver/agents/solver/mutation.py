"""Letters come and go at each press of a button; those that came in, in order, are the word to type.

What was new is found by comparing the page before and after each press, out of the steps taken so far.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element, Observation

QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
ABOUT = r"\bletters?\b|\barriv"
SPELLED = r"\bword\b|\bspell|\bc[ao]mes? in\b"
COUNT = re.compile(r"\b(\d+) (?:of|out of) (\d+)\b")


def _buttons(page: PuzzlePage) -> tuple[Element, Element] | None:
    """The button for the next letter and the one that checks the word, as the instruction names them."""
    for element in page.observation.elements:
        names = [squash(name) for name in QUOTED.findall(element.name)]
        found = [button for name in names if (button := page.maybe(name, "button"))]
        said = re.search(ABOUT, element.name, re.IGNORECASE) and re.search(SPELLED, element.name, re.IGNORECASE)
        if element.role == "text" and len(found) >= 2 and said:
            return found[0], found[-1]
    return None


def _count(observation: Observation) -> tuple[int, int] | None:
    """(letters shown, letters in all) as the page counts them."""
    for element in observation.elements:
        found = COUNT.search(element.name)
        if found and element.role == "text" and len(element.name) < 40 and "step" not in element.name.lower():
            return int(found[1]), int(found[2])
    return None


def _letters(observation: Observation) -> Counter[str]:
    return Counter(e.name for e in observation.elements if e.role == "text" and re.fullmatch(r"[A-Z]", e.name))


def _observations(page: PuzzlePage) -> Iterator[Observation]:
    yield from (step.observation for step in page.history)
    yield page.observation


def arrived(page: PuzzlePage) -> list[str] | None:
    """The letters that came in since the series began; None where one was missed."""
    came: list[str] | None = None
    before: tuple[int, Counter[str]] | None = None
    for observation in _observations(page):
        count = _count(observation)
        if count is None:
            continue
        now = count[0], _letters(observation)
        if now[0] == 0:
            came = []
        elif before and now[0] == before[0] + 1 and came is not None:
            new = list((now[1] - before[1]).elements())
            came = [*came, *new] if len(new) == 1 else None
        elif before is None or now[0] != before[0]:
            came = None
        before = now
    return came


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    return 0.95 if _buttons(page) and _count(page.observation) and len(page.all("textbox")) >= 2 else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Press on until all letters were there, then write the word and check it."""
    buttons, count = _buttons(page), _count(page.observation)
    if buttons is None or count is None:
        raise Lost("the buttons are not named")
    following, check = buttons
    letters = arrived(page)
    shown, total = count
    if letters is None:
        # Back to the first letter: the button beside the one for the next.
        controls = page.all("button")
        return page.click(controls[controls.index(following) + 1])
    if shown < total:
        return page.click(following)
    index = list(page.observation.elements).index(check)
    fields = [e for e in page.observation.elements[:index] if e.role == "textbox"]
    if not fields:
        raise Lost("there is no field for the word")
    return page.fill_all([(fields[-1], "".join(letters))]) or page.click(check)
