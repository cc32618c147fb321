"""Attacks on time: the page's clocks are turned, stopped and rushed. What waits is the server, by a clock of its
own."""

from __future__ import annotations

import asyncio
import contextlib
import time

from playwright.async_api import Error as PlaywrightError

from dpo_driver.envs.gauntlet.audit.adversary import Adversary, script
from dpo_driver.envs.gauntlet.audit.table import attack

AHEAD_MS = 3_600_000
RUN_S = 10.0
_NOW = {"expression": "JSON.stringify([Date.now(), document.documentElement.outerHTML])", "returnByValue": True}


@attack("clocks", spoils=True)
async def rushed_clocks(it: Adversary) -> int:
    """Put Date, performance.now and events' times a day ahead, let all timers fire at once, finish all animations, play
    media at its end; then a trusted key on nothing."""
    it.keep("the page a day ahead", await it.main(script("rush")))
    await it.press_nothing()
    await it.settle()
    it.keep("the page a day ahead", await it.main("return document.body.innerText"))
    return 8


@attack("clocks", spoils=True)
async def virtual_time(it: Adversary) -> int:
    """Let the browser's own virtual time run an hour ahead, which takes all its timers and clocks along."""
    page = await it.page.context.new_page()
    try:
        await page.goto(f"{it.server.base_url}/step/1", timeout=1000 * RUN_S)
        await page.wait_for_selector("h1", state="attached", timeout=1000 * RUN_S)
        cdp = await page.context.new_cdp_session(page)
        over = asyncio.Event()

        def expired(_told: object) -> None:
            over.set()

        cdp.on("Emulation.virtualTimeBudgetExpired", expired)
        before = time.time() * 1000
        async with asyncio.timeout(RUN_S):
            await cdp.send("Emulation.setVirtualTimePolicy", {"policy": "advance", "budget": AHEAD_MS})
            await over.wait()
            text = str((await cdp.send("Runtime.evaluate", _NOW))["result"]["value"])
        if float(text[1:].partition(",")[0]) < before + AHEAD_MS / 2:
            raise RuntimeError("virtual time did not run: the attack is blind")
        it.keep("the page an hour ahead", text)
    finally:
        await page.close()
    return 1


@attack("clocks", spoils=True, types=("delayed-reveal",))
async def wait_cut_short(it: Adversary) -> int:
    """Start what waits with a trusted click on each part, as one may, and rush the page's clocks at once: the code may
    not come sooner than by the server's clock."""
    wait, tries = float(it.visit.puzzle._seconds), 0  # type: ignore[union-attr]
    for token in it.tokens:
        await it.main("unblock();")
        began = time.monotonic()
        with contextlib.suppress(PlaywrightError):
            await it.page.locator(f'[data-part="{token}"]').first.click(timeout=2000, force=True)
        text = await it.main(script("rush"))
        await it.settle()
        text += await it.main("return document.body.innerText")
        if it.visit.code(1) in text and time.monotonic() - began < wait:
            it.won(f"what takes {wait:g} s came after {time.monotonic() - began:.2f} s")
        tries += 1
        await it.reopen()
    it.signals.clear()  # they were trusted
    it.took.texts.clear()
    it.traffic.clear()
    await it.begin()
    return tries
