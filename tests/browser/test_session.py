"""The browser under fire: it is really killed, stopped, crashed and kept busy; each time the cause is typed, in time,
and the next context works."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from playwright.async_api import Error as PlaywrightError

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.chromium import find_chromium
from dpo_driver.browser.session import ScriptError, Session
from dpo_driver.core.errors import BrowserMissingError, RolloutFailure
from dpo_driver.core.records import StopReason

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

CALL_S = 1.5
NEVER = "new Promise(() => {})"


async def failure_of(session: Session, expression: str = NEVER) -> tuple[RolloutFailure, float]:
    """How an evaluation fails, and after how many seconds."""
    began = time.monotonic()
    with pytest.raises(RolloutFailure) as caught:
        await session.isolated(expression)
    return caught.value, time.monotonic() - began


async def works(browser: Browser) -> None:
    session = await browser.new_context(call_s=CALL_S)
    assert await session.isolated("6 * 7") == 42
    await session.close()


async def test_isolated_world_shares_the_page_but_not_its_variables(browser: Browser) -> None:
    session = await browser.new_context()
    await session.page.set_content("<p id=a>text</p><script>var mine = 1; document.title = 'page'</script>")
    assert await session.isolated("[typeof mine, document.title, a.textContent]") == ["undefined", "page", "text"]
    assert await session.page.evaluate("typeof dpoDriver") == "undefined"
    await session.page.goto("data:text/html,<title>next</title>")
    assert await session.isolated("[document.title, typeof dpoDriver.observe]") == ["next", "function"]
    with pytest.raises(ScriptError, match="no such thing"):
        await session.isolated("(() => { throw new Error('no such thing'); })()")
    assert session.failure is None
    await session.close()


async def test_a_busy_page_is_given_up_and_its_neighbour_lives(browser: Browser) -> None:
    busy = await browser.new_context(call_s=CALL_S)
    neighbour = await browser.new_context(call_s=CALL_S)
    launches = browser.launches
    failure, seconds = await failure_of(busy, "(() => { for (;;); })()")
    assert failure.kind == StopReason.PAGE_HUNG
    assert CALL_S <= seconds < CALL_S + 4
    assert await neighbour.isolated("1 + 1") == 2
    assert browser.launches == launches
    with pytest.raises(RolloutFailure, match="page_hung"):
        await busy.isolated("1")
    await neighbour.close()
    # The page's process is gone as well: nothing of this browser goes on burning a core.
    await asyncio.sleep(0.2)
    family = [child for pid in browser.pids for child in psutil.Process(pid).children(recursive=True)]
    for process in family:
        process.cpu_percent()
    await asyncio.sleep(0.3)
    assert max(process.cpu_percent() for process in family if process.is_running()) < 60
    await works(browser)


async def test_a_crashed_renderer_is_told_at_once(browser: Browser) -> None:
    session = await browser.new_context(call_s=10)
    waiting = asyncio.create_task(failure_of(session))
    await asyncio.sleep(0.1)
    with pytest.raises(PlaywrightError):
        await asyncio.wait_for(session.page.goto("chrome://crash"), 5)
    failure, seconds = await waiting
    assert failure.kind == StopReason.RENDERER_CRASH
    assert seconds < 5
    await session.close()
    await works(browser)


async def test_a_killed_browser_fails_all_sessions_and_is_restarted(browser: Browser) -> None:
    first, second = await browser.new_context(call_s=10), await browser.new_context(call_s=10)
    waiting = [asyncio.create_task(failure_of(session)) for session in (first, second)]
    await asyncio.sleep(0.1)
    launches = browser.launches
    for pid in browser.pids:
        os.kill(pid, signal.SIGKILL)
    for failure, seconds in await asyncio.gather(*waiting):
        assert failure.kind == StopReason.BROWSER_LOST
        assert seconds < 5
    # Both workers come back at the same moment: one restart serves them.
    await asyncio.gather(works(browser), works(browser))
    assert browser.launches == launches + 1


async def test_a_stopped_browser_is_killed_after_the_deadline(browser: Browser) -> None:
    session = await browser.new_context(call_s=CALL_S)
    pids = browser.pids
    waiting = asyncio.create_task(failure_of(session))
    await asyncio.sleep(0.1)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    failure, seconds = await waiting
    assert failure.kind == StopReason.PAGE_HUNG
    assert seconds < CALL_S + 1  # told at once; the end of the browser follows
    await session.close()
    async with asyncio.timeout(5):  # the system needs a moment to end them
        while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            await asyncio.sleep(0.01)
    await works(browser)


async def test_dialogs_popups_and_downloads_stop_nothing(browser: Browser) -> None:
    session = await browser.new_context(call_s=5)
    await session.page.set_content("<p>here</p>")
    assert await session.page.evaluate("[alert('careful'), confirm('sure?'), prompt('name?')]") == [None, False, None]
    await session.page.evaluate("window.open('about:blank') && 1")
    link = "const a = document.createElement('a'); a.href = 'data:text/plain,x'; a.download = 'x.txt'; a.click()"
    await session.page.evaluate(link)
    seen: list[tuple[str, str]] = []
    async with asyncio.timeout(5):
        while len(seen) < 5:
            seen += [(event.kind, event.text) for event in session.take_events()]
            await asyncio.sleep(0.01)
    assert sorted(seen)[:3] == [("dialog", "careful"), ("dialog", "name?"), ("dialog", "sure?")]
    assert {kind for kind, _ in seen} == {"dialog", "popup", "download"}
    async with asyncio.timeout(5):
        while len(session.page.context.pages) > 1:
            await asyncio.sleep(0.01)
    assert await session.isolated("document.body.textContent") == "here"
    await session.close()


class _Canary(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.hits.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *_arguments: object) -> None: ...


async def test_a_page_without_a_gateway_reaches_nothing(browser: Browser) -> None:
    """Fetch, image, form, beacon, socket, worker, navigation and WebRTC against a server that is really there."""
    canary = ThreadingHTTPServer(("127.0.0.1", 0), _Canary)
    canary.hits = []  # type: ignore[attr-defined]
    threading.Thread(target=canary.serve_forever, daemon=True).start()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.settimeout(0.5)
    web = f"127.0.0.1:{canary.server_port}"
    urllib.request.urlopen(f"http://{web}/control", timeout=5).close()
    session = await browser.new_context(call_s=10)
    attempts = f"""
        const quiet = (call) => {{ try {{ return Promise.resolve(call()).catch(() => 0); }} catch {{ return 0; }} }};
        const link = document.createElement('link'); link.rel = 'prefetch'; link.href = 'http://{web}/prefetch';
        document.head.append(link);
        new Image().src = 'http://{web}/image';
        new WebSocket('ws://{web}/socket');
        navigator.sendBeacon('http://{web}/beacon', 'x');
        const frame = document.createElement('iframe'); frame.src = 'http://{web}/frame'; document.body.append(frame);
        new Worker(URL.createObjectURL(new Blob(["fetch('http://{web}/worker'); new WebSocket('ws://{web}/ws2')"])));
        const peer = new RTCPeerConnection({{ iceServers: [{{ urls: 'stun:127.0.0.1:{udp.getsockname()[1]}' }}] }});
        peer.createDataChannel('x');
        peer.createOffer().then((offer) => peer.setLocalDescription(offer));
        Promise.all([quiet(() => fetch('http://{web}/fetch', {{ mode: 'no-cors' }})),
                     quiet(() => fetch('http://localhost:{canary.server_port}/name', {{ mode: 'no-cors' }})),
                     new Promise((done) => setTimeout(done, 700))]).then(() => 'tried')
    """
    await session.page.set_content("<p>x</p>")
    assert await session.page.evaluate(attempts) == "tried"
    with pytest.raises(RolloutFailure, match="server_error"):
        await session.goto(f"http://{web}/navigation")
    assert canary.hits == ["/control"]  # type: ignore[attr-defined]
    with pytest.raises(TimeoutError):
        udp.recv(2048)
    udp.close()
    canary.shutdown()
    canary.server_close()
    await session.close()


async def test_screenshots_are_sharp_jpegs(browser: Browser) -> None:
    session = await browser.new_context(viewport=(200, 100))
    await session.page.set_content("<body style='margin:0;background:#08f'>")
    picture = await session.screenshot((0, 0, 50, 40), scale=2)
    assert picture[:3] == b"\xff\xd8\xff"
    at = picture.index(b"\xff\xc0") + 5  # the frame header holds height and width
    assert (int.from_bytes(picture[at : at + 2], "big"), int.from_bytes(picture[at + 2 : at + 4], "big")) == (80, 100)
    await session.close()


async def test_a_missing_or_broken_browser_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DPO_DRIVER_CHROMIUM", str(tmp_path / "nothing"))
    with pytest.raises(BrowserMissingError, match="nothing"):
        find_chromium()
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setenv("DPO_DRIVER_CHROMIUM", str(broken))
    with pytest.raises(BrowserMissingError, match="did not start"):
        await Browser.launch()
    monkeypatch.delenv("DPO_DRIVER_CHROMIUM")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with pytest.raises(BrowserMissingError, match=r"setup\.sh"):
        find_chromium()
    own = tmp_path / "chromium_headless_shell-1200" / "linux" / "headless_shell"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert find_chromium() == own
