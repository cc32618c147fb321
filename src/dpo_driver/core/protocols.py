"""The four interfaces through which siblings meet: Environment, Policy, Agent, and what they hand over.

No behaviour here and no imports but records. ``testing/`` ships fakes and conformance checks for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from dpo_driver.core.actions import Action
from dpo_driver.core.records import Generation, Message, Observation, Sampling, Step, StopReason, Task


@dataclass(frozen=True)
class Outcome:
    """What one action led to. ``reward`` is what this action earned, None where the environment measured nothing: most
    give it once, with the end; one with milestones gives each its share, and an episode's reward is their sum. ``stop``
    is None while the episode goes on."""

    observation: Observation
    reward: float | None = None
    stop: StopReason | None = None


@runtime_checkable
class Environment(Protocol):
    """One episode at a time on one page. Every call has a deadline and raises RolloutFailure when the world (not the
    agent) breaks. An action that cannot be carried out is not an exception: it comes back as
    ``observation.last_error``."""

    async def reset(self, task: Task) -> Observation: ...

    async def step(self, action: Action) -> Outcome: ...

    async def screenshot(self) -> bytes:
        """PNG or JPEG of the viewport, for replays."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Policy(Protocol):
    """The model that generates. Synchronous and batched; called from one thread."""

    @property
    def version(self) -> str:
        """Content hash of the weights, recorded with every generation."""
        ...

    def generate(self, prompts: Sequence[Sequence[Message]], sampling: Sequence[Sampling]) -> list[Generation]:
        """One generation per prompt, in order. A prompt that does not fit comes back with
        ``finish_reason="error"`` and empty text."""
        ...


@runtime_checkable
class RemotePolicy(Policy, Protocol):
    """A policy that is elsewhere and answers many at once. An agent asks it for each decision by itself instead of in
    batches, so that a call which is slow or lost holds up no other."""

    async def answer(self, messages: Sequence[Message], sampling: Sampling) -> Generation:
        """One generation. Raises DriverError or RolloutFailure."""
        ...


@dataclass(frozen=True)
class Move:
    """An agent's decision. ``action`` is None when the text could not be read; ``parse_error`` then says why."""

    action: Action | None
    thought: str = ""
    completion: str = ""
    messages: tuple[Message, ...] = ()
    generation: Generation | None = None
    parse_error: str | None = None
    policy_seconds: float = field(default=0.0, compare=False)


@runtime_checkable
class Agent(Protocol):
    """Prompt + policy + parser, or a script. One agent object serves many episodes at once and keeps no state
    between calls: everything it may use is in the arguments."""

    @property
    def name(self) -> str: ...

    @property
    def policy_version(self) -> str: ...

    @property
    def context_policy(self) -> str: ...

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move: ...


@runtime_checkable
class InStep(Protocol):
    """An agent whose episodes can go in step: what it decides for one wave depends on nothing but that wave."""

    def join(self, count: int) -> None:
        """``count`` more episodes to wait for."""
        ...

    def leave(self) -> None:
        """One less."""
        ...
