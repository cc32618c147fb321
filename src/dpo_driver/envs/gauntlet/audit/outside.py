"""Plain clients that are no browser: HTTP with every byte chosen, and a WebSocket. Used by the attacks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Origin

CALL_S = 10.0
REPLY_S = 0.4  # for an answer that should never come
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}


@dataclass(frozen=True)
class Reply:
    """An HTTP answer as text, headers included."""

    status: int
    head: str
    body: str

    def header(self, name: str) -> str:
        """The first header of that name; "" when there is none."""
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.strip().lower() == name.lower():
                return value.strip()
        return ""


class Outside:
    """``await outside.get("/status?visit=x", Cookie=...)``. Sends what it is told to, unchecked."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.host = urlsplit(base_url).netloc

    async def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        """One request. OSError when the server hangs up."""
        host, _, port = self.host.rpartition(":")
        sent = {"Host": self.host, "Connection": "close"} | dict(headers or {})
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
        async with asyncio.timeout(CALL_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            try:
                writer.write("\r\n".join(lines).encode("utf-8", "replace"))
                answer = await reader.read(-1)
            finally:
                writer.close()
        head, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
        status = head.partition(" ")[2][:3]
        return Reply(int(status) if status.isdigit() else 0, head, body)

    @contextlib.asynccontextmanager
    async def socket(self, path: str, cookie: str = "", origin: str | None = None):  # type: ignore[no-untyped-def]
        """A WebSocket; None where it is refused."""
        headers = {"Cookie": cookie} if cookie else {}
        try:
            async with asyncio.timeout(CALL_S):
                connection = await connect(
                    self.base_url.replace("http", "ws", 1) + path, additional_headers=headers, proxy=None,
                    origin=None if origin == "" else Origin(origin or self.base_url), compression=None, close_timeout=1,
                )  # fmt: skip
        except (InvalidHandshake, OSError, WebSocketException):
            yield None
            return
        try:
            yield connection
        finally:
            connection.transport.abort()

    async def talk(
        self, path: str, messages: Sequence[str | bytes], cookie: str = "", origin: str | None = None
    ) -> list[str]:
        """Say all this, and give what is answered within a moment."""
        heard: list[str] = []
        connection: ClientConnection | None
        async with self.socket(path, cookie, origin) as connection:
            if connection is None:
                return heard
            with contextlib.suppress(TimeoutError, WebSocketException):
                for message in messages:
                    await connection.send(message)
                async with asyncio.timeout(REPLY_S):
                    while True:
                        heard.append(str(await connection.recv()))
        return heard


def click(part: str, seal: str = "") -> str:
    """What the sealed script would send for a click on a part."""
    told = {"n": 1, "kind": "click", "part": part, "x": 5, "y": 5, "width": 90, "height": 30, "scroll": 0}
    return json.dumps(({"seal": seal} if seal else {}) | told)
