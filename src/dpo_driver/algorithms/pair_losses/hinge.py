"""The hinge loss on DPO's margin (SLiC, Zhao et al. 2023): pairs that are apart by 1 / beta teach nothing more."""

from __future__ import annotations

import torch
from torch import Tensor

from dpo_driver.algorithms.pair_losses import Ratios


def loss(ratios: Ratios, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """[R]; 1 where the margin is 0. Labels are taken as they are."""
    return torch.relu(1 - beta * ratios.margin_R)
