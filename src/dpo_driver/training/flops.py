"""Floating-point operations of the engine's passes, counted from shapes alone.

Called by training/planner.py and probe.py. Must not import torch.

A product of [a, b] and [b, c] counts 2abc. Causal attention counts half of the square.
"""

from __future__ import annotations

from collections.abc import Mapping

from dpo_driver.training.passes import Layout, head_chunk
from dpo_driver.training.shapes import ModelShape


def attention_forward(shape: ModelShape, layout: Layout) -> float:
    """Both parts of one layer's attention: scores and their product with the values."""
    pairs = layout.prompt**2 / 2 + layout.branch * (layout.prompt + layout.branch)
    return 4.0 * shape.num_attention_heads * shape.head_dim * layout.trees * pairs


def last_attention_forward(shape: ModelShape, layout: Layout) -> float:
    """The same of the last layer, where only the predicting tokens look."""
    pairs = layout.predictors * (layout.prompt + layout.branch)
    return 4.0 * shape.num_attention_heads * shape.head_dim * pairs


def layer_flops(
    shape: ModelShape, layout: Layout, *, full: bool = True, checkpointing: bool = False, rank: int = 0,
    adapted: frozenset[str] = frozenset(),
) -> float:  # fmt: skip
    """One layer, forward and backward.

    A frozen base has no gradients of weights: 2N forward and 2N backward a token instead of 2N and 4N, and
    checkpointing adds another 2N. An adapter's own matrices are learned. The backward pass of fused attention computes
    the scores once more: five products for two.
    """
    tokens = {linear.name: layout.tokens for linear in shape.linears}
    attention = attention_forward(shape, layout)
    return _both_ways(shape, tokens, attention, full, checkpointing, rank, adapted)


def last_layer_flops(
    shape: ModelShape, layout: Layout, *, full: bool = True, checkpointing: bool = False, rank: int = 0,
    adapted: frozenset[str] = frozenset(),
) -> float:  # fmt: skip
    """The same of the last layer: keys and values of all tokens, everything else of the predicting ones."""
    whole = ("k_proj", "v_proj")
    tokens = {x.name: layout.tokens if x.name in whole else layout.predictors for x in shape.linears}
    attention = last_attention_forward(shape, layout)
    return _both_ways(shape, tokens, attention, full, checkpointing, rank, adapted)


def _both_ways(
    shape: ModelShape, tokens: Mapping[str, int], attention: float, full: bool, checkpointing: bool, rank: int,
    adapted: frozenset[str],
) -> float:  # fmt: skip
    linear = sum(2.0 * tokens[x.name] * x.weights for x in shape.linears)
    low = sum(2.0 * tokens[x.name] * rank * (x.inputs + x.outputs) for x in shape.linears if x.name in adapted)
    again = 2 if checkpointing else 1
    return again * (linear + attention + low) + (2 if full else 1) * linear + 2.5 * attention + 2 * low


def rest_flops(shape: ModelShape, layout: Layout, *, full: bool) -> float:
    """The head, forward and backward; more than a chunk of positions is computed again in the backward pass."""
    forward = 2.0 * layout.scored * shape.embedding
    return forward * ((2 if layout.scored > head_chunk(shape.vocab_size) else 1) + (2 if full else 1))


def end_flops(
    shape: ModelShape, layout: Layout, *, full: bool = True, checkpointing: bool = False, rank: int = 0,
    adapted: frozenset[str] = frozenset(),
) -> float:  # fmt: skip
    """What comes behind the equal layers: the last one and the head."""
    last = last_layer_flops(shape, layout, full=full, checkpointing=checkpointing, rank=rank, adapted=adapted)
    return last + rest_flops(shape, layout, full=full)
