"""Pair: success against failure from the same state becomes preference pairs. Called by cli and loop.py."""

from __future__ import annotations

from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.flywheel.collect import next_round
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.search import searched_lines
from dpo_driver.preferences import PairStats, build_pairs
from dpo_driver.preferences.search import NONE_SEARCHED, SOURCE


def pair(ctx: RunContext, round: int | None = None) -> PairStats:
    """Build the preferences of a round from its rollouts, and from its searches where ``pair.sources`` names them.

    Raises:
        DataError: the round has no rollouts, or none was searched.
    """
    number = next_round(ctx, "pair", round)

    def work() -> dict[str, Any]:
        sources = ctx.config.pair.sources
        trajectories, searched = ctx.store.trajectories(f"collect/{number}"), NONE_SEARCHED
        if not trajectories and set(sources) != {SOURCE}:
            raise DataError(f"round {number} has no rollouts to pair", where=str(ctx.run_dir),
                            remedy="run `dpo-driver collect` with the same configuration first")  # fmt: skip
        if SOURCE in sources:
            lines, searched = searched_lines(ctx, number)
            if not lines:
                raise DataError(f"nothing was searched in round {number}", where=str(ctx.run_dir),
                                remedy="run `dpo-driver search` with the same configuration first")  # fmt: skip
            trajectories += lines
        rows, stats = build_pairs(trajectories, ctx.config.pair, sources=sources, searched=searched)
        ctx.store.add_preferences(number, rows)
        found = stats.model_dump(mode="json")
        ctx.store.set_fact(f"pair_stats/{number}", found)
        return {"summary": f"{len(rows)} pairs from {stats.used} rollouts of {stats.groups} starts", "stats": found}

    facts = ctx.stage(f"pair/{number}", f"round {number}: pair", work)
    return PairStats.model_validate(facts["stats"])
