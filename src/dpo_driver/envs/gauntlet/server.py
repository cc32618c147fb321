"""The gauntlet's web server: the shell with its sealed script, the channel, assets, signed starts. Started by serve.py.

A page can do puzzles only through the channel, and the channel opens only with the one-time key that stands in a
shell's sealed script. A shell with a key goes to a tab of the browser and to nothing that a script can look into
(``_gets_key``): what fetches or frames it gets a page that asks to be opened by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import random
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from dpo_driver.core.errors import DataError, DriverError
from dpo_driver.envs.gauntlet.channel import Line
from dpo_driver.envs.gauntlet.puzzles.base import Asset
from dpo_driver.envs.gauntlet.tokens import Start, read
from dpo_driver.envs.gauntlet.visit import Visit

COOKIE = "gauntlet_visit"
ADMIN_HEADER = "x-gauntlet-admin"
SITE = Path(__file__).with_name("site")
MAX_VISITS = 2_000
KEY_S = 120.0  # a shell's key must be used within this time
HELLO_S = 10.0
ASSET_S = 2.0
OPENER_POLICY = "noopener-allow-popups"  # a page that another one opened shares nothing with it
CUTS_OPENERS = 125  # the first Chromium that obeys it
BY_HAND = "Put the cursor into the address bar and press Enter."
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

log = logging.getLogger(__name__)

_SHELL = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gauntlet</title><meta name="color-scheme" content="light dark">
<script nonce="{nonce}">{seal}</script><script type="module" nonce="{nonce}" src="/app/app.js?{version}"></script>
</head><body><div id="root"></div><noscript>These puzzles need JavaScript.</noscript></body></html>
"""
_NOTICE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gauntlet</title><meta name="color-scheme" content="light dark"></head>
<body><main><h1>{title}</h1><p>{text}</p></main></body></html>
"""


@dataclass(frozen=True)
class Settings:
    """How a server plays with those who come without a signed start, and its secrets.

    Args:
        defaults: of such visits; ``seed`` below 0: a new one each time.
        secret: signs starts and makes codes.
        admin: who shows it may ask for the status of visits.
    """

    defaults: Start
    secret: bytes
    admin: str
    clock: Callable[[], float] = time.monotonic


class Site:
    """The Starlette application and its visits: ``Site(settings).app``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lines: OrderedDict[str, Line] = OrderedDict()
        self._keys: OrderedDict[str, tuple[str, float]] = OrderedDict()  # key -> visit, when it was given out
        self._seal, self._app = _built("seal.js"), _built("app.js")
        self._version = sha256(self._app.encode()).hexdigest()[:12]
        self.app = Starlette(
            routes=[
                Route("/", self._shell),
                Route("/step/{step:int}", self._shell),
                Route("/finish", self._shell),
                Route("/start", self._start),
                Route("/status", self._status),
                Route("/health", _health),
                Route("/favicon.ico", _nothing),
                Route("/app/app.js", self._script),
                Route("/asset/{token}/{name:path}", self._asset),
                WebSocketRoute("/channel", self._channel),
                WebSocketRoute("/asset/{token}/{name:path}", self._feed),
            ]
        )

    # -- pages ---------------------------------------------------------------------------------------------------------

    async def _shell(self, request: Request) -> Response:
        if not _gets_key(request):
            return _notice("Open this page by hand", BY_HAND, 403)
        line = self._line_of(request)
        fresh = line is None
        if line is None:
            line = self._open(self._settings.defaults)
        key, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(12)
        self._issue(line, key)
        page = _SHELL.format(nonce=nonce, seal=self._seal.replace("@@KEY@@", key), version=self._version)
        response = HTMLResponse(page, headers=NO_STORE)
        response.headers["Content-Security-Policy"] = _policy(request, nonce)
        response.headers["Cross-Origin-Opener-Policy"] = OPENER_POLICY
        response.headers["X-Frame-Options"] = "DENY"
        if fresh:
            self._set_cookie(response, line)
        return response

    async def _start(self, request: Request) -> Response:
        if not _gets_key(request):
            return _notice("Open this page by hand", BY_HAND, 403)
        start = self._asked_start(request)
        if start is None:
            return _notice("This link has expired", "Its signature is not valid, or its time is over.", 403)
        line = self._lines.get(start.visit)
        if line is None:
            try:
                line = self._open(start.check())
            except DriverError as error:
                return PlainTextResponse(str(error), 400)
        response = RedirectResponse(line.visit.path, 303, headers=NO_STORE)
        self._set_cookie(response, line)
        return response

    def _asked_start(self, request: Request) -> Start | None:
        query = request.query_params
        if "token" in query:
            return read(query["token"], self._settings.secret)
        # Without a signature there is only the START page, and codes are random.
        start = replace(self._settings.defaults, step=0, key=None, visit=secrets.token_urlsafe(16))
        if re.fullmatch("[0-9]{1,18}", query.get("seed", "")):
            start = replace(start, seed=int(query["seed"]))
        if re.fullmatch("[0-9]", query.get("difficulty", "")):
            start = replace(start, difficulty=int(query["difficulty"]))
        return start

    async def _script(self, request: Request) -> Response:
        known = request.url.query == self._version  # the shell's address of it changes with its content
        kept = "max-age=31536000, immutable" if known else "no-cache"
        return Response(self._app, media_type="text/javascript", headers={"Cache-Control": kept})

    async def _status(self, request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get(ADMIN_HEADER, "").encode(), self._settings.admin.encode()):
            return PlainTextResponse("Not Found", 404)
        line = self.line(request.query_params.get("visit", ""))
        if line is None:
            return JSONResponse({"error": "there is no such visit"}, 404, headers=NO_STORE)
        return JSONResponse(line.visit.status() | {"heard": line.heard, "told": line.told}, headers=NO_STORE)

    # -- puzzles' own content ------------------------------------------------------------------------------------------

    async def _asset(self, request: Request) -> Response:
        line = self._line_of(request)
        token, name = request.path_params["token"], request.path_params["name"]
        found = await line.asset(token, name, ASSET_S) if line is not None else None
        if found is None:
            return _notice("Nothing here", "There is nothing at this address now.", 404)
        content, status, part = _range(request, found.content)
        headers = NO_STORE | _asset_headers(request, found) | part
        return Response(content, status, headers, media_type=found.media_type)

    async def _feed(self, socket: WebSocket) -> None:
        line = self._line_of(socket)
        token, name = socket.path_params["token"], socket.path_params["name"]
        if line is None or name != "feed" or not _same_origin(socket) or not line.visit.knows(token, name):
            await socket.close()
            return
        await socket.accept()
        await line.feed(socket)

    # -- the channel ---------------------------------------------------------------------------------------------------

    async def _channel(self, socket: WebSocket) -> None:
        line = self._line_of(socket)
        if line is None or not _same_origin(socket):
            await socket.close()
            return
        await socket.accept()
        try:
            async with asyncio.timeout(HELLO_S):
                hello = json.loads(await socket.receive_text())
        except (TimeoutError, ValueError, WebSocketDisconnect):
            hello = None
        key = hello.get("key") if isinstance(hello, dict) else None
        visit, given = self._keys.pop(key, ("", 0.0)) if isinstance(key, str) else ("", 0.0)
        if not isinstance(key, str) or visit != line.visit.id or time.monotonic() > given + KEY_S:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it may have left
                await socket.close(4003)
            return
        await line.serve(socket, key)

    def _issue(self, line: Line, key: str) -> None:
        """One key a visit: that of the page that was served last."""
        if line.key is not None:
            self._keys.pop(line.key, None)
        line.key = key
        self._keys[key] = (line.visit.id, time.monotonic())
        while len(self._keys) > MAX_VISITS:
            self._keys.popitem(last=False)

    # -- visits --------------------------------------------------------------------------------------------------------

    def line(self, visit: str) -> Line | None:
        """A visit by its id."""
        return self._lines.get(visit)

    def _line_of(self, request: HTTPConnection) -> Line | None:
        name, _, seal = request.cookies.get(COOKIE, "").rpartition(".")
        if name not in self._lines or not hmac.compare_digest(seal.encode(), self._cookie_seal(name).encode()):
            return None
        self._lines.move_to_end(name)
        return self._lines[name]

    def _cookie_seal(self, visit: str) -> str:
        """Stands beside the visit's id: owners choose ids that can be guessed, and scripts can set cookies."""
        return hmac.new(self._settings.secret, f"cookie/{visit}".encode(), sha256).hexdigest()[:32]

    def _set_cookie(self, response: Response, line: Line) -> None:
        value = f"{line.visit.id}.{self._cookie_seal(line.visit.id)}"
        response.set_cookie(COOKIE, value, httponly=True, samesite="strict", path="/")

    def _open(self, start: Start) -> Line:
        if start.seed < 0:
            start = replace(start, seed=random.SystemRandom().randrange(2**31))
        fresh = start is self._settings.defaults or start.visit in self._lines
        visit = Visit(
            start.plan(), self._settings.secret, key=start.key, clock=self._settings.clock,
            name=secrets.token_urlsafe(16) if fresh else start.visit,
        )  # fmt: skip
        if start.step:
            visit.begin(start.step)
        line = self._lines[visit.id] = Line(visit)
        while len(self._lines) > MAX_VISITS:
            idle = next((name for name, line in self._lines.items() if not line.connected), visit.id)
            del self._lines[idle]
        return line


def _built(name: str) -> str:
    path = SITE / name
    if not path.is_file():
        raise DataError("the gauntlet's site is not built", where=str(path),
                        remedy="run `npm ci && npm run build` in gauntlet/")  # fmt: skip
    return path.read_text(encoding="utf-8")


def _gets_key(request: Request) -> bool:
    """Whether this document may hold a key: only one that no script can get at while it loads.

    Fetches, frames and prerendering are told by headers that scripts cannot set. What remains is a navigation of a
    whole tab. One that the browser itself began (``none``) is safe. So is one that a page of ours began, which a reload
    counts as once the app has changed the address: the old document is gone. A popup would be the exception, as its
    opener could prepare its built-ins; browsers that know our opener policy cut that tie, older ones get no key.
    """
    wanted = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    if any(request.headers.get(name) != value for name, value in wanted.items()):
        return False
    if "sec-purpose" in request.headers or "purpose" in request.headers:
        return False
    site = request.headers.get("sec-fetch-site")
    return site == "none" or (site == "same-origin" and _cuts_openers(request))


def _cuts_openers(request: Request) -> bool:
    version = re.search(r'"Chromium";v="(\d+)"', request.headers.get("sec-ch-ua", ""))
    return version is not None and int(version[1]) >= CUTS_OPENERS


def _same_origin(socket: WebSocket) -> bool:
    return socket.headers.get("origin", "").partition("://")[2] == socket.headers.get("host", "-")


def _policy(request: HTTPConnection, nonce: str) -> str:
    host = request.headers.get("host", "")
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self' ws://{host} wss://{host}; "
        "img-src 'self' data:; media-src 'self'; frame-src 'self'; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


def _asset_headers(request: Request, asset: Asset) -> dict[str, str]:
    headers = {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
        "media-src 'self'; frame-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if request.headers.get("service-worker") == "script":
        # Its own folder and nothing above it: a worker never answers for the app's pages.
        headers["Service-Worker-Allowed"] = request.url.path.rpartition("/")[0] + "/"
    return headers | dict(asset.headers)


def _range(request: Request, content: bytes) -> tuple[bytes, int, dict[str, str]]:
    """What is sent of some bytes, for players that wind back and forth: bytes, status, headers."""
    asked = re.fullmatch(r"bytes=([0-9]{1,18})-([0-9]{0,18})", request.headers.get("range", ""))
    first = int(asked[1]) if asked else 0
    last = min(int((asked and asked[2]) or len(content)), len(content) - 1)
    if asked is None or first > last:
        return content, 200, {"Accept-Ranges": "bytes"}
    return content[first : last + 1], 206, {"Content-Range": f"bytes {first}-{last}/{len(content)}"}


def _notice(title: str, text: str, status: int) -> Response:
    policy = "default-src 'none'; frame-ancestors 'self'"
    headers = NO_STORE | {"Content-Security-Policy": policy, "Cross-Origin-Opener-Policy": OPENER_POLICY}
    return HTMLResponse(_NOTICE.format(title=title, text=text), status, headers)


async def _health(_request: Request) -> Response:
    return PlainTextResponse("ok", headers=NO_STORE)


async def _nothing(_request: Request) -> Response:
    return Response(status_code=204)
