"""The formulas, as pure functions of tensors. Called by the algorithms; every one has a value derived by hand in tests.

Shapes: N completion tokens, C completions, R pairs.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def sigmoid_pair_loss(margin_R: Tensor, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """DPO's loss per pair (Rafailov et al. 2023, equation 7; label smoothing as in conservative DPO).

    Args:
        margin_R: log-ratio of the chosen completion minus that of the rejected one, in nats; a log-ratio is the
            completion's log-prob under the model minus that under the reference.
        beta: strength of the tie to the reference.
        label_smoothing: probability that a label is wrong, in [0, 0.5).

    Returns:
        [R]; ln 2 where the margin is 0.
    """
    scaled_R = beta * margin_R
    return -F.logsigmoid(scaled_R) * (1 - label_smoothing) - F.logsigmoid(-scaled_R) * label_smoothing


def weighted_nll(sums_C: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of the negative log-likelihoods of some completions, in nats.

    Args:
        sums_C: log-prob of each completion.
        index: which completions.
        weight: the weight of each, same length.
    """
    return -(weight * sums_C.index_select(0, index)).sum()


# What ``dpo.loss_type`` may say.
PAIR_LOSSES = {"sigmoid": sigmoid_pair_loss}
