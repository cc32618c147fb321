"""The gate decides by the whole interval and the exact test, never by the mean."""

from __future__ import annotations

import pytest

from dpo_driver.core.records import PairedDifference
from dpo_driver.flywheel.promote import decide


@pytest.mark.parametrize(
    ("mean", "low", "high", "p", "promoted", "word"),
    [
        (0.17, 0.13, 0.21, 1e-9, True, ", wholly above"),
        (0.05, -0.01, 0.11, 0.09, False, "not wholly above"),
        (-0.10, -0.15, -0.05, 1e-6, False, "not wholly above"),
        (0.60, 0.05, 1.00, 0.25, False, "exact test"),  # 3 wins of 5: the bootstrap alone would have let it through
    ],
)
def test_the_gate(mean: float, low: float, high: float, p: float, promoted: bool, word: str) -> None:
    gain = PairedDifference(mean=mean, low=low, high=high, n=1080, wins=3, losses=0, p_mcnemar=p)
    decision = decide(gain, "pocket/dpo-1", "pocket/sft", 0.0)
    assert decision.promoted is promoted
    assert word in decision.reasons[0]


def test_a_required_gain_moves_the_gate() -> None:
    gain = PairedDifference(mean=0.06, low=0.03, high=0.09, n=1080, p_mcnemar=0.001)
    assert decide(gain, "a", "b", 0.02).promoted
    assert not decide(gain, "a", "b", 0.05).promoted


def test_nothing_measured_is_refused() -> None:
    nothing = PairedDifference(mean=None, low=None, high=None, n=0)
    assert not decide(nothing, "a", "b", 0.0).promoted
