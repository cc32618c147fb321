"""Experts for small games of several moves. Listed in agents/oracle.py, used by nobody else."""

from __future__ import annotations

import math
from functools import cache

from dpo_driver.agents.experts.page import Decision, Lost, Page, first
from dpo_driver.agents.experts.places import Point, center, click_at, move_to, wait
from dpo_driver.core.actions import Click
from dpo_driver.core.records import Element, Observation

_LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
_RANDOM = 0.55  # how often the other player just picks a free field
_MARKS = {"mark x": "x", "mark o": "o"}


def win_tic_tac_toe(page: Page) -> Decision:
    """Playing as 'X', win a game of tic-tac-toe."""
    fields = [e for e in page.all("image", "clickable") if e.name in ("empty box", *_MARKS)]
    board = "".join(_MARKS.get(e.name, " ") for e in fields)
    if len(board) != 9:
        raise Lost(f"there are {len(board)} fields")
    free = [at for at in range(9) if board[at] == " "]
    return page.click(fields[max(free, key=lambda at: _after_own_move(_put(board, at, "x")))])


def _put(board: str, at: int, mark: str) -> str:
    return board[:at] + mark + board[at + 1 :]


def _won(board: str, mark: str) -> bool:
    return any(all(board[at] == mark for at in line) for line in _LINES)


def _completing(board: str, mark: str) -> list[int]:
    """Fields that complete a line of a mark."""
    return [at for at in range(9) if board[at] == " " and _won(_put(board, at, mark), mark)]


@cache
def _after_own_move(board: str) -> float:
    """Chance to win when the other player, who is random half of the time and else wins or blocks, is to move."""
    if _won(board, "x"):
        return 1.0
    free = [at for at in range(9) if board[at] == " "]
    if not free:
        return 0.0
    clever = _completing(board, "o") or _completing(board, "x") or free
    chance = 0.0
    for at in free:
        weight = _RANDOM / len(free) + (1 - _RANDOM) * (at in clever) / len(clever)
        chance += weight * _before_own_move(_put(board, at, "o"))
    return chance


@cache
def _before_own_move(board: str) -> float:
    free = [at for at in range(9) if board[at] == " "]
    if _won(board, "o") or not free:
        return 0.0
    return max(_after_own_move(_put(board, at, "x")) for at in free)


def click_ascending(page: Page) -> Decision:
    """Click on the numbers in ascending order. (They are covered after the first click.)"""
    numbers = sorted((e for e in page.start.elements if e.name.isdigit()), key=lambda e: int(e.name))
    left = [e for e in page.all() if e.name.isdigit() or e.name.endswith(" rectangle")]
    number = numbers[len(page.history)]
    return page.click(min(left, key=lambda e: math.dist(center(e), center(number))))


def pick_greatest(page: Page) -> Decision:
    """Find and pick the card with the greatest number, then press submit."""
    known: dict[int, int] = {}
    for observation in [*(step.observation for step in page.history), page.observation]:
        for at, card in enumerate(_cards(observation)):
            if card.name.isdigit():
                known[at] = int(card.name)
    cards = _cards(page.observation)
    for at, card in enumerate(cards):
        if at not in known:
            return page.click(card)
    best = max(known, key=lambda at: known[at])
    return page.submit() if cards[best].name.isdigit() else page.click(cards[best])


def _cards(observation: Observation) -> list[Element]:
    return [e for e in observation.elements if e.ref is not None and e.role != "button"]


def mark_odd_or_even(page: Page) -> Decision:
    """Mark the numbers below as odd or even and press submit when done."""
    buttons = {name: [e for e in page.all("button") if e.name == name] for name in ("Odd", "Even")}
    numbers = [int(e.name) for e in page.all("text") if e.name.lstrip("-").isdigit()]
    for row, number in enumerate(numbers):
        button = buttons["Odd" if number % 2 else "Even"][row]
        if not page.clicked(button):
            return page.click(button)
    return page.submit()


def chase_circle(page: Page) -> Decision:
    """Keep your mouse inside the circle as it moves around."""
    at = _circle(page.observation)
    if not page.history:
        return move_to("circle", at)
    before = _circle(page.history[-1].observation)
    # Half of the way that it will have gone until the next look, so that the pointer is inside all the while.
    return move_to("circle", (at[0] + (at[0] - before[0]) / 2, at[1] + (at[1] - before[1]) / 2))


def _circle(observation: Observation) -> Point:
    return center(first(e for e in observation.elements if e.name.endswith(" circle")))


def click_moving(page: Page) -> Decision:
    """Click as many moving circles as possible."""
    for circle in page.all("image", "clickable"):
        x, y = center(circle)
        if 3 < x < 159 and y > 52:
            return click_at(circle.label, (x, min(y, 207)))
    return wait(300)


def repeat_blinks(page: Page) -> Decision:
    """Push the buttons in the order displayed."""
    if not page.history:
        return wait(700)  # the first button is lit from 0.6 s on for a quarter of a second, then the next
    lit, pushes = blinked(page), _pushes(page)
    if pushes == 0 and len(lit) == len(page.history):
        return wait(600)
    return page.click(first(e for e in page.all("button") if e.ref == lit[pushes]))


def blinked(page: Page) -> list[str | None]:
    """References of the buttons that were seen lit before the first push, in order."""
    looks = [step.observation for step in page.history] + [page.observation]
    dark = {e.ref: e.value for e in looks[0].elements if e.role == "button"}
    waiting = looks[1 : len(looks) - _pushes(page)]
    return [e.ref for look in waiting for e in look.elements if e.ref in dark and e.value != dark[e.ref]]


def _pushes(page: Page) -> int:
    return sum(isinstance(step.action, Click) for step in page.history)
