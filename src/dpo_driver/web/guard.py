"""Who may come in, and what pages may do: the guard in front of the pages that we serve to people.

Every request must name us as its host (against DNS rebinding). What changes something must come from our own origin and
carry its session's CSRF token. A session begins with a one-time token or, where others may connect, with a password; it
lives in an HttpOnly, SameSite=Strict cookie. Every answer forbids inline scripts, framing and caching. Called by the
label page and the dashboard; knows neither.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import parse_qs, urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_S = 3600.0  # a printed link that nobody opened goes stale
SESSION_S = 12 * 3600.0
MOST_SESSIONS = 1000
MOST_BODY = 64 * 1024
SAFE = frozenset({"GET", "HEAD"})
CSRF_HEADER = b"x-csrf-token"
CSRF_FIELD = "csrf"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not "no-referrer": with that, browsers send forms with "Origin: null".
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
)
NO_STORE = (b"cache-control", b"no-store")

Refuse = Callable[[Scope, int, str], Response]


@dataclass
class Session:
    """Somebody who came in. ``id`` may be written down and opens nothing; ``csrf`` is their pages' token."""

    who: str
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    until: float = 0.0


class Door:
    """Tokens that open once, and the sessions they open.

    Args:
        clock: seconds, any zero.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens: dict[bytes, tuple[str, float]] = {}  # by hash: a look-up's duration tells nothing of a token
        self._sessions: dict[bytes, Session] = {}

    def token(self, who: str) -> str:
        """A new one-time token for somebody."""
        token = secrets.token_urlsafe(32)
        self._tokens[_hash(token)] = (who, self._clock() + TOKEN_S)
        return token

    def redeem(self, token: str) -> tuple[str, Session] | None:
        """A session for a token, which is used up by it; None for an unknown, used or stale one."""
        who, until = self._tokens.pop(_hash(token), ("", 0.0))
        return self.open(who) if until > self._clock() else None

    def open(self, who: str) -> tuple[str, Session]:
        """A new session: the cookie's value and the session."""
        now = self._clock()
        for key in [key for key, session in self._sessions.items() if session.until <= now]:
            del self._sessions[key]
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        cookie, session = secrets.token_urlsafe(32), Session(who, until=now + SESSION_S)
        self._sessions[_hash(cookie)] = session
        return cookie, session

    def session(self, cookie: str) -> Session | None:
        """The live session of a cookie."""
        found = self._sessions.get(_hash(cookie))
        return found if found is not None and found.until > self._clock() else None

    def close(self, cookie: str) -> None:
        """End a session."""
        self._sessions.pop(_hash(cookie), None)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True)
class Place:
    """Where the server is, as browsers name it.

    Args:
        port: it listens on.
        loopback: it is bound to loopback; then only loopback's names are ours. Otherwise every literal address is,
            and this machine's names: a rebinding page comes with a name of its own.
        names: this machine's names.
        origin: a further origin, of a proxy that adds TLS; "" for none.
        page: what is served, in its cookie's name.
    """

    port: int
    loopback: bool
    names: tuple[str, ...] = ()
    origin: str = ""
    page: str = "label"

    @property
    def secure(self) -> bool:
        """Browsers reach it by TLS only."""
        return self.origin.startswith("https:")

    @property
    def cookie(self) -> str:
        """Cookies do not know ports: two servers on one machine must not take each other's."""
        return f"dpo_driver_{self.page}_{self.port}"

    @lru_cache(maxsize=64)  # noqa: B019
    def is_host(self, host: str) -> bool:
        """Whether a Host header means us."""
        if self.origin and host == urlsplit(self.origin).netloc:
            return True
        try:
            parts = urlsplit(f"//{host}")
            name, port = (parts.hostname or ""), parts.port or 80
        except ValueError:
            return False
        if port != self.port or parts.username or parts.path:
            return False
        if name == "localhost" or (not self.loopback and name in self.names):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.loopback

    def is_origin(self, origin: str, host: str) -> bool:
        """Whether an Origin header is that of the very page that Host names."""
        return origin == f"http://{host}" or bool(self.origin and origin == self.origin)


class Guard:
    """ASGI middleware: nothing behind it sees a request that should not be there.

    Requests that pass have ``scope["state"]`` with ``session`` (None on open paths) and ``form`` or ``body``.

    Args:
        app: what is guarded.
        door: knows sessions.
        place: knows our names.
        open_paths: beginnings of paths that need no session.
        refuse: builds the answer to a refused request: (scope, status, reason).
    """

    def __init__(self, app: ASGIApp, door: Door, place: Place, open_paths: Iterable[str], refuse: Refuse) -> None:
        self._app, self._door, self._place, self._refuse = app, door, place, refuse
        self._open = tuple(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no web sockets here: uvicorn answers 403
        refused = await self._check(scope, receive)
        app: Callable[[Scope, Receive, Send], Awaitable[None]] = refused if refused is not None else self._app
        await app(scope, receive, _with_headers(send))

    async def _check(self, scope: Scope, receive: Receive) -> Response | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._place.is_host(host):
            return self._refuse(scope, 421, "this server does not go by that name")
        state = scope.setdefault("state", {})
        state["session"] = None
        changes, is_open = scope["method"] not in SAFE, scope["path"].startswith(self._open)
        if changes and not self._place.is_origin(headers.get(b"origin", b"").decode("latin-1"), host):
            return self._refuse(scope, 403, "this request came from another site")
        if not is_open:
            cookie = cookie_of(headers.get(b"cookie", b""), self._place.cookie)
            state["session"] = self._door.session(cookie)
            if state["session"] is None:
                return self._refuse(scope, 401, "no session")
        if changes:
            body = await _body(receive)
            if body is None:
                return self._refuse(scope, 413, "the request is too large")
            state["body"], state["form"] = body, {}
            if headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded"):
                state["form"] = _fields(body)
            if not is_open:
                told = headers.get(CSRF_HEADER, b"").decode("latin-1") or state["form"].get(CSRF_FIELD, "")
                if not hmac.compare_digest(told.encode(), state["session"].csrf.encode()):
                    return self._refuse(scope, 403, "the request lacks this session's token; load the page again")
        return None


def cookie_of(header: bytes, name: str) -> str:
    """A cookie's value out of a Cookie header; "" where it is missing."""
    for part in header.decode("latin-1").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def _fields(body: bytes) -> dict[str, str]:
    return {
        key: values[-1] for key, values in parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True).items()
    }


async def _body(receive: Receive) -> bytes | None:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = message["headers"]
            cached = any(name == b"cache-control" for name, _ in given)
            message = {**message, "headers": [*given, *HEADERS, *(() if cached else (NO_STORE,))]}
        await send(message)

    return sending
