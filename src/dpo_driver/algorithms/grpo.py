"""M-GRPO: group-relative policy optimisation over trajectories of several turns, on live browsers.

Every token of a trajectory has the trajectory's advantage: its reward against its siblings' from the same start. With
``step_credit`` a decision is also compared with what siblings decided in the same state (GiGPO).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpo_driver.algorithms.advantages import anchored, group_relative
from dpo_driver.algorithms.base import share
from dpo_driver.algorithms.rollouts import Experience, ScoredRollouts, clipped, k3, rollout_metrics
from dpo_driver.core.errors import UnknownNameError

LOSS_TYPES = ("dapo", "grpo", "trajectory")
SCALES = ("group", "batch", "none")


@dataclass(frozen=True)
class Grpo:
    """``loss = -mean(min(ratio A, clip(ratio) A)) + beta KL(model || parent)``.

    ``loss_type`` says what the mean is over: ``dapo`` over all tokens of the step (TRL's default), ``grpo`` over the
    tokens of each turn and then over turns, ``trajectory`` over the tokens of each trajectory and then over
    trajectories, so that long ones count no more than short ones.
    """

    beta: float = 0.001
    epsilon: float = 0.2
    epsilon_high: float | None = None  # None: the same as epsilon
    scale_rewards: str = "group"
    loss_type: str = "dapo"
    step_credit: float = 0.0  # weight of the advantage within the same state

    def __post_init__(self) -> None:
        if self.loss_type not in LOSS_TYPES:
            raise UnknownNameError("loss_type", self.loss_type, LOSS_TYPES)
        if self.scale_rewards not in SCALES:
            raise UnknownNameError("scale_rewards", self.scale_rewards, SCALES)

    def advantages(self, experience: Experience) -> Tensor:
        """[K]."""
        advantage_J = group_relative(experience.reward_J, experience.group_J, self.scale_rewards)
        advantage_U = advantage_J[experience.trajectory_U]
        if self.step_credit:
            advantage_U = advantage_U + self.step_credit * anchored(experience.return_U, experience.anchor_U)
        return advantage_U[experience.turn_K]

    def loss(self, scored: ScoredRollouts) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and TRL's metrics."""
        ratio_K = torch.exp(scored.logps_K - scored.old_K)
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        surrogate_K, cut_K = clipped(ratio_K, scored.advantage_K, self.epsilon, high)
        per_token_K = -surrogate_K
        if self.beta and scored.reference_K is not None:
            per_token_K = per_token_K + self.beta * k3(scored.logps_K, scored.reference_K)
        return self._reduced(per_token_K, scored), rollout_metrics(scored, scored.mean(cut_K))

    def _reduced(self, per_token_K: Tensor, scored: ScoredRollouts) -> Tensor:
        if self.loss_type == "dapo":
            return scored.mean(per_token_K)
        sums_U = scored.sums(per_token_K)
        if self.loss_type == "grpo":
            return share((sums_U / scored.lengths_U).sum(), scored.totals.turns)
        return share((sums_U / scored.trajectory_tokens_U).sum(), scored.totals.trajectories)
