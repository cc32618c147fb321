"""The audit: does every pair trace to its evidence, does the evidence say what the pair says, and is the log whole.

:func:`audit` goes through a run's pairs and its preference log, or through a log alone. What is wrong is a
:class:`Finding` with a reason of ``REASONS``; what is only doubtful (raters who contradict others, themselves or the
environment) is counted apart, because people do disagree. Called by ``dpo-driver prefs audit`` and poison.py; evidence
is checked in evidence.py. Must not import environments, agents or torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from dpo_driver.core.records import Label, Preference, Record
from dpo_driver.core.store import RunStore
from dpo_driver.preferences.evidence import OF_ROLLOUTS, REASONS, Books, Problem, check_comparison, check_pair
from dpo_driver.preferences.log import Entry, Head, PreferenceLog
from dpo_driver.preferences.rounds import HEAD, content_of

DOUBTS = {
    "rater_disagrees": "label: most other raters of its comparison prefer the other side",
    "repeat_disagrees": "label: the same rater preferred the other side when asked again",
    "outcome_disagrees": "label: prefers the side that failed over the one that succeeded",
}
_SIDES = {"first": "second", "second": "first"}
EXAMPLES = 20


class Finding(Record):
    """One thing that is wrong: ``Finding(reason="no_step", where="round 1, pair 5f..", what="...", source="search")``.
    ``reason`` is a key of ``REASONS`` or ``DOUBTS``."""

    reason: str
    where: str
    what: str
    source: str = ""


class Audit(Record):
    """What was found. ``traced`` pairs lead to evidence that agrees with them, ``own_word`` ones are imported and prove
    nothing, ``unchecked`` ones name a run that was not given. ``unlogged``: pairs from before there was a log."""

    schema_version: Literal[1] = 1
    log: str | None
    head: tuple[int, str] | None
    entries: dict[str, int]
    pairs: int
    traced: int
    own_word: int
    unchecked: int
    unlogged: int
    by_source: dict[str, dict[str, int]]
    problems: dict[str, int]
    doubts: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


@dataclass
class _Account:
    """What an audit adds up."""

    pairs: int = 0
    traced: int = 0
    own_word: int = 0
    unchecked: int = 0
    unlogged: int = 0
    by_source: dict[str, Counter[str]] = field(default_factory=dict)
    found: list[Finding] = field(default_factory=list)
    doubts: list[Finding] = field(default_factory=list)

    def add(self, reason: str, where: str, what: str, source: str = "") -> None:
        self.found.append(Finding(reason=reason, where=where, what=what, source=source))

    def pair(self, row: Preference, where: str, problems: Sequence[Problem]) -> None:
        """Count one pair by what its evidence came to."""
        counts = self.by_source.setdefault(row.source, Counter())
        self.pairs += 1
        counts["pairs"] += 1
        reasons = {reason for reason, _ in problems}
        if not reasons:
            self.traced += 1
            counts["traced"] += 1
        elif reasons == {"own_word"}:
            self.own_word += 1
            counts["own_word"] += 1
        elif reasons == {"unchecked"}:
            self.unchecked += 1
            counts["unchecked"] += 1
        else:
            counts["wrong"] += 1
            for reason, what in problems:
                if reason not in ("own_word", "unchecked"):
                    self.add(reason, where, what, row.source)


def audit(
    store: RunStore | None,
    log: PreferenceLog | None,
    *,
    noted: Sequence[Head] = (),
    judgements: PreferenceLog | None = None,
) -> Audit:
    """Check a run and its log, or a log alone.

    Args:
        store: the run; None: only the log is checked, and what names trajectories stays unchecked.
        log: the run's; None: it has none.
        noted: heads of the log that were written down elsewhere.
        judgements: the log that ``pair.log`` names, where it is another one: labels are looked up there.

    Raises:
        StoreError: run.db or the log cannot be read; VaultError: they are sealed and there is no key.
    """
    account = _Account()
    head = _chain(account, store, log, noted)
    entries = _readable(account, log)
    books = Books(store, entries, list(judgements.entries()) if judgements is not None else ())
    logged = _logged_pairs(account, books, entries)
    if store is not None:
        _pairs_of_run(account, store, books, logged, log)
    _pairs_of_log(account, books, logged, set() if store is None else _stored(store))
    _labels(account, books)
    problems, doubts = (Counter(one.reason for one in found) for found in (account.found, account.doubts))
    return Audit(
        log=None if log is None else str(log.path),
        head=None if head is None else (head.count, head.hash),
        entries=dict(Counter(entry.kind for entry in entries)),
        pairs=account.pairs, traced=account.traced, own_word=account.own_word, unchecked=account.unchecked,
        unlogged=account.unlogged,
        by_source={name: dict(counts) for name, counts in sorted(account.by_source.items())},
        problems=dict(problems.most_common()), doubts=dict(doubts.most_common()),
        findings=_examples(account.found) + _examples(account.doubts),
    )  # fmt: skip


def _examples(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """The first ones of every reason."""
    taken: Counter[str] = Counter()
    kept = []
    for one in found:
        taken[one.reason] += 1
        if taken[one.reason] <= EXAMPLES:
            kept.append(one)
    return tuple(kept)


# -- the log -----------------------------------------------------------------------------------------------------------


def _chain(account: _Account, store: RunStore | None, log: PreferenceLog | None, noted: Sequence[Head]) -> Head | None:
    """The chain, and the heads that somebody, or the run itself, has noted down."""
    heads = list(noted)
    if store is not None:
        paired = {status.stage.removeprefix("pair/") for status in store.stages() if status.stage.startswith("pair/")}
        told = [store.get_fact(HEAD.format(number)) for number in sorted(paired | set(map(str, store.rounds())))]
        heads += [Head(head["count"], head["hash"]) for head in told if head is not None]
    if log is None:
        for head in heads:
            account.add("chain", "the log", f"it is gone, and it once held {head.count} entries")
        return None
    verdict = log.verify(heads)
    for problem in verdict.problems:
        account.add("chain", str(log.path), problem)
    return verdict.head


def _readable(account: _Account, log: PreferenceLog | None) -> list[Entry]:
    """All entries that can be read."""
    broken: list[tuple[int, str]] = []
    found = [] if log is None else list(log.entries(broken=broken))
    for seq, kind in broken:
        account.add("unreadable", f"entry {seq}", f"this {kind} cannot be read")
    return found


def _logged_pairs(account: _Account, books: Books, entries: Sequence[Entry]) -> list[tuple[Entry, Preference]]:
    """The pairs that stand in the log; what is no pair is a finding."""
    found = []
    for entry in entries:
        if entry.kind == "preference" and entry.seq not in books.withdrawn:
            row = _parsed(Preference, entry.body)
            if row is None:
                account.add("unreadable", f"entry {entry.seq}", "this is no pair")
            else:
                found.append((entry, row))
    for seq, kind in books.unreadable:
        account.add("unreadable", f"entry {seq}", f"this is no {kind}")
    return found


def _parsed(model: Any, body: Any) -> Any:
    try:
        return model.model_validate(body)
    except ValidationError:
        return None


# -- pairs -------------------------------------------------------------------------------------------------------------


def _stored(store: RunStore) -> set[str]:
    return {content_of(row) for row in store.preferences(broken=[])}


def _pairs_of_run(
    account: _Account, store: RunStore, books: Books, logged: Sequence[tuple[Entry, Preference]],
    log: PreferenceLog | None,
) -> None:  # fmt: skip
    """Every pair of every round: its evidence, and whether the log says the same of it."""
    standing = {content_of(row) for _, row in logged}
    ids = {row.id for _, row in logged}
    for number in store.rounds():
        since_log = store.get_fact(HEAD.format(number)) is not None
        broken: list[str] = []
        rows = store.preferences(number, broken)
        for identity in broken:
            account.add("unreadable", f"round {number}, pair {identity}", "this pair cannot be read")
        for row in rows:
            where = f"round {number}, pair {row.id}"
            problems = check_pair(row, books)
            if not since_log:
                account.unlogged += 1
            elif log is not None and content_of(row) not in standing and not books.judges(row):
                reason = "differs_from_log" if row.id in ids else "not_in_log"
                problems = [*problems, (reason, REASONS[reason])]
            account.pair(row, where, problems)


def _pairs_of_log(
    account: _Account, books: Books, logged: Sequence[tuple[Entry, Preference]], stored: set[str]
) -> None:
    """Pairs that stand in the log and in no round: those that were added by hand, and those that a round lost."""
    for entry, row in logged:
        if content_of(row) in stored:
            continue
        problems = check_pair(row, books)
        if books.store is not None and row.source in OF_ROLLOUTS:
            problems = [*problems, ("not_in_run", REASONS["not_in_run"])]
        account.pair(row, f"entry {entry.seq}, pair {row.id}", problems)


# -- labels ------------------------------------------------------------------------------------------------------------


def _labels(account: _Account, books: Books) -> None:
    """Labels belong to a comparison, comparisons to the pages that they name; and labels may be doubted."""
    for seq, comparison in books.comparisons.values():
        for reason, what in check_comparison(comparison, books):
            if reason != "unchecked":
                account.add(reason, f"entry {seq}, comparison {comparison.id}", what)
    for seq, label in books.labels.items():
        if label.comparison not in books.comparisons:
            account.add("no_comparison", f"entry {seq}", f"it judges {label.comparison}, which is not in the log",
                        label.source)  # fmt: skip
    for seq, reasons in doubted(books.standing_labels(), books).items():
        label = books.labels[seq]
        for reason in sorted(reasons):
            account.doubts.append(Finding(reason=reason, where=f"entry {seq}, rater {label.rater or '?'}",
                                          what=DOUBTS[reason], source=label.source))  # fmt: skip


def doubted(labels: Iterable[tuple[int, Label]], books: Books) -> dict[int, set[str]]:
    """Labels that something contradicts, by sequence number, with keys of ``DOUBTS``.

    Ties and "both bad" contradict nobody. A rater's labels of one comparison count as one vote, the first one's, so
    that nobody outvotes others by repeating themselves.
    """
    by_comparison: dict[str, list[tuple[int, Label]]] = {}
    for seq, label in labels:
        by_comparison.setdefault(label.comparison, []).append((seq, label))
    found: dict[int, set[str]] = {}
    for identity, here in by_comparison.items():
        votes: dict[tuple[str, str], str] = {}
        for _, label in here:
            votes.setdefault((label.source, label.rater), label.preferred)
        better = books.better_side(identity)
        for seq, label in here:
            other = _SIDES.get(label.preferred)
            if other is None:
                continue
            rater = (label.source, label.rater)
            others = Counter(vote for voter, vote in votes.items() if voter != rater)
            reasons = set()
            if others[other] > others[label.preferred]:
                reasons.add("rater_disagrees")
            if any((one.source, one.rater) == rater and one.preferred == other for at, one in here if at != seq):
                reasons.add("repeat_disagrees")
            if better == other:
                reasons.add("outcome_disagrees")
            if reasons:
                found[seq] = reasons
    return found
