"""Memory: let the words be shown, keep what earlier looks at the page have seen, press them in their order.

Called by the agent of agents/solver through `recognise` and `solve`; imports nothing of the gauntlet's.
"""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, first, squash
from dpo_driver.agents.solver.answers import await_answer
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element, Observation

TOLD = r"^(?=[^\n]*\b(?P<count>\d+) words\b)[^\n]*[\"“](?P<label>[^\"”\n]+)[\"”]"
ABOUT = r"memor|remember|recall|repeat|echo|in mind|in (that )?order"
SHOWN = re.compile(r"^(\d+)\s*(?:of|/)\s*(\d+)\s*:\s*(.+)$")
LOOK_MS = 350


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    told = re.search(TOLD, page.text, re.MULTILINE)
    if told is None or page.maybe(told["label"], "button") is None:
        return 0.0
    return 0.95 if page.says(ABOUT) else 0.5


def solve(page: PuzzlePage) -> Decision:
    """Watch until every place of the order has been seen once, in whichever showing; then press what comes next."""
    told = re.search(TOLD, page.text, re.MULTILINE)
    assert told is not None
    seen: dict[int, str] = {}
    for observation in [*(step.observation for step in page.history), page.observation]:
        seen.update(_shown(observation))
    if _shown(page.observation):
        return page.wait(LOOK_MS, "watch the words")
    order = [seen.get(place) for place in range(1, int(told["count"]) + 1)]
    if None in order:
        return page.click(first(e for e in page.all("button") if e.name == told["label"]))
    if (waiting := await_answer(page)) is not None:
        return waiting
    done = _pressed(page, {word for word in order if word is not None})
    if done and done != order[: len(done)]:  # something else was pressed: what is shown again is entered anew
        return page.click(first(e for e in page.all("button") if e.name == told["label"]))
    return page.click(page.named(order[len(done)] or "", "button"))


def _shown(observation: Observation) -> dict[int, str]:
    """Place in the order -> word, as the page shows it just then."""
    found = [SHOWN.search(squash(e.name)) for e in observation.elements if e.role != "heading"]
    return {int(match[1]): match[3].strip() for match in found if match}


def _pressed(page: PuzzlePage, words: set[str]) -> list[str]:
    """What the page says was pressed so far: a line that lists names of buttons after a colon."""
    buttons = {squash(e.name) for e in page.all("button")}
    for element in page.observation.elements:
        if _lists(element, buttons):
            return [word.strip() for word in element.name.partition(":")[2].split(",")]
    return []


def _lists(element: Element, buttons: set[str]) -> bool:
    head, colon, tail = element.name.partition(":")
    named = [word.strip() for word in tail.split(",")]
    return bool(colon) and not re.search(r"\d", head) and all(word in buttons for word in named)
