"""Formulas that several algorithms share, as pure functions of tensors; every one has a value derived by hand in tests.

Shapes: C completions.
"""

from __future__ import annotations

from torch import Tensor


def weighted_nll(sums_C: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of the negative log-likelihoods of some completions, in nats.

    Args:
        sums_C: log-prob of each completion.
        index: which completions.
        weight: the weight of each, same length.
    """
    return -(weight * sums_C.index_select(0, index)).sum()
