"""The gauntlet as an environment, in real Chromium against its real server.

The tests know the environment's secret and so every code: they enter codes without doing puzzles, which no page can.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gymnasium
import pytest
import pytest_asyncio

from dpo_driver.agents.experts.page import Page
from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.agents.solver.agent import solve
from dpo_driver.cli.options import read_config
from dpo_driver.core import plugins
from dpo_driver.core.actions import Action, Click, Fill, Goto, JsEval, Noop, Press, ReportInfeasible, TabClose, TabFocus
from dpo_driver.core.errors import ConfigError, RolloutFailure, UnknownNameError
from dpo_driver.core.protocols import Move, Outcome
from dpo_driver.core.records import Observation, Step, StopReason, Task, Trajectory
from dpo_driver.envs.gauntlet.environment import GauntletEnvironment
from dpo_driver.envs.gauntlet.serve import GauntletServer
from dpo_driver.envs.gauntlet.sites import SECRET, OwnSite, start_of
from dpo_driver.envs.gauntlet.tasks import make_task, setting_of
from dpo_driver.envs.gauntlet.tokens import Start
from dpo_driver.envs.gauntlet.visit import Visit
from dpo_driver.rollout.episode import run_episode
from dpo_driver.rollout.pool import rollout
from dpo_driver.testing.check_env import check_env

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
in_module_loop = pytest.mark.asyncio(loop_scope="module")
Make = Callable[[], Awaitable[GauntletEnvironment]]
STEP = re.compile(r"Step (\d+) of \d+")


def code_of(task: Task, step: int) -> str:
    """What the server asks for on a step of a task."""
    start = Start(**start_of(task, setting_of(task), SECRET))
    return Visit(start.plan(), SECRET, key=start.key, clock=time.monotonic).code(step)


def at(observation: Observation) -> int | None:
    """The step that the page shows."""
    found = [m for e in observation.elements if e.role == "heading" and (m := STEP.fullmatch(e.name))]
    return int(found[0][1]) if found else None


def entering(observation: Observation, code: str) -> Action:
    """The next action of somebody who knows the code."""
    if at(observation) is None:
        (button,) = [e for e in observation.elements if e.role == "button"]
        assert button.ref is not None
        return Click(ref=button.ref)
    fields = [e for e in observation.elements if e.role == "textbox" and re.search("code|key", e.name, re.IGNORECASE)]
    field = next((e for e in fields if e.value == code), fields[-1])
    assert field.ref is not None
    return Press(ref=field.ref, key="Enter") if field.value == code else Fill(ref=field.ref, value=code)


def knowing(task: Task) -> Callable[[Observation], Action]:
    return lambda observation: entering(observation, code_of(task, at(observation) or 0))


class Solving:
    """The solver, up to a step on which it gives up."""

    name = policy_version = "solving"
    context_policy = "chat"

    def __init__(self, gives_up_on: int = 99) -> None:
        self._gives_up_on = gives_up_on
        self._history: list[Step] = []

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        step = at(observation)
        given_up = step == self._gives_up_on
        action = ReportInfeasible(reason="enough") if given_up else solve(Page(observation, history))[1]
        profile = get_profile("chat")
        return Move(action, "", render_completion(profile, "", action), render(profile, observation, history))

    def expert(self, observation: Observation) -> Action:
        """The same for who keeps no history. Every run begins on the START page."""
        if at(observation) is None:
            self._history.clear()
        action = solve(Page(observation, self._history))[1]
        self._history.append(Step(observation=observation, action=action))
        return action


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site() -> AsyncIterator[OwnSite]:
    yield OwnSite()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def make(site: OwnSite) -> AsyncIterator[Make]:
    async with GauntletEnvironment.source(lambda: site) as factory:
        yield factory


@pytest_asyncio.fixture(loop_scope="module")
async def environment(make: Make) -> AsyncIterator[GauntletEnvironment]:
    environment = await make()
    yield environment
    await environment.close()


async def javascript(environment: GauntletEnvironment, code: str) -> Any:
    """What the page's own script would get."""
    assert environment.session is not None
    return await environment.session.page.evaluate(code)


# -- the protocol -----------------------------------------------------------------------------------------------------


@in_module_loop
async def test_single_steps_conform(make: Make) -> None:
    tasks = [make_task("step-hidden-text", 1), make_task("step-visible-text-b", 2)]

    def expert(observation: Observation) -> Action:
        task = next(t for t in tasks if at(observation) == start_of(t, setting_of(t), SECRET)["step"])
        return knowing(task)(observation)

    await check_env(await make(), tasks, expert=expert)


@in_module_loop
async def test_runs_conform_with_milestones(make: Make) -> None:
    tasks = [make_task("run-1", 3), make_task("run-2", 3)]
    assert code_of(tasks[0], 1) != code_of(tasks[1], 1)  # each task has codes of its own
    await check_env(await make(), tasks, expert=Solving().expert, milestones=True)


STARTS = [
    "click-reveal",
    "visible-text",
    "hidden-text",
    "form-fill",
    "click-sequence",
    "encoded",
    "computed-style",
    "draw",
]


@pytest.mark.slow
@in_module_loop
async def test_equal_tasks_start_alike_on_every_server(make: Make) -> None:
    """Siblings, replays and other machines meet the same page: content, codes, addresses."""
    tasks = [make_task(f"step-{name}{how}", seed) for name in STARTS for how, seed in (("", 11), ("-d2-b", 12))]
    first = await make()
    seen = {task.id: await first.reset(task) for task in tasks}
    await first.close()
    async with GauntletEnvironment.source() as elsewhere_too:
        second = await elsewhere_too()
        for task in tasks:
            again = await second.reset(task)
            assert again.state_hash == seen[task.id].state_hash, task.id
            assert [e.box for e in again.elements] == [e.box for e in seen[task.id].elements], task.id
        await second.close()
    assert len({observation.state_hash for observation in seen.values()}) == len(tasks)
    assert {len(observation.elements) <= 60 for observation in seen.values()} == {True}


# -- rewards ----------------------------------------------------------------------------------------------------------


@in_module_loop
async def test_only_the_right_code_is_rewarded_and_wrong_ones_end_nothing(environment: GauntletEnvironment) -> None:
    task = make_task("step-visible-text", 5)
    seen = await environment.reset(task)
    assert seen.goal == "Find the code of this step and submit it."
    number = at(seen)
    assert number is not None
    assert number == start_of(task, setting_of(task), SECRET)["step"]
    for wrong in ("AAAAAA", code_of(task, number + 1)):
        seen = (await environment.step(entering(seen, wrong))).observation
        outcome = await environment.step(entering(seen, wrong))
        assert (outcome.reward, outcome.stop) == (None, None)
        assert outcome.observation.state_hash != seen.state_hash  # the page says that it was wrong, at once
        seen = outcome.observation
    seen = (await environment.step(entering(seen, code_of(task, number)))).observation
    outcome = await environment.step(entering(seen, code_of(task, number)))
    assert (outcome.reward, outcome.stop) == (1.0, StopReason.SUCCESS)
    assert at(outcome.observation) == number + 1
    with pytest.raises(RuntimeError, match="step before reset"):
        await environment.step(Noop())


@in_module_loop
async def test_a_code_that_was_not_earned_is_refused(environment: GauntletEnvironment) -> None:
    """Equal tasks have equal codes, so one may be known from an earlier episode."""
    task = make_task("step-click-reveal", 5)
    seen = await environment.reset(task)
    code = code_of(task, at(seen) or 0)
    for _ in range(2):
        outcome = await environment.step(entering(seen, code))
        seen = outcome.observation
    assert (outcome.reward, outcome.stop) == (None, None)
    seen, solving = await environment.reset(task), Solving()
    while outcome.stop is None:
        outcome = await environment.step(solving.expert(seen))
        seen = outcome.observation
    assert (outcome.reward, outcome.stop) == (1.0, StopReason.SUCCESS)


@in_module_loop
async def test_what_the_page_says_of_itself_earns_nothing(environment: GauntletEnvironment) -> None:
    await environment.reset(make_task("run-1", 6))
    await javascript(
        environment,
        """() => { history.pushState(null, "", "/finish"); document.title = "All done";
        document.body.innerHTML = "<h1>All done</h1><p role=status>All 30 puzzles are solved.</p>" }""",
    )
    outcome = await environment.step(Noop())
    assert "All 30 puzzles are solved." in [e.name for e in outcome.observation.elements]
    assert (outcome.reward, outcome.stop) == (None, None)
    for action in (JsEval(code="1"), Goto(url="https://example.com/")):
        outcome = await environment.step(action)
        assert outcome.observation.last_error
        assert (outcome.reward, outcome.stop) == (None, None)


@in_module_loop
async def test_an_unfinished_run_has_a_share_of_the_reward(environment: GauntletEnvironment) -> None:
    task = make_task("run-3", 7)
    trajectory = await run_episode(environment, Solving(gives_up_on=3), task)
    assert trajectory.task.goal == "Solve the first 3 steps."
    given = [step.reward for step in trajectory.steps if step.reward is not None]
    assert given == [pytest.approx(1 / 3), pytest.approx(1 / 3), 0.0]
    assert trajectory.reward == pytest.approx(2 / 3)
    assert (trajectory.stop_reason, trajectory.success, trajectory.positive) == (StopReason.INFEASIBLE, False, True)
    # START, then at least a code and Enter for each solved step, then the last word.
    rewarded = [index for index, step in enumerate(trajectory.steps) if step.reward is not None]
    assert rewarded[0] >= 2 and rewarded[1] - rewarded[0] >= 2 and rewarded[2] == rewarded[1] + 1
    whole = await run_episode(environment, Solving(), make_task("run-2", 7))
    assert (whole.reward, whole.success) == (pytest.approx(1.0), True)


@in_module_loop
async def test_a_run_ends_where_one_step_takes_too_long(environment: GauntletEnvironment) -> None:
    task = make_task("run-3", 8)  # its first step is one to read
    limited = task.model_copy(update={"params": {**task.params, "actions_a_step": 4}})
    seen, outcomes = await environment.reset(limited), []
    for number in range(1, 8):
        action = knowing(limited)(seen) if number <= 3 else Noop()
        outcomes.append(await environment.step(action))
        seen = outcomes[-1].observation
    assert [o.stop for o in outcomes] == [None] * 6 + [StopReason.MAX_STEPS]
    assert [o.reward for o in outcomes] == [None, None, pytest.approx(1 / 3), None, None, None, 0.0]


@in_module_loop
async def test_siblings_share_their_start_and_are_stored_like_any_other_rollout(make: Make) -> None:
    found: list[Trajectory] = []
    tasks = [make_task("step-math", 9), make_task("run-1", 9)]
    progress = await rollout(tasks, Solving(), environments=make, stage="s", on_trajectory=found.append, workers=2,
                             group_size=2)  # fmt: skip
    assert (progress.finished, progress.succeeded, progress.failed) == (4, 4, 0)
    for task in tasks:
        assert len({t.start_hash for t in found if t.task.id == task.id}) == 1


# -- the world breaks -------------------------------------------------------------------------------------------------


@in_module_loop
async def test_a_server_that_dies_is_a_typed_failure_and_the_next_reset_has_a_new_one(
    site: OwnSite, environment: GauntletEnvironment
) -> None:
    task = make_task("step-visible-text", 10)
    before = await environment.reset(task)
    address = site.base_url
    kill(site)
    with pytest.raises(RolloutFailure) as failure:
        await environment.step(Noop())
    assert failure.value.kind == StopReason.SERVER_ERROR
    assert await environment.reset(task) == before
    assert site.base_url == address
    outcome = await environment.step(knowing(task)(before))
    outcome = await environment.step(knowing(task)(outcome.observation))
    assert outcome.stop is StopReason.SUCCESS


@pytest.mark.slow
@in_module_loop
async def test_as_long_as_the_server_cannot_come_back_resets_fail(
    site: OwnSite, environment: GauntletEnvironment
) -> None:
    task = make_task("step-click-reveal", 10)
    await environment.reset(task)
    kill(site)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", urlsplit(site.base_url).port))
        taken.listen(0)
        for _ in range(2):
            with pytest.raises(RolloutFailure) as failure:
                await environment.reset(task)
            assert failure.value.kind == StopReason.SERVER_ERROR
    assert at(await environment.reset(task)) is not None


def kill(site: OwnSite) -> None:
    child = site.server._child
    assert child is not None
    child.kill()
    child.wait(5)


# -- what the page may do ---------------------------------------------------------------------------------------------


@in_module_loop
async def test_nothing_outlives_an_episode(environment: GauntletEnvironment) -> None:
    """Cookies, stored entries, caches and a registered service worker are gone with the context."""
    left = """async () => [document.cookie, localStorage.length + sessionStorage.length, (await caches.keys()).length,
        (await navigator.serviceWorker.getRegistrations()).length]"""
    seen = await environment.reset(make_task("step-service-worker", 1))
    await javascript(environment, """async () => { document.cookie = "left=1"; localStorage.left = 1;
        sessionStorage.left = 1; await caches.open("left") }""")  # fmt: skip
    for action in clicks(seen):
        await environment.step(action)
        registered = await javascript(environment, left)
        if registered[3]:
            break
    assert registered == ["left=1", 2, registered[2], 1]
    assert registered[2] >= 1
    again = await environment.reset(make_task("step-service-worker", 1))
    assert await javascript(environment, left) == ["", 0, 0, 0]
    assert again == seen


@in_module_loop
async def test_a_tab_that_the_page_opens_is_seen(environment: GauntletEnvironment) -> None:
    seen = await environment.reset(make_task("step-multi-tab", 1))
    session = environment.session
    assert session is not None
    for action in clicks(seen):
        outcome = await environment.step(action)
        if len(session.tabs.pages) == 2:
            break
    assert "/asset/" in outcome.observation.url
    assert outcome.observation.elements
    assert at((await environment.step(TabFocus(index=0))).observation) == at(seen)
    outcome = await environment.step(TabFocus(index=1))
    assert "/asset/" in outcome.observation.url
    outcome = await environment.step(TabClose())
    assert (at(outcome.observation), outcome.observation.last_error) == (at(seen), None)


def clicks(observation: Observation) -> list[Action]:
    """A click on each button and link that is not the code form's or a popup's."""
    begin = next(i for i, e in enumerate(observation.elements) if STEP.fullmatch(e.name))
    return [Click(ref=e.ref) for e in observation.elements[begin:] if e.ref and e.role in ("button", "link")]


# -- a site of somebody else ------------------------------------------------------------------------------------------


@in_module_loop
async def test_on_a_site_of_somebody_else_progress_is_what_its_pages_show() -> None:
    with GauntletServer(inside=True, types=("visible-text", "encoded"), steps=2, seed=4) as server:
        place = f"gauntlet:{server.base_url}"
        make_run = plugins.load("make_task", place)
        async with plugins.load("environments", place)() as make:
            environment = await make()
            for name, share in (("run", 1 / 2), ("run-1", 1.0)):
                task = make_run(name, 1)
                seen, outcomes = await environment.reset(task), list[Outcome]()
                while not outcomes or outcomes[-1].stop is None:
                    assert server.site is not None
                    line = next(reversed(server.site._lines.values()))  # the visit of the latest page
                    outcomes.append(await environment.step(entering(seen, line.visit.code(line.visit.step))))
                    seen = outcomes[-1].observation
                assert [o.reward for o in outcomes if o.reward] == [pytest.approx(share)] * round(1 / share)
                assert outcomes[-1].stop is StopReason.SUCCESS
            with pytest.raises(UnknownNameError):
                await environment.reset(make_task("step-math", 1))
            server.close()
            with pytest.raises(RolloutFailure) as failure:
                await environment.reset(make_run("run", 1))
            assert failure.value.kind == StopReason.SERVER_ERROR
            await environment.close()
    with pytest.raises(ConfigError, match="does not answer"):
        async with plugins.load("environments", place)():
            pass
    with pytest.raises(ConfigError, match="no address"):
        plugins.load("environments", "gauntlet:somewhere")


# -- other faces ------------------------------------------------------------------------------------------------------


def test_gymnasium_makes_steps_and_runs() -> None:
    env = gymnasium.make("dpo_driver/gauntlet.step-visible-text", reward="strict")
    try:
        seen, info = env.reset(seed=5)
        observation = info["observation"]
        task = make_task("step-visible-text", 5)
        assert seen["goal"] == "Find the code of this step and submit it."
        code = code_of(task, at(observation) or 0)
        (field,) = [e.ref for e in observation.elements if e.role == "textbox" and re.search("code|key", e.name, re.I)]
        assert env.step(f'fill("{field}", "{code}")')[1:4] == (0.0, False, False)
        assert env.step(f'press("{field}", "Enter")')[1:4] == (1.0, True, False)
    finally:
        env.close()
    run = gymnasium.make("dpo_driver/gauntlet.run")
    try:
        seen, info = run.reset(seed=5)
        assert (seen["goal"], run.spec and run.spec.max_episode_steps) == ("Solve all 30 steps.", 500)
        (button,) = [e.ref for e in info["observation"].elements if e.role == "button"]
        seen, reward, ended, cut, info = run.step(f'click("{button}")')
        assert (at(info["observation"]), reward, ended, cut) == (1, 0.0, False, False)
    finally:
        run.close()


def test_a_configuration_names_its_families(tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    file.write_text("env:\n  name: gauntlet\n  tasks: [step-click-reveal-d1, run-30-b]\n")
    assert read_config(file, ()).env.tasks == ("step-click-reveal", "run-b")
    file.write_text("env:\n  name: gauntlet\n  tasks: [step-clickreveal]\n")
    with pytest.raises(UnknownNameError, match="did you mean step-click-reveal"):
        read_config(file, ())
