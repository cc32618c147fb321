"""Plays the gauntlet in a real browser through the public actions, for the tests of its site."""

from __future__ import annotations

import re
import time
from typing import Any

from playwright.async_api import WebSocket

from dpo_driver.browser.execute import execute
from dpo_driver.browser.observe import PageView, observe
from dpo_driver.browser.session import Session
from dpo_driver.core.actions import Click, KeyboardPress, Press
from dpo_driver.core.records import Element
from dpo_driver.envs.gauntlet.serve import GauntletServer

CODE = re.compile(r"\b[A-HJ-NP-Z2-9]{6}\b")
WAIT_S = 10.0


class Player:
    """Plays through the public actions."""

    def __init__(self, session: Session, server: GauntletServer) -> None:
        self.session, self.server, self.visit = session, server, ""
        self.sent: list[str | bytes] = []  # on the channel, by the page that is open
        session.page.on("websocket", self._listen)

    async def begin(self, seed: int = 7, **how: Any) -> PageView:
        self.visit = f"visit-{seed}-{time.monotonic_ns()}"
        await self.session.goto(self.server.start_url(seed, visit=self.visit, **how))
        return await self.until(lambda view: bool(view.elements))

    async def until(self, seen: Any) -> PageView:
        deadline = time.monotonic() + WAIT_S
        while not seen(view := await observe(self.session)):
            assert time.monotonic() < deadline, [e.label for e in view.elements]
            await self.session.isolated("new Promise(requestAnimationFrame)")
        return view

    async def press(self, element: Element, key: str) -> None:
        assert element.ref is not None
        await execute(self.session, Press(ref=element.ref, key=key))

    async def click(self, element: Element) -> None:
        assert element.ref is not None
        await execute(self.session, Click(ref=element.ref))

    async def in_page(self, code: str) -> Any:
        """Run a script in the page's own world, as an adversary would."""
        return await self.session.page.evaluate(f"async () => {{ {code} }}")

    @property
    def status(self) -> dict[str, Any]:
        return self.server.status(self.visit)

    def _listen(self, socket: WebSocket) -> None:
        if socket.url.endswith("/channel"):
            sent = self.sent = []
            socket.on("framesent", lambda message: sent.append(message))

    async def settled(self) -> None:
        """What was done before has been reported, and the server has dealt with it."""
        marks = sum('"Escape"' in str(message) for message in self.sent)
        await execute(self.session, KeyboardPress(key="Escape"))
        deadline = time.monotonic() + WAIT_S
        while sum('"Escape"' in str(message) for message in self.sent) < marks + 2:  # keydown, keyup
            assert time.monotonic() < deadline
            await self.session.isolated("new Promise(requestAnimationFrame)")
        while self.status["heard"] < len(self.sent) - 1:  # the first of them holds the key
            assert time.monotonic() < deadline
            await self.session.isolated("new Promise(requestAnimationFrame)")


def named(view: PageView, role: str, pattern: str) -> Element:
    return next(e for e in view.elements if e.role == role and re.search(pattern, e.name))


def wanted(view: PageView) -> Element:
    """The button that the puzzle's text names."""
    label = next(m[1] for e in view.elements if e.role == "text" and (m := re.search(r'"(.+?)"', e.name)))
    return named(view, "button", f"^{re.escape(label)}$")


def field(view: PageView) -> Element:
    return next(e for e in view.elements if e.role == "textbox" and re.search("code|key", e.name, re.IGNORECASE))


def heading(view: PageView) -> str:
    return next((e.name for e in view.elements if e.role == "heading" and e.name.startswith("Step")), "")


def shown_code(view: PageView, before: PageView) -> str | None:
    old = {e.name for e in before.elements}
    return next((m[0] for e in view.elements if e.name not in old and (m := CODE.search(e.name))), None)


async def reveal(page: Player, view: PageView) -> str:
    await page.click(wanted(view))
    view_with_code = await page.until(lambda seen: shown_code(seen, view))
    code = shown_code(view_with_code, view)
    assert code is not None
    return code
