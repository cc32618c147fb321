"""A page's DevTools connection without a process in between: commands in, answers out. Used by browser.py, session.py.

Playwright's own CDP session sends every command through its driver, which costs about four times as long; an episode is
mostly such commands. The connection knows no page and no deadline: those are the session's. Must not import playwright.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake


class WireError(Exception):
    """The browser refused a command; carries its words."""


class WireClosed(WireError):
    """The connection ended: the page or the browser is gone."""


def free_port() -> int:
    """A loopback port that nobody listens on, below those that outgoing connections take: none takes it meanwhile.

    Raises:
        OSError: all are taken.
    """
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port between 20000 and 32000 is free")


class Wire:
    """``wire = await Wire.open(port, target_id)``, then ``await wire.send("Runtime.evaluate", {...})``."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0
        self._reader = asyncio.create_task(self._read(), name="wire")

    @classmethod
    async def open(cls, port: int, target_id: str) -> Wire:
        """Connect to a page target. Raises WireClosed when the browser does not take the connection."""
        url = f"ws://127.0.0.1:{port}/devtools/page/{target_id}"
        try:
            # No proxy from the environment stands before loopback; a large page is one large message.
            connection = await connect(url, compression=None, max_size=None, ping_interval=None, proxy=None)
        except (OSError, InvalidHandshake) as error:
            raise WireClosed(f"no DevTools connection: {error}") from error
        return cls(connection)

    async def send(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """One command's result. Commands sent one after another are carried out in that order.

        Raises:
            WireError: the browser refused it.
            WireClosed: it can no longer answer.
        """
        if self._reader.done():
            raise WireClosed("Target closed")
        self._last += 1
        number = self._last
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
            return await answer
        except ConnectionClosed:
            raise WireClosed("Target closed") from None
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """End the connection; what still waits is told so."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._connection.transport.abort()  # the browser need not agree

    async def _read(self) -> None:
        try:
            async for message in self._connection:
                told = json.loads(message)
                answer = self._waiting.get(told.get("id"))
                if answer is None or answer.done():
                    continue
                if "error" in told:
                    answer.set_exception(WireError(told["error"].get("message", "unknown error")))
                else:
                    answer.set_result(told.get("result", {}))
        except ConnectionClosed:
            pass
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(WireClosed("Target closed"))
