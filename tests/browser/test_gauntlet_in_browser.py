"""The gauntlet's site in a real Chromium: whole runs by mouse and by keyboard, on a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.browser.execute import execute
from dpo_driver.browser.observe import observe
from dpo_driver.core.actions import Fill, Type
from dpo_driver.envs.gauntlet.puzzles import TYPES
from dpo_driver.envs.gauntlet.serve import GauntletServer
from gauntlet_player import Player, field, heading, named, reveal, shown_code, wanted

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def server() -> Iterator[GauntletServer]:
    with GauntletServer(types=("click-reveal",), steps=3) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(server: GauntletServer) -> Iterator[OriginGateway]:
    with OriginGateway([server.base_url]) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, server: GauntletServer, gateway: OriginGateway) -> AsyncIterator[Player]:
    session = await browser.new_context(gateway=gateway.url, tabs=True)
    yield Player(session, server)
    await session.close()
    assert not gateway.refused, "the site asked somebody else"


async def test_a_run_by_mouse_with_distractors(page: Player) -> None:
    view = await page.begin(step=0, difficulty=3)
    assert view.url.endswith("/") and not heading(view)
    await page.click(named(view, "button", "START"))
    for step in (1, 2, 3):
        view = await page.until(lambda seen, step=step: heading(seen) == f"Step {step} of 3")
        assert view.url.endswith(f"/step/{step}")
        for label in ("Accept all", "Dismiss|Got it|I understand", "No, thanks|Not interested", "Maybe later|Not now"):
            # What lies above the page goes first, as a person would do it.
            while [e for e in view.elements if e.role == "button" and re.fullmatch(label, e.name)]:
                modal = [e for e in view.elements if re.fullmatch("Dismiss|Got it|I understand", e.name)]
                count = len(view.elements)
                await page.click(modal[0] if modal else named(view, "button", f"^({label})$"))
                view = await page.until(lambda seen, count=count: len(seen.elements) < count)
        code = await reveal(page, view)
        view = await observe(page.session)
        await execute(page.session, Fill(ref=field(view).ref or "", value=code.lower()))
        late = [e for e in view.elements if re.fullmatch("No, thanks|Not interested|Maybe later|Not now", e.name)]
        for element in late:
            await page.click(element)
        await page.click(named(view, "button", "^(Submit|Next|Check code|Continue)$"))
    view = await page.until(lambda seen: seen.url.endswith("/finish"))
    assert any("3" in e.name for e in view.elements)
    status = page.status
    assert status["finished"] and [s["step"] for s in status["solved"]] == [1, 2, 3] and status["wrong"] == 0


@pytest.mark.parametrize("skin", ["a", "b"])
async def test_a_run_by_keyboard(page: Player, skin: str) -> None:
    view = await page.begin(11, skin=skin, difficulty=1)
    for step in (1, 2, 3):
        view = await page.until(lambda seen, step=step: heading(seen) == f"Step {step} of 3")
        await page.press(wanted(view), "Enter" if step == 1 else " ")
        before, view = view, await page.until(lambda seen, view=view: shown_code(seen, view))
        code = shown_code(view, before)
        assert code is not None
        await execute(page.session, Type(ref=field(view).ref or "", text=code[:3] + "X"))
        await page.press(field(view), "Backspace")
        await execute(page.session, Type(ref=field(view).ref or "", text=code[3:]))
        await page.press(field(view), "Enter")
    await page.until(lambda seen: seen.url.endswith("/finish"))
    assert page.status["finished"] and [s["wrong"] for s in page.status["solved"]] == [0, 0, 0]


async def test_the_address_is_the_servers_word(page: Player) -> None:
    view = await page.begin()
    code = await reveal(page, view)
    await execute(page.session, Fill(ref=field(view).ref or "", value=code))
    await page.press(field(view), "Enter")
    await page.until(lambda seen: heading(seen) == "Step 2 of 3")
    for path in ("/step/3", "/step/1", "/", "/finish"):
        await page.session.goto(page.server.base_url + path)
        view = await page.until(lambda seen: heading(seen))
        assert heading(view) == "Step 2 of 3" and view.url.endswith("/step/2")
    await page.session.page.reload()
    assert heading(await page.until(lambda seen: heading(seen))) == "Step 2 of 3"
    await page.in_page("history.pushState(null, '', '/step/3'); history.back(); history.forward();")
    await page.in_page("document.querySelectorAll('button').forEach((button) => button.click())")
    await page.settled()
    assert page.status["step"] == 2 and page.status["wrong"] == 0
    await page.session.page.reload()
    assert heading(await page.until(lambda seen: heading(seen))) == "Step 2 of 3"
    await reveal(page, await observe(page.session))


async def test_a_stranger_begins_at_the_start(browser: Browser, server: GauntletServer, gateway: OriginGateway) -> None:
    session = await browser.new_context(gateway=gateway.url)
    try:
        await session.goto(f"{server.base_url}/step/3")
        view = await Player(session, server).until(lambda seen: seen.elements)
        assert view.url == f"{server.base_url}/" and named(view, "button", "START")
        assert await session.page.evaluate("document.cookie") == ""
    finally:
        await session.close()


@pytest.mark.parametrize("skin", ["a", "b"])
async def test_it_fits_a_phone(browser: Browser, server: GauntletServer, gateway: OriginGateway, skin: str) -> None:
    session = await browser.new_context(gateway=gateway.url, viewport=(360, 700))
    try:
        page = Player(session, server)
        for seed in (1, 2):
            view = await page.begin(seed, skin=skin, difficulty=3)
            width, small = await page.in_page("""
                const small = [...document.querySelectorAll("button")].filter((button) => button.offsetHeight < 40);
                return [document.documentElement.scrollWidth, small.map((button) => button.textContent)];
            """)
            assert width == 360 and small == []
            assert len(view.elements) <= 60
    finally:
        await session.close()


@pytest.mark.parametrize("skin", ["a", pytest.param("b", marks=pytest.mark.slow)])
async def test_every_type_draws_itself(
    browser: Browser, server: GauntletServer, gateway: OriginGateway, skin: str
) -> None:
    session = await browser.new_context(gateway=gateway.url, viewport=(360, 700), tabs=True, service_workers=True)
    said: list[str] = []
    session.page.on("pageerror", lambda error: said.append(str(error)))
    session.page.on("console", lambda message: said.append(message.text))
    try:
        page = Player(session, server)
        for name in TYPES:
            difficulty = 1 if skin == "a" else 3
            view = await page.begin(3, types=(name,), skin=skin, difficulty=difficulty)
            assert page.status["error"] is None and said == [], name
            assert heading(view) == "Step 1 of 3" and len(view.elements) <= 60, name
            assert not [e for e in view.elements if "no component" in e.name], name
            assert await page.in_page("return document.documentElement.scrollWidth") <= 360, name
    finally:
        await session.close()
