"""The conformance check for environments passes what conforms and names the rule that something breaks."""

from __future__ import annotations

import re

import pytest

from dpo_driver.core.actions import Action, Click
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Observation, StopReason, Task
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.testing.check_env import check_env

TASKS = [make_task("press", 1), make_task("press", 2)]


def press(seen: Observation) -> Action:
    (wanted,) = re.findall(r'"(.+)"', seen.goal)
    return Click(ref=next(e.ref for e in seen.elements if e.name == wanted and e.ref is not None))


async def test_the_toy_environment_conforms() -> None:
    await check_env(ToyEnvironment(), TASKS, expert=press)
    await check_env(ToyEnvironment(), [make_task(name, 3) for name in ("press", "login", "wizard")])


class Forgetful(ToyEnvironment):
    """Carries something over from the episode before."""

    resets = 0

    async def reset(self, task: Task) -> Observation:
        self.resets += 1
        return (await super().reset(task)).model_copy(update={"title": f"episode {self.resets}"})


class Generous(ToyEnvironment):
    """Rewards every step."""

    async def step(self, action: Action) -> Outcome:
        outcome = await super().step(action)
        return Outcome(outcome.observation, 1.0, outcome.stop)


class Lenient(ToyEnvironment):
    """Calls any reward a success."""

    async def step(self, action: Action) -> Outcome:
        outcome = await super().step(action)
        return Outcome(outcome.observation, -1.0 if outcome.stop else None, outcome.stop and StopReason.SUCCESS)


class Blind(ToyEnvironment):
    async def screenshot(self) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (Forgetful, "starts alike every time"),
        (Generous, "a mistake neither ends nor scores"),
        (Lenient, "success means full reward"),
        (Blind, "a screenshot is a JPEG or a PNG"),
    ],
)
async def test_a_broken_rule_is_named(broken: type[ToyEnvironment], rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        await check_env(broken(), TASKS, expert=press)
