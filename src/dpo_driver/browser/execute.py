"""Actions -> trusted input: a table from the action's kind to what is done on the page.

Clicks, keys and text arrive as the browser's own input events, at a point where the pointer really reaches the
element. What cannot be carried out (no such element, covered, disabled, not a field) is an ActionError in words the
agent can use. Called by environments. Nothing of an action is ever run as code: its values only travel as JSON. The
one exception is ``js_eval``, which an environment has to grant and which runs in an isolated world of its own. Must not
import environments.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from dpo_driver.browser import extras, held
from dpo_driver.browser.session import Session
from dpo_driver.core import actions
from dpo_driver.core.errors import ActionError

TAKEN_UP_PX = 8  # beyond what browsers and drag libraries take for a click
DRAG_STEPS = 8
ERROR_PAGE_MS = 2_000
TYPED_AT_ONCE = 16  # characters


@dataclass(frozen=True)
class Grants:
    """What an environment lets an agent do beyond the input of a person at this page.

    Args:
        files: the folder whose files may be uploaded; None: there are none.
        js_eval: the agent may run JavaScript, isolated from the page's scripts and from our own.
        allows: whether an address may be opened; None: any http or https address.
    """

    files: Path | None = None
    js_eval: bool = False
    allows: Callable[[str], bool] | None = None


NOTHING = Grants()


async def execute(session: Session, action: actions.Action, grants: Grants = NOTHING) -> str | None:
    """Carry out one action.

    Returns:
        What the agent is to be told: the value that ``js_eval`` gave, as JSON. None after all other actions.

    Raises:
        ActionError: it cannot be done; the page is as it was, or at most scrolled or focused.
        RolloutFailure: the page or the browser broke.
    """
    if action.kind in _GRANTED:
        return await _GRANTED[action.kind](session, action, grants)
    await _TABLE[action.kind](session, action)
    return None


async def _ask(session: Session, function: str, *arguments: Any) -> dict[str, Any]:
    """Call a function of the observer; its ``error`` becomes an ActionError."""
    written = ", ".join(json.dumps(argument) for argument in arguments)
    answer: dict[str, Any] = await session.isolated(f"dpoDriver.{function}({written})")
    if "error" in answer:
        raise ActionError(answer["error"])
    return answer


async def _locate(session: Session, ref: str, *, still: bool = False) -> tuple[float, float]:
    """Where the pointer reaches an element that is brought into view, or, ``still``, that is in view."""
    found = await _ask(session, "locate", ref, still)
    return found["x"], found["y"]


async def _press_mouse(session: Session, x: float, y: float, action: Any, clicks: int) -> None:
    button: str = action.button
    modifiers: tuple[str, ...] = getattr(action, "modifiers", ())
    session.mouse = (x, y)
    if modifiers or held.anything(session):
        await held.click(session, x, y, button, clicks, modifiers)
        return
    calls = [session.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)]
    for count in range(1, clicks + 1):
        down = {"left": 1, "right": 2, "middle": 4}[button]
        common = {"x": x, "y": y, "button": button, "clickCount": count}
        calls.append(session.cdp("Input.dispatchMouseEvent", type="mousePressed", buttons=down, **common))
        calls.append(session.cdp("Input.dispatchMouseEvent", type="mouseReleased", buttons=0, **common))
    await session.pipelined(*calls)


async def _click(session: Session, action: actions.Click) -> None:
    await _press_mouse(session, *await _locate(session, action.ref), action, 1)


async def _dblclick(session: Session, action: actions.DblClick) -> None:
    await _press_mouse(session, *await _locate(session, action.ref), action, 2)


async def _move(session: Session, x: float, y: float) -> None:
    session.mouse = (x, y)
    if held.anything(session):
        await held.move(session, x, y)
    else:
        await session.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)


async def _hover(session: Session, action: actions.Hover) -> None:
    await _move(session, *await _locate(session, action.ref))


def _point(session: Session, x: float, y: float) -> tuple[float, float]:
    width, height = session.viewport
    if not (0 <= x < width and 0 <= y < height):
        raise ActionError(f"the point ({x:g}, {y:g}) lies outside the viewport of {width} x {height}")
    return x, y


async def _mouse_move(session: Session, action: actions.MouseMove) -> None:
    await _move(session, *_point(session, action.x, action.y))


async def _mouse_down(session: Session, action: actions.MouseDown) -> None:
    session.mouse = _point(session, action.x, action.y)
    await held.button_down(session, *session.mouse, action.button)


async def _mouse_up(session: Session, action: actions.MouseUp) -> None:
    session.mouse = _point(session, action.x, action.y)
    await held.button_up(session, *session.mouse, action.button)


async def _mouse_click(session: Session, action: actions.MouseClick) -> None:
    await _press_mouse(session, *_point(session, action.x, action.y), action, 1)


async def _mouse_dblclick(session: Session, action: actions.MouseDblclick) -> None:
    await _press_mouse(session, *_point(session, action.x, action.y), action, 2)


async def _mouse_drag_and_drop(session: Session, action: actions.MouseDragAndDrop) -> None:
    start = _point(session, action.from_x, action.from_y)
    await _drag(session, start, _point(session, action.to_x, action.to_y))


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
    await _type_text(session, action.text)


async def _type_text(session: Session, text: str) -> None:
    # A page in motion answers each key with its next frame: the deadline is for a piece, not for a long text.
    for start in range(0, len(text), TYPED_AT_ONCE):
        async with session.deadline("typing"):
            await session.page.keyboard.type(text[start : start + TYPED_AT_ONCE])


async def _keys(session: Session, key: str) -> None:
    async with session.deadline("pressing keys"):
        with held.known(key):
            await session.page.keyboard.press(key)


async def _press(session: Session, action: actions.Press) -> None:
    await _ask(session, "focus", action.ref, False)
    await _keys(session, action.key)


async def _keyboard_press(session: Session, action: actions.KeyboardPress) -> None:
    await _keys(session, action.key)


async def _keyboard_down(session: Session, action: actions.KeyboardDown) -> None:
    await held.key_down(session, action.key)


async def _keyboard_up(session: Session, action: actions.KeyboardUp) -> None:
    await held.key_up(session, action.key)


async def _keyboard_type(session: Session, action: actions.KeyboardType) -> None:
    await _type_text(session, action.text)


async def _keyboard_insert_text(session: Session, action: actions.KeyboardInsertText) -> None:
    await session.cdp("Input.insertText", text=action.text)


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


async def _drag(session: Session, start: tuple[float, float], end: tuple[float, float]) -> None:
    session.mouse = end
    mouse = session.page.mouse  # Playwright's mouse also carries native drags
    async with session.deadline("dragging"):
        await mouse.move(*start)
        await mouse.down()
        await mouse.move(*end, steps=DRAG_STEPS)
        await mouse.move(*end)  # what follows the pointer by a frame, such as a sortable list, arrives as well
        await mouse.up()


async def _drag_and_drop(session: Session, action: actions.DragAndDrop) -> None:
    await _locate(session, action.from_ref)
    end = await _locate(session, action.to_ref)
    # Bringing the second into view may have moved the first, or taken it out of view.
    try:
        start = await _locate(session, action.from_ref, still=True)
    except ActionError:
        await _drag_far(session, action)
    else:
        await _drag(session, start, end)


async def _drag_far(session: Session, action: actions.DragAndDrop) -> None:
    """Between places that are not in view together: taken up first, then the page scrolls below the held pointer."""
    start = end = await _locate(session, action.from_ref)
    mouse = session.page.mouse
    async with session.deadline("dragging"):
        await mouse.move(*start)
        await mouse.down()
        await mouse.move(start[0] + TAKEN_UP_PX, start[1] + TAKEN_UP_PX)
    try:
        end = await _locate(session, action.to_ref)
        await session.isolated("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    finally:
        session.mouse = end
        async with session.deadline("dragging"):
            await mouse.move(*end, steps=DRAG_STEPS)
            await mouse.move(*end)
            await mouse.up()


async def _goto(session: Session, action: actions.Goto, grants: Grants) -> None:
    if not action.url.startswith(("http://", "https://")):
        raise ActionError("goto takes an http or https address")
    if grants.allows is not None and not grants.allows(action.url):
        raise ActionError(f"{action.url[:80]} is not part of this task's site")
    async with session.deadline(f"opening {action.url}"):
        try:
            await session.page.goto(action.url, wait_until="load", timeout=0)
        except PlaywrightError as error:
            # An address that cannot be opened is the agent's choice, no failure of the world.
            if "net::ERR_" not in error.message and "invalid URL" not in error.message:
                raise
            reason = error.message.partition("net::")[2].partition(" at ")[0] or "not an address"
            if reason != "ERR_ABORTED" and "net::" in error.message:
                # The browser's own page about it comes a little later.
                with contextlib.suppress(PlaywrightTimeoutError):
                    await session.page.wait_for_url("chrome-error://**", timeout=ERROR_PAGE_MS)
            raise ActionError(f"cannot open {action.url[:80]}: {reason}") from None


async def _travel(session: Session, by: int, where: str) -> None:
    history = await session.cdp("Page.getNavigationHistory")
    index = history["currentIndex"] + by
    entries = history["entries"]
    # The first entry is the empty page that every session begins with.
    if not 0 <= index < len(entries) or (index == 0 and entries[0]["url"] == "about:blank"):
        raise ActionError(f"there is no page to go {where} to")
    async with session.deadline(f"going {where}"):
        if by < 0:
            await session.page.go_back(timeout=0)
        else:
            await session.page.go_forward(timeout=0)


async def _go_back(session: Session, _action: actions.GoBack) -> None:
    await _travel(session, -1, "back")


async def _go_forward(session: Session, _action: actions.GoForward) -> None:
    await _travel(session, 1, "forward")


async def _upload_file(session: Session, action: actions.UploadFile, grants: Grants) -> None:
    paths = extras.files(grants.files, action.file)
    x, y = await _locate(session, action.ref)
    await extras.choose(session, lambda: held.click(session, x, y, "left", 1, ()), paths, f"element {action.ref}")


async def _mouse_upload_file(session: Session, action: actions.MouseUploadFile, grants: Grants) -> None:
    paths = extras.files(grants.files, action.file)
    x, y = _point(session, action.x, action.y)
    await extras.choose(session, lambda: held.click(session, x, y, "left", 1, ()), paths, f"the point ({x:g}, {y:g})")


async def _js_eval(session: Session, action: actions.JsEval, grants: Grants) -> str:
    if not grants.js_eval:
        raise ActionError("js_eval is not available")
    return await extras.evaluate(session, action.code)


async def _new_tab(session: Session, _action: actions.NewTab) -> None:
    await session.tabs.open()


async def _tab_close(session: Session, _action: actions.TabClose) -> None:
    await session.tabs.close()


async def _tab_focus(session: Session, action: actions.TabFocus) -> None:
    await session.tabs.focus(action.index)


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
    "mouse_move": _mouse_move,
    "mouse_down": _mouse_down,
    "mouse_up": _mouse_up,
    "mouse_click": _mouse_click,
    "mouse_dblclick": _mouse_dblclick,
    "mouse_drag_and_drop": _mouse_drag_and_drop,
    "keyboard_down": _keyboard_down,
    "keyboard_up": _keyboard_up,
    "keyboard_type": _keyboard_type,
    "keyboard_insert_text": _keyboard_insert_text,
    "new_tab": _new_tab,
    "tab_close": _tab_close,
    "tab_focus": _tab_focus,
    "go_back": _go_back,
    "go_forward": _go_forward,
    "noop": _noop,
    "send_msg_to_user": _said,
    "report_infeasible": _said,
}

# What depends on what the environment grants.
_GRANTED: dict[str, Callable[[Session, Any, Grants], Awaitable[str | None]]] = {
    "goto": _goto,
    "upload_file": _upload_file,
    "mouse_upload_file": _mouse_upload_file,
    "js_eval": _js_eval,
}
