"""Tiles to be clicked in an order that is given outright or as a rule; what is pressed already is seen on them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element

DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = "january february march april may june july august september october november december".split()
TASK = (
    r"(?:in (?:this|the|what|which) (?:\w+ )?order|in order|\border (?:is|them|these|runs|matters|the|of)"
    r"|sequence|in turn"
    r"|one after the other"
    r"|ascending|descending|alphabet|from (?:the )?\w+ (?:\w+ )?(?:to|towards) |(?:and|with) \w+ (?:first|and click)"
    r"|\b(?:even|odd)\b)"
)
ACT = r"click|press|touch|step on|please|tap"
KEYS = r"\bkeys?\b|keyboard|\bpad\b|\bdrag"
DOWNWARDS = (
    r"descending|falling|decreas|backwards|revers|against|other way|last letter first"
    r"|(?:largest|highest|greatest|biggest|high|large|big)\b[^\n]{0,24}?(?:\bto\b|before|first)"
    r"|Z (?:to|towards|down to) A"
)


def recognise(page: PuzzlePage) -> float:
    """How sure it is that tiles are to be clicked in an order."""
    return 0.9 if _task(page) and len(_order(page)) > 1 else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Click the first tile of the order that is not pressed."""
    order = _order(page)
    if not order:
        raise Lost("the order is not clear")
    for tile in order:
        if "pressed" not in tile.states:
            return page.click(tile)
    raise Lost("every tile is pressed")


def _tiles(page: PuzzlePage) -> list[Element]:
    """The first row of several buttons after the instruction, with nothing between them; else all buttons."""
    elements = page.observation.elements
    task = _task(page)
    start = next((i for i, e in enumerate(elements) if squash(e.name) == task), 0)
    row: list[Element] = []
    for element in elements[start + 1 :]:
        if element.role in ("button", "clickable") and element.ref is not None and element.name:
            row.append(element)
        elif len(row) > 1:
            return row
        else:
            row = []
    return row if len(row) > 1 else [e for e in page.all("button", "clickable") if e.name]


def _task(page: PuzzlePage) -> str:
    """The line that says what is to be done; "" if none does."""
    for line in page.text.split("\n"):
        if all(re.search(words, line, re.IGNORECASE) for words in (TASK, ACT)) and not re.search(
            KEYS, line, re.IGNORECASE
        ):
            return line
    return ""


def _order(page: PuzzlePage) -> Sequence[Element]:
    """The tiles in the order that the task asks for."""
    buttons = _tiles(page)
    named = _as_named(page, buttons)
    if len(named) > 2:
        return named
    text = _task(page)
    backwards = re.search(DOWNWARDS, text, re.IGNORECASE) is not None
    for values in (_numbers(buttons, text), _letters(buttons), _calendar(buttons, text)):
        if len(values) > 1:
            return [tile for _, tile in sorted(values, key=lambda pair: pair[0], reverse=backwards)]
    return []


def _as_named(page: PuzzlePage, buttons: Sequence[Element]) -> list[Element]:
    """Tiles in the order in which one line of the page names them, for the line that names most."""
    best: list[Element] = []
    for line in page.text.split("\n"):
        found = []
        for tile in buttons:
            place = re.search(rf"(?<![\w-]){re.escape(tile.name)}(?![\w-])", line)
            if place and line != tile.name and re.search(r"[^\W\d]{2}", tile.name):
                found.append((place.start(), tile))
        if len(found) > len(best):
            best = [tile for _, tile in sorted(found, key=lambda pair: pair[0])]
    return best


def _numbers(buttons: Sequence[Element], text: str) -> list[tuple[int, Element]]:
    found = [(int(e.name.replace("−", "-")), e) for e in buttons if re.fullmatch(r"[-−]?\d{1,4}", e.name)]
    wanted = re.search(r"\b(not )?(even|odd)\b", text, re.IGNORECASE)
    if wanted:
        found = [(n, e) for n, e in found if (n % 2 == 0) == (wanted[2].lower() == "even")]
    return found


def _letters(buttons: Sequence[Element]) -> list[tuple[int, Element]]:
    return [(ord(e.name), e) for e in buttons if re.fullmatch(r"[A-Z]", e.name)]


def _calendar(buttons: Sequence[Element], text: str) -> list[tuple[int, Element]]:
    """Days or months, counted from the one that the task names as the first."""
    for names in (DAYS, MONTHS):
        tiles = [(names.index(e.name.lower()), e) for e in buttons if e.name.lower() in names]
        begin = next((names.index(word) for word in re.findall(r"\w+", text.lower()) if word in names), 0)
        if len(tiles) > 1:
            return [((index - begin) % len(names), tile) for index, tile in tiles]
    return []
