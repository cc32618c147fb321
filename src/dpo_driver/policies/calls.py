"""One call of an endpoint: sent, answered within its deadline, and repeated where that can help.

Every way in which a call can fail has a type: what a person can mend is an EndpointError and never repeated, what the
world broke is a :class:`Trouble` here, repeated with growing waits, and in the end an EndpointFailure. Called by
policies/endpoint.py. Knows no dialect.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from dpo_driver.core.errors import ConfigError, RolloutFailure
from dpo_driver.core.records import StopReason
from dpo_driver.policies.dialects.common import EndpointError, is_too_long, problem_of
from dpo_driver.policies.providers import Provider, proxy_for
from dpo_driver.policies.secrets import Secret, scrub

T = TypeVar("T")
MOST_BYTES = 8 * 1024 * 1024  # of an answer
MOST_WORDS = 300  # characters of a server's own words in an error
_TEMPORARY = frozenset({408, 409, 425, 429})  # and 5xx


class EndpointFailure(RolloutFailure):
    """The endpoint did not answer, or not with an answer, however often it was asked."""

    def __init__(self, detail: str) -> None:
        super().__init__(StopReason.POLICY_ERROR, detail)


class PromptTooLong(Exception):
    """The prompt does not fit the model; an agent is told, nobody else."""


class Trouble(Exception):
    """A call that failed and may be repeated.

    ``wait_s`` is how long the server wants to be left alone. ``billed``: it may have been answered all the same.
    ``mendable``: if this is all that ever comes from the address, it is the wrong one.
    """

    def __init__(self, detail: str, *, wait_s: float = 0.0, billed: bool = True, mendable: str | None = None) -> None:
        self.detail, self.wait_s, self.billed, self.mendable = detail, wait_s, billed, mendable
        super().__init__(detail)


@dataclass(frozen=True)
class Patience:
    """How long to wait for an answer, and how often to ask."""

    call_s: float = 60.0  # one call, from its first byte to the answer's last
    total_s: float = 180.0  # with all repetitions and the waits between them
    tries: int = 6
    first_wait_s: float = 0.5  # doubled each time, of which the second half is left to chance ...
    longest_wait_s: float = 30.0  # ... up to this; a server may ask for longer


async def patiently(attempt: Callable[[float], Awaitable[T]], patience: Patience, line: Line) -> T:
    """Make calls until one succeeds.

    Args:
        attempt: makes one, in as many seconds as it is given; raises Trouble.
        line: what it calls.

    Raises:
        EndpointFailure: no call succeeded in time.
        EndpointError: nothing but an unusable address was ever found there.
    """
    began, wait_s, tries = time.monotonic(), patience.first_wait_s, 0
    while True:
        left = began + patience.total_s - time.monotonic()
        tries += 1
        try:
            return await attempt(max(0.0, min(patience.call_s, left)))
        except Trouble as trouble:
            pause_s = max(trouble.wait_s, wait_s * random.uniform(0.5, 1.0))
            left = began + patience.total_s - time.monotonic()
            if tries < patience.tries and pause_s < left:
                await asyncio.sleep(pause_s)
                wait_s = min(2 * wait_s, patience.longest_wait_s)
                continue
            if trouble.mendable and not line.reached:
                raise EndpointError(trouble.detail, where=line.where, remedy=trouble.mendable) from None
            asked = f", and asks to be left alone for {trouble.wait_s:g} s" if trouble.wait_s > max(left, 0) else ""
            times = "once" if tries == 1 else f"{tries} times"
            seconds = time.monotonic() - began
            raise EndpointFailure(f"{line.where}: {trouble.detail}{asked}; asked {times} in {seconds:.1f} s") from None


class Line:
    """The connection to one endpoint. Its key is put into a request at the very last, and is in no error.

    Args:
        provider: with its key.
        auth: the header that carries the key.
        headers: what the dialect wants beside it.
        connections: most at once.
    """

    def __init__(self, provider: Provider, auth: str, headers: Mapping[str, str], connections: int) -> None:
        self._provider, self._headers = provider, dict(headers)
        self._auth = _Key(provider.key, auth) if provider.key else None
        self._secrets = [provider.key] if provider.key else []
        proxy = proxy_for(provider.base_url, provider.environ)
        if proxy and (password := _password_of(proxy)):
            self._secrets.append(Secret(password))
        self._client = _client(proxy, provider.environ, connections)
        self._address = httpx.URL(provider.base_url)
        self.where = f"{provider.name}: {provider.base_url.partition('?')[0]}"
        self.reached = False  # it has answered before

    async def once(self, method: str, path: str, body: Any, seconds: float) -> Any:
        """One call and its JSON.

        Raises:
            Trouble, EndpointError, PromptTooLong: by what went wrong.
        """
        url = self._address.copy_with(path=self._address.path.rstrip("/") + path)
        try:
            async with asyncio.timeout(seconds):
                async with self._client.stream(method, url, json=body, headers=self._headers, auth=self._auth) as found:
                    content = await _whole(found)
        except TimeoutError:
            raise Trouble(f"no answer within {seconds:.3g} s") from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Trouble(self._said(f"nothing can be reached there ({_named(error)})"), billed=False,
                          mendable="start the server, or give another address with --endpoint") from None  # fmt: skip
        except httpx.TransportError as error:
            raise Trouble(self._said(f"the connection broke ({_named(error)})")) from None
        except httpx.HTTPError as error:
            raise Trouble(self._said(f"the answer cannot be read ({_named(error)})")) from None
        if found.status_code != 200:
            raise self._refusal(found.status_code, _json(content), found.headers, content)
        data = _json(content)
        if data is None:
            kind = found.headers.get("content-type", "no content type").partition(";")[0]
            html = "html" in kind
            remedy = "check --endpoint: it ends before /chat/completions, often in /v1" if html else None
            raise Trouble(self._said(f"the answer is not JSON but {kind}: {_start(content)}"), mendable=remedy)
        if isinstance(data, dict) and "choices" not in data and isinstance(data.get("error"), dict):
            code = data["error"].get("code")  # some routers answer 200 and mean something else
            raise self._refusal(code if isinstance(code, int) else 500, data, found.headers, content)
        self.reached = True
        return data

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()

    def _said(self, text: str) -> str:
        """One line that may be shown, with no key in it."""
        line = " ".join(scrub(text, self._secrets).split())
        return line if len(line) <= MOST_WORDS else line[: MOST_WORDS - 1] + "…"

    def _refusal(self, status: int, data: Any, headers: httpx.Headers, content: bytes) -> Exception:
        self.reached = self.reached or data is not None
        words, code = problem_of(data)
        said = self._said(words or _start(content) or "no reason given")
        if code == "insufficient_quota" or status == 402:
            return EndpointError(f"the account has nothing left: {said}", where=self.where,
                                 remedy="look at the account's billing")  # fmt: skip
        if status in _TEMPORARY or status >= 500:
            return Trouble(f"HTTP {status}: {said}", wait_s=_wanted_wait(headers, content), billed=False)
        if status in (400, 413, 422) and is_too_long(words, code):
            return PromptTooLong(said)
        key = " or ".join(self._provider.key_names) or "--key-env NAME"
        what, remedy = {
            401: ("the endpoint refuses the key", f"check {key}"),
            403: ("the endpoint forbids this", f"check what the key in {key} may use"),
            404: ("there is no such address or model", "check --endpoint and --model"),
        }.get(status, ("the endpoint refuses the request", "check the model and the sampling"))
        if 300 <= status < 400:
            what, remedy = "the endpoint is elsewhere", "give the new address with --endpoint"
        return EndpointError(f"{what}: HTTP {status}: {said}", where=self.where, remedy=remedy)


class _Key(httpx.Auth):
    """Puts the key into a request that is on its way, so that no body, header or log of ours holds it."""

    def __init__(self, key: Secret, header: str) -> None:
        self._key, self._header = key, header

    def auth_flow(self, request: httpx.Request) -> Any:
        prefix = "Bearer " if self._header == "Authorization" else ""
        request.headers[self._header] = prefix + self._key.reveal()
        yield request


def _client(proxy: str | None, environ: Mapping[str, str], connections: int) -> httpx.AsyncClient:
    """Reads no environment itself: what .env says counts too."""
    if (wire := logging.getLogger("httpcore")).level == logging.NOTSET:
        wire.setLevel(logging.INFO)  # it writes headers down, and a server may quote a key in one
    verify: ssl.SSLContext | bool = True
    try:
        if environ.get("SSL_CERT_FILE") or environ.get("SSL_CERT_DIR"):
            verify = ssl.create_default_context(
                cafile=environ.get("SSL_CERT_FILE") or None, capath=environ.get("SSL_CERT_DIR") or None
            )
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # Deadlines are of the whole call, not of a read: asyncio.timeout keeps them.
        return httpx.AsyncClient(
            proxy=proxy, verify=verify, timeout=None, limits=limits, trust_env=False, follow_redirects=False
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("the certificates cannot be read", where="SSL_CERT_FILE or SSL_CERT_DIR",
                          remedy=type(error).__name__) from None  # fmt: skip
    except (ValueError, ImportError, httpx.InvalidURL):
        raise ConfigError("the proxy cannot be used", where="HTTP_PROXY or HTTPS_PROXY",
                          remedy="write it as http://HOST:PORT") from None  # fmt: skip


async def _whole(response: httpx.Response) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise Trouble(f"the answer is longer than {MOST_BYTES:,} bytes")
    return b"".join(parts)


def _named(error: Exception) -> str:
    return str(error) or type(error).__name__


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _start(content: bytes) -> str:
    return content[:80].decode("utf-8", "replace")


_RETRY_DELAY = re.compile(rb'"retryDelay"\s*:\s*"([0-9.]+)s"')


def _wanted_wait(headers: httpx.Headers, content: bytes) -> float:
    """Seconds that a server asks to wait: Retry-After in seconds or as a date, its variant in milliseconds, or Google's
    way to write it into the body. 0 where it asks for nothing."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        if "retry-after" in headers:
            return max(0.0, float(headers["retry-after"]))
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
        except (KeyError, ValueError):
            return 0.0
    found = _RETRY_DELAY.search(content)
    return float(found[1]) if found else 0.0


def _password_of(proxy: str) -> str | None:
    try:
        return urlsplit(proxy).password
    except ValueError:
        return None


# -- the loop that all endpoints of a process share --------------------------------------------------------------------

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def background_loop() -> asyncio.AbstractEventLoop:
    """An event loop in a thread of its own, begun by the first that needs it. It ends with the process."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="endpoints", daemon=True).start()
        return _loop
