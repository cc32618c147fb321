"""What an online algorithm is given: the experience of a step, and its tokens' log-probs. Imports torch only.

Shapes: J trajectories, U turns (decisions, each with one completion), K tokens of all turns.

As in algorithms/base.py a step may be cut into batches; losses and metrics are shares of the whole step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dpo_driver.algorithms.base import share


@dataclass(frozen=True)
class Experience:
    """All rollouts that one update learns from."""

    reward_J: Tensor  # float32, of the environment
    group_J: Tensor  # which siblings belong together, 0 .. G-1
    trajectory_U: Tensor  # whose decision each turn is
    return_U: Tensor  # discounted reward from this decision on
    anchor_U: Tensor  # which state of which group it was taken in, 0 .. number of different ones - 1
    turn_K: Tensor  # the turn each token belongs to; tokens of a turn are neighbours, in order
    drift_K: Tensor  # log-prob when sampled minus log-prob under the frozen parent; 0 without a reference


@dataclass(frozen=True)
class RolloutTotals:
    """Of a whole step: what shares are divided by."""

    tokens: float
    turns: float
    trajectories: float


@dataclass(frozen=True)
class ScoredRollouts:
    """A batch of turns with their log-probs under the model in training. All of them are of the distribution that was
    sampled from: its temperature and its masks are applied to model and reference alike."""

    logps_K: Tensor  # with gradient
    entropy_K: Tensor
    old_K: Tensor  # when sampled
    reference_K: Tensor | None  # under the frozen parent
    advantage_K: Tensor
    turn_K: Tensor  # 0 .. turns of this batch - 1
    lengths_U: Tensor  # tokens of each turn of this batch
    trajectory_tokens_U: Tensor  # tokens of the whole trajectory that each turn is of
    totals: RolloutTotals

    def sums(self, values_K: Tensor) -> Tensor:
        """[U]: per turn."""
        return values_K.new_zeros(len(self.lengths_U)).index_add(0, self.turn_K, values_K)

    def mean(self, values_K: Tensor) -> Tensor:
        """Mean over the step's tokens, as a share."""
        return share(values_K.sum(), self.totals.tokens)


class OnlineAlgorithm(Protocol):
    """An objective over rollouts. Implementations are frozen dataclasses whose fields are their options."""

    beta: float  # weight of the KL to the parent; 0 needs no reference

    def __init__(self, **options: Any) -> None: ...

    def advantages(self, experience: Experience) -> Tensor:
        """[K]: how much better than expected each token's decision was. Without gradient."""
        ...

    def loss(self, scored: ScoredRollouts) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (with gradient) and the metrics (without), all as shares of the step."""
        ...


def k3(logps_K: Tensor, reference_K: Tensor) -> Tensor:
    """Schulman's unbiased, never negative estimate of KL(model || reference) per token sampled from the model:
    ``exp(r) - 1 - r`` with ``r`` = log-prob under the reference minus under the model."""
    ratio_K = reference_K - logps_K
    return torch.exp(ratio_K) - 1 - ratio_K


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """PPO's surrogate (to be maximised), and where the clip cuts the gradient off (1 or 0).

    Args:
        ratio: probability now over probability when sampled.
        advantage: same shape.
        low: the ratio may fall to ``1 - low`` ...
        high: ... and rise to ``1 + high`` before a gain counts no more.
    """
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    cut = ((ratio < 1 - low) & (advantage < 0)) | ((ratio > 1 + high) & (advantage > 0))
    return surrogate, cut.to(ratio.dtype)


def rollout_metrics(scored: ScoredRollouts, cut: Tensor) -> dict[str, Tensor]:
    """What every online algorithm reports, by TRL's names where it has one."""
    with torch.no_grad():
        found = {
            "entropy": scored.mean(scored.entropy_K),
            "clip_ratio": cut,
            "logps": scored.mean(scored.logps_K),
            "ratio/off": scored.mean((scored.logps_K - scored.old_K).exp().sub(1).abs()),
        }
        if scored.reference_K is not None:
            found["kl"] = scored.mean(k3(scored.logps_K, scored.reference_K))
    return found
