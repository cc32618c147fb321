"""Pair: success against failure from the same state becomes preference pairs. Called by cli and loop.py."""

from __future__ import annotations

from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.flywheel.collect import next_round
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.memory import remembering
from dpo_driver.flywheel.search import searched_lines
from dpo_driver.preferences import PairStats, build_pairs, rounds
from dpo_driver.preferences.log import LOG, Entry, PreferenceLog
from dpo_driver.preferences.memory import SOURCE as MEMORY
from dpo_driver.preferences.mix import LOGGED
from dpo_driver.preferences.search import NONE_SEARCHED, SOURCE


def pair(ctx: RunContext, round: int | None = None) -> PairStats:
    """Build the preferences of a round: from its rollouts, and where ``pair.sources`` names them from its searches and
    from rollouts with memory and from the preference log.

    Raises:
        DataError: the round has no rollouts, none was searched or had a memory, nothing was judged, or there are fewer
            pairs than ``pair.exactly`` asks for.
    """
    number = next_round(ctx, "pair", round)

    def work() -> dict[str, Any]:
        sources = ctx.config.pair.sources
        trajectories, searched = ctx.store.trajectories(f"collect/{number}"), NONE_SEARCHED
        if not trajectories and not set(sources) <= {SOURCE, *LOGGED}:
            raise DataError(f"round {number} has no rollouts to pair", where=str(ctx.run_dir),
                            remedy="run `dpo-driver collect` with the same configuration first")  # fmt: skip
        if SOURCE in sources:
            lines, searched = searched_lines(ctx, number)
            if not lines:
                raise DataError(f"nothing was searched in round {number}", where=str(ctx.run_dir),
                                remedy="run `dpo-driver search` with the same configuration first")  # fmt: skip
            trajectories += lines
        helped = remembering(ctx, number) if MEMORY in sources else []
        rows, stats = build_pairs(trajectories, ctx.config.pair, sources=sources, searched=searched,
                                  remembering=helped, log=_judgements(ctx))  # fmt: skip
        wanted = ctx.config.pair.exactly
        if wanted is not None and len(rows) < wanted:
            raise DataError(f"{'+'.join(sources)} gave {len(rows)} pairs, but pair.exactly asks for {wanted}",
                            where=str(ctx.run_dir), remedy="lower it, or collect more")  # fmt: skip
        for warning in stats.warnings:
            ctx.say(f"[yellow]{warning}[/yellow]")
        rounds.keep(ctx.store, number, rows)
        found = stats.model_dump(mode="json")
        ctx.store.set_fact(f"pair_stats/{number}", found)
        return {"summary": f"{len(rows)} pairs from {stats.used} rollouts of {stats.groups} starts", "stats": found}

    facts = ctx.stage(f"pair/{number}", f"round {number}: pair", work)
    return PairStats.model_validate(facts["stats"])


def _judgements(ctx: RunContext) -> list[Entry]:
    """The preference log, where a source reads it."""
    asked = [name for name in ctx.config.pair.sources if name in LOGGED]
    if not asked:
        return []
    path = ctx.config.pair.log or ctx.run_dir / LOG
    if not path.is_file():
        raise DataError(f"pair.sources names {asked[0]}, and there is no preference log", where=str(path),
                        remedy="add preferences first: dpo-driver label, prefs teach or prefs add")  # fmt: skip
    with PreferenceLog(path, "read") as log:
        return log.standing("comparison", "label", "preference")
