"""Cohen's kappa against a calculation by hand and against scikit-learn; consistency; the lean to one side."""

from __future__ import annotations

import math
import random

import pytest

from dpo_driver.label.agreement import agreements, consistency, kappa, words_for

# 50 items: both "first" 20 times, both "second" 15, ann first and bob second 5, the other way round 10.
BY_HAND = (
    [("first", "first")] * 20 + [("first", "second")] * 5 + [("second", "first")] * 10 + [("second", "second")] * 15
)


def test_kappa_by_hand() -> None:
    """p_o = 35/50 = 0.7. ann says first 25/50, bob 30/50: p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5. kappa = 0.2/0.5 = 0.4.

    Variance: 1 - k = 0.6. The diagonal gives 0.4 (1 - 1.1 * 0.6)^2 + 0.3 (1 - 0.9 * 0.6)^2 = 0.4 * 0.1156 + 0.3 *
    0.2116 = 0.10972. Off it, p_.i + p_j. is 0.6 + 0.5 = 1.1 for (first, second), 0.4 + 0.5 = 0.9 for (second, first):
    0.36 (0.1 * 1.21 + 0.2 * 0.81) = 0.10188. Less (0.4 - 0.5 * 0.6)^2 = 0.01. Sum 0.2016; over 50 * 0.25 = 12.5 it is
    0.016128, and the standard error 0.126996.
    """
    found = kappa(BY_HAND, ("ann", "bob"))
    assert found.observed.success == pytest.approx(0.7) and found.observed.n == 50
    assert found.value == pytest.approx(0.4)
    half = 1.959964 * math.sqrt(0.016128)
    assert found.low == pytest.approx(0.4 - half, abs=1e-6) and found.high == pytest.approx(0.4 + half, abs=1e-6)


def test_kappa_equals_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = random.Random(1)
    answers = ["first", "second", "tie", "both_bad"]
    for n in (5, 40, 300):
        pairs = [(one, one if rng.random() < 0.6 else rng.choice(answers)) for one in rng.choices(answers, k=n)]
        expected = metrics.cohen_kappa_score(*zip(*pairs, strict=True))
        assert kappa(pairs).value == pytest.approx(expected)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Raters who agree beyond chance with 0.5 on two equally likely answers: kappa is 0.5."""
    rng, covered = random.Random(7), 0
    for _ in range(400):
        pairs = [(one, one if rng.random() < 0.75 else 1 - one) for one in (rng.randrange(2) for _ in range(150))]
        found = kappa([(str(one), str(other)) for one, other in pairs])
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.5 <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_what_cannot_be_measured_is_none() -> None:
    assert kappa([]).value is None and kappa([]).observed.success is None
    same = kappa([("tie", "tie")] * 9)
    assert same.value is None and same.observed.success == 1.0  # chance alone would agree as well
    perfect = kappa([("first", "first")] * 4 + [("second", "second")] * 4)
    assert perfect.value == pytest.approx(1.0) and perfect.low is None  # the formula's variance is 0 there
    assert kappa([("first", "second")] * 3 + [("second", "first")] * 3).value == pytest.approx(-1.0)


def test_agreement_is_of_what_both_have_labelled() -> None:
    answers = {
        "bob": {"1": "first", "2": "second", "3": "tie"},
        "ann": {"1": "first", "2": "first", "9": "first"},
        "eve": {"7": "tie"},
    }
    found = agreements(answers)
    assert [one.raters for one in found] == [("ann", "bob")] and found[0].observed.n == 2
    assert found[0].observed.success == 0.5


def test_consistency_and_the_lean_to_one_side() -> None:
    firsts = {"1": "first", "2": "tie", "3": "second", "4": "first"}
    found = consistency("ann", firsts, {"1": "first", "3": "first", "gone": "tie"}, [True, True, True, False])
    assert found.labels == 4 and (found.repeats.success, found.repeats.n) == (0.5, 2)
    assert (found.first_side.success, found.first_side.n) == (0.75, 4)
    assert consistency("bob", {}, {}, []).repeats.success is None


def test_words() -> None:
    assert [words_for(value) for value in (None, -0.1, 0.1, 0.41, 0.61, 0.9)] == [
        "not measured", "no better than chance", "slight", "moderate", "substantial", "almost perfect",
    ]  # fmt: skip
