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
    """One linear map: several modules joined, with the scale of the norm before them in the weights."""

    def __init__(self, *modules: Any, scale_E: Tensor | None = None) -> None:
        weight = torch.cat([module.weight.detach() for module in modules]).t()
        self.weight = (weight if scale_E is None else weight * scale_E[:, None]).contiguous()
        biases = [module.bias for module in modules]
        self._bias = torch.cat([bias.detach() for bias in biases]) if biases[0] is not None else None

    def __call__(self, x_NE: Tensor) -> Tensor:
        return torch.mm(x_NE, self.weight) if self._bias is None else torch.addmm(self._bias, x_NE, self.weight)

    def add_to(self, x_NE: Tensor, y: Tensor) -> None:
        """``x += map(y)``."""
        x_NE.addmm_(y, self.weight)
        if self._bias is not None:
            x_NE += self._bias


@dataclass(frozen=True)
class _Layer:
    """One decoder layer."""

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
        self._head = model.get_output_embeddings().weight.detach().t().contiguous()
        self._rotary = body.rotary_emb
        self.layers = [self._joined(layer) for layer in body.layers]

    def _joined(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        norms = None
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm.weight.detach(), attention.k_norm.weight.detach()
            norms = torch.cat([q.expand(self.heads, -1), k.expand(self.key_heads, -1)])
        before_attention, before_mlp = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        return _Layer(
            qkv=_Product(attention.q_proj, attention.k_proj, attention.v_proj, scale_E=before_attention.detach()),
            qk_norm=norms,
            out=_Product(attention.o_proj),
            gate_up=_Product(mlp.gate_proj, mlp.up_proj, scale_E=before_mlp.detach()),
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
        x_NE = F.embedding(ids_BQ.reshape(-1), self._embedding)
        cos, sin = self._rotation(x_NE, positions_BQ)
        if mask is not None:  # every layer would make it so
            mask = torch.zeros(mask.shape, dtype=x_NE.dtype).masked_fill_(~mask, -torch.inf)
        for layer, memory in zip(self.layers, cache, strict=True):
            qkv = layer.qkv(self._normed(x_NE)).view(*ids_BQ.shape, -1, self.head_size)
            layer.out.add_to(x_NE, self._attend(layer, qkv, cos, sin, memory, mask))
            gate, up = layer.gate_up(self._normed(x_NE)).chunk(2, dim=-1)
            layer.down.add_to(x_NE, F.silu(gate).mul_(up))
        return (self._normed(x_NE) * self._norm).view(*ids_BQ.shape, -1)

    def scores(self, hidden: Tensor) -> Tensor:
        """The LM head: [..., E] -> [..., V]."""
        return hidden @ self._head

    def _normed(self, x: Tensor) -> Tensor:
        """Root mean square 1 over the last dimension. The learned scale is elsewhere."""
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        return x * squares.mul_(1 / x.shape[-1]).add_(self._eps).rsqrt_()

    def _rotation(self, x: Tensor, positions_BQ: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine, [B or 1, Q, 1, D]: ``x * cos + roll(x) * sin`` rotates."""
        cos, sin = self._rotary(x, positions_BQ)
        half = self.head_size // 2
        return cos[:, :, None], torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)[:, :, None]

    def _attend(self, layer: _Layer, qkv: Tensor, cos: Tensor, sin: Tensor, memory: Any, mask: Tensor | None) -> Tensor:
        """What each token saw, [N, H * D], from its [B, Q, H + 2K, D]."""
        rows, new, _, _ = qkv.shape
        qk, value = qkv.split((self.heads + self.key_heads, self.key_heads), dim=2)
        if layer.qk_norm is not None:
            qk = self._normed(qk).mul_(layer.qk_norm)
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
        return seen.reshape(rows, self.heads, new, self.head_size).transpose(1, 2).reshape(rows * new, -1)
