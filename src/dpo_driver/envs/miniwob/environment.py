"""MiniWoB++ in a real browser: an Environment whose pages are loaded once and then restarted from a seed in place.

``MiniwobEnvironment.source()`` opens one browser and one server and gives a factory of environments, one isolated
context each; ``MiniwobEnvironment.create()`` gives a single one that owns its browser. Seeding and reward go through
the bridge (bridge.js) in the page's world, reading through the distiller in an isolated one. Called by rollout/ and
envs/gym.py.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dpo_driver.browser import held
from dpo_driver.browser.browser import Browser
from dpo_driver.browser.execute import execute
from dpo_driver.browser.observe import Limits, PageView, observe
from dpo_driver.browser.session import CALL_S, ScriptError, Session
from dpo_driver.core.actions import FILES, NAVIGATION, OPT_IN, TABS, Action
from dpo_driver.core.errors import ActionError, RolloutFailure
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Observation, StopReason, Task
from dpo_driver.envs.miniwob.server import BASE_URL, MiniwobServer
from dpo_driver.envs.miniwob.tasks import TaskSpec, find_task

BRIDGE_SCRIPT = files(__package__).joinpath("bridge.js").read_text(encoding="utf-8")
CLOCK_SCRIPT = files(__package__).joinpath("clock.js").read_text(encoding="utf-8")
# The clock comes before the bridge, which takes hold of the page's timers; what it moves is the page's own doing.
CLOCKED_SCRIPT = f"""(() => {{
const clock = {CLOCK_SCRIPT};
const bridge = {BRIDGE_SCRIPT};
return {{ ...bridge, advance: (lasts) => clock.advance(lasts, bridge.acting) }};
}})()"""
TICK_MS = 100.0  # what an action takes on a page whose clock stands still between actions
VIEWPORT = (332, 214)  # the task's 160 x 210 and the area beside it where nothing of the task lies
TASK_AREA = (0.0, 0.0, 160.0, 210.0)
ASIDE = (330.0, 212.0)  # where the pointer waits, so that no episode begins with something hovered
SETTLE_MS = 1500
# Documents that were left wait for a lazy collector, a megabyte each, and Playwright remembers every request of a page.
LOADS_PER_COLLECTION = 25
LOADS_PER_CONTEXT = 200
SUCCESS_REWARD = 0.99
LIMITS = Limits(exclude="#query, #reward-display, #sync-task-cover, #click-canvas, #attention-canvas")
_ELSEWHERE = NAVIGATION | TABS | FILES | OPT_IN


class MiniwobEnvironment:
    """One page, one episode at a time. After a RolloutFailure the next reset makes a fresh context by itself.

    Args:
        browser: shared with other environments.
        gateway: the server's address, the only thing the page can reach.
        call_s: deadline of each browser call, in seconds.
    """

    picture_area = TASK_AREA  # what is worth showing of the viewport, in CSS pixels

    def __init__(self, browser: Browser, gateway: str, *, call_s: float = CALL_S) -> None:
        self._browser, self._gateway, self._call_s = browser, gateway, call_s
        self._session: Session | None = None
        self._spec: TaskSpec | None = None  # the task the page shows
        self._bridge = ""
        self._goal = ""
        self._running = False
        self._loads = 0  # of pages in this context
        self._owned = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def source(
        cls, *, executable: Path | None = None, call_s: float = CALL_S, headed: bool = False
    ) -> AsyncIterator[Premises]:
        """Open browser and server for as long as the block lasts and give the factory that rollouts ask for.

        Raises:
            BrowserMissingError: there is no Chromium, or it does not start.
        """
        premises = Premises(cls, await Browser.launch(executable, headed=headed), call_s)
        try:
            yield premises
        finally:
            await premises.close()

    @classmethod
    async def create(cls, *, executable: Path | None = None, call_s: float = CALL_S) -> MiniwobEnvironment:
        """A single environment with a browser and a server of its own, ended by ``close``."""
        async with AsyncExitStack() as stack:
            make = await stack.enter_async_context(cls.source(executable=executable, call_s=call_s))
            environment = await make()
            environment._owned = stack.pop_all()
            return environment

    @property
    def session(self) -> Session | None:
        """The browser session of the moment; None before the first reset and after a failure."""
        return self._session if self._session is not None and self._session.failure is None else None

    @property
    def _clocked(self) -> bool:
        return self._spec is not None and self._spec.clocked

    async def reset(self, task: Task) -> Observation:
        """Start the seeded episode. Equal task and seed give equal state hashes, whatever came before.

        Raises:
            UnknownNameError: there is no such task family.
            RolloutFailure: the page or the browser broke.
        """
        spec = find_task(task.name)
        self._running = False
        session = await self._ready_session()
        if spec is not self._spec or spec.reload:
            await self._load(session, spec)
        await held.release(session)
        session.mouse = (TASK_AREA[2] / 2, TASK_AREA[3] / 2)
        session.take_events()
        move = session.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=ASIDE[0], y=ASIDE[1])
        start = self._call("function (seed) { return this.start(seed); }", task.seed)
        _, state, view = await session.pipelined(move, start, observe(session, LIMITS, fresh=True))
        if state["soon"] and not spec.clocked:
            state, view = await self._settled(session, fresh=True)
        if state["done"]:
            self._spec = None
            raise RolloutFailure(StopReason.SERVER_ERROR, f"{spec.name} with seed {task.seed} ended before it began")
        self._goal, self._running = state["goal"], True
        observation: Observation = view.observation(self._goal)
        return observation

    async def step(self, action: Action) -> Outcome:
        """Carry out one action and read what came of it. ``reward`` is MiniWoB++'s raw reward, given when it ends the
        episode; full reward (>= 0.99) is success, anything else is wrong.

        Raises:
            RolloutFailure: the page or the browser broke.
            RuntimeError: no episode is running.
        """
        session = self._session
        if session is None or not self._running:
            raise RuntimeError("step before reset, or after the end of the episode")
        error: str | None = None
        try:
            if action.kind in _ELSEWHERE:
                raise ActionError(f"this task is a single page: {action.kind} is not available")
            if not (action.kind == "noop" and self._clocked):
                await execute(session, action)
        except ActionError as problem:
            error = str(problem)
        if self._clocked:
            lasts = getattr(action, "wait_ms", 0) or TICK_MS
            await self._call("function (lasts) { return this.advance(lasts); }", lasts)
        state, view = await self._look(session)
        observation = view.observation(self._goal, error or _told(session))
        outcome = outcome_of(action, observation, state)
        self._running = outcome.stop is None
        return outcome

    async def screenshot(self) -> bytes:
        """JPEG of the task area at twice its size."""
        session = self.session
        if session is None:
            raise RolloutFailure(StopReason.BROWSER_LOST, "there is no page to take a picture of")
        return await session.screenshot(TASK_AREA, scale=2)

    async def close(self) -> None:
        session, self._session, self._running = self._session, None, False
        if session is not None:
            await session.close()
        await self._owned.aclose()

    async def _ready_session(self) -> Session:
        if self._session is not None and (self._session.failure is not None or self._loads >= LOADS_PER_CONTEXT):
            await self._session.close()
            self._session = None
        if self._session is None:
            self._spec = None
            self._loads = 0
            self._session = await self._browser.new_context(
                gateway=self._gateway, viewport=VIEWPORT, call_s=self._call_s
            )
        return self._session

    async def _load(self, session: Session, spec: TaskSpec) -> None:
        self._spec = None
        self._loads += 1
        if self._loads % LOADS_PER_COLLECTION == 0:
            await session.cdp("HeapProfiler.collectGarbage")
        await session.goto(f"{BASE_URL}{spec.name}.html")
        try:
            self._bridge = await session.handle(CLOCKED_SCRIPT if spec.clocked else BRIDGE_SCRIPT)
            await session.call_on(self._bridge, "function () { return this.prepare(); }")
        except ScriptError as error:
            raise RolloutFailure(StopReason.SERVER_ERROR, f"{spec.name} did not load as it should: {error}") from error
        self._spec = spec

    async def _look(self, session: Session) -> tuple[dict[str, Any], PageView]:
        """Reward and page at once; again if timers were about to fire."""
        read = self._call("function () { return this.read(); }")
        state, view = await session.pipelined(read, observe(session, LIMITS))
        if state["soon"] and not state["done"] and not self._clocked:
            state, view = await self._settled(session)
        return state, view

    async def _settled(self, session: Session, *, fresh: bool = False) -> tuple[dict[str, Any], PageView]:
        state = await self._call("function (limit) { return this.settle(limit); }", SETTLE_MS)
        return state, await observe(session, LIMITS, fresh=fresh)

    async def _call(self, function: str, *arguments: Any) -> dict[str, Any]:
        assert self._session is not None
        try:
            answer: dict[str, Any] = await self._session.call_on(self._bridge, function, *arguments)
        except ScriptError as error:
            self._spec = None  # half-started: the next reset loads the page again
            raise RolloutFailure(StopReason.SERVER_ERROR, f"the task's own script failed: {error}") from error
        return answer


def outcome_of(action: Action, observation: Observation, state: dict[str, Any]) -> Outcome:
    """What an action came to, by the bridge's report."""
    stop: StopReason | None = None
    if state["done"]:
        stop = StopReason.SUCCESS if state["raw"] >= SUCCESS_REWARD else StopReason.WRONG
    elif action.kind == "report_infeasible":
        stop = StopReason.INFEASIBLE
    return Outcome(observation, state["raw"], stop)


class Premises:
    """The browser and the server that environments share, and their factory: ``environment = await premises()``.

    A browser that has died comes back by itself; a server that no longer answers is replaced for the next environment.
    """

    def __init__(self, kind: type[MiniwobEnvironment], browser: Browser, call_s: float) -> None:
        self.browser, self.server = browser, MiniwobServer()
        self._kind, self._call_s = kind, call_s

    async def __call__(self) -> MiniwobEnvironment:
        if not await asyncio.to_thread(_answers, self.server.gateway):
            gone, self.server = self.server, MiniwobServer()
            await asyncio.to_thread(gone.close)
        return self._kind(self.browser, self.server.gateway, call_s=self._call_s)

    async def close(self) -> None:
        """End both."""
        try:
            await self.browser.close()
        finally:
            await asyncio.to_thread(self.server.close)


def _answers(gateway: str) -> bool:
    """Whether somebody takes connections at this address."""
    address = urlsplit(gateway)
    try:
        socket.create_connection((address.hostname or "", address.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def _told(session: Session) -> str | None:
    """What the page did besides, in words for the agent."""
    said = [f'the page opened a {event.kind}: "{event.text}"' for event in session.take_events()]
    return "; ".join(said) or None
