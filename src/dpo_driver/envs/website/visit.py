"""One episode's own line to the site, beside the browser: the reset hook, the site's word on its state, cookies.

A task's Python functions are given a :class:`Visit`. It speaks plain HTTP from this process, with the cookies of the
visit, so what it learns has not gone through the page. Used by envs/website only. Must not import the browser.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urljoin, urlsplit

from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.records import Element, StopReason
from dpo_driver.envs.website.parameters import Parameters

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass
class Visit:
    """What a task's functions may use. ``elements``, ``url`` and ``title`` are what the agent sees; ``answer`` is what
    it said last. Calls take at most ``timeout_s`` seconds."""

    base_url: str
    task: str
    seed: int
    parameters: Parameters
    timeout_s: float = 10.0
    cookies: dict[str, str] = field(default_factory=dict)
    url: str = ""
    title: str = ""
    elements: tuple[Element, ...] = ()
    answer: str | None = None

    def get(self, path: str) -> Any:
        """JSON of a page of the site (text if it is none).

        Raises:
            RolloutFailure: SERVER_ERROR when the site does not answer, or answers with an error.
        """
        return self._ask(path, None)

    def post(self, path: str, data: Any = None) -> Any:
        """The same for a POST of ``data`` as JSON."""
        return self._ask(path, json.dumps(data if data is not None else {}).encode())

    def _ask(self, path: str, body: bytes | None) -> Any:
        url = urljoin(self.base_url + "/", path)
        request = urllib.request.Request(url, body, {"Accept": "application/json"})
        if body is not None:
            request.add_header("Content-Type", "application/json")
        if self.cookies:
            request.add_header("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        try:
            with _opener(url).open(request, timeout=self.timeout_s) as answer:
                text = answer.read().decode("utf-8", "replace")
                self._keep(answer.headers.get_all("Set-Cookie") or ())
        except urllib.error.HTTPError as error:
            self._keep(error.headers.get_all("Set-Cookie") or ())
            error.close()
            if 300 <= error.code < 400:
                return None
            raise RolloutFailure(StopReason.SERVER_ERROR, f"{url} answered {error.code}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise RolloutFailure(StopReason.SERVER_ERROR, f"{url} does not answer: {reason}") from None
        try:
            return json.loads(text)
        except ValueError:
            return text

    def _keep(self, headers: Iterable[str]) -> None:
        for header in headers:
            try:
                cookies = SimpleCookie(header)
            except CookieError:
                continue
            for name, morsel in cookies.items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value


class _Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are not followed: the page they lead to is the browser's business, their cookies are ours."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    """What speaks to a site; one on this machine is never asked through a proxy."""
    if urlsplit(url).hostname in _LOOPBACK:
        return urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())
    return urllib.request.build_opener(_Stay())
