"""How far labels can be trusted: agreement between raters, consistency of each, and a lean to one side.

Called by work.py for the page of results. Numbers come with intervals, or with None where nothing was measured.
Knows answers, no log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from dpo_driver.core.records import Rate
from dpo_driver.core.stats import cohen_kappa, kappa_interval, rate


@dataclass(frozen=True)
class Kappa:
    """Agreement of two raters beyond chance. ``Kappa(("ann", "bob"), observed=Rate(...), value=0.4, low=0.15,
    high=0.65)``. ``observed`` is the share of equal answers with its own interval. ``value`` is None where
    nothing was measured, or where chance alone would have them agree always (both gave one and the same answer). Its
    interval is None where the variance is 0, as with perfect agreement: the formula then says nothing."""

    raters: tuple[str, str]
    observed: Rate
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Consistency:
    """One rater: labels without repeats, repeats that were answered as before, and how often side A won of all times
    that a side did."""

    rater: str
    labels: int
    repeats: Rate
    first_side: Rate


def kappa(pairs: Sequence[tuple[str, str]], raters: tuple[str, str] = ("", "")) -> Kappa:
    """Cohen's kappa of pairs of answers, with its 95 % interval (core/stats.py).

    Args:
        pairs: (one rater's answer, the other's) for every item that both have labelled.
        raters: their names, for the record.
    """
    one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    low, high = kappa_interval(one, other) or (None, None)
    return Kappa(raters, rate(left == right for left, right in pairs), cohen_kappa(one, other), low, high)


def agreements(answers: Mapping[str, Mapping[str, str]]) -> list[Kappa]:
    """Kappa of every two raters who share a comparison, by name.

    Args:
        answers: rater -> comparison -> preferred, from first labels only.
    """
    found = []
    for one, other in combinations(sorted(answers), 2):
        both = sorted(answers[one].keys() & answers[other].keys())
        if both:
            found.append(kappa([(answers[one][item], answers[other][item]) for item in both], (one, other)))
    return found


def consistency(
    rater: str, firsts: Mapping[str, str], repeats: Mapping[str, str], sides: Iterable[bool]
) -> Consistency:
    """How one rater answered.

    Args:
        firsts: comparison -> preferred, first labels.
        repeats: the same of hidden repeats, whose sides were swapped; a repeat without its first is passed over.
        sides: for every label that preferred a side, whether that was side A.
    """
    same = [firsts[comparison] == again for comparison, again in repeats.items() if comparison in firsts]
    return Consistency(rater, len(firsts), rate(same), rate(sides))


def words_for(value: float | None) -> str:
    """A kappa in the customary words (Landis and Koch, Biometrics 33 (1977), 159-174)."""
    if value is None:
        return "not measured"
    steps = ((0.0, "no better than chance"), (0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"))
    return next((word for bound, word in steps if value <= bound), "almost perfect")
