"""The pool on real browsers: what breaks is retried and counted, siblings start alike, Ctrl-C leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.agents.random import RandomAgent
from dpo_driver.browser.browser import Browser
from dpo_driver.browser.reaper import find_marked
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Observation, Step, Task, Trajectory, TrajectoryGroup
from dpo_driver.core.store import RunStore
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.server import MiniwobServer
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.pool import RolloutProgress, rollout, rollout_sync

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


class Killing(OracleAgent):
    """An oracle during whose n-th decision the browser dies."""

    def __init__(self, browser: Browser, at: int) -> None:
        super().__init__()
        self._browser, self._at, self.decisions = browser, at, 0

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        self.decisions += 1
        if self.decisions == self._at:
            for pid in self._browser.pids:
                os.kill(pid, signal.SIGKILL)
        return await super().act(task, observation, history)


async def test_a_killed_browser_costs_a_retry_and_no_score() -> None:
    found: list[Trajectory] = []
    with MiniwobServer() as server:
        browser = await Browser.launch()
        try:

            async def make() -> MiniwobEnvironment:
                return MiniwobEnvironment(browser, server.gateway)

            tasks = [make_task(name, seed) for name in ("enter-password", "click-tab-2-easy") for seed in range(6)]
            agent = Killing(browser, at=7)
            progress = await rollout(tasks, agent, environments=make, stage="c", on_trajectory=found.append, workers=2)
        finally:
            await browser.close()
    assert browser.launches >= 2
    assert (progress.finished, progress.succeeded, progress.failed) == (12, 12, 0)
    assert 1 <= progress.retried <= 2
    assert sorted(t.attempts for t in found)[-1] == 2
    assert all(t.reward == 1.0 for t in found)


def test_siblings_on_different_workers_start_alike(tmp_path: Path) -> None:
    families = ("click-checkboxes", "navigate-tree", "choose-list")
    tasks = [make_task(family, seed) for family in families for seed in (1, 2)]
    with RunStore(tmp_path) as store:
        progress: RolloutProgress = rollout_sync(
            tasks, RandomAgent(2), environments=MiniwobEnvironment.source, stage="collect/1", workers=3, group_size=4,
            on_trajectory=lambda t: store.add_trajectory("collect/1", t), screenshots="final", put_blob=store.put_blob,
        )  # fmt: skip
        found = store.trajectories("collect/1")
        assert (progress.finished, progress.failed, len(found)) == (24, 0, 24)
        for task in tasks:
            group = TrajectoryGroup(trajectories=tuple(t for t in found if t.task.id == task.id))
            assert len({t.start_hash for t in group.trajectories}) == 1
            assert len({tuple(s.action for s in t.steps) for t in group.trajectories}) > 1
        assert len({t.start_hash for t in found}) == len(tasks)
        pictures = {t.final_screenshot for t in found}
        assert None not in pictures
        assert all(store.get_blob(str(picture))[:3] == b"\xff\xd8\xff" for picture in pictures)


_INTERRUPTED = """
import sys
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.core.store import RunStore
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.pool import rollout_sync

with RunStore(sys.argv[1]) as store:
    def keep(t):
        store.add_trajectory("c", t)
        print(t.id, flush=True)
    tasks = [make_task("enter-text", seed) for seed in range(20_000)]
    try:
        rollout_sync(tasks, OracleAgent(), environments=MiniwobEnvironment.source, stage="c", on_trajectory=keep)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_browser(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _INTERRUPTED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(10)]
        browsers = [marked for marked in find_marked() if marked.owner_pid == process.pid]
        assert browsers
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    lines += rest.split()
    assert process.returncode == 0
    assert lines[-1] == "interrupted"
    assert [marked for marked in find_marked() if marked.owner_pid == process.pid] == []
    with RunStore(tmp_path, "read") as store:
        assert {t.id for t in store.trajectories("c")} == set(lines) - {"interrupted"}


async def test_many_workers_share_one_browser() -> None:
    found: list[Trajectory] = []
    async with MiniwobEnvironment.source() as make:
        tasks = [make_task("click-test-2", seed) for seed in range(24)]
        await asyncio.wait_for(
            rollout(tasks, OracleAgent(), environments=make, stage="c", on_trajectory=found.append, workers=8), 60
        )
    assert [t.success for t in found] == [True] * 24
