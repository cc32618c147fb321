"""What only some environments grant: uploading files out of one folder, and JavaScript in isolation.

Called by browser/execute.py. Must not import environments.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from playwright.async_api import CDPSession, FileChooser, Page
from playwright.async_api import Error as PlaywrightError

from dpo_driver.browser.session import Session
from dpo_driver.core.errors import ActionError

CHOOSER_S = 2.0  # how long a click has for asking for a file
SCRIPT_S = 2.0
MAX_RESULT_CHARS = 4_000
# Neither the page's world nor the distiller's: what an agent changes here is seen by nobody else.
WORLD = "dpo-driver-agent"


def files(folder: Path | None, names: Sequence[str]) -> list[Path]:
    """Paths of the named files.

    Raises:
        ActionError: there is no folder, a file lies outside it (also by a link), or does not exist.
    """
    if folder is None:
        raise ActionError("there are no files to upload here")
    root = folder.resolve()
    paths = []
    for name in names:
        try:
            path = (root / name).resolve()
            there = path.is_file()
        except (OSError, ValueError, RuntimeError):  # a NUL, too long a name, links in a ring
            raise ActionError(f"{name[:80]!r} is no name of a file") from None
        if not path.is_relative_to(root):
            raise ActionError(f"the file {name[:80]!r} lies outside the folder of files to upload")
        if not there:
            known = sorted(str(found.relative_to(root)) for found in root.rglob("*") if found.is_file())
            raise ActionError(f"there is no file {name[:80]!r}; there are: {', '.join(known[:20]) or 'none'}")
        paths.append(path)
    return paths


# Kept for the page's life: taking the listener away and putting it back loses a chooser that opens meanwhile.
_choosers: WeakKeyDictionary[Page, asyncio.Queue[FileChooser]] = WeakKeyDictionary()


def _opened(page: Page) -> asyncio.Queue[FileChooser]:
    queue = _choosers.get(page)
    if queue is None:
        queue = _choosers[page] = asyncio.Queue()
        page.on("filechooser", queue.put_nowait)
    while not queue.empty():
        queue.get_nowait()  # one that an ordinary click opened
    return queue


async def choose(session: Session, click: Callable[[], Awaitable[None]], paths: Sequence[Path], what: str) -> None:
    """Click and give the files to the chooser that opens.

    Raises:
        ActionError: none opens, or it takes one file only.
    """
    opened = _opened(session.page)
    await click()
    async with session.deadline("uploading", seconds=session.call_s + CHOOSER_S):
        try:
            async with asyncio.timeout(CHOOSER_S):
                chooser = await opened.get()
        except TimeoutError:
            raise ActionError(f"{what} does not ask for a file") from None
        if len(paths) > 1 and not chooser.is_multiple():
            raise ActionError(f"{what} takes one file")
        await chooser.set_files(list(paths))


async def evaluate(session: Session, code: str) -> str:
    """Value of a JavaScript expression as JSON, at most MAX_RESULT_CHARS long; promises are awaited.

    Raises:
        ActionError: it threw, took longer than SCRIPT_S, led away, or its value cannot be written as JSON.
    """
    page = session.page
    async with session.deadline("running JavaScript"):
        # A connection of its own: what the browser refuses here says nothing about the session's health.
        cdp = await page.context.new_cdp_session(page)
        try:
            async with asyncio.timeout(SCRIPT_S):
                return _cut(await _ask(cdp, code))
        except TimeoutError:
            raise ActionError(f"the script took longer than {SCRIPT_S:g} s") from None
        except PlaywrightError as error:
            if page.is_closed() or "Protocol error" not in error.message:
                raise
            raise ActionError("the script was ended: it ran too long, or led to another page") from None
        finally:
            with contextlib.suppress(PlaywrightError):
                await cdp.detach()


async def _ask(cdp: CDPSession, code: str) -> str:
    tree = await cdp.send("Page.getFrameTree")
    frame = tree["frameTree"]["frame"]["id"]
    world = await cdp.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": WORLD})
    wanted = {
        "expression": code,
        "contextId": world["executionContextId"],
        "awaitPromise": True,
        "timeout": SCRIPT_S * 1000 / 2,  # ends a busy loop
    }
    result = _result(await cdp.send("Runtime.evaluate", wanted))
    if "objectId" in result:
        written = {
            "functionDeclaration": "function () { return JSON.stringify(this); }",
            "objectId": result["objectId"],
            "returnByValue": True,
        }
        return str(_result(await cdp.send("Runtime.callFunctionOn", written)).get("value", "undefined"))
    if "unserializableValue" in result:
        return str(result["unserializableValue"])
    return "undefined" if result["type"] == "undefined" else json.dumps(result.get("value"))


def _result(answer: dict[str, Any]) -> dict[str, Any]:
    if details := answer.get("exceptionDetails"):
        said = details.get("exception", {}).get("description") or details.get("text", "unknown error")
        raise ActionError(f"the script failed: {said.splitlines()[0][:200]}")
    result: dict[str, Any] = answer["result"]
    return result


def _cut(text: str) -> str:
    return text if len(text) <= MAX_RESULT_CHARS else text[: MAX_RESULT_CHARS - 1] + "…"
