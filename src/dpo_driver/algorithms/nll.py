"""The control beside DPO: imitate the chosen side of each pair and ignore the rejected one.

Same rows, same batches, same replay as DPO; whatever DPO gains over this comes from the rejected side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dpo_driver.algorithms.base import Kind, Scored, share
from dpo_driver.algorithms.losses import weighted_nll


@dataclass(frozen=True)
class Nll:
    """Mean NLL per token of the chosen completions, plus ``replay_coefficient`` times that of the replayed samples."""

    replay_coefficient: float = 0.0

    learns_from: ClassVar[Kind] = "pairs"
    needs_reference: ClassVar[bool] = False
    reads_rejected: ClassVar[bool] = False

    def loss(self, scored: Scored) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean NLL per completion token, in nats."""
        chosen = share(
            weighted_nll(scored.sides(scored.sums_C), scored.chosen_R, scored.pair_weight_R),
            scored.totals.chosen_tokens,
        )
        replay = share(
            weighted_nll(scored.sums_C, scored.sample_M, scored.sample_weight_M), scored.totals.sample_tokens
        )
        metrics = {"nll": chosen.detach(), "entropy": scored.entropy}
        if scored.totals.sample_tokens > 0:
            metrics["nll/replay"] = replay.detach()
        return chosen + self.replay_coefficient * replay, metrics

    def check_start(self, metrics: dict[str, float], tolerance: float) -> None:
        """Any loss is a fine start."""
