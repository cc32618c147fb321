"""The last layer for the tokens that predict something, and for no others.

Behind its attention everything is computed token by token, and nobody attends to its outputs: of a prompt it must give
keys and values, but for its last token no queries, no attention, no MLP. That is exact. The layer's own forward runs on
the predicting tokens alone; two hooks hand its attention the keys and values of all. Called by training/attention.

Shapes: T flat tokens, U predicting tokens, K key heads, D head size, E hidden size.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from dpo_driver.training.tree import Predictors

Called = tuple[tuple[Any, ...], dict[str, Any]]


@contextmanager
def predictors_only(layer: nn.Module) -> Iterator[None]:
    """While inside, the layer computes no other tokens wherever its forward is given ``predictors``.

    Args:
        layer: the last one of an architecture in ``TREE_MODELS``.
    """
    attention: Any = layer.self_attn
    hooks = [
        layer.register_forward_pre_hook(_narrow, with_kwargs=True),
        attention.register_forward_pre_hook(partial(_look_at_all, layer.input_layernorm), with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _narrow(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Called | None:
    """[1, T, E] becomes [1, U, E], positions likewise; the whole goes along."""
    predictors: Predictors | None = kwargs.get("predictors")
    if predictors is None:
        return None
    (hidden_1TE,), rows_U = args, predictors.rows
    angles = kwargs["position_embeddings"]
    fewer = tuple(angle.index_select(1, rows_U) for angle in angles)
    return (hidden_1TE.index_select(1, rows_U),), kwargs | {"position_embeddings": fewer, "whole": (hidden_1TE, angles)}


def _look_at_all(norm: Any, attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Called | None:
    """Keys and values [1, K, T, D] of the whole, as the attention itself computes those of its own input.

    Within the layer's forward, not in :func:`_narrow`: gradient checkpointing then computes them again as all else.
    """
    if "whole" not in kwargs:
        return None
    hidden_1TE, angles = kwargs["whole"]
    hidden_1TE = norm(hidden_1TE)
    heads = (*hidden_1TE.shape[:-1], -1, attention.head_dim)
    key: Tensor = attention.k_proj(hidden_1TE).view(heads)
    if hasattr(attention, "k_norm"):
        key = attention.k_norm(key)
    key, value = key.transpose(1, 2), attention.v_proj(hidden_1TE).view(heads).transpose(1, 2)
    rotated = sys.modules[type(attention).__module__].apply_rotary_pos_emb  # the architecture's own
    _, key = rotated(key[:, :0], key, *angles)
    return args, kwargs | {"whole": (key, value)}
