"""Attention over a forest by FlexAttention: one kernel, and blocks that nobody may look at are not computed.

For CUDA devices; FlexAttention has no backward pass on a CPU, where only the forward pass is tested. Registered by
training/attention.

Shapes: T flat tokens, H query heads, K key heads, D head size.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from dpo_driver.training.tree import Forest

NAME = "prefix_tree_flex"


def arguments(forest: Forest) -> dict[str, Any]:
    """What the model's forward hands down to every layer: the masks are made once for all of them."""
    rows = forest.predictors.rows
    return {"predictors": forest.predictors, "tree_mask": block_mask(forest), "last_mask": block_mask(forest, rows)}


def block_mask(forest: Forest, rows_U: Tensor | None = None) -> BlockMask:
    """Who may look at whom; of some rows only, where these are given, in ascending order.

    Segments lie in the order in which a walk from the root meets them, so that each one's descendants follow it: a
    token may look at an earlier one exactly if its segment lies within the earlier one's span of descendants.
    """
    enter_T, leave_T = spans(forest)

    def allowed(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        query = query if rows_U is None else rows_U[query]
        return (key <= query) & (enter_T[key] <= enter_T[query]) & (enter_T[query] < leave_T[key])

    queries = forest.tokens if rows_U is None else len(rows_U)
    return create_block_mask(allowed, None, None, queries, forest.tokens, device=str(forest.input_ids.device))


def spans(forest: Forest) -> tuple[Tensor, Tensor]:
    """Of each flat token's segment, the place in the walk where it is entered and where its last descendant is left."""
    enter: list[int] = []
    leave: list[int] = []
    clock = 0
    for tree in forest.trees:
        segments = tree.segments
        children: list[list[int]] = [[] for _ in segments]
        for i, segment in enumerate(segments[1:], 1):
            children[segment.parent].append(i)
        entered, left = [0] * len(segments), [0] * len(segments)
        stack = [(0, False)]
        while stack:
            i, done = stack.pop()
            if done:
                left[i] = clock
                continue
            entered[i] = clock
            clock += 1
            stack.append((i, True))
            stack += [(child, False) for child in reversed(children[i])]
        for i, segment in enumerate(segments):
            enter += [entered[i]] * len(segment.ids)
            leave += [left[i]] * len(segment.ids)
    device = forest.input_ids.device
    return torch.tensor(enter, device=device), torch.tensor(leave, device=device)


@cache
def _kernel() -> Any:
    """Compiled once a process; lengths change with every forest."""
    return torch.compile(flex_attention, dynamic=True)


def prefix_tree_flex(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    tree_mask: BlockMask | None = None,
    last_mask: BlockMask | None = None,
    whole: tuple[Tensor, Tensor] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer.

    Args:
        query: [1, H, T, D]; ``key`` and ``value`` [1, K, T, D], H a multiple of K. In the last layer T stands for the
            U predicting tokens.
        softcap: scores become ``softcap * tanh(score / softcap)`` (Gemma 2).
        tree_mask: of :func:`arguments`, as is ``last_mask``.
        whole: in the last layer, keys and values of all tokens.

    Returns:
        [1, T, H, D] and no weights.
    """
    if tree_mask is None:
        raise RuntimeError(f"{NAME} needs a forest; leave tree_attention() before using the model otherwise")
    if dropout:
        raise RuntimeError("FlexAttention knows no attention dropout; use attention: sdpa")

    if whole is not None:
        (key, value), tree_mask = whole, last_mask
    cap = softcap or 1.0

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    kernel = flex_attention if query.device.type == "cpu" else _kernel()
    out = kernel(
        query, key, value, score_mod=None if softcap is None else capped, block_mask=tree_mask, scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return out.transpose(1, 2), None
