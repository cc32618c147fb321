"""core/stats.py against numbers derived by hand or published, and against brute force."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_driver.core.records import PairedDifference
from dpo_driver.core.stats import (
    fisher,
    mcnemar,
    minimum_detectable_gain,
    paired_difference,
    power_episodes,
    power_line,
    quantile,
    rate,
    unpaired_episodes,
    wilson,
)


def outcomes(**tasks: list[bool | None]) -> dict[tuple[str, int], bool | None]:
    return {(task, seed): value for task, values in tasks.items() for seed, value in enumerate(values)}


def test_wilson_of_12_in_20_by_hand() -> None:
    # z^2 = 3.841459; centre (0.6 + 0.0960365) / 1.1920729, half 1.959964 * sqrt(0.012 + 0.0024009) / 1.1920729
    low, high = wilson(12, 20)
    assert low == pytest.approx(0.386582, abs=1e-5)
    assert high == pytest.approx(0.781193, abs=1e-5)


def test_wilson_at_the_edges() -> None:
    z2 = quantile(0.95) ** 2
    assert wilson(0, 10) == (0.0, pytest.approx(z2 / (10 + z2)))
    assert wilson(10, 10) == (pytest.approx(10 / (10 + z2)), 1.0)
    for successes, n in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="no proportion"):
            wilson(successes, n)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    other_low, other_high = wilson(n - successes, n)
    assert (low, high) == (pytest.approx(1 - other_high, abs=1e-12), pytest.approx(1 - other_low, abs=1e-12))


def test_rate_excludes_failures_and_counts_them() -> None:
    measured = rate([True, None, False, True, None])
    assert (measured.success, measured.n, measured.excluded) == (pytest.approx(2 / 3), 3, 2)
    assert (measured.low, measured.high) == wilson(2, 3)
    empty = rate([None, None])
    assert (empty.success, empty.low, empty.high, empty.n, empty.excluded) == (None, None, None, 0, 2)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(12, 4) == 2 * (1 + 16 + 120 + 560 + 1820) / 2**16  # 0.0768
    assert mcnemar(4, 12) == mcnemar(12, 4)
    assert mcnemar(6, 0) == 2 / 64
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_mcnemar_holds_for_thousands_of_pairs() -> None:
    # The normal approximation with continuity correction is close at this size: z = (|2600 - 2400| - 1) / sqrt(5000).
    z = 199 / math.sqrt(5000)
    assert mcnemar(2600, 2400) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-3)
    assert mcnemar(2600, 2400) == pytest.approx(2 * sum(math.comb(5000, k) for k in range(2401)) / 2**5000, rel=1e-12)
    assert mcnemar(5000, 0) == 0.0  # 2 ** -4999 is below the smallest float
    assert 0 < mcnemar(1000, 0) < 1e-300


def test_fisher_of_12_against_14_in_20() -> None:
    assert fisher(12, 20, 14, 20) == pytest.approx(0.741, abs=5e-4)
    assert fisher(3, 3, 0, 3) == pytest.approx(2 / 20)  # the two extreme tables of C(6, 3)


def test_power_examples() -> None:
    assert unpaired_episodes(0.6, 0.7) == 356
    # Published example of Connor's formula: p01 .45, p10 .05, two-sided, 80 %: 23 pairs.
    assert power_episodes(0.4, 0.1, 0.5) == 23
    # By hand: disc .46; (1.959964 * .678233 + .841621 * .670820) ^ 2 / .01 = 358.7
    assert power_episodes(0.1, 0.6) == 359
    # Agents that seldom disagree need fewer: disc .15, (1.959964 * .387298 + .841621 * .374166) ^ 2 / .01 = 115.4
    assert power_episodes(0.1, 0.6, 0.15) == 116
    assert power_episodes(-0.1, 0.7) == power_episodes(0.1, 0.6)


def test_power_refuses_what_cannot_be_shown() -> None:
    for gain, base, discordance in ((0.0, 0.5, None), (0.2, 0.9, None), (0.3, 0.5, 0.2), (0.1, 0.5, 1.2)):
        with pytest.raises(ValueError, match="gain"):
            power_episodes(gain, base, discordance)


@given(st.integers(20, 5000), st.floats(0.0, 0.95))
def test_minimum_detectable_gain_inverts_power(n: int, base: float) -> None:
    gain = minimum_detectable_gain(n, base)
    if gain is None:
        assert power_episodes(math.floor((1 - base) * 10_000 + 1e-9) / 10_000, base) > n
        return
    assert power_episodes(gain, base) <= n
    if gain > 1e-4 + 1e-9:
        assert power_episodes(gain - 1e-4, base) > n


def test_minimum_detectable_gain_of_a_perfect_base_is_none() -> None:
    assert minimum_detectable_gain(1000, 1.0) is None
    assert minimum_detectable_gain(359, 0.6) == pytest.approx(0.1, abs=2e-4)
    assert minimum_detectable_gain(116, 0.6, 0.15) == pytest.approx(0.1, abs=4e-4)


def test_power_line_says_what_the_episodes_can_show() -> None:
    # Discordance .15: 10 points take 116 (above), 5 points take
    # (1.959964 * .387298 + .841621 * .384057) ^ 2 / .0025 = 468.4, and 400 episodes show
    # (1.959964 * .387298 + .841621 * .383503) / 20 = .0541.
    line = power_line(PairedDifference(mean=0.075, low=0.04, high=0.11, n=400, wins=45, losses=15), (0.05, 0.1))
    assert line == (
        "400 paired episodes, 15.0% of which only one of the two solved, show a gain of 5.4 points with 80% power; "
        "paired episodes needed for 5 points 469, 10 points 116 (Connor 1987)."
    )
    assert "told the two apart" in power_line(PairedDifference(mean=0.0, low=0.0, high=0.0, n=20))
    assert "No paired" in power_line(PairedDifference(mean=None, low=None, high=None, n=0))
    assert "no gain at all" in power_line(PairedDifference(mean=1.0, low=0.0, high=1.0, n=2, wins=2))


def test_power_is_what_simulation_finds() -> None:
    """359 pairs at 60 % and 70 %, independent: the exact test sees it in about 80 % (less what exactness costs)."""
    generator = random.Random(3)
    seen = 0
    for _ in range(400):
        wins = losses = 0
        for _ in range(359):
            before, after = generator.random() < 0.6, generator.random() < 0.7
            wins += after and not before
            losses += before and not after
        seen += mcnemar(wins, losses) < 0.05
    assert 0.71 < seen / 400 < 0.86


def test_paired_difference_counts_by_hand() -> None:
    a = outcomes(x=[True] * 4 + [False] * 12 + [True] * 40 + [None])
    b = outcomes(x=[False] * 4 + [True] * 12 + [True] * 40 + [True])
    gain = paired_difference(a, b)
    assert (gain.n, gain.wins, gain.losses) == (56, 12, 4)
    assert gain.mean == pytest.approx(8 / 56)
    assert gain.p_mcnemar == mcnemar(12, 4)
    assert gain.low is not None and gain.high is not None
    # Normal approximation: sd of one difference sqrt(16/56 - (8/56)^2) = .5151; 1.96 * .5151 / sqrt(56) = .1349
    assert gain.low == pytest.approx(8 / 56 - 0.135, abs=0.02)
    assert gain.high == pytest.approx(8 / 56 + 0.135, abs=0.02)


def test_missing_keys_and_none_are_dropped() -> None:
    a = {("x", 1): True, ("x", 2): None, ("x", 3): False, ("y", 9): True}
    b = {("x", 1): False, ("x", 2): True, ("x", 3): None}
    gain = paired_difference(a, b)
    assert (gain.n, gain.wins, gain.losses, gain.mean) == (1, 0, 1, -1.0)
    nothing = paired_difference({("x", 1): None}, {("x", 1): True})
    assert (nothing.mean, nothing.low, nothing.high, nothing.n, nothing.p_mcnemar) == (None, None, None, 0, None)


def test_a_few_lucky_pairs_do_not_exclude_zero() -> None:
    gain = paired_difference(outcomes(x=[False] * 3), outcomes(x=[True] * 3))
    assert gain.mean == 1.0 and gain.low is not None and gain.low < 0
    ties = paired_difference(outcomes(x=[True] * 1000), outcomes(x=[True] * 1000))
    z2 = quantile(0.95) ** 2
    assert (ties.low, ties.high) == (pytest.approx(-z2 / (1000 + z2)), pytest.approx(z2 / (1000 + z2)))


def test_stratifying_by_task_removes_the_difference_between_tasks() -> None:
    """One task always gained, another never: within tasks almost nothing varies, so the interval is narrow."""
    a = outcomes(gained=[False] * 100, never=[False] * 100)
    b = outcomes(gained=[True] * 99 + [False], never=[False] * 100)
    mixed = {("one", i): value for i, value in enumerate(a.values())}
    stratified = paired_difference(a, b)
    pooled = paired_difference(mixed, {("one", i): value for i, value in enumerate(b.values())})
    assert stratified.mean == pooled.mean == 99 / 200
    assert stratified.low is not None and pooled.low is not None
    assert stratified.low > 0.48 > 0.44 > pooled.low


def test_small_tasks_are_pooled() -> None:
    """One episode a task: resampling inside each task could never vary."""
    a = {(f"task-{i}", 0): i % 2 == 0 for i in range(40)}
    b = {key: not value if key[0] in {"task-1", "task-3"} else value for key, value in a.items()}
    gain = paired_difference(a, b)
    assert gain.mean == 2 / 40
    assert gain.low == 0.0 and gain.high is not None and gain.high > 0.09


def test_bootstrap_is_the_resampling_it_stands_for() -> None:
    """The multinomial draw against a plain loop that resamples episodes."""
    generator = random.Random(5)
    values = {"x": [1] * 8 + [-1] * 3 + [0] * 19, "y": [1] * 2 + [-1] * 5 + [0] * 13}
    means = []
    for _ in range(4000):
        means.append(sum(sum(generator.choices(row, k=len(row))) for row in values.values()) / 50)
    means.sort()
    a = outcomes(**{task: [v < 0 for v in row] for task, row in values.items()})
    b = outcomes(**{task: [v > 0 for v in row] for task, row in values.items()})
    gain = paired_difference(a, b)
    assert gain.low == pytest.approx(means[100], abs=0.021)
    assert gain.high == pytest.approx(means[3900], abs=0.021)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_difference_is_antisymmetric_and_ordered(rows: list[tuple[str, bool, bool]]) -> None:
    numbered = list(zip(itertools.count(), rows, strict=False))
    a = {(task, i): before for i, (task, before, _) in numbered}
    b = {(task, i): after for i, (task, _, after) in numbered}
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.mean is not None and back.mean is not None and there.low is not None and there.high is not None
    assert there.mean == -back.mean
    assert (there.wins, there.losses, there.p_mcnemar) == (back.losses, back.wins, back.p_mcnemar)
    assert -1 <= there.low <= there.mean <= there.high <= 1
    assert paired_difference(a, b) == there


def test_numpy_is_loaded_only_by_the_bootstrap() -> None:
    script = (
        "import sys, dpo_driver.core.stats as s; s.rate([True]); s.mcnemar(3, 1); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
