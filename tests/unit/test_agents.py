"""Agents: micro-batching, reproducible seeds, unreadable texts, conformance of everything that is shipped."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from dpo_driver.agents.llm import PolicyAgent, decision_seed
from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.actions import Click, Fill, Noop, SelectOption
from dpo_driver.core.errors import ModelError, RolloutFailure
from dpo_driver.core.records import Element, Generation, Message, Observation, Sampling, StopReason, Task, Trajectory
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.policies.scripted import ScriptedPolicy
from dpo_driver.rollout.pool import rollout
from dpo_driver.testing.check_agent import check_agent
from dpo_driver.testing.check_policy import check_policy

PRESS = make_task("press", 1)
PAGE = Observation(goal='Press "a".', elements=(Element(ref="1", role="button", name="a"),), state_hash="h")


def first_button(messages: Sequence[Message], sampling: Sampling) -> str:
    return "thought: button\naction: click([1])"


def by_seed(messages: Sequence[Message], sampling: Sampling) -> str:
    return f"thought: {sampling.seed}\naction: click([{1 + (sampling.seed or 0) % 3}])"


async def test_shipped_agents_conform() -> None:
    for agent in (
        RandomAgent(0),
        PolicyAgent(ScriptedPolicy(first_button), "pocket"),
        PolicyAgent(ScriptedPolicy(by_seed)),
    ):
        trajectories = await check_agent(agent)
        assert len(trajectories) == 6


def test_the_scripted_policy_conforms() -> None:
    check_policy(ScriptedPolicy(first_button, max_prompt_chars=500), too_long="x" * 600)
    check_policy(ScriptedPolicy(by_seed))


def test_the_policy_check_can_fail() -> None:
    class Forgetful(ScriptedPolicy):
        def generate(self, prompts: Sequence[Sequence[Message]], sampling: Sequence[Sampling]) -> list[Generation]:
            return [g.model_copy(update={"logprobs": ()}) for g in super().generate(prompts, sampling)]

    with pytest.raises(AssertionError, match="one log-probability per token"):
        check_policy(Forgetful(first_button))


async def test_concurrent_calls_become_batches() -> None:
    threads: set[str] = set()

    def slow(messages: Sequence[Message], sampling: Sampling) -> str:
        threads.add(threading.current_thread().name)
        time.sleep(0.005)
        return first_button(messages, sampling)

    policy = ScriptedPolicy(slow)
    agent = PolicyAgent(policy, "pocket", max_batch=4)
    moves = await asyncio.gather(*(agent.act(PRESS, PAGE, []) for _ in range(10)))
    assert policy.batches == [4, 4, 2]
    assert all(move.action == Click(ref="1") and move.thought == "button" for move in moves)
    assert len(threads) == 1 and "generate" in threads.pop()

    policy.batches.clear()

    async def late(delay: float) -> None:
        await asyncio.sleep(delay)
        await agent.act(PRESS, PAGE, [])

    # Three arrive while the first is being answered: they wait together and become the next batch.
    await asyncio.gather(*(late(delay) for delay in (0.0, 0.006, 0.007, 0.008)))
    assert sum(policy.batches) == 4 and len(policy.batches) <= 3


async def test_texts_that_cannot_be_read_are_moves_without_action() -> None:
    agent = PolicyAgent(ScriptedPolicy(lambda m, s: "I would press it"), "chat")
    move = await agent.act(PRESS, PAGE, [])
    assert move.action is None and move.parse_error == 'no line starts with "action:"'
    assert move.completion == "I would press it"
    assert move.generation is not None and move.generation.token_ids
    agent = PolicyAgent(ScriptedPolicy(first_button, max_prompt_chars=3), "pocket")
    move = await agent.act(PRESS, PAGE, [])
    assert move.action is None and move.generation is not None and move.generation.finish_reason == "error"


async def test_a_policy_that_breaks_is_a_failure_and_a_driver_error_stops() -> None:
    def broken(messages: Sequence[Message], sampling: Sampling) -> str:
        raise MemoryError("out of memory")

    agent = PolicyAgent(ScriptedPolicy(broken), "pocket")
    with pytest.raises(RolloutFailure, match="MemoryError: out of memory") as caught:
        await agent.act(PRESS, PAGE, [])
    assert caught.value.kind is StopReason.POLICY_ERROR

    def unusable(messages: Sequence[Message], sampling: Sampling) -> str:
        raise ModelError("the model folder is gone")

    agent = PolicyAgent(ScriptedPolicy(unusable), "pocket")
    with pytest.raises(ModelError):
        await agent.act(PRESS, PAGE, [])
    recovered = PolicyAgent(ScriptedPolicy(first_button), "pocket")
    assert (await recovered.act(PRESS, PAGE, [])).action == Click(ref="1")


async def test_a_cancelled_call_leaves_the_agent_usable() -> None:
    def slow(messages: Sequence[Message], sampling: Sampling) -> str:
        time.sleep(0.05)
        return first_button(messages, sampling)

    agent = PolicyAgent(ScriptedPolicy(slow), "pocket")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(agent.act(PRESS, PAGE, []), 0.01)
    assert (await agent.act(PRESS, PAGE, [])).action == Click(ref="1")


def test_an_agent_serves_one_event_loop_after_another() -> None:
    agent = PolicyAgent(ScriptedPolicy(first_button), "pocket")
    for _ in range(3):
        assert asyncio.run(agent.act(PRESS, PAGE, [])).action == Click(ref="1")


def test_decision_seeds_tell_siblings_steps_and_runs_apart() -> None:
    def sibling(number: int) -> Task:
        return PRESS.model_copy(update={"params": {"sibling": number}})

    seeds = {decision_seed(base, sibling(s), step) for base in (None, 1) for s in (0, 1, 2) for step in range(4)}
    assert len(seeds) == 24 and all(0 <= seed < 2**48 for seed in seeds)
    assert decision_seed(1, PRESS, 2) == decision_seed(1, sibling(0), 2)


async def test_a_sampled_rollout_repeats_itself_and_siblings_differ() -> None:
    async def once(workers: int) -> dict[str, list[str]]:
        found: list[Trajectory] = []

        async def fresh() -> ToyEnvironment:
            return ToyEnvironment()

        agent = PolicyAgent(ScriptedPolicy(by_seed), "pocket", Sampling(temperature=1.0, seed=5))
        tasks = [make_task("wizard", seed) for seed in range(4)]
        await rollout(
            tasks, agent, environments=fresh, stage="c", on_trajectory=found.append, workers=workers, group_size=4
        )
        return {t.id: [step.completion for step in t.steps] for t in found}

    alone, together = await once(1), await once(6)
    assert alone == together
    assert len({tuple(texts) for texts in alone.values()}) == 16


async def test_the_random_agent_suits_its_actions_to_the_elements() -> None:
    elements = (
        Element(ref="1", role="combobox", options=("Red", "Blue")),
        Element(ref="2", role="textbox"),
        Element(ref="3", role="button", name="Go"),
        Element(ref=None, role="text", name="words"),
    )
    observation = Observation(goal='Enter "abc" and press Go.', elements=elements)
    agent = RandomAgent(1)
    moves = [
        await agent.act(Task(id=f"t/{seed}", env="e", name="n", seed=seed), observation, []) for seed in range(300)
    ]
    actions = [move.action for move in moves]
    assert {a.options for a in actions if isinstance(a, SelectOption)} == {("Red",), ("Blue",)}
    assert {a for a in actions if isinstance(a, Fill)} == {Fill(ref="2", value="abc")}
    assert {a.ref for a in actions if isinstance(a, Click)} == {"2", "3"}
    touched = [getattr(action, "ref", None) for action in actions]
    assert all(70 <= touched.count(ref) <= 130 for ref in ("1", "2", "3"))
    empty = await agent.act(PRESS, Observation(goal="g"), [])
    assert empty.action == Noop()
