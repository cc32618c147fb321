"""Every expert plays its family on real pages, strictly: the ceiling must be a ceiling, and the floor lies below it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dpo_driver.agents.oracle import ORACLES, OracleAgent
from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.protocols import Agent
from dpo_driver.core.records import Trajectory
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.pool import rollout_sync

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
SEEDS = range(500, 505)


def play(agent: Agent, families: Sequence[str], seeds: Sequence[int]) -> list[Trajectory]:
    found: list[Trajectory] = []
    tasks = [make_task(family, seed) for family in families for seed in seeds]
    rollout_sync(
        tasks, agent, environments=MiniwobEnvironment.source, stage="test", on_trajectory=found.append, workers=3
    )
    assert len(found) == len(tasks)
    return found


@pytest.fixture(scope="module")
def played() -> list[Trajectory]:
    return play(OracleAgent(), list(ORACLES), SEEDS)


@pytest.mark.parametrize("family", ORACLES)
def test_the_oracle_solves_its_family(family: str, played: list[Trajectory]) -> None:
    mine = [t for t in played if t.task.name == family]
    lost = {t.id: (t.task.goal, t.failure, [(s.thought, s.action) for s in t.steps]) for t in mine if not t.success}
    assert len(mine) == len(SEEDS)
    assert not lost
    assert all(t.reward is not None and t.reward >= 0.99 for t in mine)


def test_demonstrations_name_what_they_act_on(played: list[Trajectory]) -> None:
    """A thought is the label of the element that the action refers to, so that it can be learned from the page."""
    for trajectory in played:
        for step in trajectory.steps:
            labels = {element.ref: element.label for element in step.observation.elements}
            assert step.thought == labels[getattr(step.action, "ref", None)], trajectory.id
            assert step.completion.startswith(f"thought: {step.thought}\naction: ")
            assert step.messages


def test_families_need_reading_and_several_steps(played: list[Trajectory]) -> None:
    """The floor is far below the ceiling, and at least six families need three steps or more."""
    longest = {f: max(len(t.steps) for t in played if t.task.name == f) for f in ORACLES}
    assert sum(steps >= 3 for steps in longest.values()) >= 6
    families = ["click-button", "click-option", "enter-text", "login-user", "choose-list", "click-link"]
    floor = play(RandomAgent(seed=1), families, range(500, 508))
    assert all(t.failure is None for t in floor)
    assert sum(bool(t.success) for t in floor) <= len(floor) // 2
