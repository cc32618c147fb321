"""Tabs: what a page opens is kept where the environment keeps tabs and closed elsewhere; an agent opens, sees and
closes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.execute import execute
from dpo_driver.browser.observe import observe
from dpo_driver.browser.session import Session
from dpo_driver.browser.tabs import MAX_TABS
from dpo_driver.core.actions import parse_action
from dpo_driver.core.errors import ActionError

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

OPENER = """<title>first</title><button id=b onclick="window.open('about:blank').document.body.innerHTML =
 '<title>second</title><button onclick=this.textContent=1>Go</button>'">Open</button>"""


@pytest_asyncio.fixture(loop_scope="module")
async def tabbed(browser: Browser) -> AsyncIterator[Session]:
    session = await browser.new_context(call_s=5, tabs=True)
    yield session
    await session.close()


async def do(session: Session, *written: str) -> None:
    for text in written:
        await execute(session, parse_action(text))


async def names(session: Session) -> list[str]:
    return [element.name for element in (await observe(session, fresh=True)).elements]


async def followed(session: Session) -> None:
    async with asyncio.timeout(5):
        while not await session.tabs.follow():
            await asyncio.sleep(0.01)


async def test_an_agent_opens_sees_and_closes_tabs(tabbed: Session) -> None:
    await tabbed.page.set_content("<p>one</p>")
    await do(tabbed, "new_tab()")
    assert len(tabbed.tabs.pages) == 2
    assert await names(tabbed) == []
    await tabbed.page.set_content("<p>two</p>")
    await do(tabbed, "new_tab()")
    await tabbed.page.set_content("<p>three</p><input>")
    await do(tabbed, "tab_focus(1)")
    assert await names(tabbed) == ["two"]
    await do(tabbed, "tab_focus(0)")
    assert await names(tabbed) == ["one"]
    await do(tabbed, "tab_focus(2)")
    await names(tabbed)
    await do(tabbed, 'fill("2", "typed")', "keyboard_press('!')")
    assert await tabbed.isolated("document.querySelector('input').value") == "typed!"
    await do(tabbed, "tab_close()")
    assert await names(tabbed) == ["two"]  # the latest of the others
    await do(tabbed, "tab_close()")
    assert await names(tabbed) == ["one"]
    with pytest.raises(ActionError, match="this is the only tab"):
        await do(tabbed, "tab_close()")
    for index in (1, -1, 99):
        with pytest.raises(ActionError, match=f"there is no tab {index}; there are 1"):
            await do(tabbed, f"tab_focus({index})")
    assert tabbed.failure is None
    assert not await tabbed.tabs.follow()


async def test_what_the_page_opens_is_kept_and_followed(tabbed: Session) -> None:
    await tabbed.page.set_content(OPENER)
    await names(tabbed)
    await do(tabbed, 'click("1")')
    await followed(tabbed)
    assert await names(tabbed) == ["Go"]
    await do(tabbed, 'click("1")')
    assert await names(tabbed) == ["1"]
    await do(tabbed, "tab_focus(0)")
    assert await names(tabbed) == ["Open"]
    # A tab that closes itself, beside the one that is seen and while it is seen.
    await tabbed.tabs.pages[1].evaluate("setTimeout(() => window.close(), 0) && 0")
    async with asyncio.timeout(5):
        while len(tabbed.tabs.pages) > 1:
            await asyncio.sleep(0.01)
    assert await names(tabbed) == ["Open"]
    await do(tabbed, 'click("1")')
    await followed(tabbed)
    await tabbed.page.evaluate("setTimeout(() => window.close(), 50) && 0")
    async with asyncio.timeout(5):
        while len(tabbed.tabs.pages) > 1:
            await asyncio.sleep(0.01)
    assert await names(tabbed) == ["Open"]
    assert tabbed.failure is None


async def test_tabs_are_counted(tabbed: Session) -> None:
    for _ in range(MAX_TABS - 1):
        await do(tabbed, "new_tab()")
    with pytest.raises(ActionError, match=f"there are {MAX_TABS} tabs already"):
        await do(tabbed, "new_tab()")
    await tabbed.page.evaluate("window.open('about:blank') && 0")
    async with asyncio.timeout(5):
        while "popup" not in {event.kind for event in tabbed.take_events()}:
            await asyncio.sleep(0.01)
    assert len(tabbed.tabs.pages) == MAX_TABS


async def test_where_there_are_no_tabs(session: Session) -> None:
    await session.page.set_content("<p>one</p>")
    for written in ("new_tab()", "tab_close()"):
        with pytest.raises(ActionError, match="there are no tabs here"):
            await do(session, written)
    with pytest.raises(ActionError, match="there is no tab 1; there are 1"):
        await do(session, "tab_focus(1)")
    await do(session, "tab_focus(0)")
    assert await names(session) == ["one"]
