"""The poisoning drill: what the audit would find if somebody turned pairs or labels round before they were written.

On copies in memory, with a seed, a share of the pairs of each source is turned round, and a share of the labels. A pair
is turned in one of three ways, each as often: its texts alone; texts and evidence, so that they fit each other; both
with values and margin made to look right. What counts as caught: for pairs, that the audit then finds something wrong
which it did not find before; for labels, that something contradicts the turned label, with what was contradicted before
the drill beside it, since people contradict each other anyway. Changes of what is already written are another matter:
the log's chain finds all of them. Called by ``dpo-driver prefs audit --drill``; must not import environments or torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

from dpo_driver.core.records import Label, Preference, Rate, Record
from dpo_driver.core.stats import rate
from dpo_driver.core.store import RunStore
from dpo_driver.preferences.audit import doubted
from dpo_driver.preferences.evidence import NOTES, Books, check_pair
from dpo_driver.preferences.log import PreferenceLog

SHARES = (0.005, 0.01, 0.02, 0.05, 0.10)
_OTHER: dict[str, Literal["first", "second"]] = {"first": "second", "second": "first"}


class Caught(Record):
    """One line of the drill: of ``total`` pairs or labels of a source ``turned`` were turned round; ``caught`` is the
    share that the audit found, with its interval; ``before`` counts those of all that it complains of without any
    drill. ``ways``: the same by how pairs were turned."""

    what: Literal["pairs", "labels"]
    source: str
    share: float
    total: int
    turned: int
    caught: Rate
    missed: int
    before: int
    ways: dict[str, Rate] = {}


def drill(
    store: RunStore | None, log: PreferenceLog | None, *, seed: int = 0, shares: Sequence[float] = SHARES
) -> list[Caught]:
    """Turn a share of every source's pairs and labels round and see what the audit says; nothing is written.

    Args:
        store: the run whose pairs are turned; None: only labels.
        log: whose labels are turned; None: only pairs.
        seed: of what is turned, and how.
        shares: of the pairs or labels of a source; at least one is turned.
    """
    books = Books(store, [] if log is None else list(log.entries()))
    pairs = [] if store is None else store.preferences()
    found = []
    for source in sorted({row.source for row in pairs}):
        own = [row for row in pairs if row.source == source]
        wrong = [_is_wrong(row, books) for row in own]
        found += [_of_pairs(own, wrong, books, share, seed) for share in shares]
    labels = dict(books.standing_labels())
    for source in sorted({label.source for label in labels.values()}):
        found += [_of_labels(labels, source, books, share, seed) for share in shares]
    return found


# -- pairs -------------------------------------------------------------------------------------------------------------


def _is_wrong(row: Preference, books: Books) -> bool:
    return any(reason not in NOTES for reason, _ in check_pair(row, books))


def _of_pairs(rows: Sequence[Preference], wrong: Sequence[bool], books: Books, share: float, seed: int) -> Caught:
    rng = random.Random(f"{seed}/{rows[0].source}/{share}")
    sound = [row for row, bad in zip(rows, wrong, strict=True) if not bad]
    chosen = rng.sample(sound, min(len(sound), _count(share, len(rows))))
    outcomes: dict[str, list[bool]] = {}
    for number, row in enumerate(chosen):
        name = list(WAYS)[number % len(WAYS)]
        outcomes.setdefault(name, []).append(_is_wrong(WAYS[name](row), books))
    caught = [one for way in outcomes.values() for one in way]
    return Caught(what="pairs", source=rows[0].source, share=share, total=len(rows), turned=len(chosen),
                  caught=rate(caught), missed=caught.count(False), before=sum(wrong),
                  ways={name: rate(way) for name, way in outcomes.items()})  # fmt: skip


def _texts(row: Preference) -> Preference:
    """Chosen and rejected change places and the evidence stays."""
    return row.model_copy(
        update={
            "chosen": row.rejected,
            "rejected": row.chosen,
            "chosen_more": row.rejected_more,
            "rejected_more": row.chosen_more,
        }
    )


def _whole(row: Preference) -> Preference:
    """The evidence changes places as well."""
    evidence = dict(row.evidence)
    if "chosen" in evidence and "rejected" in evidence:
        evidence["chosen"], evidence["rejected"] = evidence["rejected"], evidence["chosen"]
    return _texts(row).model_copy(update={"evidence": evidence})


def _forged(row: Preference) -> Preference:
    """And the values are written so that the chosen side looks better."""
    turned = _whole(row)
    evidence = dict(turned.evidence)
    for name in ("value", "q"):
        sides = [evidence.get(side) for side in ("chosen", "rejected")]
        if all(isinstance(side, dict) and name in side for side in sides):
            low, high = sorted(side[name] for side in sides if side is not None)
            evidence["chosen"] = {**evidence["chosen"], name: high}
            evidence["rejected"] = {**evidence["rejected"], name: low}
    if "votes" in evidence:
        evidence["votes"] = {_OTHER.get(side, side): count for side, count in evidence["votes"].items()}
    return turned.model_copy(update={"evidence": evidence})


WAYS: dict[str, Callable[[Preference], Preference]] = {"texts": _texts, "with evidence": _whole, "forged": _forged}


# -- labels ------------------------------------------------------------------------------------------------------------


def _of_labels(labels: dict[int, Label], source: str, books: Books, share: float, seed: int) -> Caught:
    """Labels of one source among all labels: ties and "both bad" have no other side and are not turned."""
    rng = random.Random(f"{seed}/{source}/{share}/labels")
    own = sorted(seq for seq, label in labels.items() if label.source == source)
    decided = [seq for seq in own if labels[seq].preferred in _OTHER]
    turned = set(rng.sample(decided, min(len(decided), _count(share, len(own)))))
    before = doubted(labels.items(), books)
    poisoned = [(seq, _turned(label) if seq in turned else label) for seq, label in labels.items()]
    after = doubted(poisoned, books)
    return Caught(what="labels", source=source, share=share, total=len(own), turned=len(turned),
                  caught=rate(seq in after for seq in sorted(turned)), missed=len(turned - after.keys()),
                  before=sum(seq in before for seq in own))  # fmt: skip


def _turned(label: Label) -> Label:
    return label.model_copy(update={"preferred": _OTHER[label.preferred]})


def _count(share: float, total: int) -> int:
    return max(1, round(share * total))
