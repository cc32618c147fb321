"""Preferences of several sources in one training: what a log holds of a source, and how much each source weighs.

Pairs of the log's sources are merged with those that rollouts gave by the same filters (build.py). Called by build.py,
the flywheel and the command line; must not import environments, agents or torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.records import Preference, PreferenceSource
from dpo_driver.preferences.decisions import Refusals
from dpo_driver.preferences.human import judged, pairs_of, read_entry
from dpo_driver.preferences.log import Entry

KNOWN: tuple[str, ...] = get_args(PreferenceSource)
# Names in ``pair.sources`` that are read from a log. What rollouts and searches give is built anew from these.
LOGGED = ("human", "teacher", "import")
HUMAN = "human"
MOST_SHARED = 10.0  # how much heavier one side may be made against the other to reach a share


def check_source(name: str, where: str | None = None) -> str:
    """The name itself.

    Raises:
        UnknownNameError: nobody of this name prefers anything; the known ones are listed.
    """
    if name not in KNOWN:
        raise UnknownNameError("preference source", name, KNOWN, where=where)
    return name


def logged(entries: Sequence[Entry], refused: Refusals | None = None) -> list[Preference]:
    """All pairs that a log holds, whoever preferred them: those that were added as pairs, in their order, then those
    that its labels give.

    Args:
        entries: of a log; what was withdrawn does not count.
        refused: counts comparisons that gave no pair, by reason.
    """
    return _all(_written(entries), pairs_of(judged(entries), Counter() if refused is None else refused))


def _written(entries: Sequence[Entry]) -> list[Preference]:
    """What was added as pairs."""
    gone = {entry.body["seq"] for entry in entries if entry.kind == "withdrawn"}
    return [read_entry(Preference, entry) for entry in entries if entry.kind == "preference" and entry.seq not in gone]


def _all(written: Iterable[Preference], by_labels: Sequence[Preference]) -> list[Preference]:
    """A run notes the pairs that it trains on, those of labels too: the labels themselves are nearer to the source."""
    fresh = {(pair.id, pair.source) for pair in by_labels}
    return [*(pair for pair in written if (pair.id, pair.source) not in fresh), *by_labels]


def of_sources(entries: Sequence[Entry], sources: Iterable[str], refused: Refusals, role: str = "") -> list[Preference]:
    """A log's pairs of some sources and one role.

    Args:
        entries: see :func:`logged`.
        sources: names; labels of other sources are not looked at.
        refused: counts pairs of other roles, and comparisons that gave none.
        role: whose answers they are; empty: the agent of a run.
    """
    wanted = set(sources)
    pairs = [pair for pair in _written(entries) if pair.source in wanted]
    found = [one for one in judged(entries) if one.source in wanted]
    kept = [pair for pair in pairs if pair.role == role]
    mine = [one for one in found if one.comparison.role == role]
    refused["other_role"] += len(pairs) - len(kept) + len(found) - len(mine)
    return _all(kept, pairs_of(mine, refused))


def weighted(rows: Iterable[Preference], mix: Mapping[str, float]) -> list[Preference]:
    """The rows with ``weight`` multiplied by the factor of their source: ``{"human": 2.0}`` doubles what people said.

    Raises:
        UnknownNameError: the mix names a source that nobody is.
    """
    for name in mix:
        check_source(name, "pair.mix")
    return [
        row.model_copy(update={"weight": row.weight * mix[row.source]}) if row.source in mix else row for row in rows
    ]


def shared(rows: Sequence[Preference], human: float) -> list[Preference]:
    """The rows with weights such that people's have ``human`` of the whole weight, or come as near to it as
    ``MOST_SHARED`` allows. The whole weight stays what it is.

    Args:
        rows: weights as they are.
        human: above 0 and below 1. Where one side is missing nothing changes.
    """
    by_hand = sum(row.weight for row in rows if row.source == HUMAN)
    others = sum(row.weight for row in rows if row.source != HUMAN)
    if not by_hand or not others:
        return list(rows)
    wanted = human / (1 - human) * others / by_hand
    heavier = min(max(wanted, 1 / MOST_SHARED), MOST_SHARED)
    scale = (by_hand + others) / (heavier * by_hand + others)
    factors = {True: heavier * scale, False: scale}
    return [row.model_copy(update={"weight": row.weight * factors[row.source == HUMAN]}) for row in rows]


def human_share(rows: Sequence[Preference]) -> float | None:
    """The share of people's pairs in the whole weight; None where there are no rows."""
    total = sum(row.weight for row in rows)
    return sum(row.weight for row in rows if row.source == HUMAN) / total if total else None
