"""A browserless environment: small seeded pages held in memory, for tests, examples and conformance checks.

It obeys the same rules as a real one: a seeded reset always gives the same page and state hash, an action that cannot
be carried out comes back as ``last_error``, and the reward is measured, never assumed. Three families: ``press`` (one
click), ``login`` (two fields and a button) and ``wizard`` (three pages, a choice on each). Must not import a browser.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from dpo_driver.core.actions import Action
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Element, Observation, Split, StopReason, Task, state_hash

_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "jetty", "koala", "lilac")
_URL = "toy://page"
# A white PNG of one pixel: the page has nothing to show, but a picture must be a picture.
_PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a4944415478da63f80f00010101001cb08c99"
    "0000000049454e44ae426082"
)


@dataclass
class _Page:
    """What is on the page. ``fields`` maps a ref to its text; ``pressed`` is told which button was clicked."""

    goal: str
    elements: list[Element]
    pressed: Callable[[_Page, Element], float | None]  # a reward ends the episode, None goes on
    fields: dict[str, str] = field(default_factory=dict)
    passed: int = 0  # pages of a wizard left behind


def _buttons(words: list[str], first_ref: int = 1) -> list[Element]:
    return [Element(ref=str(first_ref + i), role="button", name=word, tag="button") for i, word in enumerate(words)]


def _press(rng: random.Random) -> _Page:
    words = rng.sample(_WORDS, 4)
    wanted = rng.choice(words)
    return _Page(f'Press "{wanted}".', _buttons(words), lambda _page, button: 1.0 if button.name == wanted else -1.0)


def _login(rng: random.Random) -> _Page:
    user, password = rng.sample(_WORDS, 2)
    fields = [Element(ref=str(i), role="textbox", name=name, tag="input") for i, name in ((1, "User"), (2, "Password"))]

    def pressed(page: _Page, _button: Element) -> float:
        return 0.5 * (page.fields.get("1") == user) + 0.5 * (page.fields.get("2") == password)

    return _Page(f'Log in as "{user}" with "{password}".', [*fields, *_buttons(["Log in"], 3)], pressed)


def _wizard(rng: random.Random) -> _Page:
    words = rng.sample(_WORDS, 9)
    pages = [words[0:3], words[3:6], words[6:9]]
    wanted = [rng.choice(page) for page in pages]

    def pressed(page: _Page, button: Element) -> float | None:
        if button.name != wanted[page.passed]:
            return -1.0
        page.passed += 1
        if page.passed == len(pages):
            return 1.0
        page.elements = shown(page.passed)
        return None

    def shown(number: int) -> list[Element]:
        heading = Element(ref=None, role="heading", name=f"Step {number + 1} of {len(pages)}", tag="h1")
        return [heading, *_buttons(pages[number], 1 + 3 * number)]

    return _Page(f'Choose "{wanted[0]}", then "{wanted[1]}", then "{wanted[2]}".', shown(0), pressed)


FAMILIES: dict[str, tuple[Callable[[random.Random], _Page], int]] = {
    "press": (_press, 3),
    "login": (_login, 6),
    "wizard": (_wizard, 6),
}


def make_task(name: str, seed: int, split: Split = "train") -> Task:
    """The task of a family: ``make_task("login", 7)``. UnknownNameError lists the families."""
    if name not in FAMILIES:
        raise UnknownNameError("toy task", name, FAMILIES)
    return Task(id=f"toy.{name}/{seed}", env="toy", name=name, seed=seed, split=split, max_steps=FAMILIES[name][1])


class ToyEnvironment:
    """``await ToyEnvironment().reset(make_task("press", 1))``. Rewards: press, wizard +1 or -1; login 0, 0.5 or 1."""

    def __init__(self) -> None:
        self._page: _Page | None = None

    @classmethod
    @asynccontextmanager
    async def source(cls) -> AsyncIterator[Callable[[], Awaitable[ToyEnvironment]]]:
        """What rollouts ask for: opens nothing and gives the factory."""

        async def make() -> ToyEnvironment:
            return cls()

        yield make

    async def reset(self, task: Task) -> Observation:
        if task.name not in FAMILIES:
            raise UnknownNameError("toy task", task.name, FAMILIES)
        self._page = FAMILIES[task.name][0](random.Random(f"{task.name}/{task.seed}"))
        return self._observe()

    async def step(self, action: Action) -> Outcome:
        page = self._page
        if page is None:
            raise RuntimeError("step before reset, or after the end of the episode")
        reward: float | None = None
        error: str | None = None
        ref = getattr(action, "ref", None)
        target = next((element for element in page.elements if element.ref == ref and ref is not None), None)
        if ref is not None and target is None:
            error = f"there is no element {ref}"
        elif target is not None and action.kind == "click":
            reward = page.pressed(page, target) if target.role == "button" else None
        elif target is not None and action.kind in {"fill", "type", "clear"} and target.role == "textbox":
            before = page.fields.get(target.ref or "", "") if action.kind == "type" else ""
            page.fields[target.ref or ""] = before + str(getattr(action, "value", getattr(action, "text", "")))
        elif action.kind not in {"noop", "report_infeasible", "send_msg_to_user"}:
            error = f"{action.kind} does nothing here"
        observation = self._observe(error)
        if reward is None:
            return Outcome(observation)
        self._page = None
        return Outcome(observation, reward, StopReason.SUCCESS if reward >= 0.99 else StopReason.WRONG)

    async def screenshot(self) -> bytes:
        return _PICTURE

    async def close(self) -> None:
        self._page = None

    def _observe(self, error: str | None = None) -> Observation:
        page = self._page
        assert page is not None
        elements = tuple(
            element.model_copy(update={"value": page.fields[element.ref]}) if element.ref in page.fields else element
            for element in page.elements
        )
        return Observation(
            goal=page.goal,
            url=_URL,
            title="toy",
            elements=elements,
            last_error=error,
            state_hash=state_hash(page.goal, "/page", elements),
        )
