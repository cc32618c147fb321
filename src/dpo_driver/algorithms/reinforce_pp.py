"""REINFORCE++ (Hu 2025): no groups needed; advantages are normalised over the whole step, the KL is paid per token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpo_driver.algorithms.advantages import group_mean, normalised
from dpo_driver.algorithms.rollouts import Experience, ScoredRollouts, clipped, rollout_metrics


@dataclass(frozen=True)
class ReinforcePp:
    """``A of a token = reward - beta x drift from here to the end of the trajectory``, then normalised over all tokens
    of the step. ``baseline`` first takes the group's mean off the reward (REINFORCE++-baseline)."""

    beta: float = 0.001
    epsilon: float = 0.2
    baseline: bool = False

    def advantages(self, experience: Experience) -> Tensor:
        """[K]."""
        reward_J = experience.reward_J
        if self.baseline:
            reward_J = reward_J - group_mean(reward_J, experience.group_J)
        trajectory_K = experience.trajectory_U[experience.turn_K]
        to_go_K = torch.zeros_like(experience.drift_K)
        for trajectory in trajectory_K.unique():
            own = trajectory_K == trajectory
            to_go_K[own] = experience.drift_K[own].flip(0).cumsum(0).flip(0)
        return normalised(reward_J[trajectory_K] - self.beta * to_go_K)

    def loss(self, scored: ScoredRollouts) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and TRL's metrics."""
        ratio_K = torch.exp(scored.logps_K - scored.old_K)
        surrogate_K, cut_K = clipped(ratio_K, scored.advantage_K, self.epsilon, self.epsilon)
        return -scored.mean(surrogate_K), rollout_metrics(scored, scored.mean(cut_K))
