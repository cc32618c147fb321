"""One Chromium under deadlines: launched, watched, restarted when it has died. Called by environments and the doctor.

Playwright launches it and makes contexts and pages; each page's commands go over a connection of their own (wire.py).
When even a simple question is not answered, the browser's whole process group is killed; ``Browser.new_context`` works
again afterwards. Must not import environments or agents.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from playwright.async_api import Browser as PlaywrightBrowser
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page, Playwright, async_playwright

from dpo_driver.browser import reaper
from dpo_driver.browser.chromium import find_chromium, launch_switches, runs_as_root
from dpo_driver.browser.session import CALL_S, CLOSE_S, Session, quietly
from dpo_driver.browser.watchdog import Watchdog
from dpo_driver.browser.wire import Wire, WireError, free_port
from dpo_driver.core.errors import BrowserMissingError, RolloutFailure
from dpo_driver.core.records import StopReason

LAUNCH_S = 30.0
ALIVE_S = 0.8  # when a page hangs, a browser that does not even answer a simple question in this time is killed
OPEN_S = 10.0  # for a new context in a browser that is running
NOWHERE = "http://127.0.0.1:9"  # the discard port: a context without a gateway reaches nothing


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
        service_workers: bool = False,
    ) -> Session:
        """An isolated context with one page. Restarts the browser if it has died.

        Args:
            gateway: HTTP proxy through which everything goes, loopback included; what it refuses is unreachable.
            viewport: width and height in CSS pixels.
            call_s: deadline of each call, in seconds.
            tabs: keep what the page opens as tabs, and let an agent open some; otherwise popups are closed.
            service_workers: let the page register some; they end with the context.

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
                    return await self._new_session(self._browser, gateway, viewport, call_s, tabs, service_workers)
            except (TimeoutError, PlaywrightError, WireError) as error:
                await self.kill(launch)
                if last_try:
                    raise RolloutFailure(StopReason.BROWSER_LOST, f"no new context: {error or 'deadline'}") from error
        raise AssertionError("unreachable")

    async def _new_session(
        self,
        browser: PlaywrightBrowser,
        gateway: str,
        viewport: tuple[int, int],
        call_s: float,
        tabs: bool,
        service_workers: bool,
    ) -> Session:
        context = await browser.new_context(
            viewport={"width": viewport[0], "height": viewport[1]},
            proxy={"server": gateway, "bypass": "<-loopback>"},
            service_workers="allow" if service_workers else "block",
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
        if browser is not None and not await quietly(browser.close()):
            for pid in self.pids:
                reaper.kill_tree(pid)
        if driver is not None:
            await quietly(driver.stop())
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
