"""The cheat audit finds nothing at the gauntlet as it is, and something in each family where the server was made leaky.

The leaks are made here, one for each family of attacks: an audit that could not fail would prove nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dpo_driver.browser.browser import Browser
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.envs.gauntlet import server as server_module
from dpo_driver.envs.gauntlet import tokens, visit
from dpo_driver.envs.gauntlet.audit.play import audit
from dpo_driver.envs.gauntlet.audit.table import COUNTED
from dpo_driver.envs.gauntlet.puzzles import TYPES
from dpo_driver.envs.gauntlet.puzzles.click_reveal import ClickReveal
from dpo_driver.envs.gauntlet.serve import GauntletServer
from dpo_driver.envs.gauntlet.server import Site
from dpo_driver.envs.gauntlet.visit import Visit

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

Patch = pytest.MonkeyPatch
Leaky = Callable[[Site, Patch], None]
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


# -- leaky servers, one for each family -------------------------------------------------------------------------------


def told(_site: Site, patch: Patch) -> None:
    """A view with a hint: whether the code's first character is a letter."""
    view = ClickReveal.view
    patch.setattr(ClickReveal, "view", lambda self: view(self) | {"hint": self.setup.code[0].isalpha()})


def source(site: Site, patch: Patch) -> None:
    """Codes in a comment of the app's script."""

    async def script(self: Site, _request: Request) -> Response:
        codes = [line.visit.code(2) for line in self._lines.values()]
        return Response(f"{self._app}\n// {' '.join(codes)}", media_type="text/javascript")

    _route(site, "/app/app.js", script)


def _route(site: Site, path: str, answer: Any) -> None:
    """Another answer at an address."""
    routes = site.app.router.routes
    at = next(i for i, route in enumerate(routes) if getattr(route, "path", "") == path)

    async def bound(request: Request) -> Response:
        response: Response = await answer(site, request)
        return response

    routes[at] = Route(path, bound)


def internals(_site: Site, patch: Patch) -> None:
    """The next step's code among what the app is told, backwards and with dashes."""
    page = Visit.page
    patch.setattr(Visit, "page", lambda self: page(self) | {"next": "-".join(self.code(self.step + 1)[::-1])})


def _shell_with(site: Site, change: Callable[[Response, Visit], None]) -> None:
    shell = site._shell

    async def changed(_site: Site, request: Request) -> Response:
        response = await shell(request)
        if (line := site._line_of(request)) is not None:
            change(response, line.visit)
        return response

    _route(site, "/step/{step:int}", changed)


def stores(site: Site, _patch: Patch) -> None:
    """A cookie with the code."""
    _shell_with(site, lambda response, visit: response.set_cookie("hint", visit.code(1)))


def network(site: Site, _patch: Patch) -> None:
    """A header with a later step's code, in hexadecimal."""
    _shell_with(site, lambda response, visit: response.headers.update({"X-Debug": visit.code(3).encode().hex()}))


def history(_site: Site, patch: Patch) -> None:
    """The code in the address."""
    patch.setattr(Visit, "path", property(lambda self: f"/step/{self.step}?for={self.code(1)}"))


def workers(site: Site, _patch: Patch) -> None:
    """A script that may rule the whole site."""
    script = site._script

    async def changed(_site: Site, request: Request) -> Response:
        if request.headers.get("service-worker") != "script":
            return await script(request)
        headers = {"Service-Worker-Allowed": "/"}
        return Response("onfetch = () => undefined", media_type="text/javascript", headers=headers)

    _route(site, "/app/app.js", changed)


def channel(site: Site, _patch: Patch) -> None:
    """Keys that may be used again."""

    class Kept(dict[str, tuple[str, float]]):
        def pop(self, key: str, default: Any = None) -> Any:
            return self.get(key, default)

    site._keys = Kept(site._keys)  # type: ignore[assignment]


def addresses(site: Site, _patch: Patch) -> None:
    """A status that needs no token."""
    site._settings = replace(site._settings, admin="")


def starts(_site: Site, patch: Patch) -> None:
    """Starts whose signature nobody looks at."""

    def read(token: str, _secret: bytes) -> tokens.Start | None:
        return tokens.read(f"{token.partition('.')[0]}.{_sealed(token)}", b"any")

    def _sealed(token: str) -> str:
        return tokens._encode(tokens._seal(token.partition(".")[0], b"any"))

    patch.setattr(server_module, "read", read)


def guessing(_site: Site, patch: Patch) -> None:
    """A lock that never closes."""
    patch.setattr(visit, "LOCK_S", 0.0)


def _seal(site: Site, pattern: str, by: str) -> None:
    site._seal, count = re.subn(pattern, lambda _match: by, site._seal)
    assert count, "the sealed script is written otherwise now: mend this test"


def synthetic(site: Site, _patch: Patch) -> None:
    """A sealed script that does not ask whether an event is trusted."""
    _seal(site, r"\b\w+\.isTrusted\b", "true")


def builtins(site: Site, _patch: Patch) -> None:
    """A sealed script that looks a built-in up when it uses it."""
    _seal(site, r"(?<==)Reflect\.apply\b", "((what,self,list)=>Reflect.apply(what,self,list))")


def realms(_site: Site, patch: Patch) -> None:
    """Keys for whoever asks."""
    patch.setattr(server_module, "_gets_key", lambda _request: True)


def clocks(site: Site, patch: Patch) -> None:
    """A wait that is left to the page: it has the code, and shows it after half an hour."""
    page = Visit.page

    def later(self: Visit) -> dict[str, Any]:
        return page(self) | {"later": [ord(char) * 7 for char in self.code(1)]}

    patch.setattr(Visit, "page", later)
    site._app += """;gauntlet.subscribe((text) => {
        const { later } = JSON.parse(text);
        setTimeout(() => { document.title = String.fromCharCode(...later.map((n) => n / 7)); }, 1800000);
    });"""


LEAKY: dict[str, Leaky] = {
    "told": told, "source": source, "internals": internals, "stores": stores, "network": network, "history": history,
    "workers": workers, "channel": channel, "addresses": addresses, "starts": starts, "guessing": guessing,
    "synthetic": synthetic, "builtins": builtins, "realms": realms, "clocks": clocks,
}  # fmt: skip


# Of families with long attacks, the one that has to find it.
ONLY = {
    "realms": "realms/shells-that-are-fetched", "synthetic": "synthetic/dispatched-events",
    "guessing": "guessing/an-hour-of-guesses", "addresses": "addresses/status-for-strangers",
    "internals": "internals/told-by-subscribe", "workers": "workers/worker-over-the-app",
    "channel": "channel/replayed-frames", "history": "history/entries-of-the-history",
    "builtins": "builtins/bent-language", "clocks": "clocks/virtual-time",
}  # fmt: skip


QUICK = ("source", "channel")  # of the positive control, in `make test`; the others are slow


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in COUNTED]
)
async def test_a_leaky_server_is_found_out(family: str, browser: Browser, monkeypatch: Patch) -> None:
    with GauntletServer(inside=True) as server:
        assert server.site is not None
        LEAKY[family](server.site, monkeypatch)
        result = await audit(
            ("click-reveal",), attacks=(ONLY.get(family, family),), server=server, browser=browser, difficulty=1
        )
    assert result["by_family"][family]["leaks"] >= 1, result["failures"]
    assert result["leaks"] == len(result["found"]) == sum(one["leaks"] for one in result["by_attack"].values())
    for leak in result["found"]:
        assert leak["type"] == "click-reveal" and leak["what"] and leak["tries"]
        assert leak["again"].startswith("dpo-driver gauntlet audit --seed 1 --types click-reveal")


# -- the gauntlet as it is --------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
async def test_two_types_leak_nothing(browser: Browser) -> None:
    result = await audit(("storage", "encoded"), seeds=(3,), browser=browser, jobs=2)
    assert result["failures"] == [] and result["found"] == []
    assert result["leaks"] == 0 and set(result["by_type"]) == {"storage", "encoded"}
    assert set(result["by_family"]) == set(COUNTED) and all(one["tries"] > 0 for one in result["by_family"].values())
    assert result["attempts"] > 5_000
    assert result["figures"]["wrong codes before the lock"] == 11
    assert 1_000 < result["figures"]["guesses weighed in an hour"] < 1_300
    # What trusted input can be turned to, and what is beyond a server, is known and said.
    gains = {name: one["gains"] for name, one in result["apart"]["mixed"]["by_attack"].items()}
    assert [name for name, count in gains.items() if count] == ["mixed/pasted-text", "mixed/click-held-back"]
    assert result["apart"]["beyond"]["gains"] == result["apart"]["beyond"]["tries"] == 2
    json.dumps(result)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_no_type_leaks_anything(browser: Browser) -> None:
    result = await audit(browser=browser, jobs=2)
    assert result["failures"] == [] and result["found"] == []
    assert len(result["by_type"]) == len(TYPES) == result["types"]


@pytest.mark.timeout(240)
async def test_the_command_says_what_it_found(cli: CommandLine) -> None:
    done = cli("gauntlet", "audit", "--types", "click-reveal", "--attacks", "told,starts", "--json", timeout=200)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["leaks"], result["failed"], result["seeds"]) == (0, 0, [1])
    assert result["by_family"]["told"]["tries"] == 48
    done = cli("gauntlet", "audit", "--types", "no-such-type", timeout=60)
    assert done.returncode == 2 and "no-such-type" in done.stderr
    with pytest.raises(UnknownNameError, match="attack"):
        await audit(attacks=("nothing",))
