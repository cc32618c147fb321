"""Trajectory pairs: everything that a successful sibling wrote against everything that a failed one wrote.

The comparison does not say which decision made the difference; the sums over both sides' turns carry it. It needs no
common fork and uses every mixed group, but each pair is weaker evidence than one of outcome.py or step.py: it is off
unless ``pair.sources`` names it. Called by build.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpo_driver.core.config import PairConfig
from dpo_driver.core.records import Preference, Trajectory, Turn
from dpo_driver.preferences.decisions import SOURCE, Refusals, decision, digest, quotable
from dpo_driver.preferences.outcome import is_mixed, sibling_groups


def build(trajectories: Sequence[Trajectory], config: PairConfig, refused: Refusals) -> list[Preference]:
    """Of each mixed group the shortest success against the shortest failure, the next against the next, and so on: no
    trajectory is in two pairs.

    Args:
        trajectories: scored ones, see :func:`decisions.learnable`.
        config: for its caps; a success and a failure are 1 apart, so ``min_margin`` always holds.
        refused: counts every group or pair that gave none, by reason.
    """
    found: list[Preference] = []
    for group in sibling_groups(trajectories, refused):
        if not is_mixed(group):
            refused["same_outcome"] += 1
            continue
        ordered = sorted(group.trajectories, key=lambda trajectory: (len(trajectory.steps), trajectory.id))
        won = [sibling for sibling in ordered if sibling.success]
        lost = [sibling for sibling in ordered if not sibling.success]
        for chosen, rejected in zip(won, lost, strict=False):
            preference = _preference(chosen, rejected, refused)
            if preference is not None:
                found.append(preference)
    return found


def _preference(chosen: Trajectory, rejected: Trajectory, refused: Refusals) -> Preference | None:
    if not chosen.steps or not rejected.steps or not all(map(quotable, (*chosen.steps, *rejected.steps))):
        refused["no_prompt"] += 1
        return None
    better, worse = _turns(chosen), _turns(rejected)
    if better == worse:
        refused["same_action"] += 1
        return None
    texts = [turn.completion for turn in (*better, *worse)]
    return Preference(
        id=digest(better[0].messages, *texts),
        messages=better[0].messages,
        chosen=better[0].completion,
        rejected=worse[0].completion,
        chosen_more=better[1:],
        rejected_more=worse[1:],
        level="trajectory",
        source=SOURCE,
        task_name=chosen.task.name,
        seed=chosen.task.seed,
        state_hash=chosen.start_hash,
        margin=1.0,
        evidence={
            "task_id": chosen.task.id,
            "context_policy": chosen.context_policy,
            "chosen": _witness(chosen),
            "rejected": _witness(rejected),
        },
    )


def _turns(trajectory: Trajectory) -> tuple[Turn, ...]:
    return tuple(Turn(messages=step.messages, completion=step.completion) for step in trajectory.steps)


def _witness(trajectory: Trajectory) -> dict[str, Any]:
    actions = "; ".join(str(decision(step)) for step in trajectory.steps)
    return {"trajectory": trajectory.id, "steps": len(trajectory.steps), "action": actions}
