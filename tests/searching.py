"""What tests of searches share: steps by hand, a policy with habits, a world that is not the same twice."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Sequence

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.agents.prompt import parse_completion
from dpo_driver.core.actions import Action
from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.protocols import Environment, Move, Outcome
from dpo_driver.core.records import Message, Observation, Sampling, Step, StopReason, Trajectory
from dpo_driver.envs.toy import ToyEnvironment
from dpo_driver.policies.scripted import ScriptedPolicy
from dpo_driver.rollout.search_account import Searched

_BUTTON = re.compile(r"^button (\w+)\[(\d+)\]$", re.MULTILINE)


def step(state: str, ref: str, *, reward: float | None = None, unreadable: bool = False) -> Step:
    """A click on ``ref`` in a state, with a prompt that tells states apart."""
    text = "?" if unreadable else f'thought: t\naction: click("{ref}")'
    action = None if unreadable else parse_completion(text)[1]
    return Step(
        observation=Observation(goal="g", state_hash=state),
        messages=(Message(role="user", content=state),),
        completion=text,
        thought="" if unreadable else "t",
        action=action,
        reward=reward,
    )


def line(*path: str) -> list[Step]:
    """``line("a1", "b2")``: click 1 in state a, click 2 in state b, and the episode is over."""
    return [step(name[:-1], name[-1]) for name in path]


def move(ref: str) -> Move:
    """A candidate."""
    thought, action = parse_completion(f'thought: t\naction: click("{ref}")')
    return Move(action, thought)


def habit(first: float, version: str = "habit") -> PolicyAgent:
    """Presses the first button with probability ``first``, the others equally often: it rarely reads the goal."""

    def answer(messages: Sequence[Message], sampling: Sampling) -> str:
        buttons = _BUTTON.findall(messages[-1].content)
        rng = random.Random(sampling.seed)
        weights = [first] + [(1 - first) / (len(buttons) - 1)] * (len(buttons) - 1)
        word, ref = rng.choices(buttons, weights)[0]
        return f'thought: button {word}\naction: click("{ref}")'

    return PolicyAgent(ScriptedPolicy(answer, version=version), "pocket", Sampling(temperature=1.0, seed=3))


class Counted(ToyEnvironment):
    """A toy environment that knows how many of its kind are open and how many actions were carried out."""

    opened = closed = actions = 0

    @classmethod
    async def make(cls) -> Environment:
        cls.opened += 1
        return cls()

    @classmethod
    def fresh(cls) -> type[Counted]:
        """A kind of its own, so that counts begin at 0."""
        return type("Fresh", (cls,), {"opened": 0, "closed": 0, "actions": 0})

    async def step(self, action: Action) -> Outcome:
        type(self).actions += 1
        return await super().step(action)

    async def close(self) -> None:
        type(self).closed += 1
        await super().close()


class Fickle(Counted):
    """A wizard whose second page is another one each time: no replay leads to it again."""

    visits = 0

    def _observe(self, error: str | None = None) -> Observation:
        seen = super()._observe(error)
        assert self._page is not None
        if self._page.passed != 1:
            return seen
        type(self).visits += 1
        return seen.model_copy(update={"state_hash": f"{type(self).visits:016x}"})


class Fragile(Counted):
    """A wizard that breaks whenever a button with this number is pressed."""

    breaking = "1"

    async def step(self, action: Action) -> Outcome:
        if getattr(action, "ref", None) == self.breaking:
            raise RolloutFailure(StopReason.RENDERER_CRASH, "this button kills the page")
        return await super().step(action)


class Shelf:
    """Keeps what a search hands over, as a store does: accounts as JSON."""

    def __init__(self, stop_after: int | None = None, stop: Callable[[], None] | None = None) -> None:
        self.trajectories: dict[str, Trajectory] = {}
        self.accounts: dict[str, dict[str, object]] = {}
        self._stop_after, self._stop = stop_after, stop

    def add(self, trajectory: Trajectory, account: Searched) -> None:
        self.trajectories[trajectory.id] = trajectory
        self.accounts[account.task] = account.as_json()
        if self._stop is not None and len(self.trajectories) == self._stop_after:
            self._stop()

    def earlier(self, task: object) -> tuple[Searched, list[Trajectory]] | None:
        written = self.accounts.get(task.id)  # type: ignore[attr-defined]
        if written is None:
            return None
        account = Searched.from_json(written)
        return account, [self.trajectories[each.trajectory] for each in account.lines]


Make = Callable[[], Awaitable[Environment]]
