"""Direct preference optimisation against the frozen parent, with optional imitation of chosen and of replayed answers.

Reward, margin and accuracy are TRL's: reward = beta x (log-prob under the model - log-prob under the reference).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dpo_driver.algorithms.base import Kind, Scored, share
from dpo_driver.algorithms.losses import PAIR_LOSSES, weighted_nll
from dpo_driver.core.errors import TrainingError, UnknownNameError


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
        if self.loss_type not in PAIR_LOSSES:
            raise UnknownNameError("loss_type", self.loss_type, PAIR_LOSSES)

    def loss(self, scored: Scored) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and TRL's metrics, as weighted means over pairs."""
        if scored.reference_C is None:
            raise TrainingError(
                "DPO needs the reference's log-probs", remedy="pass reference_logps or let train() compute them"
            )
        ratio_C = scored.sums_C - scored.reference_C
        chosen_R, rejected_R = ratio_C.index_select(0, scored.chosen_R), ratio_C.index_select(0, scored.rejected_R)
        margin_R = chosen_R - rejected_R
        weight_R, totals = scored.pair_weight_R, scored.totals
        per_pair_R = PAIR_LOSSES[self.loss_type](margin_R, beta=self.beta, label_smoothing=self.label_smoothing)
        preference = share((weight_R * per_pair_R).sum(), totals.pairs)
        nll = share(weighted_nll(scored.sums_C, scored.chosen_R, weight_R), totals.chosen_tokens)
        replay = share(weighted_nll(scored.sums_C, scored.sample_M, scored.sample_weight_M), totals.sample_tokens)
        loss = preference + self.rpo_alpha * nll + self.replay_coefficient * replay

        def mean(value_R: Tensor) -> Tensor:
            return share((weight_R * value_R.detach()).sum(), totals.pairs)

        metrics = {
            "preference_loss": preference.detach(),
            "rewards/chosen": mean(self.beta * chosen_R),
            "rewards/rejected": mean(self.beta * rejected_R),
            "rewards/margins": mean(self.beta * margin_R),
            "rewards/accuracies": mean((margin_R > 0).to(margin_R.dtype)),
            "logps/chosen": mean(scored.sums_C.index_select(0, scored.chosen_R)),
            "logps/rejected": mean(scored.sums_C.index_select(0, scored.rejected_R)),
            "nll": nll.detach(),
        }
        if totals.sample_tokens > 0:
            metrics["nll/replay"] = replay.detach()
        return loss, metrics

    def check_start(self, metrics: dict[str, float], tolerance: float) -> None:
        """Before the first update model and reference are the same, so the preference loss is ln 2."""
        found = metrics["preference_loss"]
        if not abs(found - math.log(2)) <= tolerance:
            raise TrainingError(
                f"the preference loss of the untrained model is {found:.6f}, not ln 2 = {math.log(2):.6f}",
                remedy="the reference is not this model's parent: delete the cached log-probs and check the adapter",
            )
