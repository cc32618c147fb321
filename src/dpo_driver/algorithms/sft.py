"""Supervised fine-tuning: mean negative log-likelihood of the demonstrated completions' tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dpo_driver.algorithms.base import Kind, Scored, share
from dpo_driver.algorithms.losses import weighted_nll


@dataclass(frozen=True)
class Sft:
    """Each token counts as much as its sample's weight. The prompt is not learned."""

    learns_from: ClassVar[Kind] = "samples"
    needs_reference: ClassVar[bool] = False
    reads_rejected: ClassVar[bool] = False

    def loss(self, scored: Scored) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean NLL per completion token, in nats."""
        loss = share(weighted_nll(scored.sums_C, scored.sample_M, scored.sample_weight_M), scored.totals.sample_tokens)
        return loss, {"nll": loss.detach(), "entropy": scored.entropy}

    def check_start(self, metrics: dict[str, float], tolerance: float) -> None:
        """Any loss is a fine start."""
