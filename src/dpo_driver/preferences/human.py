"""What raters said of two continuations, as preferences: one vote a rater, the majority decides.

Named after its first source. A teacher model's labels come the same way: ``source`` is the labels' own, and different
sources are never counted together. Called by mix.py, collect.py, summary.py and the command line; must not import
environments, agents or torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from dpo_driver.core.errors import StoreError
from dpo_driver.core.records import Comparison, Label, Preference
from dpo_driver.preferences.decisions import TRAINABLE, Refusals, digest
from dpo_driver.preferences.log import Entry

Model = TypeVar("Model", Comparison, Label, Preference)
Side = Literal["first", "second"]
_OTHER: dict[Side, Side] = {"first": "second", "second": "first"}


@dataclass(frozen=True)
class Vote:
    """One judgement and where it stands in the log."""

    seq: int
    label: Label


@dataclass(frozen=True)
class Judged:
    """A comparison and what the raters of one source said of it.

    ``votes`` holds one judgement a rater: the first that stands and is no hidden repeat. ``repeats`` are all others;
    they show how steady a rater is and decide nothing. Raters without a name are one rater.
    """

    comparison: Comparison
    source: str
    votes: tuple[Vote, ...]
    repeats: tuple[Vote, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Raters by what they preferred: ``{"first": 2, "tie": 1}``."""
        return dict(Counter(vote.label.preferred for vote in self.votes))

    @property
    def winner(self) -> Side | None:
        """The side that more than half of the raters prefer; None for ties, both bad and disagreement."""
        for side in _OTHER:
            if 2 * self.counts.get(side, 0) > len(self.votes):
                return side
        return None

    @property
    def agreed(self) -> bool:
        """All raters said the same, whatever it was."""
        return len(self.counts) <= 1


def judged(entries: Iterable[Entry]) -> list[Judged]:
    """Every comparison that was judged, once for each source of labels, in the order of the first labels.

    Args:
        entries: of a log: comparisons and labels; other kinds are passed over, what was withdrawn does not count.

    Raises:
        StoreError: an entry is no comparison or label, or one name stands for two comparisons; its number is named.
    """
    entries = list(entries)
    gone = {entry.body["seq"] for entry in entries if entry.kind == "withdrawn"}
    comparisons: dict[str, Comparison] = {}
    found: dict[tuple[str, str], list[Vote]] = {}
    for entry in entries:
        if entry.seq in gone:
            continue
        if entry.kind == "comparison":
            comparison = read_entry(Comparison, entry)
            before = comparisons.setdefault(comparison.id, comparison)
            if (before.first, before.second) != (comparison.first, comparison.second):
                raise StoreError(f"entry {entry.seq} of the preference log gives the name {comparison.id} to another "
                                 "comparison", remedy="withdraw it, or use another log")  # fmt: skip
        elif entry.kind == "label":
            label = read_entry(Label, entry)
            found.setdefault((label.comparison, label.source), []).append(Vote(entry.seq, label))
    # A comparison that was withdrawn takes its labels with it.
    return [
        _judged(comparisons[identity], source, votes)
        for (identity, source), votes in found.items()
        if identity in comparisons
    ]


def _judged(comparison: Comparison, source: str, votes: Sequence[Vote]) -> Judged:
    counted: dict[str, Vote] = {}
    for vote in sorted(votes, key=lambda vote: (bool(vote.label.evidence.get("repeat")), vote.seq)):
        counted.setdefault(vote.label.rater, vote)
    kept = {vote.seq for vote in counted.values()}
    return Judged(
        comparison,
        source,
        tuple(vote for vote in votes if vote.seq in kept),
        tuple(vote for vote in votes if vote.seq not in kept),
    )


def read_entry(model: type[Model], entry: Entry) -> Model:
    """An entry's record.

    Raises:
        StoreError: its body is none.
    """
    try:
        return model.model_validate(entry.body)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"entry {entry.seq} of the preference log is no {model.__name__.lower()}: {name}: "
                         f"{first['msg'].lower()}", remedy="withdraw it, or use another log") from None  # fmt: skip


def preferences_from_labels(entries: Sequence[Entry]) -> list[Preference]:
    """The pairs that a log's comparisons and labels give.

    A side that more than half of a comparison's raters prefer is chosen. Ties, "both bad" and disagreement give no
    pair. ``margin`` is (raters for - raters against) / all raters. ``weight`` is the mean confidence of the raters for
    it, where a rater who gave none counts as sure (1); with confidence 0 there is no pair. ``evidence`` holds the
    comparison's id, the numbers of the labels, the raters, and how many said what where they disagreed.

    Args:
        entries: as for :func:`judged`.
    """
    return pairs_of(judged(entries), Counter())


def pairs_of(found: Iterable[Judged], refused: Refusals) -> list[Preference]:
    """The same from what :func:`judged` gave; counts in ``refused`` what gave no pair."""
    pairs = []
    for one in found:
        task = one.comparison.task
        if task is not None and task.split not in TRAINABLE:
            refused["judged_held_out"] += 1
        elif one.winner is None:
            refused["no_majority"] += 1
        elif not (weight := _confidence(one, one.winner)):
            refused["no_confidence"] += 1
        else:
            pairs.append(_pair(one, one.winner, weight))
    return pairs


def _confidence(one: Judged, winner: Side) -> float:
    given = [vote.label.confidence for vote in one.votes if vote.label.preferred == winner]
    return fmean(1.0 if confidence is None else confidence for confidence in given)


def _pair(one: Judged, winner: Side, weight: float) -> Preference:
    comparison, task = one.comparison, one.comparison.task
    loser = _OTHER[winner]
    chosen, rejected = getattr(comparison, winner), getattr(comparison, loser)
    for_it, against = one.counts[winner], one.counts.get(loser, 0)
    return Preference(
        id=digest(comparison.messages, chosen, rejected, *filter(None, [comparison.role])),
        messages=comparison.messages,
        chosen=chosen,
        rejected=rejected,
        level="step" if comparison.state_hash else "text",
        source=one.source,
        role=comparison.role,
        task_name="" if task is None else task.name,
        seed=None if task is None else task.seed,
        state_hash=comparison.state_hash,
        margin=(for_it - against) / len(one.votes),
        weight=weight,
        evidence=_evidence(one, winner),
    )


def _evidence(one: Judged, winner: Side) -> dict[str, Any]:
    """Where the pair comes from: the labels, and behind them the trajectories that the comparison names."""
    comparison = one.comparison
    votes = [*one.votes, *one.repeats]
    found: dict[str, Any] = {
        **{name: value for name, value in comparison.evidence.items() if name not in _OTHER},
        "comparison": comparison.id,
        "labels": sorted(vote.seq for vote in votes),
        "raters": sorted({vote.label.rater for vote in one.votes}),
    }
    if not one.agreed:
        found["votes"] = one.counts
    if comparison.task is not None:
        found["task_id"] = comparison.task.id
    for name, side in (("chosen", winner), ("rejected", _OTHER[winner])):
        if isinstance(witness := comparison.evidence.get(side), dict):
            found[name] = witness
    kept = next((vote.label.evidence["metadata"] for vote in one.votes if vote.label.evidence.get("metadata")), None)
    return found if kept is None else {**found, "metadata": kept}
