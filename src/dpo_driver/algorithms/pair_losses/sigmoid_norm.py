"""Length-normalised DPO: log-ratios per token, so that a longer side is not favoured for its length (as in Tülu 3)."""

from __future__ import annotations

from torch import Tensor

from dpo_driver.algorithms.pair_losses import Ratios
from dpo_driver.algorithms.pair_losses.sigmoid import smoothed


def loss(ratios: Ratios, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """[R]; ln 2 where the margin per token is 0. Wants a larger ``beta`` than the sum does, by about the length."""
    return smoothed(beta * ratios.mean_margin_R, label_smoothing)
