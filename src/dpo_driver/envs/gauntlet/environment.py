"""The gauntlet as an Environment: runs with a share of the reward for each step, or single steps reached directly.

``GauntletEnvironment.source()`` keeps server, gateway and browser running and gives the factory that rollouts ask for;
``elsewhere("http://127.0.0.1:9000")`` does the same for a site of the same kind that somebody else serves. An episode
has a browser context of its own: no cookie, no stored entry and no service worker outlives it. Listed in
core/plugins.py; called by rollout/ and envs/gym.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Page

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.browser.execute import Grants, execute
from dpo_driver.browser.observe import Limits, PageView, observe
from dpo_driver.browser.session import CALL_S, Session
from dpo_driver.core.actions import FILES, OPT_IN, Action
from dpo_driver.core.errors import ActionError, RolloutFailure
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Observation, StopReason, Task
from dpo_driver.envs.gauntlet.sites import ForeignSite, GauntletSite, OwnSite, Visit
from dpo_driver.envs.gauntlet.tasks import STEPS, Setting, setting_of
from dpo_driver.envs.website.watch import Watch

VIEWPORT = (1280, 720)
QUIET_MS = 20.0  # two frames are waited for in any case
FOREIGN_QUIET_MS = 60.0  # nobody tells when such a site has drawn its answer
STILL_S = 0.25  # for movements that end, such as a popup sliding in; some things never rest
SETTLE_S = 8.0
TAB_S = 3.0  # for a tab that the page opens: our server holds its page back for up to 2 s
LIMITS = Limits()
_ELSEWHERE = FILES | OPT_IN


class _Tab(Watch):
    """What a tab is about to do, and what goes over its line to the server (see sites.py, ``Line``)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._line: str | None = None
        self._frames_sent = self.received = 0
        self.opened = 0  # tabs, since the last action

    @property
    def connected(self) -> bool:
        return self._line is not None

    @property
    def sent(self) -> int:
        return max(0, self._frames_sent - 1)  # the first is the key

    def _events(self) -> dict[str, Any]:
        return super()._events() | {
            "Network.webSocketCreated": self._created,
            "Network.webSocketClosed": self._ended_line,
            "Network.webSocketFrameSent": self._sent,
            "Network.webSocketFrameReceived": self._received,
            "Page.windowOpen": self._opens,
        }

    def _created(self, event: dict[str, Any]) -> None:
        if urlsplit(event["url"]).path == "/channel":
            self._line, self._frames_sent, self.received = event["requestId"], 0, 0

    def _ended_line(self, event: dict[str, Any]) -> None:
        if event["requestId"] == self._line:
            self._line = None

    def _sent(self, event: dict[str, Any]) -> None:
        self._frames_sent += event["requestId"] == self._line and event["response"]["opcode"] == 1

    def _received(self, event: dict[str, Any]) -> None:
        self.received += event["requestId"] == self._line and event["response"]["opcode"] == 1

    def _opens(self, event: dict[str, Any]) -> None:
        self.opened += bool(event.get("userGesture"))


@dataclass
class _Play:
    """What belongs to the episode that is running."""

    task: Task
    setting: Setting
    visit: Visit
    session: Session
    allows: Callable[[str], bool]
    tabs: dict[Page, _Tab] = field(default_factory=dict)
    appeared: int = 0  # tabs, since the last action
    arrival: asyncio.Event = field(default_factory=asyncio.Event)
    solved: int = 0
    actions: int = 0  # on the step that is being played

    def watch_for_tabs(self) -> None:
        self.session.page.context.on("page", self._appears)

    def _appears(self, _page: Page) -> None:
        self.appeared += 1
        self.arrival.set()

    def begin_action(self) -> None:
        """What is opened from now on was opened by this action."""
        self.appeared = 0
        for tab in self.tabs.values():
            tab.opened = 0

    async def tab(self) -> _Tab:
        """The watch over the tab that is seen."""
        page = self.session.page
        if page not in self.tabs:
            self.tabs[page] = await _Tab.open(self.session, self.allows)
        return self.tabs[page]

    async def follow(self, tab: _Tab) -> bool:
        """See what this tab has opened, once it is there; False where nothing was opened."""
        end = asyncio.get_running_loop().time() + TAB_S
        while self.appeared < tab.opened:
            self.arrival.clear()
            left = end - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self.arrival.wait(), left)
            except TimeoutError:  # it was not let open
                break
        if not await self.session.tabs.follow():
            return False
        async with self.session.deadline("opening a tab"):
            await self.session.page.wait_for_load_state("load", timeout=0)
        return True

    @property
    def asked(self) -> int:
        """Steps that make the task solved."""
        family = self.setting.family
        return self.visit.count or STEPS if family.kind == "run" and family.until == STEPS else family.until


class GauntletEnvironment:
    """One page, and the tabs that it opens; one episode at a time, each in a context of its own.

    A step family gives 1 when its step is solved. A run gives each solved step its share, so that an episode's sum is
    steps solved / steps asked. What is solved is the server's word, except on a site of somebody else, where it is what
    the pages show. A wrong code ends nothing.

    Args:
        site: who serves it.
        browser: shared with other environments.
        gateway: the proxy that lets the site's origin through and nothing else.
    """

    def __init__(
        self,
        site: GauntletSite,
        browser: Browser,
        gateway: OriginGateway,
        *,
        viewport: tuple[int, int] = VIEWPORT,
        call_s: float = CALL_S,
    ) -> None:
        self._site, self._browser, self._gateway = site, browser, gateway
        self._viewport, self._call_s = viewport, call_s
        self._session: Session | None = None
        self._play: _Play | None = None
        self._owned = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def source(
        cls, site: Callable[[], OwnSite | ForeignSite] = OwnSite, *, executable: Path | None = None,
        headed: bool = False, viewport: tuple[int, int] = VIEWPORT, call_s: float = CALL_S,
    ) -> AsyncIterator[Callable[[], Awaitable[GauntletEnvironment]]]:  # fmt: skip
        """Site, gateway and browser for as long as the block lasts, and the factory of environments.

        Args:
            site: makes what is played; ``partial(OwnSite, secret=...)`` for codes that others cannot compute.

        Raises:
            ConfigError: the site does not answer, or cannot be started.
            BrowserMissingError: there is no Chromium, or it does not start.
        """
        async with AsyncExitStack() as stack:
            served = site()
            stack.push_async_callback(served.close)
            await served.open()
            gateway = stack.enter_context(OriginGateway(allowed=[_origin(served.base_url)]))
            browser = await Browser.launch(executable, headed=headed)
            stack.push_async_callback(browser.close)

            async def make() -> GauntletEnvironment:
                return cls(served, browser, gateway, viewport=viewport, call_s=call_s)

            yield make

    @classmethod
    async def create(cls, **how: Any) -> GauntletEnvironment:
        """A single environment with a browser and a server of its own, ended by ``close``."""
        async with AsyncExitStack() as stack:
            make = await stack.enter_async_context(cls.source(**how))
            environment = await make()
            environment._owned = stack.pop_all()
            return environment

    @property
    def session(self) -> Session | None:
        """The browser session of the moment; None before the first reset and after a failure."""
        return self._session if self._session is not None and self._session.failure is None else None

    async def reset(self, task: Task) -> Observation:
        """Begin the seeded episode in a new context. Equal tasks give equal state hashes, codes included.

        Raises:
            UnknownNameError, ConfigError: there is no such task.
            RolloutFailure: the server, the page or the browser broke.
        """
        setting = setting_of(task, self._site.families)
        await self._leave()
        visit = await self._site.visit(task, setting)
        session = self._session = await self._browser.new_context(
            gateway=self._gateway.url, viewport=self._viewport, call_s=self._call_s, tabs=True, service_workers=True
        )
        play = _Play(task, setting, visit, session, self._gateway.allows)
        play.watch_for_tabs()
        await play.tab()  # before the page opens its line
        await session.goto(visit.url)
        view = await self._look(play, fresh=True)
        play.solved = await visit.solved(view)
        session.take_events()
        self._play = play
        return view.observation(setting.family.goal)

    async def step(self, action: Action) -> Outcome:
        """Carry out one action and read what came of it, once the page has settled.

        Raises:
            RolloutFailure: the server, the page or the browser broke.
            RuntimeError: no episode is running.
        """
        play = self._play
        if play is None:
            raise RuntimeError("step before reset, or after the end of the episode")
        play.begin_action()
        error: str | None = None
        try:
            if action.kind in _ELSEWHERE:
                raise ActionError(f"{action.kind} is not available here")
            await execute(play.session, action, Grants(allows=play.allows))
        except ActionError as problem:
            error = str(problem)
        view = await self._look(play)
        reward, stop = self._judge(play, await play.visit.solved(view), action)
        if stop is not None:
            self._play = None
        return Outcome(view.observation(play.setting.family.goal, error or _told(play)), reward, stop)

    def _judge(self, play: _Play, solved: int, action: Action) -> tuple[float | None, StopReason | None]:
        """What the action earned, and whether it ends the episode."""
        new, play.solved = min(solved, play.asked) - min(play.solved, play.asked), max(solved, play.solved)
        play.actions = 0 if new > 0 else play.actions + 1
        stop: StopReason | None = None
        if play.solved >= play.asked:
            stop = StopReason.SUCCESS
        elif action.kind == "report_infeasible":
            stop = StopReason.INFEASIBLE
        elif play.setting.family.kind == "run" and play.actions >= play.setting.actions_a_step:
            stop = StopReason.MAX_STEPS
        if new > 0:
            return new / play.asked, stop
        return (None if stop is None else 0.0), stop

    async def screenshot(self) -> bytes:
        """JPEG of the viewport."""
        session = self.session
        if session is None:
            raise RolloutFailure(StopReason.BROWSER_LOST, "there is no page to take a picture of")
        return await session.screenshot((0, 0, *session.viewport))

    async def close(self) -> None:
        await self._leave()
        await self._owned.aclose()

    async def _leave(self) -> None:
        session, self._session, self._play = self._session, None, None
        if session is not None:
            await session.close()

    async def _look(self, play: _Play, *, fresh: bool = False) -> PageView:
        """The page once the server has dealt with all input, its answer is drawn, and nothing is on its way. What the
        clock alone will change is not waited for."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLE_S
        quiet = QUIET_MS if isinstance(self._site, OwnSite) else FOREIGN_QUIET_MS
        while True:
            tab = await play.tab()
            idle = await tab.settle(quiet, STILL_S)
            if await play.follow(tab) or (not idle and loop.time() < end):
                continue
            if (tab.status or 0) >= 500:
                raise RolloutFailure(StopReason.SERVER_ERROR, f"the site answered {tab.status}")
            if await play.visit.in_step(tab):
                break
            if loop.time() > end:
                raise RolloutFailure(StopReason.SERVER_ERROR, "the page is not in step with its server")
        return await observe(play.session, LIMITS, fresh=fresh)


def _origin(base_url: str) -> str:
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc}"


def _told(play: _Play) -> str | None:
    """What the page did besides, in words for the agent."""
    said = [f'the page opened a {event.kind}: "{event.text}"' for event in play.session.take_events()]
    for tab in play.tabs.values():
        said += [f"{url[:120]} is not part of this site and was not opened" for url in tab.take_refused()]
    return "; ".join(said) or None


def elsewhere(
    place: str,
) -> Callable[..., AbstractAsyncContextManager[Callable[[], Awaitable[GauntletEnvironment]]]]:
    """What opens the environments of a site that somebody else serves, for a rollout.

    Raises:
        ConfigError: the place is no address.
    """
    ForeignSite(place)
    return partial(GauntletEnvironment.source, partial(ForeignSite, place))
