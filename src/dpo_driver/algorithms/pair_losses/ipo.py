"""IPO (Azar et al. 2023, equation 17): regress the margin onto 1 / (2 beta), which cannot run away.

Per token, as the paper's authors compute it and TRL does.
"""

from __future__ import annotations

from torch import Tensor

from dpo_driver.algorithms.pair_losses import Ratios


def loss(ratios: Ratios, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """[R]; 1 / (2 beta)^2 where the margin is 0. ``beta`` is the paper's tau; labels are taken as they are."""
    return (ratios.mean_margin_R - 1 / (2 * beta)) ** 2
