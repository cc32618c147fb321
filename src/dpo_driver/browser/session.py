"""Chromium under deadlines: one browser, many isolated sessions. Called by environments and ``dpo-driver doctor``.

Playwright launches the browser and makes contexts and pages; the hot path speaks CDP over a connection of its own
(wire.py). Every call has a deadline,
because a busy page or a stopped browser answers nothing for ever. A page that misses one is thrown away with its
context; if even that hangs, the browser's whole process group is killed. Either way the caller gets a RolloutFailure
whose kind says what died, and ``Browser.new_context`` works again. Must not import environments or agents.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Browser as PlaywrightBrowser
from playwright.async_api import Dialog, Page, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError

from dpo_driver.browser import reaper
from dpo_driver.browser.chromium import find_chromium, launch_switches, runs_as_root
from dpo_driver.browser.observe import OBSERVER_SCRIPT
from dpo_driver.browser.tabs import Tabs
from dpo_driver.browser.watchdog import Watchdog
from dpo_driver.browser.wire import Wire, WireError, free_port
from dpo_driver.core.errors import BrowserMissingError, RolloutFailure
from dpo_driver.core.records import StopReason

LAUNCH_S = 30.0
CALL_S = 10.0
CLOSE_S = 2.0
ALIVE_S = 0.8  # when a page hangs, a browser that does not even answer a simple question in this time is killed
OPEN_S = 10.0  # for a new context in a browser that is running
NOWHERE = "http://127.0.0.1:9"  # the discard port: a context without a gateway reaches nothing
WORLD = "dpo-driver"
_WORLD_GONE = ("Cannot find context", "Execution context was destroyed", "navigated or closed")


@dataclass(frozen=True)
class PageEvent:
    """Something the page did that was dealt with on the spot: kind is "dialog", "popup" or "download"."""

    kind: str
    text: str


class ScriptError(Exception):
    """A script of ours threw inside the page; carries the page's own words."""


class Browser:
    """One Chromium, restarted when it has died: ``browser = await Browser.launch()``, then a context per worker."""

    def __init__(self, executable: Path, *, launch_s: float = LAUNCH_S, headed: bool = False) -> None:
        self.executable = executable
        self._headed = headed
        self._watchdog: Watchdog | None = None
        self.launches = 0
        self._launch_s = launch_s
        self._lock = asyncio.Lock()
        self._driver: Playwright | None = None
        self._browser: PlaywrightBrowser | None = None
        self._switch = ""
        self._port = 0

    @classmethod
    async def launch(
        cls, executable: Path | None = None, *, deadline_s: float = LAUNCH_S, headed: bool = False
    ) -> Browser:
        """Start Chromium, with a window if ``headed``; orphans of dead owners are swept first.

        Raises:
            BrowserMissingError: no Chromium was found, or it did not start.
        """
        browser = cls(executable or find_chromium(headed=headed), launch_s=deadline_s, headed=headed)
        try:
            await browser._start()
        except RolloutFailure as failure:
            await browser.close()
            raise BrowserMissingError(
                f"Chromium did not start: {failure.detail}",
                where=str(browser.executable),
                remedy="run `dpo-driver doctor`; libraries or shared memory may be missing",
            ) from failure
        return browser

    @property
    def connected(self) -> bool:
        return self._browser is not None and self._browser.is_connected()

    @property
    def version(self) -> str:
        """Chromium's version, "156.0.1.2"; empty while it is not running."""
        return self._browser.version if self._browser is not None else ""

    @property
    def pids(self) -> list[int]:
        """Process ids of the browser and of the script that started it (Linux)."""
        return [marked.pid for marked in reaper.find_marked(self._switch)] if self._switch else []

    @property
    def temporary_folder(self) -> Path | None:
        """Where driver and browser keep their temporary files; None while they are not running."""
        return self._watchdog.folder if self._watchdog is not None else None

    async def new_context(
        self,
        *,
        gateway: str = NOWHERE,
        viewport: tuple[int, int] = (1280, 720),
        call_s: float = CALL_S,
        tabs: bool = False,
    ) -> Session:
        """An isolated context with one page. Restarts the browser if it has died.

        Args:
            gateway: HTTP proxy through which everything goes, loopback included; what it refuses is unreachable.
            viewport: width and height in CSS pixels.
            call_s: deadline of each call, in seconds.
            tabs: keep what the page opens as tabs, and let an agent open some; otherwise popups are closed.

        Raises:
            RolloutFailure: BROWSER_LOST when the browser cannot be restarted or dies meanwhile.
        """
        # A browser that has just died may not look it yet: the first try finds out, the second has a new one.
        for last_try in (False, True):
            async with self._lock:
                if not self.connected:
                    await self._start()
            assert self._browser is not None
            launch = self.launches
            try:
                async with asyncio.timeout(min(OPEN_S, self._launch_s)):
                    return await self._new_session(self._browser, gateway, viewport, call_s, tabs)
            except (TimeoutError, PlaywrightError, WireError) as error:
                await self.kill(launch)
                if last_try:
                    raise RolloutFailure(StopReason.BROWSER_LOST, f"no new context: {error or 'deadline'}") from error
        raise AssertionError("unreachable")

    async def _new_session(
        self, browser: PlaywrightBrowser, gateway: str, viewport: tuple[int, int], call_s: float, tabs: bool
    ) -> Session:
        context = await browser.new_context(
            viewport={"width": viewport[0], "height": viewport[1]},
            proxy={"server": gateway, "bypass": "<-loopback>"},
            service_workers="block",
            accept_downloads=False,
            locale="en-US",
            timezone_id="UTC",
        )
        page = await context.new_page()
        return Session(self, page, await self._connect(page), viewport, call_s, tabs)

    async def _connect(self, page: Page) -> Wire:
        asked = await page.context.new_cdp_session(page)
        target = (await asked.send("Target.getTargetInfo"))["targetInfo"]["targetId"]
        await asked.detach()
        return await Wire.open(self._port, target)

    async def answers(self) -> bool:
        """Whether the browser's main process says something within a moment: it may be stopped, not just one page."""
        try:
            async with asyncio.timeout(ALIVE_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    writer.write(b"GET /json/version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    return bool(await reader.read(1))
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def kill(self, launch: int | None = None) -> None:
        """SIGKILL the browser and everything it started. Its sessions fail at once, a new context restarts it.

        Args:
            launch: do nothing unless this launch (``launches`` at the time) is still the current one.
        """
        async with self._lock:  # never in the middle of a start, or what dies is the successor
            if not self._switch or launch not in (None, self.launches):
                return
            for pid in self.pids:
                reaper.kill_tree(pid)
            # The driver notices within milliseconds; until then the browser would still look connected.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S if await self._driver_answers() else 0):
                    while self.connected:
                        await asyncio.sleep(0.005)
            if self.connected:
                # The driver is dead or stopped itself, so it tells nobody. Its successor comes with the next browser.
                self._driver = self._browser = None
                if self._watchdog is not None and self._watchdog.folder is not None:
                    for pid in reaper.users_of(self._watchdog.folder):
                        reaper.kill_tree(pid)

    async def _driver_answers(self) -> bool:
        if self._driver is None:
            return False
        try:
            async with asyncio.timeout(ALIVE_S):
                await (await self._driver.request.new_context()).dispose()
        except (TimeoutError, PlaywrightError):
            return False
        return True

    async def close(self) -> None:
        """End the browser and the driver, by force if they do not end in time."""
        browser, driver, self._browser, self._driver = self._browser, self._driver, None, None
        if browser is not None and not await _quietly(browser.close()):
            for pid in self.pids:
                reaper.kill_tree(pid)
        if driver is not None:
            await _quietly(driver.stop())
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            await asyncio.to_thread(watchdog.close)

    async def _start(self) -> None:
        reaper.sweep()
        if self._watchdog is None:
            self._watchdog = Watchdog()
        self._switch = reaper.owner_switch()
        self._watchdog.tell(self._switch)
        self._port = free_port()
        try:
            async with asyncio.timeout(self._launch_s):
                if self._driver is None:
                    with self._watchdog.temporary_files():
                        self._driver = await async_playwright().start()
                self._browser = await self._driver.chromium.launch(
                    executable_path=self.executable,
                    headless=not self._headed,
                    args=[*launch_switches(self._switch), f"--remote-debugging-port={self._port}"],
                    chromium_sandbox=not runs_as_root(),
                    handle_sigint=False,
                    handle_sigterm=False,
                    handle_sighup=False,
                )
        except (TimeoutError, PlaywrightError) as error:
            for pid in self.pids:
                reaper.kill_tree(pid)
            reason = str(error).strip().splitlines()
            raise RolloutFailure(StopReason.BROWSER_LOST, reason[0] if reason else "no answer in time") from error
        self.launches += 1


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
        if self._browser.connected and (stopped or not await _quietly(self._context.close())):
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
        self._later(dialog.accept() if dialog.type == "beforeunload" else dialog.dismiss())

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
        task = asyncio.ensure_future(_quietly(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _WorldGone(Exception):
    """The document whose world we spoke to was replaced."""


async def _quietly(call: Awaitable[Any]) -> bool:
    """Await an ending: errors mean that it has ended already. False when it did not end in time."""
    try:
        await asyncio.wait_for(call, CLOSE_S)
    except TimeoutError:
        return False
    except PlaywrightError:
        pass
    return True
