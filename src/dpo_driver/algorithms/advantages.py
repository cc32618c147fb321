"""How good a rollout was, compared with its siblings: the estimators of advantage, as pure functions of tensors.

Called by the online algorithms; every one has values derived by hand in tests. Imports torch only.

Shapes: J trajectories, G their groups, U turns (decisions) of all trajectories.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4  # beside a standard deviation, as in TRL


def group_mean(values_J: Tensor, group_J: Tensor) -> Tensor:
    """[J]: the mean of each one's group.

    Args:
        values_J: one number a trajectory.
        group_J: the group of each, 0 .. G-1.
    """
    groups = int(group_J.max()) + 1
    sums_G = values_J.new_zeros(groups).index_add(0, group_J, values_J)
    return (sums_G / torch.bincount(group_J, minlength=groups))[group_J]


def group_std(values_J: Tensor, group_J: Tensor) -> Tensor:
    """[J]: the standard deviation of each one's group, with n - 1 as in TRL; 0 for a group of one."""
    squares_J = (values_J - group_mean(values_J, group_J)) ** 2
    size_J = torch.bincount(group_J)[group_J]
    return (group_mean(squares_J, group_J) * size_J / (size_J - 1).clamp(min=1)).sqrt()


def group_relative(rewards_J: Tensor, group_J: Tensor, scale: str) -> Tensor:
    """GRPO (Shao et al. 2024): reward minus the group's mean.

    Args:
        scale: ``group`` divides by the group's standard deviation, ``batch`` by that of all rewards, ``none`` by
            nothing (Dr. GRPO, Liu et al. 2025).
    """
    centred_J = rewards_J - group_mean(rewards_J, group_J)
    if scale == "group":
        return centred_J / (group_std(rewards_J, group_J) + EPSILON)
    if scale == "batch":
        return centred_J / (rewards_J.std() + EPSILON)
    return centred_J


def leave_one_out(rewards_J: Tensor, group_J: Tensor) -> Tensor:
    """RLOO (Ahmadian et al. 2024): reward minus the mean of the others in the group; 0 for a group of one."""
    size_J = torch.bincount(group_J)[group_J]
    return (rewards_J - group_mean(rewards_J, group_J)) * size_J / (size_J - 1).clamp(min=1)


def normalised(values: Tensor) -> Tensor:
    """Over everything that is given: mean 0, standard deviation 1."""
    return (values - values.mean()) / (values.std() + EPSILON)


def anchored(returns_U: Tensor, anchor_U: Tensor) -> Tensor:
    """Step-level credit by anchor states (GiGPO, Feng et al. 2025): what a decision returned, minus the mean return of
    all decisions that siblings took in the same state; 0 where a state was met once.

    Args:
        returns_U: discounted reward from this decision on.
        anchor_U: which state of which group, 0 .. number of different ones - 1.
    """
    return returns_U - group_mean(returns_U, anchor_U)
