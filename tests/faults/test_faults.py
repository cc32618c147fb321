"""What can break in a rollout is really broken, one fault a test: seen in time, typed, mended, and never a reward.

Each test rolls out tasks with several workers; during one step of one of them the fault strikes. Measured for every
worker that it hits: how long until the failure is raised, and how long from there to the next usable observation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psutil
import pytest

from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.browser.browser import Browser
from dpo_driver.core.actions import Action
from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Observation, StopReason, Task, Trajectory
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment, Premises
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.pool import RolloutProgress, rollout

pytestmark = [pytest.mark.faults, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

CALL_S = 2.0  # the deadline of every call
SEEN_S = CALL_S + 1.0
AT_ONCE_S = 1.0  # what the browser itself reports needs no deadline
BACK_S = 3.0
WORKERS = 3
# More families than workers: somebody has to load another page after the fault.
FAMILIES = ("enter-password", "click-test-2", "click-button-sequence", "use-autocomplete", "click-option")
SEEDS = 6
VICTIM = "miniwob.enter-password/0"
Strike = Callable[[Premises, MiniwobEnvironment], Awaitable[object]]


@dataclass
class Hit:
    """One worker's share of a fault."""

    worker: str
    kind: str
    seen_after: float
    failed_at: float
    back_after: float | None = None


@dataclass
class Log:
    strike: Strike
    premises: Premises | None = None
    struck: float | None = None
    hits: list[Hit] = field(default_factory=list)


class Sabotaged(MiniwobEnvironment):
    """An environment that is struck once, in the first step of the victim's first attempt, and keeps the time."""

    log: Log

    async def reset(self, task: Task) -> Observation:
        self._task = task
        seen = await self._timed(super().reset(task))
        for hit in self.log.hits:
            if hit.back_after is None and hit.worker == worker():
                hit.back_after = time.monotonic() - hit.failed_at
        return seen  # type: ignore[no-any-return]

    async def step(self, action: Action) -> Outcome:
        log = self.log
        if log.struck is None and self._task.id == VICTIM:
            assert log.premises is not None
            await log.strike(log.premises, self)
            log.struck = time.monotonic()
        return await self._timed(super().step(action))  # type: ignore[no-any-return]

    async def _timed(self, call: Awaitable[Any]) -> Any:
        began = time.monotonic()
        try:
            return await call
        except RolloutFailure as failure:
            now = time.monotonic()
            since = max(began, self.log.struck or began)
            self.log.hits.append(Hit(worker(), str(failure.kind), now - since, now))
            raise


def worker() -> str:
    task = asyncio.current_task()
    assert task is not None
    return task.get_name()


async def roll_out_with(strike: Strike) -> tuple[Log, list[Trajectory], RolloutProgress]:
    """Thirty tasks on three workers, one of them struck."""
    log = Log(strike)
    kind = type("Sabotaged", (Sabotaged,), {"log": log})
    found: list[Trajectory] = []
    tasks = [make_task(name, seed) for name in FAMILIES for seed in range(SEEDS)]
    async with kind.source(call_s=CALL_S) as premises:
        log.premises = premises
        progress = await asyncio.wait_for(
            rollout(
                tasks, OracleAgent(), environments=premises, stage="f", on_trajectory=found.append, workers=WORKERS
            ),
            90,
        )
        family = psutil.Process().children(recursive=True)
        assert (
            sum(child.is_running() and "--dpo-driver-owner" in " ".join(child.cmdline()) for child in alive(family))
            <= 2
        )
    assert psutil.Process().children(recursive=True) == [], "an orderly end leaves no child and no zombie"
    assert log.struck is not None
    return log, found, progress


def alive(processes: list[psutil.Process]) -> Iterator[psutil.Process]:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process


def check(log: Log, found: list[Trajectory], progress: RolloutProgress) -> None:
    """Everything but the fault's own kind and time: all tasks are done, nothing broken was scored."""
    for hit in log.hits:
        print(
            f"FAULT {hit.worker} {hit.kind} seen after {hit.seen_after:.2f} s, back after {hit.back_after or -1:.2f} s"
        )
    assert len(found) == progress.finished == len(FAMILIES) * SEEDS
    assert (progress.succeeded, progress.failed) == (len(found), 0)
    assert sum(progress.failures.values()) == progress.retried == len(log.hits)
    assert progress.failures == {kind: sum(h.kind == kind for h in log.hits) for kind in {h.kind for h in log.hits}}
    assert all(t.reward == 1.0 and t.success and t.failure is None for t in found)
    assert sum(t.attempts - 1 for t in found) == len(log.hits)


# ---- faults of the page --------------------------------------------------------------------------------------------


async def trap(_premises: Premises, environment: MiniwobEnvironment, script: str) -> None:
    """The page runs a script as soon as the agent's own trusted input arrives."""
    assert environment.session is not None
    listen = "for (const kind of ['mousedown', 'input']) addEventListener(kind, spring, {capture: true, once: true})"
    await environment.session.page.evaluate(f"(() => {{ const spring = () => {{ {script} }}; {listen}; }})()")


async def crash(_premises: Premises, environment: MiniwobEnvironment) -> None:
    assert environment.session is not None
    page = environment.session.page
    cdp = await page.context.new_cdp_session(page)
    crashing = asyncio.ensure_future(cdp.send("Page.crash"))
    crashing.add_done_callback(lambda done: done.cancelled() or done.exception())


def tree(browser: Browser) -> list[psutil.Process]:
    """The browser's processes, the main ones first."""
    main = [psutil.Process(pid) for pid in browser.pids]
    return [*main, *{child for process in main for child in process.children(recursive=True)}]


async def to_all(premises: Premises, _environment: MiniwobEnvironment, number: int, part: str = "") -> None:
    """A signal to every process of the browser whose command line has ``part``."""
    for process in list(alive(tree(premises.browser))):
        with contextlib.suppress(psutil.NoSuchProcess):
            if part in " ".join(process.cmdline()):
                process.send_signal(number)


async def kill_browser(premises: Premises, _environment: MiniwobEnvironment) -> None:
    for pid in premises.browser.pids:
        os.kill(pid, signal.SIGKILL)


async def to_driver(_premises: Premises, _environment: MiniwobEnvironment, number: int) -> None:
    for child in psutil.Process().children():
        if "run-driver" in child.cmdline():
            child.send_signal(number)


async def server_gone(premises: Premises, _environment: MiniwobEnvironment) -> None:
    """The server's sockets break, the one that listens and those of open connections."""
    port = int(premises.server.gateway.rpartition(":")[2])
    for connection in psutil.Process().net_connections("tcp"):
        if connection.laddr and connection.laddr.port == port and connection.fd >= 0:
            with socket.socket(fileno=os.dup(connection.fd)) as own, contextlib.suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)


HUNG, CRASH, LOST = StopReason.PAGE_HUNG, StopReason.RENDERER_CRASH, StopReason.BROWSER_LOST
HEAP = "const kept = []; for (;;) kept.push(new Array(100000).fill().map((_, i) => ({ i })));"
BUFFERS = "const kept = []; for (;;) kept.push(new Uint8Array(1 << 25).fill(1));"
LEAVE = "location.href = 'click-link.html';"
HOLD = "addEventListener('beforeunload', (event) => { event.preventDefault(); event.returnValue = 'stay'; });"
# name: how it strikes, the kinds it may end in, seconds in which it must be seen
FAULTS: dict[str, tuple[Strike, set[StopReason], float]] = {
    "renderer_crash": (crash, {CRASH}, AT_ONCE_S),
    "renderers_killed": (partial(to_all, number=signal.SIGKILL, part="--type=renderer"), {CRASH}, AT_ONCE_S),
    "renderers_stopped": (partial(to_all, number=signal.SIGSTOP, part="--type=renderer"), {HUNG}, SEEN_S),
    "busy_loop": (partial(trap, script="for (;;);"), {HUNG}, SEEN_S),
    "endless_alerts": (partial(trap, script="for (;;) alert('again');"), {HUNG}, SEEN_S),
    "browser_killed": (kill_browser, {LOST}, AT_ONCE_S),
    "browser_stopped": (partial(to_all, number=signal.SIGSTOP), {HUNG, LOST}, SEEN_S),
    "driver_killed": (partial(to_driver, number=signal.SIGKILL), {LOST}, SEEN_S),
    # Collecting garbage up to the limit may take longer than the deadline; either is seen in time.
    "memory_bomb_objects": (partial(trap, script=HEAP), {CRASH, HUNG}, SEEN_S),
    "memory_bomb_buffers": (partial(trap, script=BUFFERS), {CRASH, HUNG}, SEEN_S),
    "navigation": (partial(trap, script=LEAVE), {StopReason.NAVIGATED_AWAY}, SEEN_S),
    "beforeunload": (partial(trap, script=HOLD + LEAVE), {StopReason.NAVIGATED_AWAY}, SEEN_S),
    "server_gone": (server_gone, {StopReason.SERVER_ERROR}, SEEN_S),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_seen_typed_and_mended(name: str) -> None:
    strike, kinds, limit = FAULTS[name]
    log, found, progress = await roll_out_with(strike)
    check(log, found, progress)
    assert log.hits, "the fault hit nobody"
    assert {hit.kind for hit in log.hits} <= {kind.value for kind in kinds}
    assert max(hit.seen_after for hit in log.hits) < limit
    assert all(hit.back_after is not None and hit.back_after < BACK_S for hit in log.hits)


# ---- what is dealt with on the spot --------------------------------------------------------------------------------

LINK = "const a = document.createElement('a'); a.href = 'data:text/plain,x'; a.download = 'x.txt'; a.click();"
ON_THE_SPOT = {
    "alert": ("alert('one');", 'the page opened a dialog: "one"'),
    "confirm": ("confirm('two');", 'the page opened a dialog: "two"'),
    "prompt": ("prompt('three');", 'the page opened a dialog: "three"'),
    "many_alerts": ("for (let i = 0; i < 20; i++) alert(i);", 'the page opened a dialog: "19"'),
    "popup": ("window.open('about:blank');", "the page opened a popup"),
    "download": (LINK, "the page opened a download"),
}


@pytest.mark.parametrize("name", ON_THE_SPOT)
async def test_what_can_be_answered_costs_nothing(name: str) -> None:
    script, told = ON_THE_SPOT[name]
    log, found, progress = await roll_out_with(partial(trap, script=script))
    check(log, found, progress)
    assert log.hits == []
    (victim,) = [trajectory for trajectory in found if trajectory.task.id == VICTIM]
    assert victim.attempts == 1
    assert victim.seconds < CALL_S
    assert [step for step in victim.steps if told in (step.observation.last_error or "")], "the agent was not told"
