"""Outcome pairs: a sibling that succeeded against one that failed, at the first state where they part.

Siblings are trajectories of the same task, seed, start-state hash and policy. Up to the fork both took the same
decisions and saw the same pages, so the fork is where their outcomes part. How earlier thoughts were worded may differ:
the prompt is then the chosen one's, and the evidence says so. Called by build.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from dpo_driver.core.config import PairConfig
from dpo_driver.core.records import Preference, Trajectory, TrajectoryGroup
from dpo_driver.preferences.decisions import Refusals, State, compare, decision, fork_of, index_states, quotable


def sibling_groups(trajectories: Iterable[Trajectory], refused: Refusals) -> list[TrajectoryGroup]:
    """Groups of two or more siblings with the same start; others are counted as refused."""
    by_origin: dict[tuple[str, str, str], list[Trajectory]] = {}
    for trajectory in trajectories:
        origin = (trajectory.task.id, trajectory.policy_version, trajectory.context_policy)
        by_origin.setdefault(origin, []).append(trajectory)
    groups = []
    for siblings in by_origin.values():
        if len(siblings) < 2:
            refused["no_sibling"] += 1
        elif len({sibling.start_hash for sibling in siblings}) > 1:
            refused["start_hash_differs"] += 1
        else:
            groups.append(TrajectoryGroup(trajectories=tuple(siblings)))
    return groups


def is_mixed(group: TrajectoryGroup) -> bool:
    """At least one sibling succeeded and at least one failed."""
    return len({sibling.success for sibling in group.trajectories}) > 1


def build(trajectories: Sequence[Trajectory], config: PairConfig, refused: Refusals) -> list[Preference]:
    """One preference per fork and pair of decisions, over all groups of siblings.

    Args:
        trajectories: scored ones, see :func:`decisions.learnable`.
        config: ``min_margin`` holds for the siblings' mean success on either side of the fork.
        refused: counts every group, pair of siblings or pair of decisions that gave none, by reason.
    """
    found: list[Preference] = []
    for group in sibling_groups(trajectories, refused):
        if not is_mixed(group):
            refused["same_outcome"] += 1
            continue
        states = index_states(group.trajectories, where=fork_of)
        won = [sibling for sibling in group.trajectories if sibling.success]
        lost = [sibling for sibling in group.trajectories if not sibling.success]
        forks: dict[tuple[State, frozenset[str]], None] = {}
        for success, failure in product(won, lost):
            at = parting(success, failure, refused)
            if at is not None:
                parted = frozenset(str(decision(one.steps[at])) for one in (success, failure))
                forks[fork_of(success, at), parted] = None
        for state, parted in forks:
            one, other = sorted(parted)
            preference = compare(state, states[state][one], states[state][other], "outcome", config, refused)
            if preference is not None:
                found.append(preference)
    return found


def parting(success: Trajectory, failure: Trajectory, refused: Refusals) -> int | None:
    """The first step at which both are in one state and decide otherwise, where both can be quoted."""
    for index, (left, right) in enumerate(zip(success.steps, failure.steps, strict=False)):
        if left.observation.state_hash != right.observation.state_hash:
            refused["state_differs"] += 1
            return None
        one, other = decision(left), decision(right)
        if one != other:
            if one is None or other is None or not (quotable(left) and quotable(right)):
                refused["no_prompt"] += 1
                return None
            return index
    refused["same_action"] += 1
    return None
