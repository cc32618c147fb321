"""Whether two environments are the same to an agent: equal seeds and actions must give equal goals, pages and rewards.

The certificate of the batched MiniWoB++ engine (envs/miniwob/batched.py) is made here: agents whose decisions depend on
nothing but what they see play the same seeds in both. Called by ``dpo-driver certify`` and tests. Knows environments by
their factories only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dpo_driver.core.protocols import Agent
from dpo_driver.core.records import Task, Trajectory
from dpo_driver.rollout.pool import EnvironmentSource, rollout_sync


@dataclass
class Certificate:
    """How one family compared. ``equal`` of ``episodes`` were the same from start to end; ``first_difference`` says
    where the first that was not parted."""

    episodes: int = 0
    equal: int = 0
    steps: int = 0
    first_difference: str = ""

    @property
    def holds(self) -> bool:
        return self.episodes > 0 and self.equal == self.episodes


@dataclass
class Comparison:
    """Certificates by family, and how long each side took."""

    tasks: dict[str, Certificate] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)


def certify(
    tasks: Sequence[Task],
    agents: Sequence[Agent],
    *,
    reference: EnvironmentSource,
    candidate: EnvironmentSource,
    workers: tuple[int, int] = (4, 16),
) -> Comparison:
    """Play every task with every agent in both environments.

    Args:
        agents: deterministic: equal observations must give equal actions.
        workers: concurrent episodes in the reference and in the candidate; many in the candidate, so that neighbours
            would be seen to disturb each other.
    """
    found = Comparison()
    for agent in agents:
        before = _play(tasks, agent, reference, workers[0])
        after = _play(tasks, agent, candidate, workers[1])
        found.seconds = (found.seconds[0] + before[1], found.seconds[1] + after[1])
        for task in tasks:
            certificate = found.tasks.setdefault(task.name, Certificate())
            first, second = before[0][task.id], after[0][task.id]
            certificate.episodes += 1
            certificate.steps += len(first.steps)
            told = difference(first, second)
            if told is None:
                certificate.equal += 1
            elif not certificate.first_difference:
                certificate.first_difference = f"{agent.name}, seed {task.seed}: {told}"
    return found


def _play(
    tasks: Sequence[Task], agent: Agent, source: EnvironmentSource, workers: int
) -> tuple[dict[str, Trajectory], float]:
    found: dict[str, Trajectory] = {}
    progress = rollout_sync(
        tasks,
        agent,
        environments=source,
        stage="certify",
        on_trajectory=lambda trajectory: found.update({trajectory.task.id: trajectory}),
        workers=workers,
    )
    return found, progress.seconds


def difference(first: Trajectory, second: Trajectory) -> str | None:
    """Where two trajectories part, in words; None when an agent could not tell them apart."""
    for trajectory in (first, second):
        if trajectory.failure is not None:
            return f"failed: {trajectory.failure}"
    if first.task.goal != second.task.goal:
        return f"goal {first.task.goal!r} against {second.task.goal!r}"
    for number, (one, other) in enumerate(zip(first.steps, second.steps, strict=False)):
        if one.observation.state_hash != other.observation.state_hash:
            return f"step {number}: the page looks different"
        if one.observation.last_error != other.observation.last_error:
            return f"step {number}: {one.observation.last_error!r} against {other.observation.last_error!r}"
        if one.action != other.action:
            return f"step {number}: {one.action} against {other.action}"
    ends = [(t.stop_reason.value, t.reward, len(t.steps)) for t in (first, second)]
    return None if ends[0] == ends[1] else f"ended {ends[0]} against {ends[1]}"
