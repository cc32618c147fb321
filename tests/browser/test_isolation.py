"""Nothing that one episode left in the browser is visible to the next: cookies, storages, databases, caches, workers,
window.name, history, and what was held down. An episode of a website is a context of its own; MiniWoB++ pages, which
restart in place, keep nothing because nothing of theirs can be stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dpo_driver.browser import held
from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.browser.session import Session
from dpo_driver.core.actions import KeyboardDown, MouseDown, MouseMove, Noop
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.server import MiniwobServer
from dpo_driver.envs.miniwob.tasks import make_task

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

# Everything that a page can leave behind; resolves when it is all in place.
LEAVE = """async () => {
  document.cookie = "mark=1; max-age=86400";
  localStorage.setItem("mark", "1");
  sessionStorage.setItem("mark", "1");
  window.name = "mark";
  await new Promise((done, failed) => {
    const request = indexedDB.open("mark", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("store").put("1", "mark");
    request.onsuccess = () => done(request.result.close());
    request.onerror = failed;
  });
  const cache = await caches.open("mark");
  await cache.put("/mark", new Response("1"));
  const root = await navigator.storage.getDirectory();
  await root.getFileHandle("mark", { create: true });
  await fetch("/cached");
  const channel = new BroadcastChannel("mark");
  channel.onmessage = (event) => event.data === "anyone?" && channel.postMessage("here");
  new SharedWorker("/shared.js").port.postMessage("mark");
  history.pushState({}, "", "/second");
  history.pushState({}, "", "/third");
  try { await navigator.serviceWorker.register("/worker.js"); } catch { /* blocked */ }
  return true;
}"""

# What there is of it: each value is the same in a browser that has never been here.
LOOK = """async () => {
  const answers = [];
  const channel = new BroadcastChannel("mark");
  channel.onmessage = (event) => answers.push(event.data);
  channel.postMessage("anyone?");
  const port = new SharedWorker("/shared.js").port;
  const heard = new Promise((done) => { port.onmessage = (event) => done(event.data); });
  port.postMessage("look");
  const files = [];
  for await (const name of (await navigator.storage.getDirectory()).keys()) files.push(name);
  const found = {
    cookie: document.cookie,
    local: localStorage.length,
    session: sessionStorage.length,
    name: window.name,
    databases: (await indexedDB.databases()).length,
    caches: (await caches.keys()).length,
    files: files.length,
    cached: await (await fetch("/cached")).text(),
    shared: await heard,
    workers: (await navigator.serviceWorker.getRegistrations()).length,
    controlled: navigator.serviceWorker.controller !== null,
    history: history.length,
    state: history.state,
    referrer: document.referrer,
  };
  await new Promise((done) => setTimeout(done, 50));
  return { ...found, broadcast: answers.length };
}"""
SHARED = """let seen = 0; onconnect = (event) => { const [port] = event.ports;
  port.onmessage = (said) => { if (said.data === "mark") seen++; else port.postMessage(seen); }; };"""


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.visits[self.path] = self.server.visits.get(self.path, 0) + 1  # type: ignore[attr-defined]
        body, kind = b"<title>site</title><p id=p>x</p>", "text/html"
        if self.path == "/cached":
            body, kind = str(self.server.visits[self.path]).encode(), "text/plain"  # type: ignore[attr-defined]
        elif self.path == "/shared.js":
            body, kind = SHARED.encode(), "text/javascript"
        elif self.path == "/worker.js":
            body, kind = b"onfetch = (e) => e.respondWith(new Response('taken over'))", "text/javascript"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "max-age=86400, immutable")
        self.send_header("Set-Cookie", "server=1; Max-Age=86400; HttpOnly")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.server.cookies.append(self.headers.get("Cookie", ""))  # type: ignore[attr-defined]
        self.wfile.write(body)

    def log_message(self, format: str, *_arguments: object) -> None: ...


@pytest.fixture
def site() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    server.visits, server.cookies = {}, []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


async def looked(session: Session, home: str) -> dict[str, Any]:
    await session.goto(home)
    found: dict[str, Any] = await session.page.evaluate(LOOK)
    return found


async def test_a_context_sees_nothing_of_another(browser: Browser, site: ThreadingHTTPServer) -> None:
    home = f"http://127.0.0.1:{site.server_port}/"
    with OriginGateway([home]) as gateway:
        clean = await browser.new_context(gateway=gateway.url)
        expected = await looked(clean, home)
        await clean.close()
        assert expected | {"cached": ""} == {
            "cookie": "", "local": 0, "session": 0, "name": "", "databases": 0, "caches": 0, "files": 0, "cached": "",
            "shared": 0, "workers": 0, "controlled": False, "history": 2, "state": None, "referrer": "", "broadcast": 0,
        }  # fmt: skip

        first = await browser.new_context(gateway=gateway.url)
        await first.goto(home)
        assert await first.page.evaluate(LEAVE)
        # The control: in its own context every mark is seen, but for the service worker, which is blocked.
        own = await first.page.evaluate(LOOK)
        for mark in ("cookie", "local", "session", "name", "databases", "caches", "files", "shared", "broadcast"):
            assert own[mark] not in ("", 0), mark
        assert own["history"] > expected["history"]
        assert own["cached"] == "2"  # the one that it fetched before
        assert (own["workers"], own["controlled"]) == (0, False)

        # Beside it while it lives, and after it.
        site.cookies.clear()  # type: ignore[attr-defined]
        beside = await browser.new_context(gateway=gateway.url)
        seen = await looked(beside, home)
        assert seen == expected | {"cached": "3"}  # asked for anew
        await beside.close()
        await first.close()
        after = await browser.new_context(gateway=gateway.url)
        assert await looked(after, home) == expected | {"cached": "4"}
        await after.close()
        # The server's own cookie came back from neither before it was set: the first request of each had none.
        assert site.cookies.count("") >= 2  # type: ignore[attr-defined]
        assert not [cookie for cookie in site.cookies if "mark" in cookie]  # type: ignore[attr-defined]


async def test_a_miniwob_page_starts_clean_in_place(browser: Browser) -> None:
    """The page stays, the episode is new. What its page can reach was tried to be filled by the episode before."""
    with MiniwobServer() as server:
        environment = MiniwobEnvironment(browser, server.gateway, call_s=5)
        start = await environment.reset(make_task("enter-text", 3))
        session = environment.session
        assert session is not None
        await environment.step(KeyboardDown(key="Shift"))
        await environment.step(MouseDown(x=80, y=100))
        await environment.step(MouseMove(x=90, y=120))
        await session.isolated("history.pushState({}, ''), window.name = 'left', scrollTo(0, 50)")
        assert held.anything(session)
        assert await environment.reset(make_task("enter-text", 3)) == start
        assert environment.session is session  # in place
        assert not held.anything(session)
        log = "window.down = []; document.onmousemove = (e) => down.push(e.buttons, e.shiftKey); 0"
        await session.page.evaluate(log)
        await environment.step(MouseMove(x=20, y=20))
        assert await session.page.evaluate("down") == [0, False]

        # A page of its own has nothing of it.
        await environment.close()
        assert await environment.reset(make_task("enter-text", 3)) == start
        assert environment.session is not session
        assert environment.session is not None
        left = "[name, location.hash, history.state, history.length, localStorage.length, document.cookie]"
        assert await environment.session.isolated(left) == ["", "", None, 2, 0, ""]
        outcome = await environment.step(Noop())
        assert outcome.reward is None
        await environment.close()
