"""What ``dpo.loss_type`` may say: one small file each, under TRL's names, equal to TRL's value (tests hold it).

A pair loss is a pure function ``loss(ratios, beta=..., label_smoothing=...) -> [R]``. Called by algorithms/dpo.py.

Shapes: R pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from dpo_driver.core.errors import UnknownNameError

# name -> module with a function ``loss``
PAIR_LOSSES: dict[str, str] = {
    "sigmoid": "dpo_driver.algorithms.pair_losses.sigmoid",
    "sigmoid_norm": "dpo_driver.algorithms.pair_losses.sigmoid_norm",
    "ipo": "dpo_driver.algorithms.pair_losses.ipo",
    "hinge": "dpo_driver.algorithms.pair_losses.hinge",
}


@dataclass(frozen=True)
class Ratios:
    """Log-ratios of both sides of each pair: log-prob under the model minus that under the reference, in nats, summed
    over a side's completion tokens; and how many tokens those are."""

    chosen_R: Tensor
    rejected_R: Tensor
    chosen_length_R: Tensor
    rejected_length_R: Tensor

    @property
    def margin_R(self) -> Tensor:
        return self.chosen_R - self.rejected_R

    @property
    def mean_margin_R(self) -> Tensor:
        """The difference of the log-ratios per token."""
        return self.chosen_R / self.chosen_length_R - self.rejected_R / self.rejected_length_R

    @classmethod
    def untrained(cls) -> Ratios:
        """One pair of a model that still is its reference."""
        return cls(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.ones(1))


PairLoss = Callable[..., Tensor]


def pair_loss(name: str) -> PairLoss:
    """The function behind a name; UnknownNameError lists the known ones."""
    if name not in PAIR_LOSSES:
        raise UnknownNameError("loss_type", name, PAIR_LOSSES)
    found: PairLoss = import_module(PAIR_LOSSES[name]).loss
    return found
