"""The line between a page and its visit: signals in, pages out, and the clock. Used by server.py.

One :class:`Line` a visit; one page at a time is connected to it. Each signal is given to the visit in the order in
which it arrived; when what is to be shown has changed, by a signal or by the clock, the page is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

from starlette.websockets import WebSocket, WebSocketDisconnect

from dpo_driver.envs.gauntlet.puzzles.base import Asset
from dpo_driver.envs.gauntlet.signals import read_signal
from dpo_driver.envs.gauntlet.visit import Visit

LEAST_S = 0.01  # between two looks at the clock
TAKEN, BROKEN = 4001, 1011  # close codes

log = logging.getLogger(__name__)


class Line:
    """A visit and who listens to it. Lives in the server's event loop."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.key: str | None = None  # the one-time key of the page that was served last
        self.heard = self.told = 0  # signals that were dealt with and pages that were sent, since the page connected
        self._page: WebSocket | None = None
        self._shown = ""
        self._sending = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether a page listens."""
        return self._page is not None

    async def serve(self, page: WebSocket, seal: str) -> None:
        """Talk to a page until it leaves or another takes its place. What lacks its seal is not listened to."""
        if self._page is not None:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._page.close(TAKEN)
        self._page, self._shown = page, ""
        self.heard = self.told = 0
        try:
            await self.touch()
            while self._page is page:
                signal = read_signal(await page.receive_text(), seal)
                if signal is not None and self._page is page:
                    self.visit.on(signal)
                    await self.touch()
                self.heard += self._page is page
        except WebSocketDisconnect:
            pass
        except Exception as error:  # noqa: BLE001  a puzzle's own mistake: its run ends, the server goes on
            await self._break(error)
        finally:
            if self._page is page:
                self._page = None
                self._wind()

    async def touch(self) -> None:
        """Something may have changed: tell the page and whoever waits for an asset."""
        self._changed.set()
        self._changed = asyncio.Event()
        self._wind()
        page = self._page
        if page is None:
            return
        async with self._sending:
            text = json.dumps(self.visit.page(), ensure_ascii=False, separators=(",", ":"))
            if text != self._shown and self._page is page:
                self._shown = text
                with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                    await page.send_text(text)
                    self.told += 1

    async def asset(self, token: str, name: str, seconds: float) -> Asset | None:
        """An asset of the current step; one that is not there yet is waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.visit.knows(token, name):
                    changed = self._changed
                    if (found := self.visit.asset(token, name)) is not None:
                        return found
                    self._waiting += 1
                    self._wind()
                    try:
                        await changed.wait()
                    finally:
                        self._waiting -= 1
        return None

    async def feed(self, socket: WebSocket) -> None:
        """The puzzle's own WebSocket: send what it has to say, each at its time, until the other side leaves."""
        puzzle = self.visit.puzzle
        if puzzle is None:
            return
        began = self.visit.clock()
        loop = asyncio.get_running_loop()
        try:
            messages = sorted(puzzle.feed(True), key=lambda message: message[0])
            await self.touch()
            gone = loop.create_task(_left(socket))
            try:
                for seconds, text in messages:
                    await asyncio.wait([gone], timeout=max(0.0, began + seconds - self.visit.clock()))
                    if gone.done() or self.visit.puzzle is not puzzle:
                        break
                    await socket.send_text(text)
                    await self.touch()
                else:
                    await gone
            finally:
                gone.cancel()
                with contextlib.suppress(RuntimeError):
                    await socket.close()
        except (WebSocketDisconnect, RuntimeError):
            pass
        except Exception as error:  # noqa: BLE001  as in serve
            await self._break(error)
        if self.visit.puzzle is puzzle:
            puzzle.feed(False)
            await self.touch()

    def _wind(self) -> None:
        """Set the alarm for when the view changes by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._page is None and not self._waiting:
            return
        at = self.visit.wakes()
        if at is not None:
            self._timer = asyncio.get_running_loop().call_later(max(LEAST_S, at - self.visit.clock()), self._ring)

    def _ring(self) -> None:
        task = asyncio.get_running_loop().create_task(self._rung())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _rung(self) -> None:
        try:
            await self.touch()
        except Exception as error:  # noqa: BLE001  as in serve
            await self._break(error)

    async def _break(self, error: Exception) -> None:
        log.error("the visit broke at step %s", self.visit.step, exc_info=error)
        self.visit.error = f"{type(error).__name__}: {error}"
        if self._page is not None:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._page.close(BROKEN)


async def _left(socket: WebSocket) -> None:
    """Returns when the other side has closed; what it says is nobody's evidence."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await socket.receive_text()
