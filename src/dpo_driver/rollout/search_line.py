"""What plays one line of a search: known decisions, each on the page on which it was taken, then the policy's own.

A page of the tree is reached by resetting the environment to the task's seed and replaying the decisions that led to
it. On the way every page must have the state hash that was recorded there: a line that comes elsewhere ends as a
START_MISMATCH, which is a failure and no score. Called by rollout/search.py. Knows environments and agents by their
protocols; the renderer only writes down what a solution file knows as bare actions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from statistics import fmean

from dpo_driver.agents.prompt import PROFILES, render, render_completion
from dpo_driver.core.actions import Action, parse_action
from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.protocols import Agent, Move
from dpo_driver.core.records import Observation, Step, StopReason, Task
from dpo_driver.rollout.search_account import Solution
from dpo_driver.rollout.search_tree import Node, looks


class Line:
    """An agent for one line: what is planned, checked page by page, then ``agent``. ``parted`` says at which decision
    the page was another one, None if it never was."""

    name = "search"

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.parted: int | None = None

    @property
    def policy_version(self) -> str:
        return self._agent.policy_version

    @property
    def context_policy(self) -> str:
        return self._agent.context_policy

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """The planned decision, while there is one.

        Raises:
            RolloutFailure: this is not the page on which it was planned.
        """
        at = len(history)
        if not self._expected(at, observation):
            self.parted = at
            raise RolloutFailure(StopReason.START_MISMATCH, f"after {at} replayed actions the page is another one: "
                                 f"{observation.state_hash}")  # fmt: skip
        planned = self._planned(at, observation, history)
        return planned if planned is not None else await self._agent.act(task, observation, history)

    def _expected(self, at: int, observation: Observation) -> bool:
        raise NotImplementedError

    def _planned(self, at: int, observation: Observation, history: Sequence[Step]) -> Move | None:
        raise NotImplementedError


class Branch(Line):
    """The way to a node of the tree, and what its parent had not tried yet: ``node`` is the last planned decision."""

    def __init__(self, agent: Agent, node: Node) -> None:
        super().__init__(agent)
        self.nodes = node.path

    def _expected(self, at: int, observation: Observation) -> bool:
        page = self.nodes[at].page if at < len(self.nodes) else None
        return page is None or looks(page) == looks(observation)

    def _planned(self, at: int, observation: Observation, history: Sequence[Step]) -> Move | None:
        return self.nodes[at + 1].move if at + 1 < len(self.nodes) else None


class Known(Line):
    """A solution that was found earlier, written down as the agent would."""

    def __init__(self, agent: Agent, solution: Solution) -> None:
        super().__init__(agent)
        self._solution = solution
        known = (each for each in PROFILES.values() if each.id == agent.context_policy and not each.examples)
        self._profile = next(known, None)

    def _expected(self, at: int, observation: Observation) -> bool:
        states = self._solution.states
        return at >= len(states) or states[at] == observation.state_hash

    def _planned(self, at: int, observation: Observation, history: Sequence[Step]) -> Move | None:
        if at >= len(self._solution.actions):
            return None
        action, thought = parse_action(self._solution.actions[at]), self._solution.thoughts[at]
        return self._written(action, thought, observation, history)

    def _written(self, action: Action, thought: str, observation: Observation, history: Sequence[Step]) -> Move:
        if self._profile is None:  # an agent with prompts of its own: the page can be played, not learned from
            return Move(action, thought)
        messages = render(self._profile, observation, history)
        return Move(action, thought, render_completion(self._profile, thought, action), messages)


class SeenBefore:
    """The critic of a search that is given none: what earlier lines made of a page that looks the same.

    It gives the share of the reward that has been earned on the way to a page, where the environment pays by
    milestones; else the mean outcome of all lines of this search that came through a page with the same state hash,
    be it after other decisions; None for a page that is new.
    """

    def __init__(self) -> None:
        self._outcomes: dict[str, dict[str, float]] = {}  # by state, then by line
        self._earned: dict[str, float] = {}

    def __call__(self, page: Observation, task: Task) -> float | None:
        if page.state_hash in self._earned:
            return self._earned[page.state_hash]
        outcomes = self._outcomes.get(page.state_hash)
        return fmean(outcomes.values()) if outcomes else None

    def earn(self, steps: Sequence[Step]) -> None:
        """Note what a line had earned when it saw each page; the reward of the end is no milestone."""
        earned: float | None = None
        for step, after in pairwise(steps):
            if step.reward is not None:
                earned = (earned or 0.0) + step.reward
            if earned is not None:
                self._earned[after.observation.state_hash] = min(1.0, max(0.0, earned))

    def learn(self, line: str, steps: Sequence[Step], outcome: float) -> None:
        """Note how a line ended, for each page that it saw."""
        for step in steps:
            self._outcomes.setdefault(step.observation.state_hash, {})[line] = outcome

    def forget(self, lines: Collection[str]) -> None:
        """Lines that do not count any more."""
        for outcomes in self._outcomes.values():
            for line in lines:
                outcomes.pop(line, None)
