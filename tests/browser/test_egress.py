"""A page behind a gateway reaches its own server and nothing else: every channel that we know is tried against sockets
of ours that are really there. The control, a browser without gateway and switches, reaches each of them, so that a
channel that stays silent behind the gateway is blocked and not broken."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from playwright.async_api import async_playwright

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.chromium import find_chromium, runs_as_root
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.browser.execute import Grants, execute
from dpo_driver.browser.session import Session
from dpo_driver.core.actions import Goto
from dpo_driver.core.errors import ActionError, RolloutFailure
from dpo_driver.envs.miniwob.server import HOST_PAGE, MiniwobServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

ADD = "const add = (html) => document.body.insertAdjacentHTML('beforeend', html); "
WORKER = "const work = (code) => new Worker(URL.createObjectURL(new Blob([code], {type: 'text/javascript'}))); "
FRAME = "const frame = (set) => document.body.append(Object.assign(document.createElement('iframe'), set)); "
PEER = """const peer = (servers) => { const p = new RTCPeerConnection({ iceServers: [servers] });
    p.createDataChannel('x'); p.createOffer().then((offer) => p.setLocalDescription(offer)); keep.push(p); }; """
TURN = "username: 'u', credential: 'c'"

# name -> what a page does; WEB is an origin that is not its own, HOST the same without a scheme, PORT its port.
CHANNELS = {
    "fetch": "fetch('WEB/x', {mode: 'no-cors'})",
    "fetch with CORS": "fetch('WEB/x', {method: 'POST', body: 'x'})",
    "fetch kept alive": "fetch('WEB/x', {mode: 'no-cors', keepalive: true})",
    "XMLHttpRequest": "const x = new XMLHttpRequest(); x.open('GET', 'WEB/x'); x.send()",
    "redirect": "fetch('/redirect?to=WEB/x', {mode: 'no-cors'})",
    "chain of redirects": "fetch('/redirect?to=/redirect?to=WEB/x', {mode: 'no-cors'})",
    "redirect of a frame": "frame({src: '/redirect?to=WEB/x'})",
    "refresh of a frame": "frame({src: '/refresh?to=WEB/x'})",
    "other name": "fetch('http://localhost:PORT/x', {mode: 'no-cors'})",
    "decimal address": "fetch('http://2130706433:PORT/x', {mode: 'no-cors'})",
    "octal address": "fetch('http://0177.0.0.1:PORT/x', {mode: 'no-cors'})",
    "user-info": "window.open('http://127.0.0.1@127.0.0.1:PORT/x')",
    "image": "new Image().src = 'WEB/x'",
    "picture of SVG": "add('<svg><image href=\"WEB/x\"></image></svg>')",
    "script": "document.head.append(Object.assign(document.createElement('script'), {src: 'WEB/x'}))",
    "module": "import('WEB/x')",
    "style sheet": "add('<link rel=stylesheet href=\"WEB/x\">')",
    "imported style": "add('<style>@import \"WEB/x\";</style>')",
    "picture of a style": "add('<p style=\"background: url(WEB/x)\">x</p>')",
    "font": "new FontFace('f', 'url(WEB/x)').load()",
    "sound": "new Audio('WEB/x').load()",
    "video": "add('<video src=\"WEB/x\" autoplay></video>')",
    "poster": "add('<video poster=\"WEB/x\"></video>')",
    "input of type image": "add('<input type=image src=\"WEB/x\">')",
    "object": 'add(\'<object data="WEB/x" type="text/html"></object>\')',
    "embed": 'add(\'<embed src="WEB/x" type="text/html">\')',
    "frame": "frame({src: 'WEB/x'})",
    "data: frame": "frame({src: 'data:text/html,<img src=\"WEB/x\">'})",
    "blob: frame": "frame({src: URL.createObjectURL(new Blob(['<img src=\"WEB/x\">'], {type: 'text/html'}))})",
    "srcdoc frame": "frame({srcdoc: '<img src=\"WEB/x\">'})",
    "WebSocket": "new WebSocket('ws://HOST/x')",
    "worker: fetch": "work(\"fetch('WEB/x', {mode: 'no-cors'})\")",
    "worker: WebSocket": "work(\"new WebSocket('ws://HOST/x')\")",
    "worker: importScripts": "work(\"importScripts('WEB/x')\")",
    "worker: EventSource": "work(\"new EventSource('WEB/x')\")",
    "shared worker": "new SharedWorker('/shared?to=WEB/x')",
    "service worker": "navigator.serviceWorker.register('/service?to=WEB/x')",
    "beacon": "navigator.sendBeacon('WEB/x', 'x')",
    "EventSource": "new EventSource('WEB/x')",
    "WebRTC over UDP": "peer({urls: 'stun:STUN'})",
    "WebRTC over TCP": f"peer({{urls: 'turn:HOST?transport=tcp', {TURN}}})",
    "WebTransport": "new WebTransport('https://HOST/x').ready",
    "prefetch": "add('<link rel=prefetch href=\"WEB/x\">')",
    "preload": "add('<link rel=preload as=image href=\"WEB/x\">')",
    "module preload": "add('<link rel=modulepreload href=\"WEB/x\">')",
    "preconnect": "add('<link rel=preconnect href=\"WEB\">')",
    "ping": 'add(\'<a id=ping href="#x" ping="WEB/x">x</a>\'); ping.click()',
    "dns-prefetch": "add('<link rel=dns-prefetch href=\"WEB\">')",
    "popup": "window.open('WEB/x')",
    "link to a new tab": "add('<a id=tab target=_blank rel=opener href=\"WEB/x\">x</a>'); tab.click()",
    "form": "add('<iframe name=f></iframe><form id=send method=post action=\"WEB/x\" target=f></form>'); send.submit()",
    "form to a new tab": "add('<form id=post method=post action=\"WEB/x\" target=_blank></form>'); post.submit()",
    "report of a policy": "frame({src: '/policy?to=WEB/x'})",
}
# Tried as well, but the control has not shown them: this browser may not do them at all, and names are not resolved.
UNPROVEN = ("preconnect", "dns-prefetch")
NO_OWN_SERVER = {name: code for name, code in CHANNELS.items() if "'/" not in code}


class Canaries:
    """For each channel a port of its own, TCP and UDP, that counts what arrives. No answer is ever given."""

    def __init__(self, names: list[str]) -> None:
        self.arrived: dict[str, int] = dict.fromkeys(names, 0)
        self.ports: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()
        for name in names:
            self._listen(name)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _listen(self, name: str) -> None:
        while True:  # until a number is free for both
            tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
            tcp.bind(("0.0.0.0", 0))
            try:
                udp.bind(("0.0.0.0", tcp.getsockname()[1]))
                break
            except OSError:
                tcp.close()
                udp.close()
        tcp.listen()
        for end in (tcp, udp):
            self._selector.register(end, selectors.EVENT_READ, name)
        self.ports[name] = tcp.getsockname()[1]

    def _watch(self) -> None:
        while not self._end.is_set():
            for key, _ in self._selector.select(0.05):
                end = key.fileobj
                assert isinstance(end, socket.socket)
                self.arrived[key.data] += 1
                if end.type == socket.SOCK_DGRAM:
                    end.recv(65536)
                else:
                    end.accept()[0].close()

    def code(self, name: str, outside: str) -> str:
        port = self.ports[name]
        code = CHANNELS[name].replace("STUN", f"{outside}:{port}").replace("WEB", f"http://127.0.0.1:{port}")
        code = code.replace("HOST", f"127.0.0.1:{port}").replace("PORT", str(port))
        return f"(async () => {{ {ADD}{WORKER}{FRAME}{PEER} {code} }})().catch(() => 0)"

    def close(self) -> None:
        self._end.set()
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


class _Home(BaseHTTPRequestHandler):
    """The page's own server: redirects, workers and policies that lead elsewhere."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        to = url.query.partition("to=")[2]
        kind, body, extra = "text/html", b"<title>home</title><body>", {}
        if url.path == "/redirect":
            extra["Location"] = to
        elif url.path == "/refresh":
            body = f"<meta http-equiv=refresh content='0;url={to}'>".encode()
        elif url.path == "/policy":
            extra["Content-Security-Policy"] = f"img-src 'none'; report-uri {to}"
            body = b"<img src=/nothing>"
        elif url.path in ("/shared", "/service"):
            kind, body = "text/javascript", f"fetch('{to}', {{mode: 'no-cors'}})".encode()
        self.send_response(302 if "Location" in extra else 200)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_arguments: object) -> None: ...


@pytest.fixture
def home() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Home)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def canaries() -> Iterator[Canaries]:
    canaries = Canaries(list(CHANNELS))
    yield canaries
    canaries.close()


def own_address() -> str:
    """This machine's address on its network: WebRTC does not ask loopback. Nothing is sent."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@contextlib.asynccontextmanager
async def unguarded() -> AsyncIterator[object]:
    """A page in a browser as it comes: no gateway, no switches of ours."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=find_chromium(), chromium_sandbox=not runs_as_root())
        yield await (await browser.new_context()).new_page()
        await browser.close()


async def attempt(page: object, canaries: Canaries, names: list[str]) -> None:
    codes = [canaries.code(name, own_address()) for name in names]
    await page.evaluate("window.keep = []; " + "; ".join(codes) + "; 0")  # type: ignore[attr-defined]


def missing(canaries: Canaries) -> list[str]:
    return [name for name, count in canaries.arrived.items() if not count and name not in UNPROVEN]


async def test_the_control_reaches_every_canary(home: str, canaries: Canaries) -> None:
    async with unguarded() as page:
        await page.goto(home)  # type: ignore[attr-defined]
        await attempt(page, canaries, list(CHANNELS))
        until = time.monotonic() + 15
        while missing(canaries) and time.monotonic() < until:
            await asyncio.sleep(0.05)
    assert missing(canaries) == []


async def quiet(session: Session, canaries: Canaries, names: list[str]) -> None:
    """Try everything, give it time, and see that nothing has come."""
    await attempt(session.page, canaries, names)
    await session.isolated("new Promise((done) => setTimeout(done, 2500))")
    assert {name: count for name, count in canaries.arrived.items() if count} == {}


async def test_a_page_behind_the_gateway_reaches_none(browser: Browser, home: str, canaries: Canaries) -> None:
    with OriginGateway([home]) as gateway:
        session = await browser.new_context(gateway=gateway.url, call_s=20)
        await session.goto(home)
        await quiet(session, canaries, list(CHANNELS))
        asked = " ".join(gateway.refused)
        # They were asked for and refused, not lost on the way: more than half of them show at the gateway.
        assert sum(str(port) in asked for port in canaries.ports.values()) > len(CHANNELS) / 2
        # What steers the browser listens on loopback too.
        port = browser._port
        await session.page.evaluate(f"fetch('http://127.0.0.1:{port}/json', {{mode: 'no-cors'}}).catch(() => 0)")
        assert f"http://127.0.0.1:{port}/json" in gateway.refused
        # Its own server still answers.
        assert await session.page.evaluate("fetch('/').then((answer) => answer.status)") == 200
        await session.close()


async def test_a_training_page_reaches_none(browser: Browser, canaries: Canaries) -> None:
    """MiniWoB++'s own server as the gateway, from a page of its origin that no policy protects."""
    with MiniwobServer() as server:
        session = await browser.new_context(gateway=server.gateway, call_s=20)
        await session.goto(HOST_PAGE)
        await quiet(session, canaries, list(NO_OWN_SERVER))
        assert server.refused > len(NO_OWN_SERVER) / 2
        await session.close()


@pytest.mark.slow
async def test_a_context_without_a_gateway_reaches_none(browser: Browser, canaries: Canaries) -> None:
    session = await browser.new_context(call_s=20)
    await session.page.set_content("<body>")
    await quiet(session, canaries, list(NO_OWN_SERVER))
    await session.close()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "chrome://version", "view-source:file:///etc/passwd", "chrome-extension://x/y"]
)
async def test_the_machines_own_pages_stay_closed(browser: Browser, home: str, url: str) -> None:
    with OriginGateway([home]) as gateway:
        session = await browser.new_context(gateway=gateway.url)
        await session.goto(home)
        tried = f"""async () => {{
            const read = await fetch({url!r}).then((answer) => answer.text()).catch(() => "");
            const frame = document.body.appendChild(document.createElement("iframe"));
            frame.src = {url!r};
            await new Promise((done) => {{ frame.onload = done; setTimeout(done, 300); }});
            let inside = "";
            try {{ inside = frame.contentDocument.body.textContent; }} catch {{ /* another origin */ }}
            location.href = {url!r};
            return [read, inside];
        }}"""
        assert await session.page.evaluate(tried) == ["", ""]
        assert await session.isolated("location.href") == home
        with pytest.raises(ActionError, match="goto takes an http or https address"):
            await execute(session, Goto(url=url))
        await session.close()


async def test_an_agent_stays_on_the_site(browser: Browser, home: str) -> None:
    """By its own addresses it goes where it likes, elsewhere it is told, and a redirect leads nowhere."""
    with OriginGateway([home]) as gateway:
        session = await browser.new_context(gateway=gateway.url)
        grants = Grants(allows=gateway.allows)
        await execute(session, Goto(url=home + "page?x=1"), grants)
        assert session.page.url == home + "page?x=1"
        port = urlsplit(home).port
        for url in (
            f"http://localhost:{port}/",
            f"http://127.1:{port}/",
            f"http://x@127.0.0.1:{port}/",
            "http://a.test/",
        ):
            with pytest.raises(ActionError, match="is not part of this task's site"):
                await execute(session, Goto(url=url), grants)
        assert session.page.url == home + "page?x=1"
        await execute(session, Goto(url=home + "redirect?to=http://elsewhere.test/"), grants)
        assert "not part of the task's site" in await session.isolated("document.body.textContent")
        assert gateway.refused == ("http://elsewhere.test/",)
        with pytest.raises(RolloutFailure, match="403"):
            await session.goto("http://elsewhere.test/")
        await session.close()
