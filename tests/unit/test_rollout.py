"""Episodes and the pool on the toy environment: rewards, typed endings, retries, groups, cancellation."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.actions import Action, Click, Fill, Noop, ReportInfeasible
from dpo_driver.core.errors import DriverError, RolloutFailure
from dpo_driver.core.protocols import Environment, Move, Outcome
from dpo_driver.core.records import Observation, Step, StopReason, Task, Trajectory, TrajectoryGroup
from dpo_driver.core.store import RunStore
from dpo_driver.envs.toy import FAMILIES, ToyEnvironment, make_task
from dpo_driver.policies.scripted import ScriptedPolicy
from dpo_driver.rollout.episode import run_episode
from dpo_driver.rollout.pool import EnvironmentFactory, rollout, rollout_sync
from dpo_driver.testing.check_env import check_env


class Script:
    """An agent that plays a list of actions; None is an unreadable text. It solves the toy families when given none."""

    name, policy_version, context_policy = "script", "script-1", "none"

    def __init__(self, *actions: Action | None, delay: float = 0.0) -> None:
        self.actions, self.delay = actions, delay

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        await asyncio.sleep(self.delay)
        action = self.actions[len(history) % len(self.actions)] if self.actions else solve(observation)
        return Move(action=action, parse_error=None if action else "not readable", completion="text")


def solve(observation: Observation) -> Action:
    words = observation.goal.split('"')[1::2]
    fields = [e for e in observation.elements if e.role == "textbox"]
    for field, word in zip(fields, words, strict=False):
        if field.value != word:
            return Fill(ref=str(field.ref), value=word)
    wanted = ["Log in"] if fields else words
    return Click(ref=str(next(e.ref for e in observation.elements if e.name in wanted)))


def solve_page(observation: Observation) -> Action:
    """The next page's button of a wizard."""
    words = observation.goal.split('"')[1::2]
    return Click(ref=next(str(e.ref) for e in observation.elements if e.name in words and e.role == "button"))


class Breaking(ToyEnvironment):
    """A toy environment whose world breaks: at the ``at``-th step of its life it raises, hangs or loses its place."""

    def __init__(self, kind: str, at: int = 1) -> None:
        super().__init__()
        self.kind, self.at, self.steps, self.closed = kind, at, 0, False

    async def reset(self, task: Task) -> Observation:
        observation = await super().reset(task)
        if self.kind == "elsewhere":
            return observation.model_copy(update={"state_hash": "elsewhere"})
        return observation

    async def step(self, action: Action) -> Outcome:
        self.steps += 1
        if self.steps == self.at and self.kind == "hang":
            await asyncio.sleep(60)
        if self.steps == self.at and self.kind != "elsewhere":
            raise RolloutFailure(StopReason.BROWSER_LOST, "it died")
        return await super().step(action)

    async def close(self) -> None:
        self.closed = True
        await super().close()


async def fresh() -> Environment:
    return ToyEnvironment()


# -- one episode -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "steps"), [("press", 1), ("login", 3), ("wizard", 3)])
async def test_a_solved_task_is_recorded_whole(name: str, steps: int) -> None:
    trajectory = await run_episode(ToyEnvironment(), Script(), make_task(name, 4))
    assert (trajectory.stop_reason, trajectory.reward, trajectory.success) == (StopReason.SUCCESS, 1.0, True)
    assert len(trajectory.steps) == steps
    assert trajectory.id == f"toy.{name}/4/0"
    assert trajectory.task.goal == trajectory.steps[0].observation.goal
    assert [step.reward for step in trajectory.steps] == [None] * (steps - 1) + [1.0]
    assert trajectory.start_hash == (await ToyEnvironment().reset(make_task(name, 4))).state_hash
    assert len({step.observation.state_hash for step in trajectory.steps}) == steps


async def test_partial_reward_is_kept_and_is_no_success() -> None:
    trajectory = await run_episode(
        ToyEnvironment(), Script(Fill(ref="1", value="x"), Click(ref="3")), make_task("login", 1)
    )
    assert (trajectory.stop_reason, trajectory.reward, trajectory.success) == (StopReason.WRONG, 0.0, False)
    assert trajectory.task.goal is not None
    word = trajectory.task.goal.split('"')[1]
    trajectory = await run_episode(
        ToyEnvironment(), Script(Fill(ref="1", value=word), Click(ref="3")), make_task("login", 1)
    )
    assert (trajectory.reward, trajectory.success, trajectory.positive) == (0.5, False, True)


class Milestones(ToyEnvironment):
    """A wizard whose pages each give a third of the reward."""

    async def step(self, action: Action) -> Outcome:
        before = self._page.passed if self._page else 0
        outcome = await super().step(action)
        passed = outcome.stop is StopReason.SUCCESS or (self._page is not None and self._page.passed > before)
        if outcome.stop is None and not passed:
            return outcome
        return Outcome(outcome.observation, 1 / 3 if passed else 0.0, outcome.stop)


async def test_the_reward_of_an_episode_is_the_sum_of_what_its_steps_gave() -> None:
    task = make_task("wizard", 4)
    await check_env(Milestones(), [task, make_task("wizard", 5)], expert=solve_page, milestones=True)
    with pytest.raises(AssertionError, match="the reward comes with the end"):
        await check_env(Milestones(), [task, make_task("wizard", 5)], expert=solve_page)
    whole = await run_episode(Milestones(), Script(), task)
    assert [step.reward for step in whole.steps] == [1 / 3] * 3
    assert (whole.success, whole.reward) == (True, pytest.approx(1.0))
    start = await Milestones().reset(task)
    right, wrong = solve_page(start), Noop()
    part = await run_episode(Milestones(), Script(right, wrong, ReportInfeasible(reason="x")), task)
    assert (part.success, part.positive, part.reward) == (False, True, pytest.approx(1 / 3))


async def test_endings_that_are_the_agents_own_doing() -> None:
    task = make_task("login", 1)
    idle = await run_episode(ToyEnvironment(), Script(Noop()), task)
    assert (idle.stop_reason, idle.reward, idle.success) == (StopReason.MAX_STEPS, 0.0, False)
    assert len(idle.steps) == task.max_steps
    garbled = await run_episode(ToyEnvironment(), Script(None), task)
    assert (garbled.stop_reason, garbled.reward, garbled.success) == (StopReason.PARSE_ERRORS, 0.0, False)
    assert [step.observation.last_error for step in garbled.steps] == [None, "not readable", "not readable"]
    mixed = await run_episode(ToyEnvironment(), Script(None, None, Noop()), task)
    assert mixed.stop_reason is StopReason.MAX_STEPS
    gave_up = await run_episode(ToyEnvironment(), Script(ReportInfeasible(reason="no")), task)
    assert (gave_up.stop_reason, gave_up.reward, gave_up.failure) == (StopReason.INFEASIBLE, 0.0, None)
    policy = ScriptedPolicy(lambda messages, sampling: "x", max_prompt_chars=5)
    overflow = await run_episode(ToyEnvironment(), PolicyAgent(policy, "pocket"), task)
    assert (overflow.stop_reason, overflow.reward, len(overflow.steps)) == (StopReason.CONTEXT_OVERFLOW, 0.0, 1)


async def test_an_action_that_cannot_be_done_is_told_to_the_agent() -> None:
    trajectory = await run_episode(ToyEnvironment(), Script(Click(ref="77")), make_task("press", 1))
    assert trajectory.steps[1].observation.last_error == "there is no element 77"
    assert trajectory.failure is None


async def test_a_broken_world_is_a_failure_without_a_score() -> None:
    lost = await run_episode(Breaking("lost", at=2), Script(), make_task("wizard", 1))
    assert (lost.stop_reason, lost.reward, lost.success) == (StopReason.BROWSER_LOST, None, None)
    assert lost.failure == "browser_lost: it died"
    assert len(lost.steps) == 1
    hung = await run_episode(Breaking("hang"), Script(), make_task("wizard", 1), deadline_s=0.2)
    assert (hung.stop_reason, hung.reward, hung.seconds < 2) == (StopReason.PAGE_HUNG, None, True)
    slow = await run_episode(ToyEnvironment(), Script(delay=5), make_task("wizard", 1), deadline_s=0.2)
    assert (slow.stop_reason, slow.reward) == (StopReason.POLICY_ERROR, None)


async def test_screenshots_are_kept_where_asked(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        shots = {"screenshots": "all", "put_blob": store.put_blob}
        every = await run_episode(ToyEnvironment(), Script(), make_task("wizard", 1), **shots)  # type: ignore[arg-type]
        assert all(step.observation.screenshot for step in every.steps)
        assert every.final_screenshot is not None
        assert store.get_blob(every.final_screenshot).startswith(b"\x89PNG")
        shots["screenshots"] = "final"
        final = await run_episode(ToyEnvironment(), Script(), make_task("wizard", 1), **shots)  # type: ignore[arg-type]
        assert final.final_screenshot and not any(step.observation.screenshot for step in final.steps)
    with pytest.raises(ValueError, match="put_blob"):
        await run_episode(ToyEnvironment(), Script(), make_task("wizard", 1), screenshots="all")


# -- the pool --------------------------------------------------------------------------------------------------------


async def test_every_task_and_sibling_is_rolled_out_once() -> None:
    tasks = [make_task(name, seed) for seed in range(5) for name in FAMILIES]
    found: list[Trajectory] = []
    progress = await rollout(
        tasks, Script(), environments=fresh, stage="c", on_trajectory=found.append, workers=3, group_size=2
    )
    assert sorted(t.id for t in found) == sorted(f"c/{task.id}/{s}" for task in tasks for s in (0, 1))
    assert (progress.total, progress.finished, progress.succeeded, progress.failed) == (30, 30, 30, 0)
    assert progress.stop_reasons == {"success": 30}
    for task in tasks:
        TrajectoryGroup(trajectories=tuple(t for t in found if t.task.id == task.id))


async def test_workers_stay_with_a_family() -> None:
    tasks = [make_task(name, seed) for seed in range(20) for name in FAMILIES]
    seen: dict[int, list[str]] = {}

    class Noting(ToyEnvironment):
        async def reset(self, task: Task) -> Observation:
            seen.setdefault(id(self), []).append(task.name)
            await asyncio.sleep(0)
            return await super().reset(task)

    alive: list[Noting] = []

    async def factory() -> Environment:
        alive.append(Noting())
        return alive[-1]

    await rollout(tasks, Script(), environments=factory, stage="c", on_trajectory=lambda t: None, workers=3)
    changes = sum(a != b for names in seen.values() for a, b in itertools.pairwise(names))
    assert len(alive) == 3
    assert changes <= 4


async def test_failures_are_retried_on_a_fresh_environment_and_counted() -> None:
    made: list[Breaking] = []

    async def factory() -> Environment:
        made.append(Breaking("lost", at=1 if len(made) < 2 else 1000))
        return made[-1]

    found: list[Trajectory] = []
    progress = await rollout(
        [make_task("press", s) for s in range(4)],
        Script(),
        environments=factory,
        stage="c",
        on_trajectory=found.append,
        workers=1,
    )
    assert (progress.finished, progress.failed, progress.retried, progress.succeeded) == (4, 0, 2, 4)
    assert [t.attempts for t in found] == [3, 1, 1, 1]
    assert [environment.closed for environment in made] == [True, True, True]


async def test_a_lasting_failure_is_handed_over_and_the_rest_goes_on() -> None:
    class Cursed(ToyEnvironment):
        async def reset(self, task: Task) -> Observation:
            if task.seed == 3:
                raise RolloutFailure(StopReason.RENDERER_CRASH, "always")
            return await super().reset(task)

    async def factory() -> Environment:
        return Cursed()

    found: list[Trajectory] = []
    tasks = [make_task("press", s) for s in range(6)]
    progress = await rollout(tasks, Script(), environments=factory, stage="c", on_trajectory=found.append, workers=2)
    failed = [t for t in found if t.failure]
    assert [(t.task.seed, t.attempts, t.reward, t.success) for t in failed] == [(3, 3, None, None)]
    assert (progress.failed, progress.succeeded, progress.retried) == (1, 5, 2)


async def test_a_hopeless_set_up_stops_early_with_the_cause() -> None:
    async def factory() -> Environment:
        raise RolloutFailure(StopReason.BROWSER_LOST, "cannot start")

    found: list[Trajectory] = []
    tasks = [make_task("press", s) for s in range(100)]
    with pytest.raises(DriverError, match="cannot start"):
        await rollout(tasks, Script(), environments=factory, stage="c", on_trajectory=found.append, workers=2)
    assert 12 <= len(found) <= 14


async def test_a_sibling_that_starts_elsewhere_is_refused() -> None:
    count = Counter[str]()

    async def factory() -> Environment:
        count["made"] += 1
        return ToyEnvironment() if count["made"] != 2 else Breaking("elsewhere")

    found: list[Trajectory] = []
    task = make_task("wizard", 1)
    agent = Script(delay=0.01)
    progress = await rollout(
        [task], agent, environments=factory, stage="c", on_trajectory=found.append, workers=2, group_size=4
    )
    assert (progress.succeeded, progress.failed) == (4, 0)
    assert progress.retried >= 1
    assert len({t.start_hash for t in found}) == 1

    async def odd() -> Environment:
        return Breaking("elsewhere")

    found.clear()
    known = {task.id: "the hash of an earlier session"}
    await rollout([task], agent, environments=odd, stage="c", on_trajectory=found.append, start_hashes=known)
    assert [(t.stop_reason, t.reward) for t in found] == [(StopReason.START_MISMATCH, None)]


async def test_cancellation_hands_over_what_is_finished_and_closes_everything(tmp_path: Path) -> None:
    made: list[Breaking] = []

    async def factory() -> Environment:
        made.append(Breaking("lost", at=10_000))
        return made[-1]

    with RunStore(tmp_path) as store:
        tasks = [make_task("wizard", s) for s in range(200)]

        def keep(trajectory: Trajectory) -> None:
            store.add_trajectory("c", trajectory)
            if store.count("c") == 20:
                running.cancel()

        running = asyncio.create_task(
            rollout(tasks, Script(delay=0.001), environments=factory, stage="c", on_trajectory=keep, workers=4)
        )
        with pytest.raises(asyncio.CancelledError):
            await running
        assert 20 <= store.count("c") < 30
        assert all(t.success for t in store.trajectories("c"))
        assert len(made) == 4 and all(environment.closed for environment in made)

        skip = store.done_task_keys("c")
        progress = await rollout(
            tasks, Script(), environments=factory, stage="c", skip=skip, start_hashes=store.start_hashes("c"),
            on_trajectory=lambda t: store.add_trajectory("c", t), workers=4,
        )  # fmt: skip
        assert (progress.skipped, progress.finished) == (len(skip), 200 - len(skip))
        assert store.count("c") == 200


async def test_an_error_of_the_caller_is_not_swallowed() -> None:
    def broken(_trajectory: Trajectory) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await rollout([make_task("press", 1)], Script(), environments=fresh, stage="c", on_trajectory=broken)
    with pytest.raises(ValueError, match="unique"):
        twice = [make_task("press", 1)] * 2
        await rollout(twice, Script(), environments=fresh, stage="c", on_trajectory=broken)


def test_the_synchronous_door_opens_and_closes_its_source() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def source() -> AsyncIterator[EnvironmentFactory]:
        log.append("open")
        yield fresh
        log.append("close")

    found: list[Trajectory] = []
    tasks = [make_task("press", s) for s in range(30)]
    for _ in range(2):
        rollout_sync(tasks, RandomAgent(3), environments=source, stage="c", on_trajectory=found.append, workers=4)
    assert log == ["open", "close"] * 2
    solved = rollout_sync(tasks, Script(), environments=ToyEnvironment.source, stage="c", on_trajectory=lambda t: None)
    assert solved.succeeded == 30
    first, second = ({t.id: [s.action for s in t.steps] for t in half} for half in (found[:30], found[30:]))
    assert first == second


_INTERRUPTED = """
import asyncio, sys
from contextlib import asynccontextmanager
sys.path.insert(0, sys.argv[2])
from test_rollout import Script, fresh, make_task, rollout_sync
from dpo_driver.core.store import RunStore

@asynccontextmanager
async def source():
    try:
        yield fresh
    finally:
        print("closed", flush=True)

with RunStore(sys.argv[1]) as store:
    def keep(t):
        store.add_trajectory("c", t)
        print(t.id, flush=True)
    tasks = [make_task("wizard", s) for s in range(10_000)]
    try:
        rollout_sync(tasks, Script(delay=0.001), environments=source, stage="c", on_trajectory=keep)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_stops_cleanly_and_keeps_what_is_finished(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _INTERRUPTED, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(20)]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    lines += rest.split()
    assert process.returncode == 0
    assert lines[-1] == "interrupted" and "closed" in lines
    with RunStore(tmp_path, "read") as store:
        assert {t.id for t in store.trajectories("c")} == set(lines) - {"closed", "interrupted"}
