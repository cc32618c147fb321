"""BrowserGym in its own virtual environment: its tasks as our environment, and the benchmark of peers.

Needs benchmarks/peers/setup; without it all that needs the real package is skipped, and says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio

from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.browser import reaper
from dpo_driver.core.actions import Clear, Click, Fill, MouseClick, Noop, Type
from dpo_driver.core.errors import RolloutFailure, UnknownNameError
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Observation, Step, StopReason, Task
from dpo_driver.envs.browsergym import (
    BrowserGymEnvironment,
    make_task,
    write_action,
)
from dpo_driver.rollout.bench import bench_peers
from dpo_driver.rollout.engines import PEERS, page_seed
from dpo_driver.rollout.episode import run_episode
from dpo_driver.testing.check_env import check_env
from peers import why_not

FAST = {"slow_mo": 0, "pre_observation_delay": 0.0}
TASKS = ("click-test", "click-button", "enter-text")


pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
T = TypeVar("T")


def real_package(test: T) -> T:
    """Needs BrowserGym: minutes in all, and skipped without."""
    marked: T = pytest.mark.slow(pytest.mark.skipif(bool(why_not()), reason=why_not())(test))
    return marked


class Expert:
    """The oracle, which knows a task by its plain name."""

    name = policy_version = context_policy = "oracle"

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        plain = task.model_copy(update={"name": task.name.removeprefix("miniwob.")})
        return await OracleAgent().act(plain, observation, history)


def expert_action(observation: Observation) -> Click | Fill:
    """The same for the conformance check, which has no history: click the button, or fill the field first."""
    fields = [e for e in observation.elements if e.role == "textbox" and e.ref is not None]
    wanted = observation.goal.split('"')[1] if '"' in observation.goal else ""
    if fields and "text field" in observation.goal and fields[0].value != wanted:
        return Fill(ref=str(fields[0].ref), value=wanted)
    named = [e for e in observation.elements if e.role == "button" and e.ref is not None]
    exact = [e for e in named if e.name == wanted and "text field" not in observation.goal]
    return Click(ref=str((exact or named)[0].ref))


@pytest_asyncio.fixture
async def theirs() -> AsyncIterator[BrowserGymEnvironment]:
    environment = await BrowserGymEnvironment.create(options=FAST)
    yield environment
    await environment.close()
    assert [marked for marked in reaper.find_marked() if marked.owner_pid == os.getpid()] == []


def gone_within(seconds: float, *pids: int) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(_lives(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


# -- without the package ---------------------------------------------------------------------------------------------


def test_without_the_environment_the_command_says_what_to_run(tmp_path: Path) -> None:
    variables = {**os.environ, "DPO_DRIVER_PEERS": str(tmp_path / "none")}
    command = [sys.executable, "-m", "dpo_driver", "bench", "env", "--peers", "--seconds", "1"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "benchmarks/peers/setup" in done.stderr and str(tmp_path / "none") in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_actions_are_written_in_their_grammar() -> None:
    assert write_action(Click(ref="a12")) == 'click("a12")'
    assert write_action(Fill(ref="3", value='say "hi"\n')) == 'fill("3", "say \\"hi\\"\\n")'
    assert write_action(Noop()) == "noop(0)"
    assert write_action(Clear(ref="3")) == "clear('3')"
    assert write_action(Type(ref="3", text="x")).splitlines() == [
        "focus('3')",
        "keyboard_press('End')",
        "keyboard_type('x')",
    ]
    assert write_action(MouseClick(x=10, y=20), 1.5) == "mouse_click(15, 30)"  # their coordinates are the picture's


def test_any_name_of_the_right_form_is_a_task() -> None:
    task = make_task("browsergym/miniwob.click-test", 7, "test")
    assert (task.id, task.name, task.seed) == ("browsergym/miniwob.click-test/7", "miniwob.click-test", 7)
    with pytest.raises(UnknownNameError):
        make_task("miniwob.click test; rm", 7)


# -- their tasks as our environment ----------------------------------------------------------------------------------


@real_package
async def test_the_oracle_solves_their_tasks(theirs: BrowserGymEnvironment) -> None:
    for name in TASKS:
        for seed in (1, 2):
            trajectory = await run_episode(theirs, Expert(), make_task(f"miniwob.{name}", seed))
            assert trajectory.failure is None
            assert (trajectory.stop_reason, trajectory.reward) == (StopReason.SUCCESS, 1.0)
            assert len(trajectory.steps) == (2 if name == "enter-text" else 1)
            assert trajectory.task.goal


@real_package
async def test_their_environment_as_it_is(theirs: BrowserGymEnvironment) -> None:
    """No option changed: 100 ms before each input, half a second before each observation."""
    environment = await BrowserGymEnvironment.create()
    trajectory = await run_episode(environment, Expert(), make_task("miniwob.click-test", 5))
    await environment.close()
    assert trajectory.success and environment.engine_seconds > 0.5


@real_package
async def test_a_wrong_button_is_no_success_and_an_impossible_click_is_told(theirs: BrowserGymEnvironment) -> None:
    seen = await theirs.reset(make_task("miniwob.click-button", 1))
    wanted = seen.goal.split('"')[1]
    told = await theirs.step(Click(ref="9999"))
    assert told.stop is None and told.reward is None and "9999" in str(told.observation.last_error)
    wrong = next(e for e in seen.elements if e.role == "button" and e.name != wanted)
    outcome = await theirs.step(Click(ref=str(wrong.ref)))
    assert outcome.stop is StopReason.WRONG and outcome.reward is not None and outcome.reward <= 0
    with pytest.raises(RuntimeError):
        await theirs.step(Click(ref=str(wrong.ref)))


@real_package
async def test_typing_and_lists_go_through(theirs: BrowserGymEnvironment) -> None:
    seen = await theirs.reset(make_task("miniwob.enter-text", 3))
    field = next(e for e in seen.elements if e.role == "textbox")
    await theirs.step(Type(ref=str(field.ref), text="ab"))
    after = await theirs.step(Type(ref=str(field.ref), text="cd"))
    assert next(e for e in after.observation.elements if e.role == "textbox").value == "abcd"
    assert (await run_episode(theirs, Expert(), make_task("miniwob.choose-list", 3))).success


@real_package
async def test_a_task_of_another_kind(theirs: BrowserGymEnvironment) -> None:
    """BrowserGym's open-ended task on a page of our own: no MiniWoB++, no zoom, no raw reward."""
    page = "data:text/html,<title>Shop</title><h1>Shop</h1><button onclick='document.title=1'>Buy</button><p hidden>no"
    options = {**FAST, "task_kwargs": {"start_url": page, "goal": "Buy it."}}
    task = make_task("openended", 1).model_copy(update={"params": {"options": options}})
    seen = await theirs.reset(task)
    assert (seen.goal, seen.title) == ("Buy it.", "Shop")
    assert [(e.role, e.name) for e in seen.elements] == [("heading", "Shop"), ("button", "Buy")]
    button = seen.elements[1]
    assert button.box is not None and button.box[2] > 20
    outcome = await theirs.step(Click(ref=str(button.ref)))
    assert outcome.stop is None and outcome.reward is None and outcome.observation.title == "1"
    left, top, width, height = button.box
    missed = await theirs.step(MouseClick(x=left + width / 2, y=top + height / 2))
    assert missed.observation.last_error is None


@real_package
async def test_it_passes_the_conformance_check() -> None:
    environment = BrowserGymEnvironment(options=FAST)
    await check_env(environment, [make_task(f"miniwob.{name}", 3) for name in TASKS], expert=expert_action)


@real_package
async def test_kill_9_of_their_process_is_seen_and_mended(theirs: BrowserGymEnvironment) -> None:
    await theirs.reset(make_task("miniwob.click-test", 1))
    browsers = [marked.pid for marked in reaper.find_marked() if marked.owner_pid == os.getpid()]
    assert theirs.pid is not None and len(browsers) >= 2  # the page's and the chat's
    worker = theirs.pid
    os.kill(worker, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(RolloutFailure) as caught:
        await theirs.step(Click(ref="13"))
    assert caught.value.kind == StopReason.BROWSER_LOST and time.monotonic() - began < 3
    assert theirs.pid is None and gone_within(5, worker, *browsers)
    assert (await run_episode(theirs, Expert(), make_task("miniwob.click-test", 1))).success


@real_package
async def test_a_stopped_process_misses_its_deadline() -> None:
    environment = await BrowserGymEnvironment.create(options=FAST, step_s=2.0)
    await environment.reset(make_task("miniwob.click-test", 1))
    worker = environment.pid
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)
    began = time.monotonic()
    trajectory_stop = None
    try:
        await environment.step(Click(ref="13"))
    except RolloutFailure as failure:
        trajectory_stop = failure.kind
    assert trajectory_stop == StopReason.PAGE_HUNG
    assert 2.0 <= time.monotonic() - began < 6.0
    assert gone_within(2, worker)
    await environment.close()


@real_package
async def test_a_dead_browser_is_a_failure_and_no_reward(theirs: BrowserGymEnvironment) -> None:
    await theirs.reset(make_task("miniwob.click-test", 1))
    for marked in reaper.find_marked():
        if marked.owner_pid == os.getpid():
            os.kill(marked.pid, signal.SIGKILL)
    with pytest.raises(RolloutFailure) as caught:
        await theirs.step(Click(ref="13"))
    assert caught.value.kind in {StopReason.BROWSER_LOST, StopReason.SERVER_ERROR}


OWNER = """
import asyncio, sys
from dpo_driver.envs.browsergym import BrowserGymEnvironment, make_task

async def main():
    environment = await BrowserGymEnvironment.create()
    await environment.reset(make_task("miniwob.click-test", 1))
    print(environment.pid, flush=True)
    await asyncio.sleep(300)

asyncio.run(main())
"""


@real_package
def test_nothing_is_left_when_our_side_is_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    worker = int(owner.stdout.readline())
    browsers = [marked.pid for marked in reaper.find_marked() if marked.owner_pid == owner.pid]
    assert len(browsers) >= 2
    owner.kill()
    owner.wait(10)
    assert gone_within(10, worker, *browsers)


@real_package
async def test_an_unknown_task_lists_known_ones(theirs: BrowserGymEnvironment) -> None:
    with pytest.raises(UnknownNameError, match=r"miniwob\.click-test"):
        await theirs.reset(make_task("miniwob.click-tset", 1))


# -- the benchmark ---------------------------------------------------------------------------------------------------


@real_package
def test_the_benchmark_plays_the_same_episodes_everywhere() -> None:
    figures = bench_peers("click-button", seconds=2.0, workers=2, repeats=2)
    assert figures["correct"] == figures["total"] > 5
    assert figures["episodes_per_second"] > 0 and figures["engine"] == "trusted"
    peers = figures["peers"]
    for name in PEERS:
        engine, same = peers["engines"][name], peers["same"][name]
        assert engine["correct"] == engine["total"] >= 2 and engine["workers"] == 1
        assert same["goals"] == same["actions"] == same["episodes"] >= 2, (name, same)
        ratio = peers["ratios"]["trusted"][name]
        assert ratio["low"] <= ratio["median"] <= ratio["high"] and ratio["median"] > 1, (name, ratio)


@real_package
async def test_their_seed_gives_the_page_that_ours_is_given(theirs: BrowserGymEnvironment) -> None:
    from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
    from dpo_driver.envs.miniwob.tasks import make_task as our_task

    ours = await MiniwobEnvironment.create()
    try:
        for name in ("click-button", "enter-text", "click-link"):
            for seed in (11, 12):
                goal = (await ours.reset(our_task(name, page_seed(seed)))).goal
                assert (await theirs.reset(make_task(f"miniwob.{name}", seed))).goal.split() == goal.split()
    finally:
        await ours.close()
