"""Numbers with intervals: success rates, paired differences, and how many episodes a claim needs.

Evaluation, gates and reports call it; nothing else in the package computes an interval or a p-value. Everything is two
sided, rates are fractions, ``None`` means "not measured" and is never counted as a failure. Standard library, except
that the bootstrap imports numpy when it is called. Must not know what an episode is.

Sources: Wilson, JASA 22 (1927), 209-212; McNemar, Psychometrika 12 (1947), 153-157, exact binomial form; Cohen,
Educational and Psychological Measurement 20 (1960), 37-46; Connor, Biometrics 43 (1987), 207-211, for paired sample
sizes; Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, 3rd edition, section 4.2, for unpaired
ones (no continuity correction).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, TypeVar

from dpo_driver.core.records import PairedDifference, Rate

CONFIDENCE = 0.95
RESAMPLES = 10_000
# Resampling within a stratum of n understates its variance by (n - 1) / n, so strata below this size are pooled.
MIN_STRATUM = 10
_ROUNDING = 1e-9

Key = TypeVar("Key", bound=tuple[Any, ...])


def quantile(confidence: float) -> float:
    """Two-sided normal quantile: 1.96 for 0.95.

    Raises:
        ValueError: confidence is not strictly between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion: ``wilson(12, 20)`` is about (0.387, 0.781).

    Raises:
        ValueError: n is not positive or successes do not fit into n.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no proportion")
    z2 = quantile(confidence) ** 2
    share = successes / n
    centre = share + z2 / (2 * n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    # At 0 and n the formula's bound is exactly 0 or 1; rounding must not move it past the share itself.
    low = 0.0 if successes == 0 else (centre - half) / (1 + z2 / n)
    high = 1.0 if successes == n else (centre + half) / (1 + z2 / n)
    return low, high


def rate(outcomes: Iterable[bool | None], confidence: float = CONFIDENCE) -> Rate:
    """Success rate with Wilson's interval. ``None`` outcomes (failures of the world) are excluded and counted."""
    counts = Counter(None if outcome is None else bool(outcome) for outcome in outcomes)
    n = counts[True] + counts[False]
    if n == 0:
        return Rate(success=None, low=None, high=None, n=0, excluded=counts[None])
    low, high = wilson(counts[True], n, confidence)
    return Rate(success=counts[True] / n, low=low, high=high, n=n, excluded=counts[None])


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student's interval of a mean: ``mean_interval([1, 2, 3, 4, 5])`` is about (1.04, 4.96). None below two values."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = _student(confidence, n - 1) * spread / math.sqrt(n)
    return mean - half, mean + half


def _student(confidence: float, freedom: int) -> float:
    """Two-sided quantile of Student's t: bisection on the distribution's exact finite series (Abramowitz and Stegun
    26.7.3 and 26.7.4)."""

    def inside(t: float) -> float:
        angle = math.atan2(t, math.sqrt(freedom))
        cosine, sine = math.cos(angle), math.sin(angle)
        term, total = (cosine, cosine) if freedom % 2 else (1.0, 1.0)
        for k in range(3 if freedom % 2 else 2, freedom - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        if freedom % 2 == 0:
            return sine * total
        return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))

    low, high = 0.0, quantile(confidence)
    while inside(high) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < confidence else (low, middle)
    return high


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Cohen's kappa: agreement of two raters on the same items beyond chance, 1 is full agreement and 0 is chance.

    None without items, and where both gave everything the same single answer: chance alone explains that.

    Raises:
        ValueError: not equally many judgements.
    """
    if len(one) != len(other):
        raise ValueError(f"{len(one)} judgements cannot be compared with {len(other)}")
    n = len(one)
    if n == 0:
        return None
    same = sum(a == b for a, b in zip(one, other, strict=True))
    of_one, of_other = Counter(one), Counter(other)
    chance = sum(count * of_other[answer] for answer, count in of_one.items())  # in n * n-ths
    return None if chance == n * n else (same * n - chance) / (n * n - chance)


def kappa_interval(
    one: Sequence[Hashable], other: Sequence[Hashable], confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Large-sample interval of Cohen's kappa, cut to -1 and 1; None where kappa is None, and where the variance is 0,
    as with perfect agreement: the formula then says nothing.

    With p_ij the share of items that one rater answered i and the other j, p_i. and p_.j its sums, p_e = sum p_i. p_.i
    what chance would give and k the kappa, the variance is

        [ sum p_ii (1 - (p_i. + p_.i)(1 - k))^2 + (1 - k)^2 sum_{i != j} p_ij (p_.i + p_j.)^2 - (k - p_e (1 - k))^2 ]
        / (n (1 - p_e)^2)

    (Fleiss, Cohen and Everitt, Psychological Bulletin 72 (1969), 323-327).
    """
    kappa, n = cohen_kappa(one, other), len(one)
    if kappa is None:
        return None
    row = {answer: count / n for answer, count in Counter(one).items()}
    column = {answer: count / n for answer, count in Counter(other).items()}
    chance = sum(share * column.get(answer, 0.0) for answer, share in row.items())
    away, same, apart = 1 - kappa, 0.0, 0.0
    for (a, b), count in Counter(zip(one, other, strict=True)).items():
        if a == b:
            same += count / n * (1 - (row[a] + column[a]) * away) ** 2
        else:
            apart += count / n * (column.get(a, 0.0) + row.get(b, 0.0)) ** 2
    variance = (same + away**2 * apart - (kappa - chance * away) ** 2) / (n * (1 - chance) ** 2)
    if variance < _ROUNDING:
        return None
    half = quantile(confidence) * math.sqrt(variance)
    return max(-1.0, kappa - half), min(1.0, kappa + half)


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided McNemar p-value of discordant pairs: ``mcnemar(12, 4)`` is 2 * 2517 / 65536.

    Integers until the last division, so it holds for thousands of pairs. Without discordant pairs it is 1.
    """
    if wins < 0 or losses < 0:
        raise ValueError("wins and losses cannot be negative")
    n = wins + losses
    term = tail = 1
    for k in range(1, min(wins, losses) + 1):
        term = term * (n - k + 1) // k
        tail += term
    return min(1.0, (2 * tail) / (1 << n)) if n else 1.0


def fisher(successes_a: int, n_a: int, successes_b: int, n_b: int) -> float:
    """Fisher's exact two-sided p-value for two independent samples: 12 of 20 against 14 of 20 is p = 0.74.

    For comparisons that are not paired; paired ones have :func:`paired_difference`.
    """
    for successes, n in ((successes_a, n_a), (successes_b, n_b)):
        if n <= 0 or not 0 <= successes <= n:
            raise ValueError(f"{successes} of {n} is no proportion")
    total, successes = n_a + n_b, successes_a + successes_b
    first, last = max(0, successes - n_b), min(successes, n_a)
    weights = [math.comb(n_a, k) * math.comb(n_b, successes - k) for k in range(first, last + 1)]
    observed = weights[successes_a - first]
    return sum(weight for weight in weights if weight <= observed) / math.comb(total, successes)


def paired_difference(
    a: Mapping[Key, bool | None],
    b: Mapping[Key, bool | None],
    seed: int = 0,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> PairedDifference:
    """How much better ``b`` is than ``a`` on the same episodes.

    Args:
        a: outcome by key, usually of the champion. A key is a tuple that starts with the task: ``("click-button", 7)``.
        b: the same of the candidate. Keys that are missing or None on either side are dropped.
        seed: of the bootstrap.
        confidence: of the interval.
        resamples: bootstrap resamples.

    Returns:
        ``b - a``, its percentile bootstrap interval stratified by task (tasks with fewer than ``MIN_STRATUM`` pairs
        form one stratum), wins (only b succeeded), losses (only a did) and the exact McNemar p-value. When no
        resample can differ from the sample, the interval is widened by Wilson's bound for an outcome never seen.
    """
    strata: dict[Hashable, Counter[int]] = defaultdict(Counter)
    for key, before in a.items():
        after = b.get(key)
        if before is not None and after is not None:
            strata[key[0]][int(after) - int(before)] += 1
    total: Counter[int] = sum(strata.values(), Counter())
    n = total.total()
    if n == 0:
        return PairedDifference(mean=None, low=None, high=None, n=0)
    mean = (total[1] - total[-1]) / n
    low, high = _bootstrap(_pool_small(list(strata.values())), seed, confidence, resamples)
    if low == high:
        z2 = quantile(confidence) ** 2
        unseen = (1 + max(abs(value) for value in total)) * z2 / (n + z2)
        low, high = max(-1.0, mean - unseen), min(1.0, mean + unseen)
    return PairedDifference(
        mean=mean, low=low, high=high, n=n, wins=total[1], losses=total[-1], p_mcnemar=mcnemar(total[1], total[-1])
    )


def _pool_small(strata: Sequence[Counter[int]]) -> list[Counter[int]]:
    large = [stratum for stratum in strata if stratum.total() >= MIN_STRATUM]
    small: Counter[int] = sum((stratum for stratum in strata if stratum.total() < MIN_STRATUM), Counter())
    return [*large, small] if small else large


def _bootstrap(strata: Sequence[Counter[int]], seed: int, confidence: float, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean. A paired difference is -1, 0 or 1, so resampling n pairs with replacement is
    one multinomial draw per stratum: exact, and fast enough for 10,000 resamples of 100 tasks."""
    import numpy as np

    generator = np.random.default_rng(seed)
    sums = np.zeros(resamples, dtype=np.int64)
    n = 0
    for stratum in strata:
        size = stratum.total()
        shares = [stratum[-1] / size, stratum[1] / size, stratum[0] / size]
        drawn = generator.multinomial(size, shares, size=resamples)
        sums += drawn[:, 1] - drawn[:, 0]
        n += size
    edge = (1 - confidence) / 2
    low, high = np.quantile(sums, [edge, 1 - edge]) / n
    return float(low), float(high)


def power_episodes(
    gain: float,
    base: float,
    discordance: float | None = None,
    *,
    alpha: float = 0.05,
    power: float = 0.80,
) -> int:
    """Paired episodes that show a gain with the given power (Connor 1987, two-sided McNemar test).

    Args:
        gain: difference of success rates to be seen, as a fraction; its sign does not matter.
        base: success rate of the one to be beaten.
        discordance: share of episodes that only one of the two solves. Default: that of two independent agents,
            which asks for the most episodes; agents that share a parent disagree less.
        alpha: significance level.
        power: chance to see the gain.

    Raises:
        ValueError: gain is 0, base + gain is no rate, or the discordance cannot hold the gain.
    """
    if gain == 0 or not 0 <= base <= 1 or not -_ROUNDING <= base + gain <= 1 + _ROUNDING:
        raise ValueError(f"no number of episodes shows a gain of {gain:+g} over {base:g}")
    if discordance is None:
        improved = min(1.0, max(0.0, base + gain))
        discordance = base * (1 - improved) + (1 - base) * improved
    if not abs(gain) - _ROUNDING <= discordance <= 1:
        raise ValueError(f"a discordance of {discordance:g} cannot hold a gain of {gain:+g}")
    return _connor(gain, discordance, alpha, power)


def _connor(gain: float, discordance: float, alpha: float, power: float) -> int:
    discordance = max(discordance, abs(gain))  # a gain makes at least that many episodes differ
    z_alpha, z_power = quantile(1 - alpha), NormalDist().inv_cdf(power)
    root = z_alpha * math.sqrt(discordance) + z_power * math.sqrt(discordance - gain**2)
    return math.ceil((root / gain) ** 2)


def unpaired_episodes(rate_a: float, rate_b: float, *, alpha: float = 0.05, power: float = 0.80) -> int:
    """Episodes per arm that tell two independent success rates apart: 0.6 against 0.7 takes 356 (Fleiss).

    Raises:
        ValueError: the rates are equal or no rates.
    """
    if rate_a == rate_b or not (0 <= rate_a <= 1 and 0 <= rate_b <= 1):
        raise ValueError(f"no number of episodes tells {rate_a:g} and {rate_b:g} apart")
    z_alpha, z_power = quantile(1 - alpha), NormalDist().inv_cdf(power)
    pooled = (rate_a + rate_b) / 2
    apart = rate_a * (1 - rate_a) + rate_b * (1 - rate_b)
    root = z_alpha * math.sqrt(2 * pooled * (1 - pooled)) + z_power * math.sqrt(apart)
    return math.ceil((root / (rate_a - rate_b)) ** 2)


def minimum_detectable_gain(
    n: int,
    base: float,
    discordance: float | None = None,
    *,
    alpha: float = 0.05,
    power: float = 0.80,
) -> float | None:
    """The smallest gain over ``base`` that ``n`` paired episodes show with the given power: the inverse of
    :func:`power_episodes`, to four decimals.

    Returns:
        The gain as a fraction, or None when even a perfect agent's gain would not show.
    """
    if n <= 0 or not 0 <= base <= 1:
        raise ValueError(f"{n} episodes over a base of {base:g} make no sense")

    def shows(gain: float) -> bool:
        held = None if discordance is None else max(discordance, gain)
        return power_episodes(gain, base, held, alpha=alpha, power=power) <= n

    return _smallest(shows, 1 - base)


def _smallest(shows: Callable[[float], bool], ceiling: float) -> float | None:
    """The smallest gain up to the ceiling that shows, by bisection in ten-thousandths; None if the ceiling does not.
    The number of episodes needed falls as the gain grows."""
    low, high = 0, math.floor(ceiling * 10_000 + _ROUNDING)
    if high == 0 or not shows(high / 10_000):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle / 10_000) else (middle, high)
    return high / 10_000


def power_line(
    measured: PairedDifference, gains: Sequence[float] = (0.02, 0.05, 0.10), *, alpha: float = 0.05, power: float = 0.80
) -> str:
    """One sentence for a report: what gain the episodes of a comparison could show, and how many others would take.

    Args:
        measured: its share of episodes that only one of the two solved is the discordance.
        gains: to name the number of episodes for, as fractions.
        alpha: significance level.
        power: chance to see the gain.
    """
    discordant = measured.wins + measured.losses
    if measured.n == 0:
        return "No paired episodes, so nothing can be said about what they would show."
    if discordant == 0:
        return f"None of the {measured.n:,} paired episodes told the two apart, so their power cannot be estimated."
    discordance = discordant / measured.n
    seen = _smallest(lambda gain: _connor(gain, discordance, alpha, power) <= measured.n, 1.0)
    first = "could show no gain at all" if seen is None else f"show a gain of {100 * seen:.1f} points"
    needed = ", ".join(f"{100 * gain:g} points {_connor(gain, discordance, alpha, power):,}" for gain in gains)
    return (
        f"{measured.n:,} paired episodes, {discordance:.1%} of which only one of the two solved, {first} "
        f"with {power:.0%} power; paired episodes needed for {needed} (Connor 1987)."
    )
