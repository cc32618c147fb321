"""REINFORCE leave-one-out: each trajectory against the mean of its siblings; the KL to the parent is part of the
reward.

The unit of action is a whole completion: its probability ratio is clipped as one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpo_driver.algorithms.advantages import leave_one_out
from dpo_driver.algorithms.base import share
from dpo_driver.algorithms.rollouts import Experience, ScoredRollouts, clipped, rollout_metrics


@dataclass(frozen=True)
class Rloo:
    """``loss = -mean over turns of min(ratio A, clip(ratio) A)``, ratio and A of the turn."""

    beta: float = 0.05
    epsilon: float = 0.2

    def advantages(self, experience: Experience) -> Tensor:
        """[K]: leave-one-out of reward - beta x (the trajectory's summed drift from the parent)."""
        trajectory_K = experience.trajectory_U[experience.turn_K]
        drift_J = torch.zeros_like(experience.reward_J).index_add(0, trajectory_K, experience.drift_K)
        advantage_J = leave_one_out(experience.reward_J - self.beta * drift_J, experience.group_J)
        return advantage_J[trajectory_K]

    def loss(self, scored: ScoredRollouts) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and TRL's metrics."""
        ratio_U = torch.exp(scored.sums(scored.logps_K - scored.old_K))
        advantage_U = scored.sums(scored.advantage_K) / scored.lengths_U
        surrogate_U, cut_U = clipped(ratio_U, advantage_U, self.epsilon, self.epsilon)
        loss = -share(surrogate_U.sum(), scored.totals.turns)
        return loss, rollout_metrics(scored, share(cut_U.sum(), scored.totals.turns))
