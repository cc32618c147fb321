"""What a search is told, and what it leaves: settings, the account of each task, solutions. Plain data.

With the trajectories of its lines an account is all that it takes to go on. Written and read by rollout/search.py; the
flywheel keeps accounts in the run's store and solutions in a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dpo_driver.core.records import Trajectory
from dpo_driver.rollout.search_tree import decision_of


@dataclass(frozen=True)
class SearchSettings:
    """How a task is searched. The budget is a task's own; a line that has begun is played to its end.

    ``iterations`` lines; ``candidates`` asked for at a page; ``exploration`` is UCB1's constant; ``blend`` is the
    outcome's share in a line's value, the critic has the rest; ``max_actions`` in the browser, replayed ones included;
    ``max_seconds`` of the browser, without the policy's; ``until_solved`` ends a search with its first success.
    """

    iterations: int = 15
    candidates: int = 5
    exploration: float = 1.4
    blend: float = 0.7
    max_actions: int | None = None
    max_seconds: float | None = None
    until_solved: bool = False


@dataclass(frozen=True)
class LineValue:
    """What a line was worth. ``new`` is the index of its first decision that no line had taken before."""

    trajectory: str
    value: float
    outcome: float
    critic: float | None
    new: int


@dataclass
class Searched:
    """The account of one task's search, and with its trajectories all that it takes to go on.

    ``lines`` are those that count; ``refused`` are branches by their decisions, where replaying led to another page;
    ``forgotten`` counts lines that went with them, ``stale`` solutions that no longer hold. ``ended`` is None while the
    search goes on, else "iterations", "actions", "seconds", "exhausted", "solved", "start_differs" or "failed".
    """

    task: str
    lines: list[LineValue] = field(default_factory=list)
    refused: list[list[str]] = field(default_factory=list)
    played: int = 0
    actions: int = 0
    seconds: float = 0.0
    candidates: int = 0
    forgotten: int = 0
    failed: int = 0
    stale: int = 0
    solved_after: int | None = None  # browser actions until the first success, it included
    ended: str | None = None

    @property
    def solved(self) -> bool:
        return self.solved_after is not None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Searched:
        return cls(**{**data, "lines": [LineValue(**line) for line in data["lines"]]})


def outcome_of(trajectory: Trajectory) -> float:
    """What a line came to: 1 for a success, else the part of the reward that it got, from 0 to 1."""
    return 1.0 if trajectory.success else min(1.0, max(0.0, trajectory.reward or 0.0))


@dataclass(frozen=True)
class Solution:
    """How a task was solved: ``actions`` in the grammar with the thought and the state hash before each."""

    task: str
    name: str
    seed: int
    actions: tuple[str, ...]
    thoughts: tuple[str, ...]
    states: tuple[str, ...]
    policy_version: str = ""
    trajectory: str = ""

    @classmethod
    def of(cls, trajectory: Trajectory) -> Solution:
        """What a successful trajectory did; unreadable text did nothing and is left out."""
        done = [step for step in trajectory.steps if step.action is not None]
        return cls(
            task=trajectory.task.id,
            name=trajectory.task.name,
            seed=trajectory.task.seed,
            actions=tuple(decision_of(step.action) for step in done),
            thoughts=tuple(step.thought for step in done),
            states=tuple(step.observation.state_hash for step in done),
            policy_version=trajectory.policy_version,
            trajectory=trajectory.id,
        )
