"""Trajectories in, preferences and an account of them out. Called by flywheel/pair.py and `dpo-driver pair --stats`.

Which sources there are is the table ``SOURCES``: one file each with one function ``build(trajectories, config,
refused)``. Searches are a source as well: what their lines were worth is not in the trajectories and comes beside them,
and so do the rollouts of an agent with memory, which no other source reads.
What people and teachers said is in a log, see mix.py, and comes beside them too.
Must not import environments, agents or torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from dpo_driver.core.config import PairConfig
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.records import Preference, Record, Trajectory
from dpo_driver.preferences import filters, heuristic, memory, mix, outcome, search, step, trajectory
from dpo_driver.preferences.decisions import Refusals, index_states, learnable
from dpo_driver.preferences.log import Entry
from dpo_driver.preferences.search import NONE_SEARCHED, SearchedLines

# Earlier ones win where two find the same pair: equal prompts are the better evidence.
SOURCES = {
    "step": step.build,
    "outcome": outcome.build,
    "trajectory": trajectory.build,
    "heuristic": heuristic.build,
}
DEFAULT_SOURCES = ("step", "outcome")


class PairStats(Record):
    """How many pairs, from where, and why not more.

    ``PairStats(trajectories=64, used=60, groups=8, mixed_groups=5, forked_states=11, pairs=9, by_task={"click-link":
    9}, by_level={"outcome": 5, "step": 4}, by_source={"environment": 9}, by_split={"train": 8, "val": 1},
    unreadable_rejected=1, mean_margin=0.8, refused={"same_outcome": 3, "failure": 4})``. The keys of ``refused`` are
    explained in ``decisions.REASONS``; ``forked_states`` are states in which more than one decision was tried;
    ``warnings`` are sentences for whoever trains on the pairs."""

    schema_version: Literal[1] = 1
    trajectories: int
    used: int
    groups: int
    mixed_groups: int
    forked_states: int
    pairs: int
    by_task: dict[str, int]
    by_level: dict[str, int]
    by_source: dict[str, int]
    by_split: dict[str, int]
    unreadable_rejected: int
    mean_margin: float | None
    refused: dict[str, int]
    warnings: tuple[str, ...] = ()


def build_pairs(
    trajectories: Sequence[Trajectory],
    config: PairConfig | None = None,
    *,
    sources: Sequence[str] = DEFAULT_SOURCES,
    searched: SearchedLines = NONE_SEARCHED,
    remembering: Sequence[Trajectory] = (),
    log: Sequence[Entry] = (),
) -> tuple[list[Preference], PairStats]:
    """Preferences from the environment's own success and failure, and from whoever else the sources name.

    The same trajectories in any order give the same pairs.

    Args:
        trajectories: rollouts of any number of tasks, seeds and policies. Failures of the world and held-out splits
            are left out and counted.
        config: margins, caps, and what each source weighs; defaults when None.
        sources: names from ``SOURCES``, ``search``, ``memory``, or of ``mix.LOGGED``, the first ones winning where two
            find the same pair.
        searched: which trajectories a search played, and what they were worth; no other source reads those.
        remembering: rollouts of an agent with memory from the starts of ``trajectories``, for the source ``memory``.
        log: entries of the preference log that the sources of ``mix.LOGGED`` read.

    Raises:
        UnknownNameError: a source that the table does not list.
    """
    config = config or PairConfig()
    refused: Refusals = Counter()
    used = sorted(learnable(trajectories, refused), key=lambda trajectory: (trajectory.task.id, trajectory.id))
    sampled = [one for one in used if one.id not in searched.played]
    helped = learnable(remembering, refused)
    found: list[Preference] = []
    for name in sources:
        if name == search.SOURCE:
            found += search.build(used, searched, refused)
        elif name == memory.SOURCE:
            found += memory.build(sampled, helped, config, refused)
        elif name in mix.LOGGED:
            found += mix.of_sources(log, [name], refused)
        elif name in SOURCES:
            found += SOURCES[name](sampled, config, refused)
        else:
            raise UnknownNameError("preference source", name, [*SOURCES, search.SOURCE, memory.SOURCE, *mix.LOGGED])
    rows = filters.drop_contradictions(found, refused)
    rows = filters.dedupe(rows, refused)
    rows = filters.cap_per_state(rows, config.max_per_state, refused)
    rows = filters.cap_per_task(rows, config.max_per_task, refused)
    rows = filters.drop_leaks(filters.assign_split(rows, config.val_fraction), refused)
    rows = filters.cap_unreadable(rows, config.max_parse_error_share, refused)
    rows = rows if config.exactly is None else filters.spread(rows, config.exactly, refused)
    rows = mix.weighted(rows, config.mix)
    stats = _account(len(trajectories), used, rows, refused)
    with_memory = {"trajectories": stats.trajectories + len(remembering), "used": stats.used + len(helped)}
    return rows, stats.model_copy(update=with_memory)


def _account(seen: int, used: Sequence[Trajectory], rows: Sequence[Preference], refused: Refusals) -> PairStats:
    groups = outcome.sibling_groups(used, Counter())
    return PairStats(
        trajectories=seen,
        used=len(used),
        groups=len(groups),
        mixed_groups=sum(map(outcome.is_mixed, groups)),
        forked_states=sum(len(arms) > 1 for arms in index_states(used).values()),
        pairs=len(rows),
        by_task=_count(row.task_name for row in rows),
        by_level=_count(row.level for row in rows),
        by_source=_count(row.source for row in rows),
        by_split=_count(row.split for row in rows),
        unreadable_rejected=sum(map(filters.is_unreadable, rows)),
        mean_margin=sum(row.margin for row in rows) / len(rows) if rows else None,
        refused={reason: n for reason, n in sorted(refused.items()) if n},
        warnings=heuristic.warnings(rows),
    )


def _count(names: object) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))  # type: ignore[call-overload]
