"""What a collection of preferences is made of: counts, raters and how far they agree, and the biases that can be seen.

Called by ``dpo-driver prefs stats``. Reads records only; must not import environments, agents or torch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean
from typing import Literal

from dpo_driver.core.records import Preference, Rate, Record
from dpo_driver.core.stats import cohen_kappa, mean_interval, rate
from dpo_driver.preferences import filters
from dpo_driver.preferences.human import Judged, Vote, judged
from dpo_driver.preferences.log import Entry


class Mean(Record):
    """A mean with Student's 95 % interval, None below two values: ``Mean(mean=-3.5, low=-9.0, high=2.0, n=12)``."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


class Weights(Record):
    """Weights of pairs: their sum by source is what the sources' shares of a training are."""

    mean: float | None
    least: float | None
    most: float | None
    by_source: dict[str, float]


class RaterAccount(Record):
    """One rater: ``RaterAccount(source="human", labels=40, ties=5, repeats=4, steady=Rate(...))``. ``steady`` is the
    share of repeated comparisons that were judged as before."""

    source: str
    labels: int
    ties: int
    repeats: int
    steady: Rate


class Agreement(Record):
    """Comparisons that several raters of one source judged, and how often two of them said the same. ``kappa`` is the
    mean of Cohen's kappa over pairs of raters, weighted by what both judged; ``by_pair`` has each."""

    comparisons: int
    same: Rate
    kappa: float | None
    by_pair: dict[str, float | None]


class Summary(Record):
    """Everything that ``prefs stats`` shows. Counts are of pairs, but for ``labels`` and ``comparisons``.

    ``longer_chosen`` is the share of pairs whose chosen answer is the longer one, ``shown_first`` the share of
    judgements for the answer that was shown first; 0.5 would be no bias. Lengths are in characters."""

    schema_version: Literal[1] = 1
    pairs: int
    by_source: dict[str, int]
    by_role: dict[str, int]
    by_level: dict[str, int]
    by_split: dict[str, int]
    by_task: dict[str, int]
    weights: Weights
    duplicates: int
    contradictions: int
    comparisons: int
    labels: int
    withdrawn: int
    verdicts: dict[str, int]
    tie_share: Rate
    raters: dict[str, RaterAccount]
    agreement: dict[str, Agreement]
    longer: Mean
    longer_chosen: Rate
    shown_first: Rate


def summarise(rows: Sequence[Preference], entries: Sequence[Entry] = ()) -> Summary:
    """An account of pairs and of the judgements behind them.

    Args:
        rows: pairs, those that labels gave among them.
        entries: of the log: comparisons, labels, and what was withdrawn.
    """
    found = judged(entries)
    votes = [vote for one in found for vote in one.votes]
    refused: Counter[str] = Counter()
    for mine in _by_role(rows).values():
        filters.dedupe(filters.drop_contradictions(mine, refused), refused)
    lengths = [_length(row, "chosen") - _length(row, "rejected") for row in rows]
    return Summary(
        pairs=len(rows),
        by_source=_count(row.source for row in rows),
        by_role=_count(row.role for row in rows),
        by_level=_count(row.level for row in rows),
        by_split=_count(row.split for row in rows),
        by_task=_count(row.task_name for row in rows if row.task_name),
        weights=_weights(rows),
        duplicates=refused["duplicate"],
        contradictions=refused["contradiction"],
        comparisons=len({entry.body["id"] for entry in entries if entry.kind == "comparison"}),
        labels=sum(len(one.votes) + len(one.repeats) for one in found),
        withdrawn=sum(entry.kind == "withdrawn" for entry in entries),
        verdicts=_count(vote.label.preferred for vote in votes),
        tie_share=rate(vote.label.preferred in ("tie", "both_bad") for vote in votes),
        raters=_raters(found, rows),
        agreement={source: _agreement(ones) for source, ones in _by_source(found).items()},
        longer=_mean(lengths),
        longer_chosen=rate(length > 0 for length in lengths if length),
        shown_first=rate(map(_shown_first, votes)),
    )


def _mean(values: Sequence[float]) -> Mean:
    low, high = mean_interval(values) or (None, None)
    return Mean(mean=fmean(values) if values else None, low=low, high=high, n=len(values))


def _length(row: Preference, side: Literal["chosen", "rejected"]) -> int:
    more = row.chosen_more if side == "chosen" else row.rejected_more
    return len(getattr(row, side)) + sum(len(turn.completion) for turn in more)


def _shown_first(vote: Vote) -> bool | None:
    """Whether the answer that was shown first was preferred; None where that is not known or neither was."""
    swapped, preferred = vote.label.evidence.get("swapped"), vote.label.preferred
    if not isinstance(swapped, bool) or preferred not in ("first", "second"):
        return None
    return (preferred == "first") != swapped


def _weights(rows: Sequence[Preference]) -> Weights:
    by_source: dict[str, float] = defaultdict(float)
    for row in rows:
        by_source[row.source] += row.weight
    all_of_them = [row.weight for row in rows]
    return Weights(
        mean=fmean(all_of_them) if rows else None,
        least=min(all_of_them, default=None),
        most=max(all_of_them, default=None),
        by_source=dict(sorted(by_source.items())),
    )


def _raters(found: Iterable[Judged], rows: Iterable[Preference]) -> dict[str, RaterAccount]:
    """By name, and by source where one name stands in several. Raters of finished pairs are named in their metadata."""
    votes: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    again: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for one in found:
        first = {vote.label.rater: vote.label.preferred for vote in one.votes}
        for vote in one.votes:
            votes[vote.label.rater, one.source].append(vote)
        for vote in one.repeats:
            again[vote.label.rater, one.source].append(vote.label.preferred == first[vote.label.rater])
    written: Counter[tuple[str, str]] = Counter()
    for row in rows:
        kept = row.evidence.get("metadata")
        name = kept.get("rater") if isinstance(kept, dict) and "labels" not in row.evidence else None
        if isinstance(name, str):
            written[name, row.source] += 1
    names = sorted({*votes, *written})
    several = Counter(name for name, _ in names)
    return {
        (name if several[name] == 1 else f"{name} ({source})"): RaterAccount(
            source=source,
            labels=len(votes[name, source]) + written[name, source],
            ties=sum(vote.label.preferred in ("tie", "both_bad") for vote in votes[name, source]),
            repeats=len(again[name, source]),
            steady=rate(again[name, source]),
        )
        for name, source in names
    }


def _agreement(found: Iterable[Judged]) -> Agreement:
    """Over every comparison and every two raters who judged it."""
    shared = [one for one in found if len(one.votes) > 1]
    said: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for one in shared:
        for left, right in combinations(sorted(one.votes, key=lambda vote: vote.label.rater), 2):
            said[left.label.rater, right.label.rater].append((left.label.preferred, right.label.preferred))
    kappas = {pair: cohen_kappa(*zip(*both, strict=True)) for pair, both in said.items()}
    measured = [(kappa, len(said[pair])) for pair, kappa in kappas.items() if kappa is not None]
    weight = sum(count for _, count in measured)
    return Agreement(
        comparisons=len(shared),
        same=rate(left == right for both in said.values() for left, right in both),
        kappa=sum(kappa * count for kappa, count in measured) / weight if weight else None,
        by_pair={" / ".join(pair): kappa for pair, kappa in sorted(kappas.items())},
    )


def _by_source(found: Iterable[Judged]) -> dict[str, list[Judged]]:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for one in found:
        groups[one.source].append(one)
    return dict(sorted(groups.items()))


def _by_role(rows: Iterable[Preference]) -> dict[str, list[Preference]]:
    groups: dict[str, list[Preference]] = defaultdict(list)
    for row in rows:
        groups[row.role].append(row)
    return groups


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
