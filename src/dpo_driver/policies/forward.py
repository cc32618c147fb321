"""The two ways in which hf.py runs a model: transformers' own forward, and the lean one for small models on a CPU.

Both compute prompts from an empty cache, and more tokens against buffers with room for them. Called by policies/hf.py
and policies/prefixes.py only.

Shapes: B rows, P prompt length, Q new tokens, L cache length, E hidden size, V vocabulary, K key heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from dpo_driver.policies.lean import LeanModel, fits

KeysValues = tuple[Tensor, Tensor]  # [B, K, L, D] each


class Buffer(DynamicLayer):
    """One layer's keys and values with room for new tokens: written in place instead of copied for each token.

    New tokens go behind what is there, or, after ``aim``, where each row wants them.
    """

    def __init__(self, keys: Tensor, values: Tensor, used: int) -> None:
        super().__init__()
        self.room_keys, self.room_values, self.used = keys, values, used
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._slots_BQ: Tensor | None = None

    def aim(self, slots_BQ: Tensor, used: int) -> None:
        """The next new tokens of a row go into its own slots; what lies there is overwritten.

        Args:
            used: slots that may be looked at, of any row.
        """
        self._slots_BQ, self.used = slots_BQ, used

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysValues:
        """Write new tokens; gives all keys and values so far."""
        if self._slots_BQ is not None:
            rows_B1 = torch.arange(len(self._slots_BQ), device=self._slots_BQ.device)[:, None]
            self.room_keys[rows_B1, :, self._slots_BQ] = key_states.transpose(1, 2)
            self.room_values[rows_B1, :, self._slots_BQ] = value_states.transpose(1, 2)
            return self.room_keys[:, :, : self.used], self.room_values[:, :, : self.used]
        end = self.used + key_states.shape[-2]
        self.room_keys[:, :, self.used : end] = key_states
        self.room_values[:, :, self.used : end] = value_states
        self.used = end
        return self.room_keys[:, :, :end], self.room_values[:, :, :end]

    def get_seq_length(self) -> int:
        """Tokens so far."""
        return self.used

    @property
    def room(self) -> int:
        """Slots of a row."""
        return self.room_keys.shape[2]

    def row(self, number: int, length: int) -> KeysValues:
        """A copy of a row's first tokens, [K, length, D] each."""
        return self.room_keys[number, :, :length].clone(), self.room_values[number, :, :length].clone()

    def put(self, number: int, keys: Tensor, values: Tensor) -> None:
        """Another row in the place of one."""
        self.room_keys[number, :, : keys.shape[1]] = keys
        self.room_values[number, :, : values.shape[1]] = values

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.room_keys, self.room_values = self.room_keys.index_select(0, rows), self.room_values.index_select(0, rows)


class Workspace:
    """Memory for buffers, used again by the next ones: clearing fresh memory costs a small model more than its layers.

    What ``buffers`` gave before is overwritten by its next call.
    """

    def __init__(self, most_bytes: int = 64 * 1024 * 1024) -> None:
        self._most_bytes = most_bytes
        self._flat = torch.empty(0)

    def buffers(self, layers: Sequence[Sequence[KeysValues]], used: int, room: int) -> list[Buffer]:
        """Rows of different length in padded buffers. What lies behind a row is any finite number.

        Args:
            layers: of each layer, of each row, keys and values [K, length, D]; at least one row.
            used: slots for what is there already, at least the longest row's length.
            room: slots for what is to come.
        """
        heads, _, size = layers[0][0][0].shape
        shape = (len(layers), 2, len(layers[0]), heads, used + room, size)
        padded = self._take(layers[0][0][0], shape)
        for n, rows in enumerate(layers):
            for i, row in enumerate(rows):
                for side in (0, 1):
                    padded[n, side, i, :, : row[side].shape[1]] = row[side]
        return [Buffer(keys_BKLD, values_BKLD, used) for keys_BKLD, values_BKLD in padded.unbind()]

    def _take(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        count = math.prod(shape)
        if count * like.element_size() > self._most_bytes:
            return like.new_zeros(shape)
        flat = self._flat
        if flat.numel() < count or flat.dtype != like.dtype or flat.device != like.device:
            # Outside of inference mode, so that it may be written in either.
            with torch.inference_mode(False):
                self._flat = flat = torch.zeros(count, dtype=like.dtype, device=like.device)
        return flat[:count].view(shape)


class Forward(Protocol):
    """What decoding needs of a model."""

    def prompts(self, ids_BP: Tensor) -> tuple[Tensor, list[KeysValues]]:
        """Hidden states [B, P, E] of right-padded prompts, and each layer's keys and values."""
        ...

    def scores(self, hidden_BE: Tensor) -> Tensor:
        """Raw scores [B, V] of the next token."""
        ...

    def more(self, ids_BQ: Tensor, positions_BQ: Tensor, buffers: Sequence[Buffer], mask_B1QL: Tensor) -> Tensor:
        """Hidden states [B, Q, E] of more tokens; their keys and values go into the buffers. The mask is True where a
        token may look."""
        ...


def forward_of(model: Any) -> Forward:
    """The fastest exact way to run a model."""
    if not hasattr(model, "peft_config") and fits(model):
        return _Lean(model)
    return _Hub(model)


class _Hub:
    """transformers' own forward, with or without an adapter."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._plain = model.get_base_model() if hasattr(model, "peft_config") else model

    def prompts(self, ids_BP: Tensor) -> tuple[Tensor, list[KeysValues]]:
        cache = DynamicCache(config=self._plain.config)
        hidden = self._plain.base_model(input_ids=ids_BP, past_key_values=cache, use_cache=True).last_hidden_state
        return hidden, [(layer.keys, layer.values) for layer in cache.layers]

    def scores(self, hidden_BE: Tensor) -> Tensor:
        found: Tensor = self._plain.get_output_embeddings()(hidden_BE)
        return found

    def more(self, ids_BQ: Tensor, positions_BQ: Tensor, buffers: Sequence[Buffer], mask_B1QL: Tensor) -> Tensor:
        hidden: Tensor = self._plain.base_model(
            input_ids=ids_BQ,
            position_ids=positions_BQ,
            attention_mask=mask_B1QL,
            past_key_values=Cache(layers=list(buffers)),
            use_cache=True,
        ).last_hidden_state
        return hidden


class _Lean:
    """See policies/lean.py."""

    def __init__(self, model: Any) -> None:
        self._model = LeanModel(model)
        self.scores = self._model.scores

    def prompts(self, ids_BP: Tensor) -> tuple[Tensor, list[KeysValues]]:
        kept = [_Kept() for _ in self._model.layers]
        hidden = self._model.forward(ids_BP, torch.arange(ids_BP.shape[1])[None], kept, None)
        return hidden, [layer.found for layer in kept]

    def more(self, ids_BQ: Tensor, positions_BQ: Tensor, buffers: Sequence[Buffer], mask_B1QL: Tensor) -> Tensor:
        return self._model.forward(ids_BQ, positions_BQ, list(buffers), mask_B1QL)


class _Kept:
    """A cache that starts empty and is filled once."""

    found: KeysValues

    def update(self, keys: Tensor, values: Tensor) -> KeysValues:
        self.found = (keys, values)
        return self.found
