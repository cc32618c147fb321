"""Direct preference optimisation against the frozen parent, with optional imitation of chosen and of replayed answers.

Reward, margin and accuracy are TRL's: reward = beta x (log-prob under the model - log-prob under the reference). For a
pair of whole trajectories the log-prob is the sum over the agent's own turns; what the pages said is not learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dpo_driver.algorithms.base import Kind, Scored, share
from dpo_driver.algorithms.losses import weighted_nll
from dpo_driver.algorithms.pair_losses import Ratios, pair_loss
from dpo_driver.core.errors import ConfigError, TrainingError

SMOOTHED = ("sigmoid", "sigmoid_norm")  # pair losses that know of wrong labels


@dataclass(frozen=True)
class Dpo:
    """``loss = pair loss + rpo_alpha x NLL(chosen) + replay_coefficient x NLL(samples)``, NLL per token.

    Replay keeps task families alive that produced no pairs: DPO alone lets them collapse.
    """

    beta: float = 0.1
    loss_type: str = "sigmoid"
    label_smoothing: float = 0.0
    rpo_alpha: float = 0.0
    replay_coefficient: float = 0.0

    learns_from: ClassVar[Kind] = "pairs"
    needs_reference: ClassVar[bool] = True
    reads_rejected: ClassVar[bool] = True

    def __post_init__(self) -> None:
        pair_loss(self.loss_type)
        if self.label_smoothing and self.loss_type not in SMOOTHED:
            raise ConfigError(
                f"loss_type {self.loss_type} takes labels as they are, so label_smoothing must be 0",
                remedy=f"use loss_type {' or '.join(SMOOTHED)}",
            )

    def loss(self, scored: Scored) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and TRL's metrics, as weighted means over pairs."""
        if scored.reference_C is None:
            raise TrainingError(
                "DPO needs the reference's log-probs", remedy="pass reference_logps or let train() compute them"
            )
        sums_S, lengths_S = scored.sides(scored.sums_C), scored.sides(scored.lengths_C)
        ratio_S = sums_S - scored.sides(scored.reference_C)
        chosen, rejected = scored.chosen_R, scored.rejected_R
        ratios = Ratios(ratio_S[chosen], ratio_S[rejected], lengths_S[chosen], lengths_S[rejected])
        weight_R, totals = scored.pair_weight_R, scored.totals
        preference = share((weight_R * self._per_pair(ratios)).sum(), totals.pairs)
        nll = share(weighted_nll(sums_S, chosen, weight_R), totals.chosen_tokens)
        replay = share(weighted_nll(scored.sums_C, scored.sample_M, scored.sample_weight_M), totals.sample_tokens)
        loss = preference + self.rpo_alpha * nll + self.replay_coefficient * replay

        def mean(value_R: Tensor) -> Tensor:
            return share((weight_R * value_R.detach()).sum(), totals.pairs)

        metrics = {
            "preference_loss": preference.detach(),
            "rewards/chosen": mean(self.beta * ratios.chosen_R),
            "rewards/rejected": mean(self.beta * ratios.rejected_R),
            "rewards/margins": mean(self.beta * ratios.margin_R),
            "rewards/accuracies": mean((ratios.margin_R > 0).to(sums_S.dtype)),
            "logps/chosen": mean(sums_S[chosen]),
            "logps/rejected": mean(sums_S[rejected]),
            "nll": nll.detach(),
            "entropy": scored.entropy,
        }
        if totals.sample_tokens > 0:
            metrics["nll/replay"] = replay.detach()
        return loss, metrics

    def _per_pair(self, ratios: Ratios) -> Tensor:
        return pair_loss(self.loss_type)(ratios, beta=self.beta, label_smoothing=self.label_smoothing)

    def check_start(self, metrics: dict[str, float], tolerance: float) -> None:
        """Before the first update model and reference are the same: the preference loss is that of a margin of 0, ln 2
        for the sigmoid."""
        found, exact = metrics["preference_loss"], float(self._per_pair(Ratios.untrained()))
        if not abs(found - exact) <= tolerance * max(1.0, exact):
            name = f"ln 2 = {exact:.6f}" if math.isclose(exact, math.log(2), abs_tol=1e-6) else f"{exact:.6f}"
            raise TrainingError(
                f"the preference loss of the untrained model is {found:.6f}, not {name}",
                remedy="the reference is not this model's parent: delete the cached log-probs and check the adapter",
            )
