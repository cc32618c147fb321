"""Successful trajectories as rows to imitate: for the control that only imitates the successes, and for replay.

The control is trained with NLL on these rows, from the same rollouts and for as many steps as DPO, so that what DPO
adds is seen apart from what more imitation would give. Called by flywheel/train.py; must not import torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dpo_driver.core.records import TrainingSample, Trajectory
from dpo_driver.preferences.decisions import Refusals, digest, learnable
from dpo_driver.preferences.filters import split_of


def successes_as_samples(
    trajectories: Sequence[Trajectory],
    *,
    max_per_task: int | None = None,
    limit: int | None = None,
    val_fraction: float = 0.0,
    source: str = "replay",
    refused: Refusals | None = None,
) -> list[TrainingSample]:
    """One row per readable step of every successful trajectory.

    Equal rows (same messages, same text) are kept once. Under a cap, rows are spread over the seeds of a task.

    Args:
        trajectories: rollouts; failures of the world, unscored ones and held-out splits are left out.
        max_per_task: rows per task family; None for all.
        limit: rows in all, shared out evenly: a family with few rows gives all it has, the others fill up equally.
        val_fraction: share of seeds whose rows get split "val"; the same seeds as for preferences.
        source: recorded in the rows.
        refused: if given, counts trajectories that were left out, by reason.
    """
    counted: Refusals = Counter() if refused is None else refused
    by_task: dict[str, list[TrainingSample]] = {}
    seen: set[str] = set()
    used = learnable(trajectories, counted)
    for trajectory in sorted(used, key=lambda one: (one.task.id, one.id, one.policy_version)):
        if not trajectory.success:
            continue
        for step in trajectory.steps:
            if step.action is None or not step.messages or not step.completion.strip():
                continue
            identity = digest(step.messages, step.completion)
            if identity in seen:
                continue
            seen.add(identity)
            task = trajectory.task
            sample = TrainingSample(
                id=identity,
                messages=step.messages,
                completion=step.completion,
                source=source,
                task_name=task.name,
                seed=task.seed,
                split=split_of(task.name, task.seed, val_fraction),
            )
            by_task.setdefault(task.name, []).append(sample)
    shares = share_out({name: len(rows) for name, rows in by_task.items()}, max_per_task, limit)
    return [row for name in sorted(by_task) for row in _spread(by_task[name], shares[name])]


def share_out(available: dict[str, int], max_per_task: int | None, limit: int | None) -> dict[str, int]:
    """How many rows each task may give: ``share_out({"a": 3, "b": 100}, None, 20)`` is ``{"a": 3, "b": 17}``."""
    capped = {name: n if max_per_task is None else min(n, max_per_task) for name, n in available.items()}
    if limit is None or sum(capped.values()) <= limit:
        return capped
    shares: dict[str, int] = {}
    left = limit
    # Smallest first: what it does not need falls to the others.
    for position, (name, n) in enumerate(sorted(capped.items(), key=lambda item: (item[1], item[0]))):
        shares[name] = min(n, left // (len(capped) - position))
        left -= shares[name]
    return shares


def _spread(rows: Sequence[TrainingSample], share: int) -> list[TrainingSample]:
    """The first row of every seed, then the second, ... until the share is reached; in the rows' own order."""
    per_seed: Counter[int | None] = Counter()
    ranked = []
    for index, row in enumerate(rows):
        ranked.append((per_seed[row.seed], row.id, index))
        per_seed[row.seed] += 1
    kept = {index for _, _, index in sorted(ranked)[:share]}
    return [row for index, row in enumerate(rows) if index in kept]
