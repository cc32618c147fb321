"""The gauntlet's real parts in a real Chromium: film, sound, feed, worker, stores and tabs work, come after trusted
input only, and leave nothing behind when the step is over."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.browser.session import Session
from dpo_driver.envs.gauntlet.plan import Plan
from dpo_driver.envs.gauntlet.serve import GauntletServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]
Begin = Callable[..., Awaitable[Page]]
CODE = re.compile(r"\b[A-HJ-NP-Z2-9]{6}\b")
PUZZLE = "main section [data-part]"
# What a script can do to every part: press, touch, type, call.
FAKES = """async () => {
  for (const part of document.querySelectorAll("main section [data-part]")) {
    part.focus();
    part.click();
    const how = { bubbles: true, composed: true, detail: 1, button: 1, pointerId: 1, key: "Enter" };
    for (const kind of ["pointerdown", "pointermove", "pointerup"]) part.dispatchEvent(new PointerEvent(kind, how));
    for (const kind of ["click", "contextmenu", "auxclick"]) part.dispatchEvent(new MouseEvent(kind, how));
    for (const kind of ["keydown", "keyup"]) part.dispatchEvent(new KeyboardEvent(kind, how));
  }
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[GauntletServer]:
    with GauntletServer() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(server: GauntletServer) -> Iterator[OriginGateway]:
    with OriginGateway([server.base_url]) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def player(browser: Browser, gateway: OriginGateway) -> AsyncIterator[Session]:
    session = await browser.new_context(gateway=gateway.url, tabs=True, service_workers=True)
    yield session
    await session.close()


@pytest.fixture
def begin(player: Session, server: GauntletServer) -> Begin:
    """Opens the first of two steps of a type; what distracts there covers nothing."""
    harmless = {"filler", "traps", "decoys"}

    async def opened(kind: str, difficulty: int = 1) -> Page:
        how: dict[str, Any] = {"types": (kind,), "steps": 2, "difficulty": difficulty}
        seed = next(seed for seed in range(200) if set(Plan.of(seed, **how).step(1).distractors) <= harmless)
        await player.goto(server.start_url(seed, step=1, visit=f"{kind} {difficulty} {seed}", **how))
        await player.page.wait_for_selector(PUZZLE)
        return player.page

    return opened


async def until(page: Page, condition: str) -> None:
    """Wait for a condition in the page, frame by frame; what the page's policy allows."""
    async with asyncio.timeout(10):
        await page.evaluate(
            "new Promise((done) => {"
            f" const look = async () => ((await ({condition})) ? done() : requestAnimationFrame(look)); look(); }})"
        )


async def enter(page: Page, code: str) -> None:
    await page.locator("form [data-field]").press_sequentially(code)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/step/2")


async def test_the_film_plays_and_can_be_wound(begin: Begin) -> None:
    page = await begin("video")
    await page.evaluate(FAKES)
    assert await page.locator("video").count() == 0
    await page.locator(PUZZLE).first.click()
    await until(page, "document.querySelector('video')?.currentTime > 0.3")
    seen = await page.evaluate("(({ videoWidth, videoHeight, duration }) => [videoWidth, videoHeight, duration])"
                               "(document.querySelector('video'))")  # fmt: skip
    assert seen == pytest.approx([320, 240, 4.8])
    place = """async () => {
      const video = document.querySelector("video");
      video.pause();
      await new Promise((done) => { video.onseeked = done; video.currentTime = 2.8; });
      return video.currentTime;
    }"""
    assert await page.evaluate(place) == pytest.approx(2.8, abs=0.05)
    await page.locator(PUZZLE).last.click()
    still = page.locator("main section img")
    await until(page, "document.querySelector('main section img')?.naturalWidth === 320")
    assert await still.is_visible() and not await page.locator("video").is_visible()


async def test_the_sound_plays(begin: Begin) -> None:
    page = await begin("audio")
    await page.evaluate(FAKES)
    assert await page.locator("audio").count() == 0
    await page.locator(PUZZLE).first.click()
    await until(page, "document.querySelector('audio')?.currentTime > 0.3")
    assert 3.0 < await page.evaluate("document.querySelector('audio').duration") < 15.0


async def test_the_feed_is_a_websocket_of_its_own(begin: Begin) -> None:
    page = await begin("websocket", 2)
    frames: list[str] = []
    page.on("websocket", lambda line: line.on("framereceived", lambda text: frames.append(str(text))))
    await page.evaluate(FAKES)
    assert frames == [] and await page.locator("[role=log]").count() == 0
    await page.locator(PUZZLE).first.click()
    await until(page, "document.querySelectorAll('[role=log] li').length === 7")
    assert [text.strip() for text in await page.locator("[role=log] li").all_inner_texts()] == frames


async def test_the_worker_answers_in_its_own_scope_and_goes(begin: Begin) -> None:
    page = await begin("service-worker")
    scopes = "navigator.serviceWorker.getRegistrations().then((all) => all.map(({ scope }) => new URL(scope).pathname))"
    await page.evaluate(FAKES)
    assert await page.evaluate(scopes) == []
    await page.locator(PUZZLE).first.click()
    await until(page, f"{scopes}.then((all) => all.length === 1)")
    (scope,) = await page.evaluate(scopes)
    assert re.fullmatch(r"/asset/[0-9a-f]{12}/", scope)
    await page.locator(PUZZLE).last.click()
    await until(page, "document.querySelector('iframe')?.contentDocument?.querySelector('p')")
    (frame,) = [frame for frame in page.frames if scope in frame.url]
    assert await frame.evaluate("performance.getEntriesByType('navigation')[0].workerStart") > 0
    found = CODE.findall(await frame.locator("p").inner_text())
    await enter(page, found[0])
    await until(page, f"{scopes}.then((all) => all.length === 0)")


async def test_the_stores_are_filled_and_emptied(begin: Begin) -> None:
    page = await begin("storage", 2)
    kept = """[...document.cookie.split("; ").filter(Boolean).map((pair) => pair.split("=")),
               ...Object.entries(localStorage), ...Object.entries(sessionStorage)]"""
    await page.evaluate(FAKES)
    assert await page.evaluate(kept) == []
    for number in range(2):
        await page.locator(PUZZLE).nth(number).click()
        await until(page, f"document.querySelectorAll('main section table').length === {number + 1}")
        assert len(await page.evaluate(kept)) == 4 * (number + 1)
    values = dict(await page.evaluate(kept))
    rows = [(await row.locator("td").all_inner_texts()) for row in await page.locator("tbody tr").all()]
    assert dict(rows) == values and len(values) == 8
    keys = re.findall(r'"([^"]+)"', await page.locator("main section p").first.inner_text())
    await enter(page, "".join(values[key] for key in keys))
    await until(page, f"({kept}).length === 0")


async def test_a_tab_of_its_own_is_served_after_the_click(begin: Begin) -> None:
    page = await begin("multi-tab")
    link = page.locator("main section a")
    address = await link.get_attribute("href")
    assert await page.evaluate("(address) => fetch(address).then(({ status }) => status)", address) == 404
    async with page.expect_popup() as opening:
        await link.click()
    tab = await opening.value
    await tab.wait_for_selector("h1")
    assert await tab.evaluate("window.opener === null && document.scripts.length === 0")
    (code,) = CODE.findall(await tab.locator("main").inner_text())
    await tab.close()
    await enter(page, code)
