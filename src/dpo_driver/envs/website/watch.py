"""What a page is about to do: requests on their way, navigations, and where it must not go.

A second CDP session beside the one that acts. It knows when the page has settled (no request on its way, document
loaded, DOM quiet) without a fixed sleep, and it stops every navigation to an origin that is not allowed before it
begins, so that a page stays where it is instead of being lost. Used by environment.py only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Self

from playwright.async_api import CDPSession
from playwright.async_api import Error as PlaywrightError

from dpo_driver.browser.session import Session

_SETTLE = files(__package__).joinpath("settle.js").read_text(encoding="utf-8")
# What may stay open for as long as the page lives.
_ENDLESS = frozenset({"EventSource", "WebSocket", "Ping", "Media", "Prefetch", "CSPViolationReport"})


class Watch:
    """``watch = await Watch.open(session, allows)``; then ``await watch.settle(...)`` after every action."""

    def __init__(self, session: Session, cdp: CDPSession, allows: Callable[[str], bool]) -> None:
        self._session, self._cdp, self._allows = session, cdp, allows
        self._main = ""
        self._requests: set[str] = set()
        self._leaving: set[str] = set()  # frames that are on their way to another document
        self._seen = 0  # of requests and navigations, ever
        self._news = asyncio.Event()
        self._refused: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.status: int | None = None  # HTTP status of the page's document

    @classmethod
    async def open(cls, session: Session, allows: Callable[[str], bool]) -> Self:
        """Watch a session's page from now on.

        Raises:
            RolloutFailure: the browser broke.
        """
        async with session.deadline("watching the page"):
            cdp = await session.page.context.new_cdp_session(session.page)
            watch = cls(session, cdp, allows)
            for event, told in watch._events().items():
                cdp.on(event, told)
            await cdp.send("Page.enable")
            await cdp.send("Network.enable")
            await cdp.send("Fetch.enable", {"patterns": [{"urlPattern": "*", "resourceType": "Document"}]})
            watch._main = (await cdp.send("Page.getFrameTree"))["frameTree"]["frame"]["id"]
        return watch

    def take_refused(self) -> list[str]:
        """Addresses that the page wanted to go to and may not, since the last call."""
        refused, self._refused = self._refused, []
        return refused

    async def settle(self, quiet_ms: float, limit_s: float) -> bool:
        """Wait until nothing is on its way and the page stays as it is. False if that took longer than the limit.

        Raises:
            RolloutFailure: PAGE_HUNG when the page answers no more, and whatever else ended it.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        while (left := end - loop.time()) > 0:
            if not await self._idle(left):
                return False
            seen = self._seen
            limit_ms = max(1.0, min(end - loop.time(), self._session.call_s / 2) * 1000)
            await self._session.isolated(f"({_SETTLE})({quiet_ms}, {limit_ms})")
            # Events come in order on one connection: after this answer all earlier ones have been seen.
            async with self._session.deadline("watching the page"):
                await self._cdp.send("Page.getFrameTree")
            if self._seen == seen and not self._busy:
                return True
        return False

    @property
    def _busy(self) -> bool:
        return bool(self._requests or self._leaving)

    async def _idle(self, seconds: float) -> bool:
        """Wait for the end of what is on its way. A page that dies meanwhile is said by the session at once."""
        async with self._session.deadline("settling", seconds=seconds + 1):
            try:
                async with asyncio.timeout(seconds):
                    while self._busy:
                        self._news.clear()
                        await self._news.wait()
            except TimeoutError:
                if self._session.failure is not None:
                    raise
                return False
        return True

    def _events(self) -> dict[str, Any]:
        return {
            "Network.requestWillBeSent": self._request,
            "Network.loadingFinished": lambda event: self._ended(event["requestId"]),
            "Network.loadingFailed": self._failed,
            "Network.responseReceived": self._response,
            "Page.frameRequestedNavigation": self._leaves,
            "Page.frameNavigated": lambda event: self._arrived(event["frame"]["id"]),
            "Page.frameStoppedLoading": lambda event: self._arrived(event["frameId"]),
            "Page.frameDetached": lambda event: self._arrived(event["frameId"]),
            "Page.navigatedWithinDocument": lambda event: self._arrived(event["frameId"]),
            "Fetch.requestPaused": self._paused,
        }

    def _request(self, event: dict[str, Any]) -> None:
        if event.get("type") in _ENDLESS or event["request"]["url"].startswith(("data:", "blob:")):
            return
        self._seen += 1
        self._requests.add(event["requestId"])

    def _ended(self, request: str) -> None:
        self._requests.discard(request)
        self._news.set()

    def _failed(self, event: dict[str, Any]) -> None:
        if event.get("type") == "Document":
            self._leaving.clear()
        self._ended(event["requestId"])

    def _response(self, event: dict[str, Any]) -> None:
        if event["type"] == "Document" and event.get("frameId") == self._main:
            self.status = int(event["response"]["status"])

    def _leaves(self, event: dict[str, Any]) -> None:
        # mailto:, javascript: and the like lead to no other document.
        leads = event["url"].startswith(("http:", "https:", "about:", "blob:", "data:"))
        if event.get("disposition", "currentTab") == "currentTab" and leads:
            self._seen += 1
            self._leaving.add(event["frameId"])

    def _arrived(self, frame: str) -> None:
        self._leaving.discard(frame)
        self._news.set()

    def _paused(self, event: dict[str, Any]) -> None:
        url, request = event["request"]["url"], event["requestId"]
        if self._allows(url):
            self._later(self._cdp.send("Fetch.continueRequest", {"requestId": request}))
            return
        self._refused.append(url)
        # Aborted: the browser drops the navigation and shows no error page.
        self._later(self._cdp.send("Fetch.failRequest", {"requestId": request, "errorReason": "Aborted"}))

    def _later(self, call: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(_quietly(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(call: Awaitable[Any]) -> None:
    """The page may be gone by now; whoever waits for it is told by the session."""
    with contextlib.suppress(PlaywrightError):
        await call
