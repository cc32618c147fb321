"""Search pairs: two decisions that a search tried on one page, one of which was worth clearly more.

A page here is a node of the search: a task's start and the decisions since. The Q value of a decision is the mean of
the values of the lines through it, as in the search itself (rollout/search_tree.py). Each line's value is in the store,
so nothing has to be searched again to pair. Lines of branches that were refused have none and are left out. Called by
build.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from dpo_driver.core.records import Preference, Trajectory
from dpo_driver.preferences.decisions import (
    UNREADABLE,
    Arm,
    Pass,
    Refusals,
    State,
    decision,
    digest,
    fork_of,
    index_states,
)

SOURCE = "search"
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SearchedLines:
    """What is known of trajectories that a search played.

    Args:
        played: ids of all of them: no other source may take a line for a sample of the policy.
        values: of those that count, by id.
        min_margin: smallest difference of Q values.
    """

    played: frozenset[str]
    values: Mapping[str, float]
    min_margin: float = 0.2

    @classmethod
    def of(
        cls, trajectories: Iterable[Trajectory], accounts: Iterable[Mapping[str, Any]], min_margin: float = 0.2
    ) -> SearchedLines:
        """From a stage's trajectories and the accounts (JSON) of its searches."""
        values = {line["trajectory"]: line["value"] for account in accounts for line in account["lines"]}
        return cls(frozenset(trajectory.id for trajectory in trajectories), values, min_margin)


NONE_SEARCHED = SearchedLines(frozenset(), {})


def build(trajectories: Sequence[Trajectory], searched: SearchedLines, refused: Refusals) -> list[Preference]:
    """All preferences between decisions that were tried on one page, best margin first within a page.

    Args:
        trajectories: scored ones, see :func:`decisions.learnable`, in any order.
        searched: which of them a search played, and what each was worth.
        refused: counts every line or pair of decisions that gave none, by reason.
    """
    lines = [line for line in trajectories if line.id in searched.values]
    lines.sort(key=lambda line: (line.task.id, len(line.id), line.id))  # as they were played: ids end with a number
    refused["no_value"] += sum(line.id in searched.played for line in trajectories) - len(lines)
    found: list[Preference] = []
    for state, arms in index_states(lines, refused, fork_of).items():
        here = [_compare(state, one, other, searched, refused) for one, other in combinations(arms.values(), 2)]
        kept = [preference for preference in here if preference is not None]
        found += sorted(kept, key=lambda preference: (-preference.margin, preference.id))
    return found


def _compare(state: State, one: Arm, other: Arm, searched: SearchedLines, refused: Refusals) -> Preference | None:
    values = searched.values
    better, worse = (one, other) if _q(one, values) >= _q(other, values) else (other, one)
    margin = _q(better, values) - _q(worse, values)
    if margin <= 0:
        refused["equal_value"] += 1
        return None
    if margin < searched.min_margin - _ROUNDING:
        refused["q_too_close"] += 1
        return None
    if better.decision == UNREADABLE:
        refused["chosen_unreadable"] += 1
        return None
    if _same_page(better, worse):
        refused["same_effect"] += 1
        return None
    chosen, rejected = _best(better, values), _best(worse, values)
    if chosen.step.messages != rejected.step.messages:
        refused["context_differs"] += 1
        return None
    task = chosen.trajectory.task
    return Preference(
        id=digest(chosen.step.messages, chosen.step.completion, rejected.step.completion),
        messages=chosen.step.messages,
        chosen=chosen.step.completion,
        rejected=rejected.step.completion,
        level="step",
        source=SOURCE,
        task_name=task.name,
        seed=task.seed,
        state_hash=state.state_hash,
        margin=margin,
        evidence={
            "task_id": task.id,
            "same_prompt": True,
            "context_policy": chosen.trajectory.context_policy,
            "path": [decision(step) for step in chosen.trajectory.steps[: chosen.at]],
            "chosen": _witness(chosen, better, values),
            "rejected": _witness(rejected, worse, values),
        },
    )


def _q(arm: Arm, values: Mapping[str, float]) -> float:
    return fmean(values[taken.trajectory.id] for taken in arm.passes)


def _same_page(one: Arm, other: Arm) -> bool:
    """Both lead to the same page: what came later made the difference, not the decision."""
    after = {taken.next_state for taken in one.passes} & {taken.next_state for taken in other.passes}
    return bool(after - {None})


def _best(arm: Arm, values: Mapping[str, float]) -> Pass:
    """The pass to quote: of the best line, the first of equals. All lines of a search that take a decision on a page
    say the same words."""
    return max(arm.passes, key=lambda taken: values[taken.trajectory.id])


def _witness(quoted: Pass, arm: Arm, values: Mapping[str, float]) -> dict[str, Any]:
    """Where a side comes from. ``q`` is no rate of success, so it is not called ``value`` as with other sources."""
    return {
        "trajectory": quoted.trajectory.id,
        "step": quoted.at,
        "policy_version": quoted.trajectory.policy_version,
        "stop_reason": str(quoted.trajectory.stop_reason),
        "action": arm.decision,
        "q": _q(arm, values),
        "visits": arm.n,
        "trajectories": [taken.trajectory.id for taken in arm.passes],
    }
