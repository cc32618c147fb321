"""The prompts that real rollouts ask a policy for, in their order. Called by ``dpo-driver bench generate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.core.plugins import load
from dpo_driver.core.protocols import Policy
from dpo_driver.core.records import Generation, Message, Sampling
from dpo_driver.rollout.pool import rollout_sync

FAMILIES = ("press", "login", "wizard")
WORKERS = 8


class _Listening:
    """A policy that remembers what it was asked."""

    def __init__(self, inner: Policy) -> None:
        self._inner, self.asked = inner, list[Sequence[Message]]()

    @property
    def version(self) -> str:
        return self._inner.version

    def generate(self, prompts: Sequence[Sequence[Message]], sampling: Sequence[Sampling]) -> list[Generation]:
        self.asked += prompts
        return self._inner.generate(prompts, sampling)


def messages_of_rollouts(policy: Policy, count: int, *, siblings: int = 4) -> list[Sequence[Message]]:
    """The first ``count`` prompts of episodes of the toy environment, played by ``policy``, ``siblings`` of each
    start."""
    listening = _Listening(policy)
    make_task = load("make_task", "toy")
    tasks: list[Any] = [make_task(name, seed, "train") for seed in range(count // siblings) for name in FAMILIES]
    agent = PolicyAgent(listening, "pocket", Sampling(temperature=1.0, seed=0, max_new_tokens=64))
    rollout_sync(tasks[: 1 + count // siblings], agent, environments=load("environments", "toy"), stage="bench",
                 on_trajectory=lambda trajectory: None, workers=WORKERS, group_size=siblings)  # fmt: skip
    return listening.asked[:count]


def prompts_of_rollouts(
    policy: Policy, encode: Callable[[Sequence[Message]], list[int]], count: int
) -> list[tuple[int, ...]]:
    """The same as token ids."""
    return [tuple(encode(messages)) for messages in messages_of_rollouts(policy, count)]
