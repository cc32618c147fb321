"""The adversary: a page of the gauntlet in a real Chromium, with scripts at will, and plain clients beside it.

It holds one visit of three steps of one type. Attacks run scripts in the page's own world (``it.main``) or through the
action ``js_eval`` (``it.js_eval``), and hand over what they got (``it.keep``). Trusted input is at hand, too, but what
counts as a leak may use it only on nothing (``it.press_nothing``). Used by play.py and the attacks. The server runs in
this process, so that the judge can see what arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page, Request, WebSocket

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.execute import Grants, execute
from dpo_driver.browser.session import Session
from dpo_driver.core.actions import JsEval
from dpo_driver.core.errors import ActionError
from dpo_driver.envs.gauntlet.audit.judge import READING, Judge, claims
from dpo_driver.envs.gauntlet.audit.outside import Outside, Reply
from dpo_driver.envs.gauntlet.channel import Line
from dpo_driver.envs.gauntlet.serve import GauntletServer
from dpo_driver.envs.gauntlet.server import COOKIE, Site
from dpo_driver.envs.gauntlet.signals import Signal
from dpo_driver.envs.gauntlet.visit import CODE, Visit

STEPS = 3
CALL_S = 30.0
HEARD_S = 5.0
TURN_S = 0.005  # between two looks at what another thread does


@cache
def script(*names: str) -> str:
    """The scripts of the audit by name, one after the other: together the body of an async function."""
    folder = files(__package__).joinpath("scripts")
    return "\n".join(folder.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in names)


@dataclass(frozen=True)
class Scene:
    """What is attacked."""

    type: str
    seed: int
    difficulty: int
    skin: str


@dataclass
class Took:
    """What an attack has got."""

    texts: list[tuple[str, str]] = field(default_factory=list)  # where from, what
    won: list[str] = field(default_factory=list)


class Adversary:
    """One scene, one browser context, one visit at a time. ``begin`` first, ``close`` at last.

    Args:
        server: one with ``inside=True``.
        gateway: address of the proxy that lets the browser reach it.
        keys: all that the server has given out.
    """

    def __init__(self, server: GauntletServer, browser: Browser, gateway: str, scene: Scene, keys: set[str]) -> None:
        assert server.site is not None
        self.server, self.site, self.scene = server, server.site, scene
        self.outside = Outside(server.base_url)
        self.signals: list[Signal] = []
        self.sent: list[str] = []  # by the sealed script that is there now
        self.traffic: list[str] = []  # all WebSocket frames, of all sockets
        self.figures: dict[str, Any] = {}
        self.took = Took()
        self.keys = keys
        self._browser, self._gateway = browser, gateway
        self._session: Session | None = None
        self._sealed: WebSocket | None = None
        self._visits = 0
        self._known: set[str] = set()

    # -- the visit -----------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """A new context with a new visit at its first step."""
        await self.close()
        self._session = await self._browser.new_context(
            gateway=self._gateway, call_s=CALL_S, tabs=True, service_workers=True
        )
        self._listen(self.page)
        self._visits += 1
        scene = self.scene
        self.name = f"audit-{scene.type}-{scene.seed}-{scene.difficulty}{scene.skin}-{self._visits}"
        self.start = self.server.start(
            scene.seed, visit=self.name, types=(scene.type,), steps=STEPS, difficulty=scene.difficulty,
            skin=scene.skin, step=1,
        )  # fmt: skip
        await self.session.goto(self.server.url_of(self.start))
        self._watch_visit()
        await self._drawn()

    async def reopen(self) -> None:
        """The same visit in the same tab, on a fresh document."""
        page = self.page
        if page.is_closed() or self._session is None or self._session.failure is not None:
            await self.begin()
            return
        try:
            await self.close_others()
            await self.session.goto(f"{self.server.base_url}/step/1")
            await self._drawn()
            async with asyncio.timeout(HEARD_S):
                while not self.line.connected:  # another visit's page: an attack has lost this one's cookie
                    await asyncio.sleep(TURN_S)
        except Exception:  # noqa: BLE001  whatever an attack has broken: a new context
            await self.begin()

    async def close_others(self) -> None:
        """Close what scripts have opened: a context keeps only so many tabs."""
        for page in self.page.context.pages:
            if page is not self.page:
                await page.close()

    @staticmethod
    def visit_of(reply: Reply) -> str:
        """The visit that a reply's cookie belongs to; "" without one."""
        return reply.header("Set-Cookie").partition(";")[0].removeprefix(f"{COOKIE}=").rpartition(".")[0]

    def forget(self, reply: Reply) -> None:
        """The server is to forget the visit that a reply began. Others are playing there at the same time."""
        name = self.visit_of(reply)
        if name != self.name:
            self.site._lines.pop(name, None)

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    @property
    def session(self) -> Session:
        assert self._session is not None
        return self._session

    @property
    def page(self) -> Page:
        return self.session.page

    @property
    def line(self) -> Line:
        line = self.site.line(self.name)
        assert line is not None
        return line

    @property
    def visit(self) -> Visit:
        return self.line.visit

    @property
    def tokens(self) -> list[str]:
        """Names of all parts of the puzzle as the page knows them: the adversary is taken to have guessed them."""
        puzzle = self.visit.puzzle
        assert puzzle is not None
        return [puzzle.setup.part(name) for name in puzzle.parts]

    @property
    def code_field(self) -> str:
        """The token of the field for the code."""
        puzzle = self.visit.puzzle
        assert puzzle is not None
        return puzzle.setup.part(CODE)

    async def cookie(self) -> str:
        """The Cookie header of this visit, which scripts cannot read: stolen for the clients outside."""
        for entry in await self.page.context.cookies(self.server.base_url):
            if entry.get("name") == COOKIE:
                return f"{COOKIE}={entry.get('value')}"
        return ""

    # -- what attacks do -----------------------------------------------------------------------------------------------

    async def main(self, code: str, given: Any = None) -> Any:
        """Run the body of an async function in the page's own world; ``given`` is its argument."""
        async with asyncio.timeout(CALL_S):
            return await self.page.evaluate(f"async (given) => {{ {script('kit')}\n{code} }}", given)

    async def js_eval(self, code: str, given: Any = None) -> str:
        """The same through the action ``js_eval``: in a world of its own, with pristine built-ins."""
        written = f"(async (given) => {{ {script('kit')}\n{code} }})({json.dumps(given)})"
        try:
            return await execute(self.session, JsEval(code=written), Grants(js_eval=True)) or ""
        except ActionError as error:
            return str(error)

    async def press_nothing(self, key: str = "Escape") -> None:
        """Trusted input on nothing: what may set the sealed script going, and is no evidence of anything."""
        with contextlib.suppress(PlaywrightError):
            await self.session.isolated("document.activeElement?.blur?.()")
        async with asyncio.timeout(CALL_S):
            await self.page.keyboard.press(key)

    async def press_enter_on_code(self) -> None:
        """Trusted Enter in the empty field for the code: the server answers, and has learnt nothing."""
        if not await self.focus_code():
            raise RuntimeError("the field for the code cannot be focused: the attack is blind")
        async with asyncio.timeout(CALL_S):
            await self.page.keyboard.press("Enter")

    async def focus_code(self) -> bool:
        """Put the cursor into the field for the code, whatever covers it."""
        return bool(
            await self.session.isolated(f"""(() => {{
                for (const e of document.querySelectorAll("[inert]")) e.inert = false;
                const field = document.querySelector('[data-field="{self.code_field}"]');
                field?.focus();
                return field !== null && document.activeElement === field;
            }})()""")
        )

    def keep(self, where: str, got: Any) -> None:
        """Hand over what was got hold of."""
        self.took.texts.append((where, got if isinstance(got, str) else json.dumps(got, ensure_ascii=False)))

    def won(self, what: str) -> None:
        """Say that something was reached that must not be."""
        self.took.won.append(what)

    # -- what came of it -----------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """All that the sealed script has sent has been dealt with."""
        with contextlib.suppress(Exception):  # an attack may have ended the document
            await self.session.isolated(
                "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD_S if self.line.connected else 0.0):
                while self.line.heard < len(self.sent) - 1 and self.line.connected:
                    await asyncio.sleep(TURN_S)

    def judged(self) -> list[str]:
        """What leaked since the last call."""
        took, self.took = self.took, Took()
        signals, self.signals[:] = list(self.signals), []
        texts, self.traffic[:] = [*took.texts, *(("a WebSocket's frame", text) for text in self.traffic)], []
        found = {what: f"{what} stands in {where}" for where, text in texts for what in self.judge.read(text)}
        # What leaked already is the finding of the attack that got it first.
        leaks = [said for what, said in sorted(found.items()) if what not in self._known]
        self._known |= found.keys()
        forged = [claim for signal in signals if (claim := claims(signal, self.code_field_or_none))]
        leaks += [f"evidence that nobody made: {claim}" for claim in dict.fromkeys(forged)]
        return leaks + took.won

    @property
    def code_field_or_none(self) -> str:
        return self.code_field if self.visit.puzzle is not None else ""

    async def listens(self) -> bool:
        """Whether trusted input still arrives: an audit of a dead page finds nothing."""
        heard = len(self.signals)
        await self.press_nothing()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD_S):
                while len(self.signals) < heard + 2:
                    await asyncio.sleep(TURN_S)
        return len(self.signals) >= heard + 2

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _drawn(self) -> None:
        async with asyncio.timeout(CALL_S):
            await self.page.wait_for_selector("h1", state="attached", timeout=0)

    def _watch_visit(self) -> None:
        """See every signal that reaches the visit, and every key that is given out for it."""
        visit = self.visit
        original = visit.on

        def on(signal: Signal) -> None:
            self.signals.append(signal)
            original(signal)

        visit.on = on  # type: ignore[method-assign]
        codes = {step: visit.code(step) for step in range(1, STEPS + 1)}
        readable = self.scene.type in READING
        self.judge = Judge(codes, 1, readable, public_texts(self.site))
        self.judge.keys = self.keys
        self._known = set()

    def _listen(self, page: Page) -> None:
        page.on("request", self._requested)
        page.on("websocket", self._opened)

    def _requested(self, request: Request) -> None:
        if self._session is None:  # a request of a context that is being closed
            return
        if request.is_navigation_request() and request.frame == self.page.main_frame:
            self._sealed = None  # the next channel is that of a new document

    def _opened(self, socket: WebSocket) -> None:
        if socket.url.endswith("/channel") and self._sealed is None:
            self._sealed, self.sent = socket, []
            sent = self.sent
            socket.on("framesent", lambda message: sent.append(str(message)))
        socket.on("framereceived", lambda message: self.traffic.append(str(message)))


def public_texts(site: Site) -> list[str]:
    """What everybody gets alike: it is long, and codes in it would be found by chance."""
    return [site._app, *(half for half in site._seal.split("@@KEY@@") if len(half) > 100)]
