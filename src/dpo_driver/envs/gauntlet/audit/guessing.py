"""Attacks by guessing codes: how many guesses are weighed in what time, and whether the count can be shaken off."""

from __future__ import annotations

from dpo_driver.envs.gauntlet.audit.adversary import Adversary
from dpo_driver.envs.gauntlet.audit.table import attack
from dpo_driver.envs.gauntlet.puzzles.base import ALPHABET, CODE_LENGTH
from dpo_driver.envs.gauntlet.signals import Signal
from dpo_driver.envs.gauntlet.visit import CODE, FREE_TRIES, LOCK_S, Visit

HOUR_S = 3600.0
SPACE = len(ALPHABET) ** CODE_LENGTH


@attack("guessing", once=True)
async def an_hour_of_guesses(it: Adversary) -> int:
    """Guess codes for an hour of a clock that the audit turns, two a second, with a
    twin of the visit: how many are weighed? Then the right one while the lock is on."""
    now = [0.0]
    visit = Visit(it.visit.plan, b"another secret", clock=lambda: now[0])
    visit.begin(1)
    puzzle, state = visit.puzzle, visit._now
    assert puzzle is not None and state is not None
    field = puzzle.setup.part(CODE)

    def guess(text: str) -> bool:
        before = state.wrong
        visit.on(Signal("keydown", field=field, key="Enter", fields={field: text}))
        return state.wrong > before or visit.step > 1

    right, weighed, tried = visit.code(1), 0, 0
    while now[0] < HOUR_S:
        weighed += guess("2" * CODE_LENGTH if right[0] != "2" else "3" * CODE_LENGTH)
        tried += 1
        now[0] += 0.5
    state.locked_until = now[0] + LOCK_S
    if guess(right):
        it.won("a code is weighed while the lock is on")
    allowed = FREE_TRIES + 1 + HOUR_S / LOCK_S
    if weighed > allowed + 1:
        it.won(f"{weighed} guesses were weighed in an hour")
    it.figures["guesses weighed in an hour"] = weighed
    it.figures["guesses tried in an hour"] = tried
    it.figures["chance of a code in an hour"] = weighed / SPACE
    return tried


@attack("guessing", once=True, spoils=True)
async def lock_in_the_page(it: Adversary) -> int:
    """Type wrong codes with real keys until the lock is on; then the right one, at once, after a reload and after the
    start's address was opened again: the lock stays."""
    right = it.visit.code(1)
    wrong = right[::-1] if right != right[::-1] else "222222"
    tries = 0
    for _ in range(FREE_TRIES + 1):
        await _enter(it, wrong)
        tries += 1
    assert it.visit._now is not None
    it.visit._now.locked_until = it.visit.clock() + HOUR_S  # as long as the rest takes, whatever the machine is doing
    counted = it.visit._now.wrong
    it.figures["wrong codes before the lock"] = counted
    for go in ("stay", "reload", "start"):
        if go == "reload":
            await it.reopen()
        elif go == "start":
            await it.session.goto(it.server.url_of(it.start))
            await it.page.wait_for_selector("h1", state="attached")
        await _enter(it, right)
        tries += 1
    if it.visit.step != 1 or it.visit._now is None or it.visit._now.wrong < counted:
        it.won("the lock was shaken off")
    if counted != FREE_TRIES + 1:
        raise RuntimeError(f"{counted} of {FREE_TRIES + 1} typed codes were weighed: the attack is blind")
    it.signals.clear()  # they were typed
    await it.begin()
    return tries


async def _enter(it: Adversary, code: str) -> None:
    if not await it.focus_code():
        raise RuntimeError("the field for the code cannot be focused: the attack is blind")
    await it.page.keyboard.press("Control+A")
    await it.page.keyboard.type(code)
    await it.page.keyboard.press("Enter")
    await it.settle()


@attack("guessing")
async def everything_that_looks_like_a_code(it: Adversary) -> int:
    """Collect everything on the page and in the messages that looks like a code, decoys and all: for a type whose task
    is not reading, the code is not among them."""
    text = await it.main("""
        let latest = "";
        gauntlet.subscribe((message) => { latest = message; });
        return document.documentElement.outerHTML + latest;
    """)
    it.keep("what looks like a code", text)
    return 1
