"""The gauntlet's server over the wire, without a browser: who gets a key, what the channel takes, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from dpo_driver.core.errors import ConfigError, RolloutFailure
from dpo_driver.envs.gauntlet.serve import GauntletServer
from dpo_driver.envs.website.serve import answers

NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}
CHROMIUM = {"Sec-CH-UA": '"Not;A=Brand";v="8", "Chromium";v="150"'}
WAIT_S = 10


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        return None


def get(url: str, headers: dict[str, str]) -> tuple[int, str, Message]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=WAIT_S) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


@pytest.fixture(scope="module")
def server() -> Iterator[GauntletServer]:
    with GauntletServer(inside=True, types=("click-reveal",), steps=3) as server:
        yield server


class Page:
    """A page of the site as the server sees it: a shell with its key, and the channel."""

    def __init__(self, server: GauntletServer, visit: str, **how: Any) -> None:
        status, _, headers = get(server.start_url(7, visit=visit, **how), NAVIGATION)
        assert status == 303
        self.server, self.path = server, headers["Location"]
        self.cookie = headers["Set-Cookie"].partition(";")[0]
        self.key = self.new_key()

    def new_key(self) -> str:
        status, shell, _ = get(self.server.base_url + self.path, NAVIGATION | {"Cookie": self.cookie})
        found = re.search(r"[`\"']([A-Za-z0-9_-]{32})[`\"']", shell)
        assert status == 200 and found is not None
        return found[1]

    def say(self, **signal: Any) -> str:
        """A message of the sealed script: each carries the key."""
        return json.dumps({"seal": self.key, **signal})

    def open(self, key: str | None = None, origin: str | None = None, cookie: str | None = None) -> ClientConnection:
        url = self.server.base_url.replace("http://", "ws://") + "/channel"
        headers = {"Cookie": self.cookie if cookie is None else cookie}
        channel = connect(url, origin=origin or self.server.base_url, additional_headers=headers, proxy=None)  # type: ignore[arg-type]
        channel.send(json.dumps({"key": self.key if key is None else key}))
        return channel


def told(channel: ClientConnection) -> dict[str, Any]:
    page: dict[str, Any] = json.loads(channel.recv(timeout=WAIT_S))
    return page


def test_only_a_tab_of_its_own_gets_a_key(server: GauntletServer) -> None:
    def kind(path: str = "/", **changed: str | None) -> int:
        headers = NAVIGATION | CHROMIUM | {name.replace("_", "-"): value for name, value in changed.items()}
        status, body, answered = get(server.base_url + path, {n: v for n, v in headers.items() if v is not None})
        assert ("/channel" in body) == (status == 200) == (answered["Set-Cookie"] is not None)
        assert "frame-ancestors 'none'" in answered["Content-Security-Policy"] or status == 403
        assert answered["Cache-Control"] == "no-store"
        return status

    assert kind() == kind("/step/7") == kind("/finish") == kind(Sec_Fetch_Site="same-origin") == 200
    for changed in (
        {"Sec_Fetch_Mode": "cors"}, {"Sec_Fetch_Mode": None}, {"Sec_Fetch_Dest": "iframe"}, {"Sec_Fetch_Dest": "empty"},
        {"Sec_Fetch_Dest": "object"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": None},
        {"Sec_Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"},
        {"Sec_Fetch_Site": "same-origin", "Sec_CH_UA": None},
        {"Sec_Fetch_Site": "same-origin", "Sec_CH_UA": '"Chromium";v="124"'},
    ):  # fmt: skip
        assert kind(**changed) == 403, changed


def test_a_start_leads_to_its_step_and_is_begun_once(server: GauntletServer) -> None:
    page = Page(server, "once", step=2)
    assert page.path == "/step/2" and server.status("once")["step"] == 2
    with page.open() as channel:
        field = told(channel)["form"]["field"]["part"]
        channel.send(page.say(kind="keydown", key="Enter", field=field, fields={field: "WRONG2"}))
        assert told(channel)["form"]["message"]
    assert Page(server, "once", step=3).path == "/step/2", "a second start of the same visit goes on with it"
    assert server.status("once")["wrong"] == 1
    for token in ("", "x.y", server.start_url(7).rpartition("=")[2][:-2]):
        assert get(f"{server.base_url}/start?token={token}", NAVIGATION)[0] == 403
    assert get(server.start_url(7), NAVIGATION | {"Sec-Fetch-Dest": "iframe"})[0] == 403
    status, _, headers = get(f"{server.base_url}/start?seed=5", NAVIGATION)
    assert (status, headers["Location"]) == (303, "/"), "without a signature there is only the START page"
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(headers["Set-Cookie"].split("; "))
    with pytest.raises(ConfigError, match="no step 4"):
        server.start_url(7, step=4)


def test_pinned_starts_give_equal_pages_and_others_do_not(server: GauntletServer) -> None:
    pages = []
    for number, key in enumerate(("same", "same", "other")):
        with Page(server, f"sibling {number}".replace(" ", "-"), step=2, key=key).open() as channel:
            pages.append(told(channel))
    assert pages[0] == pages[1]
    assert pages[0]["view"]["text"] == pages[2]["view"]["text"]
    assert pages[0]["view"]["buttons"] != pages[2]["view"]["buttons"], "names of parts are of the key"


def closed(channel: ClientConnection) -> bool:
    try:
        while True:
            channel.recv(timeout=WAIT_S)
    except ConnectionClosed:
        return True


def test_the_channel_takes_the_latest_key_of_the_visit_once(server: GauntletServer) -> None:
    page, other = Page(server, "keys"), Page(server, "others")
    assert closed(page.open(key="")) and closed(page.open(key="x" * 32)) and closed(page.open(key=other.key))
    first, page.key = page.key, page.new_key()
    assert closed(page.open(key=first)), "a page that was served before"
    channel = page.open()
    assert told(channel)["step"] == 1
    assert closed(page.open()), "a key that was used"
    page.key = page.new_key()
    with page.open() as second:
        assert told(second)["step"] == 1
        assert closed(channel), "one page at a time"


def test_the_channel_is_for_the_sites_own_pages(server: GauntletServer) -> None:
    for how in ({"origin": "http://evil.example"}, {"cookie": ""}, {"cookie": "gauntlet_visit=nobody"}):
        with pytest.raises(Exception, match="403"):
            Page(server, "own").open(**how)  # type: ignore[arg-type]


def test_junk_on_the_channel_changes_nothing(server: GauntletServer) -> None:
    page = Page(server, "junk")
    with page.open() as channel:
        view = told(channel)
        for text in ("", "[]", '{"kind":"solve"}', '{"kind":"click","part":"reveal"}', '{"kind":"change","part":"x"}'):
            channel.send(text)
        field = view["form"]["field"]["part"]
        right = {"kind": "click", "part": view["view"]["buttons"][0]["part"]}  # difficulty 1 has no other
        for seal in ({}, {"seal": None}, {"seal": ""}, {"seal": page.key[:-1]}, {"seal": page.key + "x"}):
            channel.send(json.dumps({**right, **seal}))
        channel.send(page.say(kind="keydown", key="Enter", field=field, fields={field: ""}))
        assert told(channel)["view"] == view["view"]
    assert server.status("junk")["step"] == 1


def test_only_who_runs_the_server_may_ask_how_a_visit_stands(server: GauntletServer) -> None:
    Page(server, "asked")
    assert server.status("asked")["types"] == ["click-reveal"] * 3
    url = f"{server.base_url}/status?visit=asked"
    assert get(url, {})[0] == get(url, {"X-Gauntlet-Admin": "guess"})[0] == 404
    with pytest.raises(RolloutFailure, match="404"):
        server.status("nobody")


def test_the_clock_pushes_a_view() -> None:
    with GauntletServer(inside=True, types=("delayed-reveal",), steps=1) as server:
        page = Page(server, "clock")
        with page.open() as channel:
            view = told(channel)["view"]
            began = time.monotonic()
            parts = set(re.findall(r'"part": "(p[0-9a-f]{10})"', json.dumps(view)))
            for part in sorted(parts):
                channel.send(page.say(kind="click", part=part))
            while told(channel)["view"]["reveal"] is None:
                assert time.monotonic() < began + WAIT_S
            assert time.monotonic() - began > 0.5


def test_assets_are_those_of_the_visits_own_step() -> None:
    with GauntletServer(inside=True, types=("frames",), steps=2) as server:
        page = Page(server, "assets", difficulty=1)
        with page.open() as channel:
            address = re.search(r"/asset/[0-9a-f]{12}/[^\"]+", json.dumps(told(channel)))
        assert address is not None
        url = server.base_url + address[0]
        status, body, headers = get(url, {"Cookie": page.cookie})
        assert status == 200 and headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'self'" in headers["Content-Security-Policy"] and "<" in body
        status, piece, headers = get(url, {"Cookie": page.cookie, "Range": "bytes=3-9"})
        assert (status, piece, headers["Content-Range"]) == (206, body[3:10], f"bytes 3-9/{len(body.encode())}")
        for wrong in (url[:-1], url.replace("/asset/", "/asset/0"), url + "x"):
            assert get(wrong, {"Cookie": page.cookie})[0] == 404
        for other in ("", Page(server, "else").cookie, "gauntlet_visit=nobody"):
            assert get(url, {"Cookie": other})[0] == 404
        headers = get(url, {"Cookie": page.cookie, "Service-Worker": "script"})[2]
        assert headers["Service-Worker-Allowed"] == address[0].rpartition("/")[0] + "/"


def test_an_asset_that_is_not_earned_is_waited_for_and_then_refused() -> None:
    with GauntletServer(inside=True, types=("multi-tab",), steps=1) as server:
        page = Page(server, "waits", difficulty=1)
        with page.open() as channel:
            address = re.search(r"/asset/[0-9a-f]{12}/[^\"]+", json.dumps(told(channel)))
            assert address is not None
            began = time.monotonic()
            assert get(server.base_url + address[0], {"Cookie": page.cookie})[0] == 404
            assert time.monotonic() - began > 1.9


def test_a_broken_puzzle_ends_its_own_visit_only() -> None:
    with GauntletServer(inside=True, types=("click-reveal",), steps=2) as server:
        page, other = Page(server, "broken"), Page(server, "whole")
        with page.open() as channel, other.open() as second:
            view = told(channel)
            told(second)
            assert server.site is not None
            line = server.site.line("broken")
            assert line is not None and line.visit.puzzle is not None
            line.visit.puzzle.setup = None  # type: ignore[assignment]
            channel.send(page.say(kind="click", part=view["view"]["buttons"][0]["part"]))
            assert closed(channel)
            assert "NoneType" in server.status("broken")["error"]
            assert server.status("whole")["error"] is None


OWNER = """
import sys, time
from dpo_driver.envs.gauntlet.serve import GauntletServer
with GauntletServer(types=("click-reveal",)) as server:
    print(server.base_url, flush=True)
    time.sleep(60)
"""


def test_the_server_ends_with_its_owner_even_when_that_is_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    url = owner.stdout.readline().strip()
    try:
        assert answers(f"{url}/health")
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait(WAIT_S)
        owner.stdout.close()
    deadline = time.monotonic() + WAIT_S
    while answers(f"{url}/health"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_child_server_answers_and_a_port_that_is_taken_is_named() -> None:
    with GauntletServer(types=("click-reveal",), steps=2) as server:
        assert Page(server, "child", step=2).path == "/step/2" and server.status("child")["step"] == 2
        port = int(server.base_url.rpartition(":")[2])
        with pytest.raises(ConfigError, match="in use"), GauntletServer(port=port):
            pass
    assert not answers(f"{server.base_url}/health")
    with pytest.raises(ConfigError, match="colour"):
        GauntletServer(colour="red")
