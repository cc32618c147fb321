"""What an algorithm is given and what it gives back. Called by training/engine.py; imports torch and nothing of ours.

Shapes: N completion tokens of a batch, C completions, S sides, U turns of all sides, R pairs, M single samples.

A training step may be cut into several batches that fit the memory. Every figure an algorithm returns is therefore a
*share*: a weighted sum divided by the weight of the whole step (``Scored.totals``), so that the shares of all batches
add up to the step's loss and means, exactly, however the step was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

Kind = Literal["pairs", "samples"]


@dataclass(frozen=True)
class Totals:
    """Weights of a whole step: what shares are divided by. Zero where the step has nothing of the kind."""

    pairs: float = 0.0  # sum of pair weights
    chosen_tokens: float = 0.0  # sum of pair weight x tokens of the chosen completion
    samples: float = 0.0  # sum of sample weights
    sample_tokens: float = 0.0  # sum of sample weight x tokens
    tokens: float = 0.0  # completion tokens that are computed, each once


@dataclass(frozen=True)
class Scored:
    """A batch of completions with their log-probs under the model in training.

    A *side* of a pair is what its log-prob is summed over: one completion, or the turns of a whole trajectory.
    ``chosen_R`` and ``rejected_R`` are indices into the S sides; ``sample_M`` into the C completions. A completion may
    serve several sides, a side several pairs. ``reference_C`` holds the summed log-probs under the frozen parent, or
    None for algorithms without one.
    """

    logps_N: Tensor  # natural-log probability of each completion token, float32
    entropy_N: Tensor  # of the distribution that each completion token was predicted by, in nats, without gradient
    owner_N: Tensor  # the completion each token belongs to
    lengths_C: Tensor  # tokens of each completion, float32
    turn_U: Tensor  # completions, and ...
    side_U: Tensor  # ... the sides that they belong to
    chosen_R: Tensor
    rejected_R: Tensor
    pair_weight_R: Tensor
    sample_M: Tensor
    sample_weight_M: Tensor
    totals: Totals
    reference_C: Tensor | None = None

    @cached_property
    def sums_C(self) -> Tensor:
        """Log-prob of each whole completion."""
        return self.logps_N.new_zeros(self.lengths_C.shape[0]).index_add(0, self.owner_N, self.logps_N)

    def sides(self, values_C: Tensor) -> Tensor:
        """[S]: values of completions, summed over the turns of each side."""
        count = int(self.side_U.max()) + 1 if len(self.side_U) else 0
        return values_C.new_zeros(count).index_add(0, self.side_U, values_C.index_select(0, self.turn_U))

    @property
    def entropy(self) -> Tensor:
        """Mean over the step's scored tokens, as a share."""
        return share(self.entropy_N.sum(), self.totals.tokens)


class Algorithm(Protocol):
    """A training objective. Implementations are frozen dataclasses whose fields are their options."""

    learns_from: ClassVar[Kind]  # which rows an epoch counts; the other kind is replayed beside it or ignored
    needs_reference: ClassVar[bool]  # log-probs under the frozen parent must be supplied
    reads_rejected: ClassVar[bool]  # False: the rejected side of a pair need not be computed at all

    def __init__(self, **options: Any) -> None: ...

    def loss(self, scored: Scored) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (with gradient) and the metrics (without), all as shares of the step."""
        ...

    def check_start(self, metrics: dict[str, float], tolerance: float) -> None:
        """Refuse to start when the metrics of the untrained model are not what they must be, within ``tolerance`` nats.

        Raises:
            TrainingError: for example, a preference loss other than ln 2.
        """
        ...


def share(sum_: Tensor, total: float) -> Tensor:
    """``sum_ / total``, and 0 where the step has nothing of the kind."""
    return sum_ / total if total > 0 else sum_ * 0.0
