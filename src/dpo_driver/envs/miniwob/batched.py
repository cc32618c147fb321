"""MiniWoB++ many times in one page: an Environment per same-origin frame, and one browser call for all that wait.

A frame shows what a page of its own would show, but acts by synthetic events, which are not a person's: some pages
answer them differently. So only the tasks of certified.json run in frames (``dpo-driver certify`` holds them equal to
trusted input, in observations and rewards, seed by seed); all others run in MiniwobEnvironment without further ado.
Called by rollout/. The trusted environment stays the one that results are reported with.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.observe import OBSERVER_SCRIPT, asked, view_of
from dpo_driver.browser.session import CALL_S, ScriptError, Session
from dpo_driver.core.actions import Action, Noop
from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Observation, StopReason, Task
from dpo_driver.envs.miniwob.environment import (
    BRIDGE_SCRIPT,
    LIMITS,
    SETTLE_MS,
    TASK_AREA,
    VIEWPORT,
    MiniwobEnvironment,
    Premises,
    outcome_of,
)
from dpo_driver.envs.miniwob.server import BASE_URL, HOST_PAGE
from dpo_driver.envs.miniwob.tasks import TaskSpec, find_task

FRAMES_SCRIPT = files(__package__).joinpath("frames.js").read_text(encoding="utf-8")
FRAMES_PER_PAGE = 32
PAGES = max(1, os.cpu_count() or 1)  # a page's frames share a thread of the browser: one for each core
KNOWN = frozenset({"click", "fill", "clear", "focus", "select_option", "noop"})
LOADS_PER_PAGE = 2_000  # of tasks into frames: what a browser keeps of old documents is worth a new page then
_SAID = frozenset({"send_msg_to_user", "report_infeasible"})  # messages are for the environment, not for the page


@lru_cache(maxsize=1)
def certified() -> frozenset[str]:
    """The families whose frames are proven equal to pages of their own; certify.py writes the list."""
    text = files(__package__).joinpath("certified.json").read_text(encoding="utf-8")
    return frozenset(json.loads(text)["tasks"])


@dataclass
class _Request:
    asked: dict[str, Any]
    answer: asyncio.Future[dict[str, Any]]


class FramePage:
    """One browser page with many task frames. Requests that wait at the same time are one call; the next call's
    requests gather meanwhile."""

    def __init__(self, session: Session, handle: str) -> None:
        self._session, self._handle = session, handle
        self._waiting: list[_Request] = []
        self._runner: asyncio.Task[None] | None = None
        self.frames = 0
        self.free: list[int] = []
        self._loads = 0

    @classmethod
    async def open(cls, browser: Browser, gateway: str, call_s: float = CALL_S) -> FramePage:
        """A page of its own context, without frames yet."""
        session = await browser.new_context(gateway=gateway, viewport=VIEWPORT, call_s=call_s)
        await session.goto(HOST_PAGE)
        arguments = ", ".join(json.dumps(value) for value in (BRIDGE_SCRIPT, OBSERVER_SCRIPT, VIEWPORT))
        return cls(session, await session.handle(f"{FRAMES_SCRIPT}({arguments})"))

    @property
    def failure(self) -> RolloutFailure | None:
        """What the page died of; None while it is alive."""
        return self._session.failure

    @property
    def worn(self) -> bool:
        """Whether environments should move on to another page."""
        return self._loads >= LOADS_PER_PAGE

    @property
    def in_use(self) -> int:
        """Frames that environments have."""
        return self.frames - len(self.free)

    def has_room(self, most: int) -> bool:
        """Whether another environment can have a frame here."""
        return not self.worn and self.in_use < most

    async def add(self) -> int:
        """One more frame; its index."""
        self.frames += 1
        return int(await self._session.call_on(self._handle, "function () { return this.add(); }"))

    async def load(self, frame: int, name: str) -> None:
        """Show a task family in a frame."""
        self._loads += 1
        try:
            await self._session.call_on(
                self._handle, "function (...values) { return this.load(...values); }", frame, f"{BASE_URL}{name}.html"
            )
        except ScriptError as error:
            raise RolloutFailure(StopReason.SERVER_ERROR, f"{name} did not load as it should: {error}") from error

    async def turn(self, frame: int, action: Action | None = None, seed: int | None = None) -> dict[str, Any]:
        """Act and read the reward, or start an episode; and observe. See frames.js.

        Raises:
            RolloutFailure: the page or the browser broke, or the task's own script did.
        """
        words: dict[str, Any] = {"frame": frame, "limits": asked(LIMITS)}
        if action is not None:
            words["action"] = action.model_dump()
        if seed is not None:
            words["seed"] = seed
        request = _Request(words, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name="frames")
        answer = await request.answer
        if "broken" in answer:
            raise RolloutFailure(StopReason.SERVER_ERROR, f"the task's own script failed: {answer['broken']}")
        return answer

    async def settle(self, frame: int, *, fresh: bool) -> dict[str, Any]:
        """Wait until no timer of a frame is due soon, and observe."""
        text = await self._session.call_on(
            self._handle,
            "function (...values) { return this.settle(...values); }",
            frame,
            SETTLE_MS,
            asked(LIMITS),
            fresh,
        )
        answer: dict[str, Any] = json.loads(text)
        return answer

    async def screenshot(self) -> bytes:
        """JPEG of the frame that lies on top."""
        return await self._session.screenshot(TASK_AREA, scale=2)

    async def close(self) -> None:
        """End the page and what waits for it."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        await self._session.close()

    async def _run(self) -> None:
        batch: list[_Request] = []
        lost = RolloutFailure(StopReason.BROWSER_LOST, "the page of frames was closed")
        try:
            while self._waiting:
                await asyncio.sleep(0)  # whoever is ready now comes along
                batch, self._waiting = self._waiting, []
                try:
                    text = await self._session.call_on(
                        self._handle, "function (asked) { return this.turn(asked); }", [r.asked for r in batch]
                    )
                except RolloutFailure as failure:
                    _fail(batch, failure)
                except ScriptError as error:
                    _fail(batch, RolloutFailure(StopReason.SERVER_ERROR, f"the frames' script failed: {error}"))
                else:
                    for request, answer in zip(batch, json.loads(text), strict=True):
                        if not request.answer.done():
                            request.answer.set_result(answer)
        finally:
            _fail((*batch, *self._waiting), lost)
            self._waiting = []


def _fail(requests: Sequence[_Request], failure: RolloutFailure) -> None:
    for request in requests:
        if not request.answer.done():
            request.answer.set_exception(failure)


class FramePages:
    """Pages with room for frames; one that is dead or worn is replaced when the next frame is asked for."""

    def __init__(self, premises: Premises, per_page: int) -> None:
        self._premises, self._per_page = premises, per_page
        self._pages: list[FramePage] = []
        self._lock = asyncio.Lock()

    async def frame(self) -> tuple[FramePage, int]:
        """A page and the index of a new frame in it."""
        async with self._lock:
            over = [page for page in self._pages if page.failure is not None or (page.worn and not page.in_use)]
            self._pages = [page for page in self._pages if page not in over]
            for page in over:
                await page.close()
            roomy = [page for page in self._pages if page.has_room(self._per_page)]
            if not roomy or len([page for page in self._pages if not page.worn]) < PAGES:
                roomy = [await FramePage.open(self._premises.browser, self._premises.server.gateway)]
                self._pages += roomy
            page = min(roomy, key=lambda page: page.in_use)
            return page, page.free.pop() if page.free else await page.add()

    async def close(self) -> None:
        for page in self._pages:
            await page.close()


class BatchedEnvironment:
    """One frame, one episode at a time; a page of its own for what is not certified."""

    def __init__(self, pages: FramePages, alone: MiniwobEnvironment, tasks: frozenset[str]) -> None:
        self._pages, self._alone, self._tasks = pages, alone, tasks
        self._page: FramePage | None = None
        self._frame = 0
        self._spec: TaskSpec | None = None
        self._goal = ""
        self._running = False
        self._in_frame = False

    @classmethod
    @asynccontextmanager
    async def source(
        cls, *, executable: Path | None = None, tasks: frozenset[str] | None = None, per_page: int = FRAMES_PER_PAGE
    ) -> AsyncIterator[Callable[[], Awaitable[BatchedEnvironment]]]:
        """Open browser and server and give the factory that rollouts ask for.

        Args:
            tasks: the families that run in frames; the certified ones when None.
            per_page: most frames of one browser page.

        Raises:
            BrowserMissingError: there is no Chromium, or it does not start.
        """
        chosen = certified() if tasks is None else tasks
        async with MiniwobEnvironment.source(executable=executable) as premises:
            pages = FramePages(premises, per_page)

            async def make() -> BatchedEnvironment:
                return cls(pages, await premises(), chosen)

            try:
                yield make
            finally:
                await pages.close()

    async def reset(self, task: Task) -> Observation:
        """Start the seeded episode, in a frame if the task is certified. Raises as MiniwobEnvironment does."""
        spec = find_task(task.name)
        self._in_frame = spec.name in self._tasks and not spec.clocked  # frames have no clock of ours
        if not self._in_frame:
            return await self._alone.reset(task)
        self._running = False
        if self._page is None or self._page.failure is not None or self._page.worn:
            self._leave()
            self._page, self._frame = await self._pages.frame()
            self._spec = None
        if spec is not self._spec or spec.reload:
            self._spec = None
            await self._page.load(self._frame, spec.name)
            self._spec = spec
        answer = await self._ask(seed=task.seed)
        if answer["soon"]:
            answer |= await self._page.settle(self._frame, fresh=True)
        if answer["done"]:
            self._spec = None
            raise RolloutFailure(StopReason.SERVER_ERROR, f"{spec.name} with seed {task.seed} ended before it began")
        self._goal, self._running = answer["goal"], True
        return view_of(answer["view"]).observation(self._goal)

    async def step(self, action: Action) -> Outcome:
        """Carry out one action; see MiniwobEnvironment.step."""
        if not self._in_frame:
            return await self._alone.step(action)
        if self._page is None or not self._running:
            raise RuntimeError("step before reset, or after the end of the episode")
        known = action.kind in KNOWN
        answer = await self._ask(action if known else Noop())
        error = answer["error"] if known or action.kind in _SAID else f"{action.kind} is not available here"
        if answer["soon"] and not answer["done"]:
            answer |= await self._page.settle(self._frame, fresh=False)
        observation = view_of(answer["view"]).observation(self._goal, error)
        outcome = outcome_of(action, observation, answer)
        self._running = outcome.stop is None
        return outcome

    async def _ask(self, action: Action | None = None, seed: int | None = None) -> dict[str, Any]:
        assert self._page is not None
        try:
            return await self._page.turn(self._frame, action, seed)
        except RolloutFailure:
            self._spec = None  # half-started: the next reset loads the page again
            raise

    async def screenshot(self) -> bytes:
        """JPEG of the task area. Frames lie on top of each other, so pictures want pages of their own."""
        if not self._in_frame:
            return await self._alone.screenshot()
        raise RolloutFailure(StopReason.BROWSER_LOST, "frames cannot be photographed; use the environment 'miniwob'")

    async def close(self) -> None:
        self._leave()
        self._running = False
        await self._alone.close()

    def _leave(self) -> None:
        if self._page is not None:
            self._page.free.append(self._frame)  # the page is shared, and stays for the others
        self._page = None
