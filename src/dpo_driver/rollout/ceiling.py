"""What the scripted experts reach on real pages, family by family. Called by ``dpo-driver oracles`` and benchmarks.

Every episode is the same ``run_episode`` that training uses. Must not import command lines or reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.plugins import load
from dpo_driver.core.records import Trajectory
from dpo_driver.rollout.pool import RolloutProgress, rollout_sync


def measure_oracles(
    tasks: Sequence[str] = (),
    seeds: int = 50,
    workers: int = 4,
    on_progress: Callable[[RolloutProgress], None] | None = None,
) -> dict[str, Any]:
    """Play the expert of each family on the seeds 0 to ``seeds - 1``.

    Args:
        tasks: families or aliases; all that have an expert if none is given.
        seeds: episodes of each family.
        workers: concurrent contexts in one browser.
        on_progress: called after each episode.

    Returns:
        ``tasks``: for each name ``n`` (episodes that count), ``strict`` and ``positive`` successes, ``excluded``
        failures of the world, ``mean_steps`` and ``seconds`` per episode (None where nothing counts); then
        ``perfect`` (families where all episodes succeeded strictly), ``oracles``, ``episodes``, ``seconds`` of wall
        time and ``episodes_per_second``.

    Raises:
        UnknownNameError: no such family, or none with an expert; the message lists close names.
        BrowserMissingError: no Chromium.
    """
    names = known_oracles(tasks)
    make_task = load("make_task", "miniwob")
    found: list[Trajectory] = []
    progress = rollout_sync(
        [make_task(name, seed, "test") for name in names for seed in range(seeds)],
        load("agent", "oracle")(),
        environments=load("environments", "miniwob"),
        stage="oracles",
        on_trajectory=found.append,
        workers=workers,
        on_progress=on_progress,
    )
    rows = {name: _row([t for t in found if t.task.name == name]) for name in names}
    return {
        "tasks": rows,
        "perfect": sum(row["strict"] == seeds for row in rows.values()),
        "oracles": len(rows),
        "episodes": len(found),
        "seconds": round(progress.seconds, 2),
        "episodes_per_second": round(progress.per_second, 2),
    }


def known_oracles(tasks: Sequence[str] = ()) -> list[str]:
    """The families' own names, each once, in order; all that have an expert if none is given. UnknownNameError."""
    from dpo_driver.agents.oracle import ORACLES

    if not tasks:
        return sorted(ORACLES)
    make_task = load("make_task", "miniwob")
    names = list(dict.fromkeys(make_task(task, 0).name for task in tasks))
    for name in names:
        if name not in ORACLES:
            raise UnknownNameError("oracle", name, ORACLES)
    return names


def _row(played: Sequence[Trajectory]) -> dict[str, Any]:
    counted = [t for t in played if t.failure is None]
    return {
        "n": len(counted),
        "strict": sum(bool(t.success) for t in counted),
        "positive": sum(bool(t.positive) for t in counted),
        "excluded": len(played) - len(counted),
        "mean_steps": round(fmean(len(t.steps) for t in counted), 2) if counted else None,
        "seconds": round(fmean(t.seconds for t in counted), 3) if counted else None,
    }
