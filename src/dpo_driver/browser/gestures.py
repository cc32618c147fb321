"""A person's input on the pages of a session, as gestures: what was done, to what, and in which tab.

``async with Gestures.of(session, limits) as gestures: gesture = await gestures.next(60)``. A script in an isolated
world (record.js) hears trusted input on every page and tab of the session, from a document's first moment on, and tells
each gesture through a binding that the page's own scripts do not have. Called by rollout/person.py. Must not import
environments.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from playwright.async_api import CDPSession, Page
from playwright.async_api import Error as PlaywrightError

from dpo_driver.browser.observe import OBSERVER_SCRIPT, Limits, asked
from dpo_driver.browser.session import Session

WORLD = "dpo-driver-record"
BINDING = "dpoRecorded"
_RECORD = files(__package__).joinpath("record.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Gesture:
    """``kind``: "click", "dblclick", "drag", "fill", "select", "press", "scroll", "hover", "changed" (by itself),
    "closed" (a tab). ``tab`` is its place among the session's tabs, ``at`` when it was complete (seconds since the
    epoch), ``told`` what record.js says of it."""

    kind: str
    tab: int
    at: float
    told: dict[str, Any] = field(default_factory=dict)


class Gestures:
    """Those of one session, in order."""

    def __init__(self, session: Session, limits: Limits) -> None:
        self._session = session
        self._queue: asyncio.Queue[Gesture] = asyncio.Queue()
        self._lines: dict[Page, CDPSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        options = json.dumps({**asked(limits), "fresh": False})
        self._script = f"{OBSERVER_SCRIPT}\n({_RECORD.rstrip()})({options});"

    @classmethod
    @asynccontextmanager
    async def of(cls, session: Session, limits: Limits) -> AsyncIterator[Gestures]:
        """Listen for as long as the block lasts.

        Raises:
            RolloutFailure: the page or the browser broke.
        """
        gestures = cls(session, limits)
        context = session.page.context
        context.on("page", gestures._appeared)
        try:
            for page in list(context.pages):
                async with session.deadline("listening to the page"):
                    await gestures._listen(page)
            yield gestures
        finally:
            context.remove_listener("page", gestures._appeared)
            await gestures._end()

    async def next(self, seconds: float) -> Gesture | None:
        """The next gesture; None if none came in time.

        Raises:
            RolloutFailure: the page or the browser has gone meanwhile.
        """
        if self._session.failure is not None and self._queue.empty():
            raise self._session.failure
        try:
            return await asyncio.wait_for(self._queue.get(), seconds)
        except TimeoutError:
            if self._session.failure is not None:
                raise self._session.failure from None
            return None

    async def _listen(self, page: Page) -> None:
        line = self._lines[page] = await page.context.new_cdp_session(page)
        line.on("Runtime.bindingCalled", lambda event: self._told(page, event))
        page.on("close", self._closed)
        await line.send("Page.enable")
        await line.send("Runtime.enable")
        await line.send("Runtime.addBinding", {"name": BINDING, "executionContextName": WORLD})
        await line.send("Page.addScriptToEvaluateOnNewDocument", {"source": self._script, "worldName": WORLD})
        tree = await line.send("Page.getFrameTree")
        world = await line.send(
            "Page.createIsolatedWorld", {"frameId": tree["frameTree"]["frame"]["id"], "worldName": WORLD}
        )
        await line.send(
            "Runtime.evaluate", {"expression": self._script, "contextId": world["executionContextId"]}
        )  # fmt: skip

    def _appeared(self, page: Page) -> None:
        async def listen() -> None:
            with contextlib.suppress(PlaywrightError):  # gone again already
                await self._listen(page)

        task = asyncio.ensure_future(listen())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _told(self, page: Page, event: dict[str, Any]) -> None:
        if event["name"] != BINDING:
            return
        told = json.loads(event["payload"])
        self._queue.put_nowait(Gesture(told.pop("kind"), self._tab(page), told.pop("at") / 1000, told))

    def _closed(self, page: Page) -> None:
        self._lines.pop(page, None)
        if self._session.failure is None:
            self._queue.put_nowait(Gesture("closed", -1, time.time()))

    def _tab(self, page: Page) -> int:
        pages = self._session.tabs.pages
        return pages.index(page) if page in pages else 0

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for page, line in self._lines.items():
            page.remove_listener("close", self._closed)
            with contextlib.suppress(PlaywrightError, TimeoutError):
                await asyncio.wait_for(line.detach(), 2.0)
