"""Floating-point operations of the engine's passes, counted from shapes alone.

Called by training/planner.py and probe.py. Must not import torch.

A product of [a, b] and [b, c] counts 2abc. Causal attention counts half of the square.
"""

from __future__ import annotations

from dpo_driver.training.passes import Layout, head_chunk
from dpo_driver.training.shapes import ModelShape


def linear_forward(shape: ModelShape, tokens: int) -> float:
    """The linear layers of one decoder layer."""
    return 2.0 * tokens * sum(linear.weights for linear in shape.linears)


def attention_forward(shape: ModelShape, layout: Layout) -> float:
    """Both parts of one layer's attention: scores and their product with the values."""
    width = shape.num_attention_heads * shape.head_dim
    pairs = layout.prompt**2 / 2 + layout.branch * (layout.prompt + layout.branch)
    return 4.0 * width * layout.trees * pairs


def layer_flops(
    shape: ModelShape, layout: Layout, *, full: bool = True, checkpointing: bool = False, rank: int = 0,
    adapted: frozenset[str] = frozenset(),
) -> float:  # fmt: skip
    """One layer, forward and backward.

    A frozen base has no gradients of weights: 2N forward and 2N backward a token instead of 2N and 4N, and
    checkpointing adds another 2N. An adapter's own matrices are learned. The backward pass of fused attention computes
    the scores once more: five products for two.
    """
    linear, attention = linear_forward(shape, layout.tokens), attention_forward(shape, layout)
    low = 2.0 * layout.tokens * sum(rank * (x.inputs + x.outputs) for x in shape.linears if x.name in adapted)
    again = 2 if checkpointing else 1
    return again * (linear + attention + low) + (2 if full else 1) * linear + 2.5 * attention + 2 * low


def rest_flops(shape: ModelShape, layout: Layout, full: bool) -> float:
    """The head, forward and backward; more than a chunk of positions is computed again in the backward pass."""
    forward = 2.0 * layout.scored * shape.embedding
    return forward * ((2 if layout.scored > head_chunk(shape.vocab_size) else 1) + (2 if full else 1))
