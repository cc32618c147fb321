"""One Chromium for each module of browser tests, and a fresh session for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.session import Session


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    browser = await Browser.launch()
    yield browser
    await browser.close()
    assert browser.pids == []


@pytest_asyncio.fixture(loop_scope="module")
async def session(browser: Browser) -> AsyncIterator[Session]:
    session = await browser.new_context(call_s=5)
    yield session
    await session.close()
