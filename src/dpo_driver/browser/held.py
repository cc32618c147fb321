"""Buttons and keys that an agent holds down from one action to the next, and how they are let go.

While something is held every mouse action goes through Playwright's mouse, which knows what is pressed, sends the
modifiers along, and turns into a native drag where the page wants one. Called by browser/execute.py, and by
environments (``release``) before an episode begins. Must not import environments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast
from weakref import WeakKeyDictionary

from playwright.async_api import Error as PlaywrightError

from dpo_driver.browser.session import Session
from dpo_driver.core.errors import ActionError

Button = Literal["left", "middle", "right"]


@dataclass
class _Held:
    buttons: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


_held: WeakKeyDictionary[Session, _Held] = WeakKeyDictionary()


def anything(session: Session) -> bool:
    """Whether a button or a key is down."""
    return session in _held


async def release(session: Session) -> None:
    """Let everything go, so that nothing of one episode is still pressed in the next."""
    if held := _held.pop(session, None):
        async with session.deadline("letting go of buttons and keys"):
            for button in held.buttons:
                await session.page.mouse.up(button=cast(Button, button))
            for key in held.keys:
                await session.page.keyboard.up(key)


async def move(session: Session, x: float, y: float) -> None:
    async with session.deadline("moving the pointer"):
        await session.page.mouse.move(x, y)


async def button_down(session: Session, x: float, y: float, button: str) -> None:
    """Raises ActionError when the button is down already: it cannot be pressed twice."""
    held = _held.get(session, _Held())
    if button in held.buttons:
        raise ActionError(f"the {button} button is held already")
    async with session.deadline("pressing a button"):
        await session.page.mouse.move(x, y)
        await session.page.mouse.down(button=cast(Button, button))
    held.buttons.append(button)
    _held[session] = held


async def button_up(session: Session, x: float, y: float, button: str) -> None:
    """Raises ActionError when the button is not down."""
    held = _held.get(session)
    if held is None or button not in held.buttons:
        raise ActionError(f"the {button} button is not held: use mouse_down first")
    async with session.deadline("letting a button go"):
        await session.page.mouse.move(x, y)
        await session.page.mouse.up(button=cast(Button, button))
    held.buttons.remove(button)
    _forget(session, held)


async def key_down(session: Session, key: str) -> None:
    """Raises ActionError when there is no such key."""
    held = _held.get(session, _Held())
    async with session.deadline("pressing a key"):
        with known(key):
            await session.page.keyboard.down(key)
    if key not in held.keys:  # a key that is held repeats
        held.keys.append(key)
    _held[session] = held


async def key_up(session: Session, key: str) -> None:
    """Raises ActionError when there is no such key, or it is not down."""
    held = _held.get(session)
    async with session.deadline("letting a key go"):
        with known(key):
            if held is None or key not in held.keys:
                raise ActionError(f"the key {key!r} is not held: use keyboard_down first")
            await session.page.keyboard.up(key)
    held.keys.remove(key)
    _forget(session, held)


async def click(session: Session, x: float, y: float, button: str, clicks: int, modifiers: Sequence[str]) -> None:
    """Click where something is held or modifiers are wanted. A button that was held is let go by it."""
    held = _held.get(session, _Held())
    wanted = [key for key in dict.fromkeys(modifiers) if key not in held.keys]
    mouse, keyboard = session.page.mouse, session.page.keyboard
    which = cast(Button, button)
    async with session.deadline("clicking"):
        for key in wanted:
            await keyboard.down(key)
        await mouse.move(x, y)
        if button in held.buttons:
            held.buttons.remove(button)
            await mouse.up(button=which)
        for count in range(1, clicks + 1):
            await mouse.down(button=which, click_count=count)
            await mouse.up(button=which, click_count=count)
        for key in reversed(wanted):
            await keyboard.up(key)
    _forget(session, held)


def _forget(session: Session, held: _Held) -> None:
    if not held.buttons and not held.keys:
        _held.pop(session, None)


@contextlib.contextmanager
def known(key: str) -> Iterator[None]:
    """A key that the keyboard lacks becomes an ActionError."""
    try:
        yield
    except PlaywrightError as error:
        if "Unknown key" in error.message:
            raise ActionError(f"there is no key {key!r}") from None
        raise
