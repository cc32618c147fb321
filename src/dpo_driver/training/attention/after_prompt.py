"""Attention of an adapter's own tokens when the adapter acts only after the prompt: for the CPU and for any GPU.

What stands before them was computed by the frozen base and comes as keys and values; the adapter's tokens (the answer's
header and all completions of the prompt) see those, and their own ancestors by the forest's mask. One call of torch's
kernel a layer; no gradient flows into the prompt. Registered by training/attention; training/after_prompt.py makes the
:class:`Grafted`.

Shapes: T flat tokens, B trees, P longest beginning, R longest root (the header), S longest row of branches, H query
heads, K key heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpo_driver.training.attention.sdpa import FromSlots, in_fast_kernels, padded_rows
from dpo_driver.training.tree import Forest

NAME = "prefix_tree_after_prompt"


@dataclass(frozen=True, eq=False)
class Grafted:
    """A forest whose roots go on from beginnings that are computed already."""

    forest: Forest
    mask: Tensor  # [B, 1, R+S, P+R+S] bool: where a token may look
    kept: tuple[tuple[Tensor, Tensor], ...]  # keys and values [B, K, P, D] of each layer; none where P is 0


def arguments(grafted: Grafted) -> dict[str, Any]:
    """What the model's forward hands down to every layer."""
    return {"grafted": grafted}


def graft_mask(forest: Forest, lengths: Tensor) -> Tensor:
    """Who may look at whom, [B, 1, R+S, P+R+S].

    Args:
        forest: roots are headers.
        lengths: [B] tokens of each tree's beginning; P is the largest.
    """
    roots, branches, device = forest.prompt_length, forest.branch_length, forest.real.device
    begun = torch.arange(int(lengths.max()), device=device) < lengths.to(device)[:, None]
    in_root = forest.real[: forest.size * roots].view(forest.size, 1, roots)
    causal = torch.ones(roots, roots, dtype=torch.bool, device=device).tril()
    # A root's padding may look at the root's first token too: a row that looks nowhere would be not a number.
    of_roots = torch.cat([causal & in_root, in_root.new_zeros(forest.size, roots, branches)], dim=2)
    own = torch.cat([of_roots, forest.branch_mask[:, 0]], dim=1)
    return torch.cat([begun[:, None].expand(-1, roots + branches, -1), own], dim=2)[:, None]


def prefix_tree_after_prompt(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    grafted: Grafted | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer.

    Args:
        module: knows the number of its layer.
        query: [1, H, T, D]; ``key`` and ``value`` [1, K, T, D], H a multiple of K.
        grafted: where the tokens belong, and what stands before them.

    Returns:
        [1, T, H, D] and no weights.
    """
    if grafted is None:
        raise RuntimeError(f"{NAME} needs a forest; leave the scorer's session before using the model otherwise")
    before = grafted.kept[module.layer_idx] if grafted.kept else (None, None)  # type: ignore[index]
    return in_fast_kernels(lambda q, k, v: _attend(q, k, v, before, grafted, scaling, dropout), query, key, value), None


def _attend(
    query: Tensor, key: Tensor, value: Tensor, before: tuple[Tensor | None, Tensor | None], grafted: Grafted,
    scaling: float | None, dropout: float,
) -> Tensor:  # fmt: skip
    """[T, H, D]."""
    forest, groups = grafted.forest, query.shape[1] // key.shape[1]

    def whole(own: Tensor, kept: Tensor | None) -> Tensor:
        rows = padded_rows(own, forest, groups)
        if kept is None:
            return torch.cat(rows, dim=2)
        repeated = kept.repeat_interleave(groups, dim=1) if groups > 1 else kept
        return torch.cat([repeated.to(own.dtype), *rows], dim=2)

    seen = F.scaled_dot_product_attention(
        torch.cat(padded_rows(query, forest, 1), dim=2), whole(key, before[0]), whole(value, before[1]),
        attn_mask=grafted.mask, scale=scaling, dropout_p=dropout,
    )  # fmt: skip
    roots, branches = seen.split((forest.prompt_length, forest.branch_length), dim=2)
    slots = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in (roots, branches)])
    out: Tensor = FromSlots.apply(slots, forest.slots, forest.back, forest.real)
    return out
