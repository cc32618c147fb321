"""Outcomes of several training seeds on the same held-out pages, taken together. Called by sweep_data.py.

What one training makes of a page says much about what the next one makes of it, so three trainings on 1,000 pages are
not 3,000 independent episodes. Here the page is the unit: it is resampled, and counted by the exact test, with all its
episodes. With one training seed everything equals core/stats.py. The spread between trainings is no part of these
intervals; it is shown beside them. Standard library, except that the bootstrap imports numpy when it is called.

Sources: Korn and Graubard, Survey Methodology 24 (1998), 193-201, for intervals of a proportion with the effective
sample size; Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8, for resampling clusters;
Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from dpo_driver.core.records import PairedDifference, Rate
from dpo_driver.core.stats import (
    CONFIDENCE,
    MIN_STRATUM,
    RESAMPLES,
    mcnemar,
    paired_difference,
    quantile,
    rate,
    wilson,
)

# Success by (family, page seed, training seed); None where the world failed.
Outcomes = Mapping[tuple[str, int, int], bool | None]
Strata = list[Counter[tuple[int, int]]]  # how many pages have (sum of differences, episodes), by stratum


def pooled_rate(outcomes: Outcomes) -> Rate:
    """Success over all episodes, with Wilson's interval for as many independent episodes as they are worth: all of them
    if the trainings agree on a page no more than by chance, one a page if they always agree."""
    plain = rate(outcomes.values())
    if plain.success is None or len({key[2] for key in outcomes}) < 2:
        return plain
    residuals: dict[tuple[str, int], float] = defaultdict(float)
    for (family, page, _), outcome in outcomes.items():
        if outcome is not None:
            residuals[family, page] += outcome - plain.success
    spread = sum(residual**2 for residual in residuals.values())
    independent = plain.success * (1 - plain.success) * plain.n**2 / spread if spread else 0.0
    worth = min(float(plain.n), max(float(len(residuals)), independent))
    # Wilson's formula holds for any positive numbers, whole or not.
    low, high = wilson(plain.success * worth, worth)  # type: ignore[arg-type]
    return plain.model_copy(update={"low": low, "high": high})


def pooled_difference(a: Outcomes, b: Outcomes, seed: int = 0) -> PairedDifference:
    """How much better ``b`` is than ``a`` on the same pages under the same training seeds.

    Returns:
        ``b - a`` over all episodes that both have (``n``); its bootstrap interval over pages, stratified by family;
        wins and losses are pages on which b succeeded under more, or fewer, training seeds than a, and the exact
        two-sided sign test of them, which is McNemar's with one training seed.
    """
    if len({key[2] for key in a} & {key[2] for key in b}) < 2:
        return paired_difference(a, b, seed)
    pages: dict[tuple[str, int], list[int]] = defaultdict(list)
    for key, before in a.items():
        after = b.get(key)
        if before is not None and after is not None:
            pages[key[:2]].append(int(after) - int(before))
    if not pages:
        return PairedDifference(mean=None, low=None, high=None, n=0)
    sums = [sum(differences) for differences in pages.values()]
    n = sum(map(len, pages.values()))
    mean = sum(sums) / n
    low, high = _bootstrap(_strata(pages), seed)
    if low == high:  # no resample can differ: widened as core/stats.py does, by an outcome never seen in so many pages
        z2 = quantile(CONFIDENCE) ** 2
        unseen = (1 + abs(mean)) * z2 / (len(pages) + z2)
        low, high = max(-1.0, mean - unseen), min(1.0, mean + unseen)
    wins, losses = sum(value > 0 for value in sums), sum(value < 0 for value in sums)
    return PairedDifference(
        mean=mean, low=low, high=high, n=n, wins=wins, losses=losses, p_mcnemar=mcnemar(wins, losses)
    )


def _strata(pages: Mapping[tuple[str, int], Sequence[int]]) -> Strata:
    """Pages by family; families with few pages form one stratum."""
    families: dict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    for (family, _), differences in pages.items():
        families[family][sum(differences), len(differences)] += 1
    large = [family for family in families.values() if family.total() >= MIN_STRATUM]
    small: Counter[tuple[int, int]] = sum((f for f in families.values() if f.total() < MIN_STRATUM), Counter())
    return [*large, small] if small else large


def _bootstrap(strata: Strata, seed: int) -> tuple[float, float]:
    """Percentile interval of the mean difference; drawing pages with replacement is one multinomial per stratum."""
    import numpy as np

    generator = np.random.default_rng(seed)
    sums, counts = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for stratum in strata:
        kinds = sorted(stratum)
        size = stratum.total()
        drawn = generator.multinomial(size, [stratum[kind] / size for kind in kinds], size=RESAMPLES)
        sums += drawn @ np.array([kind[0] for kind in kinds])
        counts += drawn @ np.array([kind[1] for kind in kinds])
    edge = (1 - CONFIDENCE) / 2
    low, high = np.quantile(sums / counts, [edge, 1 - edge])
    return float(low), float(high)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are: the chance that any of the comparisons shows so much by luck alone.
    ``holm([0.01, 0.04, 0.03])`` is ``[0.03, 0.06, 0.06]``."""
    adjusted = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = highest
    return adjusted
