"""Attention of an adapter's own tokens when the adapter acts only after the prompt: for the CPU and for any GPU.

What stands before them was computed by the frozen base and comes as keys and values; the adapter's tokens (the answer's
header and all completions of the prompt) see those, and their own ancestors by the forest's mask. One call of torch's
kernel a layer; no gradient flows into the prompt. Registered by training/attention; training/after_prompt.py makes the
:class:`Grafted`.

Shapes: T flat tokens, B trees, P longest beginning, R longest root (the header), S longest row of branches, H query
heads, K key heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpo_driver.training.attention.sdpa import FromSlots, from_rows, in_fast_kernels, padded_rows, rows_of_predictors
from dpo_driver.training.tree import Forest, Predictors

NAME = "prefix_tree_after_prompt"


@dataclass(frozen=True, eq=False)
class Grafted:
    """A forest whose roots go on from beginnings that are computed already."""

    forest: Forest
    mask: Tensor  # [B, 1, R+S, P+R+S] bool: where a token may look
    predictors: Predictors  # with a mask [B, 1, Q, P+R+S]
    kept: tuple[tuple[Tensor, Tensor], ...]  # keys and values [B, K, P, D] of each layer; none where P is 0


def arguments(grafted: Grafted) -> dict[str, Any]:
    """What the model's forward hands down to every layer."""
    return {"grafted": grafted, "predictors": grafted.predictors}


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


def graft_predictors(forest: Forest, mask: Tensor) -> Predictors:
    """The forest's predictors with their rows of a graft's mask."""
    predictors, roots = forest.predictors, forest.size * forest.prompt_length
    slots_U = forest.back[predictors.rows]
    in_root, in_branch = slots_U % forest.prompt_length, (slots_U - roots) % forest.branch_length
    row_U = torch.where(slots_U < roots, in_root, forest.prompt_length + in_branch)
    tree = torch.arange(forest.size, device=mask.device).repeat_interleave(predictors.length)
    rows = mask[tree, 0, row_U[predictors.slots]]
    return replace(predictors, mask=rows.unflatten(0, (forest.size, predictors.length))[:, None])


def prefix_tree_after_prompt(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    grafted: Grafted | None = None,
    whole: tuple[Tensor, Tensor] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer.

    Args:
        module: knows the number of its layer.
        query: [1, H, T, D]; ``key`` and ``value`` [1, K, T, D], H a multiple of K.
        grafted: where the tokens belong, and what stands before them.
        whole: in the last layer, keys and values of all tokens; T of the query then stands for U.

    Returns:
        [1, T, H, D] and no weights.
    """
    if grafted is None:
        raise RuntimeError(f"{NAME} needs a forest; leave the scorer's session before using the model otherwise")
    before = grafted.kept[module.layer_idx] if grafted.kept else (None, None)  # type: ignore[index]
    key, value = (key, value) if whole is None else whole

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[T, H, D], in the last layer [U, H, D]."""
        forest, predictors, groups = grafted.forest, grafted.predictors, query.shape[1] // key.shape[1]
        if whole is None:
            rows, mask = torch.cat(padded_rows(query, forest, 1), dim=2), grafted.mask
        else:
            rows, mask = rows_of_predictors(query, predictors), predictors.mask
        seen = F.scaled_dot_product_attention(
            rows, _behind(before[0], key, forest, groups), _behind(before[1], value, forest, groups),
            attn_mask=mask, scale=scaling, dropout_p=dropout,
        )  # fmt: skip
        return _from_all(seen, forest) if whole is None else from_rows(seen, predictors)

    return in_fast_kernels(attend, query, key, value), None


def _from_all(seen: Tensor, forest: Forest) -> Tensor:
    """[B, H, R+S, D] -> [T, H, D]."""
    roots, branches = seen.split((forest.prompt_length, forest.branch_length), dim=2)
    slots = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in (roots, branches)])
    out: Tensor = FromSlots.apply(slots, forest.slots, forest.back, forest.real)
    return out


def _behind(kept: Tensor | None, own: Tensor, forest: Forest, groups: int) -> Tensor:
    """Keys or values of the forest behind those that stand before it, [B, H, P+R+S, D]."""
    rows = padded_rows(own, forest, groups)
    if kept is None:
        return torch.cat(rows, dim=2)
    repeated = kept.repeat_interleave(groups, dim=1) if groups > 1 else kept
    return torch.cat([repeated.to(own.dtype), *rows], dim=2)
