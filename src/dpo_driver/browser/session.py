"""One page under deadlines, in a context of its own. Made by browser/browser.py; used by environments.

The hot path speaks CDP over a connection of its own (wire.py). Every call has a deadline, because a busy page or a
stopped browser answers nothing for ever. A page that misses one is thrown away with its context, and the caller gets a
RolloutFailure whose kind says what died. Must not import environments or agents.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from playwright.async_api import Dialog, Page
from playwright.async_api import Error as PlaywrightError

from dpo_driver.browser.observe import OBSERVER_SCRIPT
from dpo_driver.browser.tabs import Tabs
from dpo_driver.browser.wire import Wire, WireError
from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.records import StopReason

if TYPE_CHECKING:
    from dpo_driver.browser.browser import Browser

CALL_S = 10.0
CLOSE_S = 2.0
WORLD = "dpo-driver"
_WORLD_GONE = ("Cannot find context", "Execution context was destroyed", "navigated or closed")


@dataclass(frozen=True)
class PageEvent:
    """Something the page did that was dealt with on the spot: kind is "dialog", "popup" or "download"."""

    kind: str
    text: str


class ScriptError(Exception):
    """A script of ours threw inside the page; carries the page's own words."""


class Session:
    """One page in a context of its own, or the tab that is seen of several. Not for concurrent use; after a failure it
    is dead and must be replaced."""

    def __init__(
        self,
        browser: Browser,
        page: Page,
        wire: Wire,
        viewport: tuple[int, int],
        call_s: float,
        tabs: bool = False,
    ) -> None:
        self.page = page
        self.viewport = viewport
        self.call_s = call_s
        self._launch = browser.launches
        self.mouse = (viewport[0] / 2, viewport[1] / 2)  # where the pointer was left, for the wheel
        self._browser, self._context, self._wire = browser, page.context, wire
        self.accepts: Callable[[str, str], bool] | None = None  # (type, message) of a dialog; None: as _dismiss says
        self._events: list[PageEvent] = []
        self._failure: RolloutFailure | None = None
        self._waiting: set[asyncio.Timeout] = set()
        self._world: int | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self.tabs = Tabs(self, page, wire, tabs, browser._connect)
        self._watch(page)
        page.context.on("page", self._appeared)
        page.context.on("close", lambda _context: self._lose(StopReason.BROWSER_LOST, "the browser ended"))

    def _watch(self, page: Page) -> None:
        page.on("crash", lambda _page: self._lose(StopReason.RENDERER_CRASH, "the page's process crashed"))
        page.on("close", self._closed)
        page.on("dialog", self._dismiss)
        page.on("download", lambda download: self._record("download", download.suggested_filename))

    def show(self, page: Page, wire: Wire) -> None:
        """From now on this is the tab that is seen. For browser/tabs.py."""
        self.page, self._wire, self._world = page, wire, None

    @property
    def failure(self) -> RolloutFailure | None:
        """What this session died of; None while it is alive."""
        return self._failure

    def take_events(self) -> list[PageEvent]:
        """Dialogs, popups and downloads since the last call."""
        events, self._events = self._events, []
        return events

    async def cdp(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One CDP command. Raises RolloutFailure when the page or the browser does not answer as it should."""
        try:
            return await self._send(method, parameters)
        except _WorldGone as gone:
            raise self._fail(StopReason.NAVIGATED_AWAY, str(gone)) from None

    async def pipelined(self, *calls: Awaitable[Any]) -> list[Any]:
        """Await several calls at once. Commands of one session are carried out in the order given, so this saves
        round trips, not order."""
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return list(results)

    async def goto(self, url: str) -> None:
        """Open an address and wait for its load event.

        Raises:
            RolloutFailure: SERVER_ERROR when the address cannot be fetched.
        """
        self._world = None
        try:
            async with self.deadline(f"opening {url}", StopReason.SERVER_ERROR):
                response = await self.page.goto(url, wait_until="load", timeout=0)
        finally:
            self._world = None
        if response is not None and response.status >= 400:
            raise RolloutFailure(StopReason.SERVER_ERROR, f"{url} answered {response.status}")

    async def isolated(self, expression: str) -> Any:
        """Value of a JavaScript expression in our isolated world, where ``dpoDriver`` is the observer. Promises are
        awaited. The world is made again after a navigation.

        Raises:
            ScriptError: the expression threw.
        """
        for _ in range(3):
            try:
                if self._world is None:
                    self._world = await self._make_world()
                return await self._evaluate(expression, contextId=self._world)
            except _WorldGone:
                self._world = None
        raise self._fail(StopReason.NAVIGATED_AWAY, "the page keeps navigating")

    async def handle(self, expression: str) -> str:
        """Evaluate in the page's own world and keep the object: its remote id."""
        result = await self._raw_evaluate("Runtime.evaluate", expression=expression)
        return str(result["objectId"])

    async def call_on(self, object_id: str, function: str, *arguments: Any) -> Any:
        """Call a JavaScript function with a kept object as ``this``; promises are awaited.

        Raises:
            ScriptError: the function threw.
            RolloutFailure: NAVIGATED_AWAY when the document that held the object is gone.
        """
        values = [{"value": argument} for argument in arguments]
        try:
            return await self._evaluate_with(
                "Runtime.callFunctionOn", functionDeclaration=function, objectId=object_id, arguments=values
            )
        except _WorldGone:
            raise self._fail(StopReason.NAVIGATED_AWAY, f"the page left its document for {self.page.url}") from None

    async def screenshot(self, clip: tuple[float, float, float, float], scale: float = 1.0, quality: int = 60) -> bytes:
        """JPEG of a rectangle (left, top, width, height) of the page, in CSS pixels, enlarged ``scale`` times."""
        left, top, width, height = clip
        area = {"x": left, "y": top, "width": width, "height": height, "scale": scale}
        answer = await self.cdp(
            "Page.captureScreenshot", format="jpeg", quality=quality, clip=area, optimizeForSpeed=True
        )
        return base64.b64decode(answer["data"])

    async def close(self) -> None:
        """Close the context; if that hangs, kill the browser."""
        self._fail(StopReason.CANCELLED, "the session was closed")
        await asyncio.shield(self._end())

    def _end(self) -> asyncio.Task[None]:
        """Begin to close. Whoever finds out that the page hangs is told at once and does not wait for the end of it."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="closing a session")
        return self._closing

    async def _close(self) -> None:
        await self.tabs.disconnect()
        hung = self._failure is not None and self._failure.kind == StopReason.PAGE_HUNG
        stopped = hung and self._browser.launches == self._launch and not await self._browser.answers()
        if self._browser.connected and (stopped or not await quietly(self._context.close())):
            await self._browser.kill(self._launch)

    @contextlib.asynccontextmanager
    async def deadline(
        self, what: str, otherwise: StopReason = StopReason.BROWSER_LOST, seconds: float | None = None
    ) -> AsyncIterator[None]:
        """Guard calls to the page: a deadline, and a RolloutFailure with the true cause when something dies.

        Args:
            what: named in the failure.
            otherwise: the kind of an error that is neither a crash nor a loss.
        """
        if self._failure is not None:
            raise self._failure
        try:
            async with asyncio.timeout(seconds or self.call_s) as scope:
                self._waiting.add(scope)
                try:
                    yield
                finally:
                    self._waiting.discard(scope)
        except TimeoutError:
            if self._failure is None:
                limit = seconds or self.call_s
                self._failure = RolloutFailure(StopReason.PAGE_HUNG, f"{what} took longer than {limit:g} s")
                self._end()
            raise self._failure from None
        except (PlaywrightError, WireError) as error:
            if any(sign in str(error) for sign in _WORLD_GONE) and self._failure is None:
                raise _WorldGone(str(error)) from None
            raise await self._cause(str(error), otherwise) from error

    async def _send(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        async with self.deadline(method):
            return await self._wire.send(method, parameters)

    async def _cause(self, error: str, otherwise: StopReason) -> RolloutFailure:
        # A call can fail a moment before the event that says why.
        for _ in range(50):
            if self._failure is not None or not self._browser.connected:
                break
            if "Target" not in error and "closed" not in error:
                break
            await asyncio.sleep(0.01)
        if self._failure is not None:
            return self._failure
        kind = otherwise if self._browser.connected else StopReason.BROWSER_LOST
        return self._fail(kind, error.splitlines()[0])

    def _fail(self, kind: StopReason, detail: str) -> RolloutFailure:
        self._failure = self._failure or RolloutFailure(kind, detail)
        return self._failure

    def _lose(self, kind: StopReason, detail: str) -> None:
        """The page or the browser died: whoever waits for it is told now, not at the deadline."""
        self._fail(kind, detail)
        now = asyncio.get_running_loop().time()
        for scope in self._waiting:
            if not scope.expired():
                scope.reschedule(now)

    async def _make_world(self) -> int:
        tree = await self.cdp("Page.getFrameTree")
        frame = tree["frameTree"]["frame"]["id"]
        world = await self.cdp("Page.createIsolatedWorld", frameId=frame, worldName=WORLD)
        context = int(world["executionContextId"])
        await self._evaluate(OBSERVER_SCRIPT, contextId=context)
        return context

    async def _evaluate(self, expression: str, **where: Any) -> Any:
        return await self._evaluate_with("Runtime.evaluate", expression=expression, **where)

    async def _evaluate_with(self, method: str, **parameters: Any) -> Any:
        result = await self._raw_evaluate(method, returnByValue=True, awaitPromise=True, **parameters)
        return result.get("value")

    async def _raw_evaluate(self, method: str, **parameters: Any) -> dict[str, Any]:
        answer = await self._send(method, parameters)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise ScriptError(details.get("exception", {}).get("description") or details.get("text", "unknown error"))
        result: dict[str, Any] = answer["result"]
        return result

    def _record(self, kind: str, text: str) -> None:
        self._events.append(PageEvent(kind, text))

    def _dismiss(self, dialog: Dialog) -> None:
        # A dialog that nobody answers stops the whole page. Leaving is allowed, all else is declined.
        self._record("dialog", dialog.message)
        leaves = dialog.type == "beforeunload"
        accepted = leaves if self.accepts is None else self.accepts(dialog.type, dialog.message)
        self._later(dialog.accept() if accepted else dialog.dismiss())

    def _appeared(self, page: Page) -> None:
        if page is self.page:
            return
        if self.tabs.keep(page):
            self._watch(page)
        else:
            self._record("popup", page.url)
            self._later(page.close())

    def _closed(self, page: Page) -> None:
        if not self.tabs.drop(page):
            self._lose(StopReason.BROWSER_LOST, "the page was closed")

    def _later(self, call: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(quietly(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _WorldGone(Exception):
    """The document whose world we spoke to was replaced."""


async def quietly(call: Awaitable[Any]) -> bool:
    """Await an ending: errors mean that it has ended already. False when it did not end in time."""
    try:
        await asyncio.wait_for(call, CLOSE_S)
    except TimeoutError:
        return False
    except PlaywrightError:
        pass
    return True
