"""The conformance check for agents: whatever acts in a rollout must pass it. Used by tests and plug-in authors.

    asyncio.run(check_agent(RandomAgent(seed=0)))

Plays the toy environment, so it needs no browser. Raises AssertionError with the rule that was broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from dpo_driver.agents.prompt import parse_completion
from dpo_driver.core.protocols import Agent, Environment, Move
from dpo_driver.core.records import Task, Trajectory
from dpo_driver.envs import toy
from dpo_driver.rollout.episode import run_episode

TOY_TASKS = tuple(toy.make_task(name, seed) for name in toy.FAMILIES for seed in (1, 2))


async def check_agent(
    agent: Agent,
    *,
    tasks: Sequence[Task] = TOY_TASKS,
    environment: Callable[[], Environment] = toy.ToyEnvironment,
    repeatable: bool = True,
) -> list[Trajectory]:
    """Check the rules of :class:`dpo_driver.core.protocols.Agent`; returns the trajectories it played.

    Args:
        agent: any agent that can play the tasks.
        tasks, environment: what it plays, all tasks at once; the toy families by default.
        repeatable: whether equal arguments must give equal moves (not so for a person or a remote model).
    """
    assert isinstance(agent, Agent), "an agent has name, policy_version, context_policy and `act`"
    assert agent.name, "an agent has a name"
    assert agent.policy_version, "an agent names what drives it"
    assert agent.context_policy, "an agent names its context policy"
    trajectories = await asyncio.gather(*(run_episode(environment(), agent, task) for task in tasks))
    for trajectory in trajectories:
        assert trajectory.failure is None, f"{trajectory.task.id}: {trajectory.failure}"
        assert trajectory.steps, f"{trajectory.task.id}: no step was taken"
        for step in trajectory.steps:
            assert (step.action is None) == (step.parse_error is not None), "a move has an action or a parse error"
            assert step.messages, "a move keeps the messages it was made from"
            if step.action is not None:
                assert parse_completion(step.completion)[1] == step.action, "the completion reads back as the action"
    task = tasks[0]
    observation = await environment().reset(task)
    first, second = await asyncio.gather(agent.act(task, observation, []), agent.act(task, observation, []))
    if repeatable:
        assert _essence(first) == _essence(second), "equal arguments give equal moves: an agent keeps no state"
    return list(trajectories)


def _essence(move: Move) -> tuple[object, ...]:
    return move.action, move.thought, move.completion, move.messages, move.parse_error
