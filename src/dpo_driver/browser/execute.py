"""Actions -> trusted input: a table from the action's kind to what is done on the page.

Clicks, keys and text arrive as the browser's own input events, at a point where the pointer really reaches the
element. What cannot be carried out (no such element, covered, disabled, not a field) is an ActionError in words the
agent can use. Called by environments. Nothing of an action is ever run as code: its values only travel as JSON. Must
not import environments.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Error as PlaywrightError

from dpo_driver.browser.session import Session
from dpo_driver.core import actions
from dpo_driver.core.errors import ActionError

DRAG_STEPS = 8


async def execute(session: Session, action: actions.Action) -> None:
    """Carry out one action.

    Raises:
        ActionError: it cannot be done; the page is as it was, or at most scrolled or focused.
        RolloutFailure: the page or the browser broke.
    """
    await _TABLE[action.kind](session, action)


async def _ask(session: Session, function: str, *arguments: Any) -> dict[str, Any]:
    """Call a function of the observer; its ``error`` becomes an ActionError."""
    written = ", ".join(json.dumps(argument) for argument in arguments)
    answer: dict[str, Any] = await session.isolated(f"dpoDriver.{function}({written})")
    if "error" in answer:
        raise ActionError(answer["error"])
    return answer


async def _locate(session: Session, ref: str) -> tuple[float, float]:
    found = await _ask(session, "locate", ref)
    return found["x"], found["y"]


async def _press_mouse(session: Session, ref: str, button: str, clicks: int) -> None:
    x, y = await _locate(session, ref)
    session.mouse = (x, y)
    calls = [session.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)]
    for count in range(1, clicks + 1):
        held = {"left": 1, "right": 2, "middle": 4}[button]
        common = {"x": x, "y": y, "button": button, "clickCount": count}
        calls.append(session.cdp("Input.dispatchMouseEvent", type="mousePressed", buttons=held, **common))
        calls.append(session.cdp("Input.dispatchMouseEvent", type="mouseReleased", buttons=0, **common))
    await session.pipelined(*calls)


async def _click(session: Session, action: actions.Click) -> None:
    await _press_mouse(session, action.ref, action.button, 1)


async def _dblclick(session: Session, action: actions.DblClick) -> None:
    await _press_mouse(session, action.ref, action.button, 2)


async def _hover(session: Session, action: actions.Hover) -> None:
    x, y = await _locate(session, action.ref)
    session.mouse = (x, y)
    await session.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)


async def _fill_with(session: Session, ref: str, value: str) -> None:
    ready = await _ask(session, "prepareFill", ref, value)
    if not ready.get("insert"):
        return
    if value:
        await session.cdp("Input.insertText", text=value)
    elif not ready["empty"]:
        await _keys(session, "Delete")


async def _fill(session: Session, action: actions.Fill) -> None:
    await _fill_with(session, action.ref, action.value)


async def _clear(session: Session, action: actions.Clear) -> None:
    await _fill_with(session, action.ref, "")


async def _type(session: Session, action: actions.Type) -> None:
    await _ask(session, "focus", action.ref, True)
    async with session.deadline("typing"):
        await session.page.keyboard.type(action.text)


async def _keys(session: Session, key: str) -> None:
    async with session.deadline("pressing keys"):
        try:
            await session.page.keyboard.press(key)
        except PlaywrightError as error:
            if "Unknown key" in error.message:
                raise ActionError(f"there is no key {key!r}") from None
            raise


async def _press(session: Session, action: actions.Press) -> None:
    await _ask(session, "focus", action.ref, False)
    await _keys(session, action.key)


async def _keyboard_press(session: Session, action: actions.KeyboardPress) -> None:
    await _keys(session, action.key)


async def _focus(session: Session, action: actions.Focus) -> None:
    await _ask(session, "focus", action.ref, False)


async def _select_option(session: Session, action: actions.SelectOption) -> None:
    await _ask(session, "select", action.ref, list(action.options))


async def _scroll(session: Session, action: actions.Scroll) -> None:
    x, y = session.mouse
    wheel = {"type": "mouseWheel", "x": x, "y": y, "deltaX": action.delta_x, "deltaY": action.delta_y}
    await session.cdp("Input.dispatchMouseEvent", **wheel)
    # The wheel is answered by the compositor; the page has moved two frames later.
    await session.isolated("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


async def _drag_and_drop(session: Session, action: actions.DragAndDrop) -> None:
    start = await _locate(session, action.from_ref)
    end = await _locate(session, action.to_ref)
    session.mouse = end
    mouse = session.page.mouse  # Playwright's mouse also carries native drags
    async with session.deadline("dragging"):
        await mouse.move(*start)
        await mouse.down()
        await mouse.move(*end, steps=DRAG_STEPS)
        await mouse.up()


async def _goto(session: Session, action: actions.Goto) -> None:
    if not action.url.startswith(("http://", "https://")):
        raise ActionError("goto takes an http or https address")
    await session.goto(action.url)


async def _go_back(session: Session, action: actions.GoBack) -> None:
    async with session.deadline("going back"):
        await session.page.go_back(timeout=0)


async def _go_forward(session: Session, action: actions.GoForward) -> None:
    async with session.deadline("going forward"):
        await session.page.go_forward(timeout=0)


async def _noop(_session: Session, action: actions.Noop) -> None:
    if action.wait_ms:
        await asyncio.sleep(action.wait_ms / 1000)


async def _said(_session: Session, _action: actions.Action) -> None:
    """Messages are for the environment, not for the page."""


_TABLE: dict[str, Callable[[Session, Any], Awaitable[None]]] = {
    "click": _click,
    "dblclick": _dblclick,
    "fill": _fill,
    "type": _type,
    "clear": _clear,
    "press": _press,
    "keyboard_press": _keyboard_press,
    "hover": _hover,
    "focus": _focus,
    "select_option": _select_option,
    "scroll": _scroll,
    "drag_and_drop": _drag_and_drop,
    "goto": _goto,
    "go_back": _go_back,
    "go_forward": _go_forward,
    "noop": _noop,
    "send_msg_to_user": _said,
    "report_infeasible": _said,
}
