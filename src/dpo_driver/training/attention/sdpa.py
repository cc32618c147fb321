"""Attention over a forest in two parts, by torch's own kernels: for the CPU and for any GPU.

Part one: the tokens of each prompt among themselves, causal, no mask. Part two: all branch tokens of a tree against its
prompt and their own ancestors, by a boolean mask. In the last layer there is but one part: the predicting tokens, by a
mask of their own. No part ever builds a T x T mask. A model takes it unchanged: its linear layers see one flat
sequence, its attention gets the ``forest`` keyword. Registered by training/attention.

Shapes: T flat tokens, L slots of padded rows, B trees, P and S as in tree.py, H query heads, K key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpo_driver.training.tree import Forest, Predictors

NAME = "prefix_tree_sdpa"


def arguments(forest: Forest) -> dict[str, Any]:
    """What the model's forward hands down to every layer."""
    return {"forest": forest, "predictors": forest.predictors}


class _ToSlots(torch.autograd.Function):
    """[T, ...] -> [L, ...]. Every token has exactly one real slot, so the gradient is a gather, not a scatter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back), None, None


class FromSlots(torch.autograd.Function):
    """[L, ...] -> [T, ...]. Padding gets a zero gradient, so its queries teach nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, back: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(slots, real)
        return x.index_select(0, back)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        slots, real = ctx.saved_tensors
        padded = grad.index_select(0, slots)
        return padded.masked_fill_(~real.view(-1, *[1] * (grad.ndim - 1)), 0), None, None, None


def prefix_tree_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    forest: Forest | None = None,
    whole: tuple[Tensor, Tensor] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer.

    Args:
        query: [1, H, T, D]; ``key`` and ``value`` [1, K, T, D], H a multiple of K. In the last layer T stands for the
            U predicting tokens.
        forest: where the tokens belong.
        whole: in the last layer, keys and values of all tokens.

    Returns:
        [1, T, H, D] and no weights.
    """
    if forest is None:
        raise RuntimeError(f"{NAME} needs a forest; leave tree_attention() before using the model otherwise")
    if whole is not None:
        return in_fast_kernels(lambda q, k, v: _of_predictors(q, k, v, forest, scaling, dropout), query, *whole), None
    return in_fast_kernels(lambda q, k, v: _two_parts(q, k, v, forest, scaling, dropout), query, key, value), None


def in_fast_kernels(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    """[1, T, H, D] in the query's type: ``attend`` gives [T, H, D].

    The CPU's bfloat16 kernels are slower than float32's in the backward pass, and autocast would pick them.
    """
    if query.device.type != "cpu":
        return attend(query, key, value)[None].to(query.dtype)
    with torch.autocast("cpu", enabled=False):
        return attend(query.float(), key.float(), value.float())[None].to(query.dtype)


def _two_parts(
    query: Tensor, key: Tensor, value: Tensor, forest: Forest, scaling: float | None, dropout: float
) -> Tensor:
    """[T, H, D]."""
    groups = query.shape[1] // key.shape[1]
    prompt_q, branch_q = padded_rows(query, forest, 1)
    prompt_k, branch_k = padded_rows(key, forest, groups)
    prompt_v, branch_v = padded_rows(value, forest, groups)
    first = F.scaled_dot_product_attention(
        prompt_q, prompt_k, prompt_v, is_causal=True, scale=scaling, dropout_p=dropout
    )
    parts = [first.transpose(1, 2).flatten(0, 1)]
    if forest.branch_length:
        second = F.scaled_dot_product_attention(
            branch_q,
            torch.cat([prompt_k, branch_k], dim=2),
            torch.cat([prompt_v, branch_v], dim=2),
            attn_mask=forest.branch_mask,
            scale=scaling,
            dropout_p=dropout,
        )
        parts.append(second.transpose(1, 2).flatten(0, 1))
    out: Tensor = FromSlots.apply(torch.cat(parts), forest.slots, forest.back, forest.real)
    return out


def _of_predictors(
    query: Tensor, key: Tensor, value: Tensor, forest: Forest, scaling: float | None, dropout: float
) -> Tensor:
    """[U, H, D]."""
    groups = query.shape[1] // key.shape[1]
    seen = F.scaled_dot_product_attention(
        rows_of_predictors(query, forest.predictors),
        torch.cat(padded_rows(key, forest, groups), dim=2),
        torch.cat(padded_rows(value, forest, groups), dim=2),
        attn_mask=forest.predictors.mask,
        scale=scaling,
        dropout_p=dropout,
    )
    return from_rows(seen, forest.predictors)


def rows_of_predictors(query: Tensor, predictors: Predictors) -> Tensor:
    """[1, H, U, D] -> [B, H, Q, D]."""
    slots: Tensor = _ToSlots.apply(query[0].transpose(0, 1), predictors.slots, predictors.back)
    return slots.unflatten(0, (-1, predictors.length)).transpose(1, 2)


def from_rows(seen: Tensor, predictors: Predictors) -> Tensor:
    """[B, H, Q, D] -> [U, H, D]."""
    slots = seen.transpose(1, 2).flatten(0, 1)
    out: Tensor = FromSlots.apply(slots, predictors.slots, predictors.back, predictors.real)
    return out


def padded_rows(x: Tensor, forest: Forest, groups: int) -> tuple[Tensor, Tensor]:
    """[1, K, T, D] -> prompts [B, K*groups, P, D] and branches [B, K*groups, S, D]."""
    flat = x[0].transpose(0, 1)
    if groups > 1:
        flat = flat.repeat_interleave(groups, dim=1)
    slots = _ToSlots.apply(flat, forest.slots, forest.back)
    split = forest.size * forest.prompt_length
    prompts = slots[:split].unflatten(0, (forest.size, forest.prompt_length)).transpose(1, 2)
    branches = slots[split:].unflatten(0, (forest.size, forest.branch_length)).transpose(1, 2)
    return prompts, branches
