"""Calculated code: carry the rules on the page out on the row of characters that it gives, and enter what comes out.

Called by the agent of agents/solver through `recognise` and `solve`; imports nothing of the gauntlet's.
"""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import CODE, PuzzlePage
from dpo_driver.core.actions import Press

ENTERS = True
ROW = re.compile(r"(?:^|\s)((?:[A-Z0-9] ){5,}[A-Z0-9])$")
ALPHABET = re.compile(r"\b[A-Z0-9]{24,}\b")
PLACES = re.compile(r"\d+(?:, ?\d+){3,}")
TRIES = 2


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    return 0.95 if _work_out(page) else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Enter the code."""
    code = _work_out(page)
    if code is None:
        raise Lost("there is no row with rules")
    if sum(isinstance(step.action, Press) and step.action.key == "Enter" for step in page.history) >= TRIES:
        raise Lost("the code that was worked out is refused")
    return page.enter(code)


def _work_out(page: PuzzlePage) -> str | None:
    """The code, if there are a row and rules that make one of it."""
    lines = page.text.split("\n")
    row = next((found[1].replace(" ", "") for line in lines if (found := ROW.search(line))), None)
    if row is None:
        return None
    alphabet = next((found[0] for line in lines if (found := ALPHABET.search(line))), "")
    applied = 0
    # Rules stand in a list; where none is marked up as one, any line may be a rule.
    marked = [e.name for e in page.observation.elements if e.role == "listitem"]
    for line in marked or lines:
        turned = turn(row, line, alphabet)
        if turned is not None:
            row, applied = turned, applied + 1
    return row if applied and CODE.fullmatch(row) else None


def turn(row: str, rule: str, alphabet: str) -> str | None:
    """What one rule makes of a row; None: it is no rule."""
    said = rule.casefold()
    places = PLACES.search(said)
    number = re.search(r"\d+", said)
    if places:
        wanted = [int(place) for place in re.findall(r"\d+", places[0])]
        return "".join(row[place - 1] for place in wanted) if max(wanted) <= len(row) else None
    if re.search(r"\bpairs?\b|neighbour", said):
        return "".join(row[i : i + 2][::-1] for i in range(0, len(row), 2))
    if re.search(r"\bhal(f|ves)\b", said):
        middle = len(row) // 2
        return row[middle:] + row[:middle]
    if number and alphabet and re.search(r"\b(list|alphabet|circle|ring|wheel)\b", said):
        return _shift(row, int(number[0]), said, alphabet)
    if number and re.search(r"\b(first|leading|foremost|opening)\b", said):
        by = int(number[0])
        return row[by:] + row[:by]
    if re.search(r"backwards|revers|right to left|last comes first|mirror|end to the start|\bflip\b", said):
        return row[::-1]
    return None


def _shift(row: str, by: int, said: str, alphabet: str) -> str | None:
    """Each character by some places further on, or back."""
    if re.search(r"\b(earlier|back(ward)?|before|left|withdraw)\b", said):
        by = -by
    elif not re.search(r"\b(later|forward|further|after|right|advance|on)\b", said):
        return None
    if not set(row) <= set(alphabet):
        return None
    return "".join(alphabet[(alphabet.index(letter) + by) % len(alphabet)] for letter in row)
