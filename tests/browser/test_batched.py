"""Frames against pages of their own: the same goals, observations and rewards, or the task is not certified."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial

import pytest

from dpo_driver.agents.oracle import ORACLES, OracleAgent
from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.actions import parse_action
from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.records import StopReason, Trajectory
from dpo_driver.envs.miniwob import batched
from dpo_driver.envs.miniwob.batched import BatchedEnvironment, certified
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.certify import Comparison, certify
from dpo_driver.rollout.pool import rollout_sync

pytestmark = pytest.mark.browser


def compare(names: list[str], seeds: range) -> Comparison:
    return certify(
        [make_task(name, seed, "val") for name in names for seed in seeds],
        [OracleAgent(), RandomAgent(seed=3)],
        reference=MiniwobEnvironment.source,
        candidate=partial(BatchedEnvironment.source, tasks=frozenset(names)),
    )


def test_frames_are_the_same_as_pages_of_their_own() -> None:
    names = ["click-checkboxes", "click-tab-2", "enter-password", "choose-list", "navigate-tree", "click-dialog-2"]
    found = compare(names, range(970_000, 970_002))
    assert {name: c.first_difference for name, c in found.tasks.items()} == dict.fromkeys(names, "")
    assert all(c.equal == c.episodes == 4 for c in found.tasks.values())


def test_a_task_that_differs_gets_no_certificate() -> None:
    # Its slider listens to real keys only.
    found = compare(["use-slider-2"], range(970_000, 970_002)).tasks["use-slider-2"]
    assert not found.holds
    assert "seed 97000" in found.first_difference
    assert "use-slider-2" not in certified()


@pytest.mark.slow
def test_every_certificate_holds_on_fresh_seeds() -> None:
    found = compare(sorted(certified()), range(971_000, 971_006))
    assert {name: c.first_difference for name, c in found.tasks.items() if not c.holds} == {}


def test_only_known_tasks_are_certified() -> None:
    assert certified() <= set(ORACLES)
    assert len(certified()) >= 70


def test_a_batched_rollout_gets_every_reward() -> None:
    """Certified and other tasks in one rollout: frames for the first, pages of their own for the others."""
    names = ["click-button", "login-user", "use-autocomplete"]
    done: list[Trajectory] = []
    tasks = [make_task(name, seed, "val") for name in names for seed in range(972_000, 972_012)]
    rollout_sync(
        tasks,
        OracleAgent(),
        environments=BatchedEnvironment.source,
        stage="batched",
        on_trajectory=done.append,
        workers=8,
    )
    assert sum(bool(trajectory.success) for trajectory in done) == len(tasks)


def test_wrong_answers_are_refused_in_frames() -> None:
    async def play() -> tuple[float | None, StopReason | None]:
        async with BatchedEnvironment.source() as make:
            environment = await make()
            observation = await environment.reset(make_task("click-test-2", 972_000))
            wrong = next(e for e in observation.elements if e.name == "TWO")
            outcome = await environment.step(parse_action(f'click("{wrong.ref}")'))
            return outcome.reward, outcome.stop

    assert asyncio.run(play()) == (-1.0, StopReason.WRONG)


def test_a_dead_page_fails_its_frames_and_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "PAGES", 1)

    async def play() -> tuple[list[str], StopReason | None]:
        async with BatchedEnvironment.source() as make:
            both = [await make(), await make()]
            for environment in both:
                await environment.reset(make_task("click-test", 1))
            page = both[0]._page
            assert page is not None and page is both[1]._page
            for pid in page._session._browser.pids:
                os.kill(pid, signal.SIGKILL)
            kinds = []
            for environment in both:
                with pytest.raises(RolloutFailure) as caught:
                    await environment.step(parse_action("noop()"))
                kinds.append(str(caught.value.kind))
            observation = await both[1].reset(make_task("click-test", 2))
            button = next(e for e in observation.elements if e.role == "button")
            outcome = await both[1].step(parse_action(f'click("{button.ref}")'))
            return kinds, outcome.stop

    assert asyncio.run(play()) == (["browser_lost", "browser_lost"], StopReason.SUCCESS)


def test_worn_pages_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "PAGES", 1)
    monkeypatch.setattr(batched, "LOADS_PER_PAGE", 3)

    async def play() -> tuple[int, int, int]:
        async with BatchedEnvironment.source() as make:
            both = [await make(), await make()]
            first = None
            for name in ("click-test", "click-button", "click-link"):
                for environment in both:
                    await environment.reset(make_task(name, 1))
                    first = first or environment._page
            assert first is not None and first.worn
            pages = both[0]._pages._pages
            assert both[0]._page is both[1]._page is pages[-1]
            for environment in both:
                await environment.reset(make_task("click-test", 2))
            pages = both[0]._pages._pages
            return first.in_use, len(pages), pages[-1].in_use  # the worn ones were closed when nobody was left

    assert asyncio.run(play()) == (0, 1, 2)


def test_an_action_that_frames_do_not_know_is_told() -> None:
    async def play() -> str | None:
        async with BatchedEnvironment.source() as make:
            environment = await make()
            await environment.reset(make_task("click-button", 5))
            return (await environment.step(parse_action('keyboard_press("Enter")'))).observation.last_error

    assert asyncio.run(play()) == "keyboard_press is not available here"
