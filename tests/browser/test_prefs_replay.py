"""Pairs of real MiniWoB++ rollouts played again from their seeds: what holds, and what was bent in the record."""

from __future__ import annotations

import pytest

from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.records import Trajectory
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.preferences.build import build_pairs
from dpo_driver.rollout.pool import rollout
from dpo_driver.rollout.reverify import Replayed, replay, sample

pytestmark = [pytest.mark.browser, pytest.mark.asyncio, pytest.mark.timeout(120)]


async def test_a_pair_is_played_again_from_its_seed() -> None:
    tasks = [make_task("click-test-2", seed, "train") for seed in (10_001, 10_002)]
    found: dict[str, Trajectory] = {}

    def keep(trajectory: Trajectory) -> None:
        # One model's rollouts: the scripted expert and the random agent write in one prompt.
        found[trajectory.id] = trajectory.model_copy(update={"policy_version": "one"})

    async with MiniwobEnvironment.source() as make:
        for agent, stage in ((RandomAgent(3), "collect/1"), (OracleAgent("pocket"), "collect/2")):
            await rollout(tasks, agent, environments=make, stage=stage, on_trajectory=keep, group_size=3, workers=1)
        rows, _ = build_pairs(list(found.values()), sources=("step", "outcome"))
        assert rows, "random clicks fail somewhere"
        row = sample(rows, 1, seed=0)[0]
        seen: list[Replayed] = []
        assert await replay(make, [row], found.__getitem__, on_replayed=seen.append) == seen
        assert seen == [Replayed(pair=row.id, state="same")]

        # A record that says another state, or another outcome, does not come out.
        identity = row.evidence["rejected"]["trajectory"]
        lost = found[identity]
        first = lost.steps[0].observation.model_copy(update={"state_hash": "0" * 16})
        found[identity] = lost.model_copy(
            update={"steps": (lost.steps[0].model_copy(update={"observation": first}), *lost.steps[1:])}
        )
        (bent,) = await replay(make, [row], found.__getitem__)
        assert bent.state == "differs" and "start's state" in bent.what and "0" * 16 in bent.what
        won = found[row.evidence["chosen"]["trajectory"]]
        found[won.id] = won.model_copy(update={"reward": -1.0})
        (bent,) = await replay(make, [row], found.__getitem__)
        assert bent.state == "differs" and "chosen" in bent.what and "reward" in bent.what
