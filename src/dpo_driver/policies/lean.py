"""The forward pass of small Qwen2, Qwen3 and Llama models with few operations, for generation on a CPU.

A pocket model's layer takes microseconds to compute, so the dozens of small operations that transformers issues per
layer dominate. Here query, key and value are one product, gate and up another, and rotation is three operations. Same
numbers (float32, tested against transformers). Called by policies/hf.py; anything this does not know stays with
transformers.

Shapes: B rows, Q new tokens, L tokens in the cache, E hidden size, H query heads, K key heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

KNOWN = frozenset({"qwen2", "qwen3", "llama"})
MOST_PARAMETERS = 200_000_000  # the joined weights are copies; larger models gain nothing from them


def fits(model: Any) -> bool:
    """Whether a plain transformers model can be run this way."""
    config = model.config
    return (
        config.model_type in KNOWN
        and model.dtype == torch.float32
        and model.device.type == "cpu"
        and config.hidden_act == "silu"
        and sum(parameter.numel() for parameter in model.parameters()) <= MOST_PARAMETERS
    )


class _Product:
    """One linear map: several modules joined."""

    def __init__(self, *modules: Any) -> None:
        self._weight = torch.cat([module.weight.detach() for module in modules])
        biases = [module.bias for module in modules]
        self._bias = torch.cat([bias.detach() for bias in biases]) if biases[0] is not None else None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)


@dataclass(frozen=True)
class _Layer:
    """One decoder layer."""

    before_attention: Tensor
    before_mlp: Tensor
    qkv: _Product
    qk_norm: Tensor | None  # [H + K, D]
    out: _Product
    gate_up: _Product
    down: _Product


class LeanModel:
    """A snapshot of the weights of a model that ``fits``; it computes what the model does, without gradients."""

    def __init__(self, model: Any) -> None:
        config, body = model.config, model.base_model
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size = body.layers[0].self_attn.head_dim
        self._scale = body.layers[0].self_attn.scaling
        self._eps = config.rms_norm_eps
        self._embedding, self._norm = body.embed_tokens.weight.detach(), body.norm.weight.detach()
        self._head = model.get_output_embeddings().weight.detach()
        self._rotary = body.rotary_emb
        self.layers = [self._joined(layer) for layer in body.layers]

    def _joined(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        norms = None
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm.weight.detach(), attention.k_norm.weight.detach()
            norms = torch.cat([q.expand(self.heads, -1), k.expand(self.key_heads, -1)])
        return _Layer(
            before_attention=layer.input_layernorm.weight.detach(),
            before_mlp=layer.post_attention_layernorm.weight.detach(),
            qkv=_Product(attention.q_proj, attention.k_proj, attention.v_proj),
            qk_norm=norms,
            out=_Product(attention.o_proj),
            gate_up=_Product(mlp.gate_proj, mlp.up_proj),
            down=_Product(mlp.down_proj),
        )

    def forward(self, ids_BQ: Tensor, positions_BQ: Tensor, cache: list[Any], mask: Tensor | None) -> Tensor:
        """Hidden states [B, Q, E] after the last norm.

        Args:
            ids_BQ: new tokens.
            positions_BQ: their positions, or [1, Q] when all rows agree.
            cache: one object per layer whose ``update(keys, values)`` takes the new and gives all keys and values.
            mask: [B, 1, Q, L] True where a token may look; None: causal from an empty cache.
        """
        x = F.embedding(ids_BQ, self._embedding)
        cos, sin = self._rotation(x, positions_BQ)
        for layer, memory in zip(self.layers, cache, strict=True):
            seen = F.rms_norm(x, x.shape[-1:], layer.before_attention, self._eps)
            x = x + self._attend(layer, seen, cos, sin, memory, mask)
            gate, up = layer.gate_up(F.rms_norm(x, x.shape[-1:], layer.before_mlp, self._eps)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate).mul_(up))
        return F.rms_norm(x, x.shape[-1:], self._norm, self._eps)

    def scores(self, hidden: Tensor) -> Tensor:
        """The LM head: [..., E] -> [..., V]."""
        return F.linear(hidden, self._head)

    def _rotation(self, x: Tensor, positions_BQ: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine, [B or 1, Q, 1, D]: ``x * cos + roll(x) * sin`` rotates."""
        cos, sin = self._rotary(x, positions_BQ)
        half = self.head_size // 2
        return cos[:, :, None], torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)[:, :, None]

    def _attend(self, layer: _Layer, x: Tensor, cos: Tensor, sin: Tensor, memory: Any, mask: Tensor | None) -> Tensor:
        rows, new, _ = x.shape
        both = self.heads + self.key_heads
        qkv = layer.qkv(x).view(rows, new, both + self.key_heads, self.head_size)
        qk, value = qkv.split((both, self.key_heads), dim=2)
        if layer.qk_norm is not None:
            qk = F.rms_norm(qk, (self.head_size,), None, self._eps) * layer.qk_norm
        qk = torch.addcmul(qk * cos, qk.roll(self.head_size // 2, dims=-1), sin).transpose(1, 2)
        keys, values = memory.update(qk[:, self.heads :], value.transpose(1, 2))
        groups = self.heads // self.key_heads
        query = qk[:, : self.heads]
        if new == 1:  # the heads of a group ask the same keys: treat them as so many queries
            query = query.reshape(rows, self.key_heads, groups, self.head_size)
        elif groups > 1:
            keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
        seen = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=mask is None, scale=self._scale
        )
        seen = seen.reshape(rows, self.heads, new, self.head_size).transpose(1, 2).reshape(rows, new, -1)
        return layer.out(seen)
