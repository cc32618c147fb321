"""DPO's own loss (Rafailov et al. 2023, equation 7); label smoothing as in conservative DPO (Mitchell 2023)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dpo_driver.algorithms.pair_losses import Ratios


def loss(ratios: Ratios, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """[R]; ln 2 where the margin is 0. ``label_smoothing`` is the probability that a label is wrong, in [0, 0.5)."""
    return smoothed(beta * ratios.margin_R, label_smoothing)


def smoothed(scaled_R: Tensor, label_smoothing: float) -> Tensor:
    """Negative log-likelihood of the labels when each is wrong with a known probability."""
    return -F.logsigmoid(scaled_R) * (1 - label_smoothing) - F.logsigmoid(-scaled_R) * label_smoothing
