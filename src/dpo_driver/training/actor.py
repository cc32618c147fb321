"""The copy of the model that acts while the other one learns. Only the weights that training changes are copied.

So rollouts can overlap updates, and decoding never meets the attention that training sets. Called by
training/online.py.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpo_driver.policies.after_prompt import BeginningPrompts
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.training.checkpoint import trainable
from dpo_driver.training.pieces import whole


def published(model: nn.Module) -> dict[str, Tensor]:
    """The weights that training changes, as they are now."""
    return {name: whole(value.detach()).clone() for name, value in trainable(model).items()}


class Actor:
    """A second model with the first one's frozen weights in it. Make it outside of a scorer's session.

    Args:
        model: in training.
        tokenizer: the model's.
        max_length: most tokens of prompt and completion.
        prompts: of an adapter that acts only after the prompt: computes and keeps what no update changes.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, max_length: int, prompts: BeginningPrompts | None = None
    ) -> None:
        shared = {id(value): value for value in (*model.parameters(), *model.buffers()) if not value.requires_grad}
        self._model = copy.deepcopy(model, shared).eval()
        self._names = set(trainable(model))
        self._model.requires_grad_(False)
        self._tokenizer, self._max_length, self._prompts = tokenizer, max_length, prompts

    @torch.no_grad()
    def policy(self, weights: Mapping[str, Tensor], version: str) -> HFPolicy:
        """A policy with these weights; those given before must not be used any more.

        Args:
            weights: of :func:`published`.
            version: what the records of its rollouts call it.
        """
        own = dict(self._model.named_parameters())
        for name in self._names:
            own[name].copy_(weights[name])
        return HFPolicy(
            model=self._model, tokenizer=self._tokenizer, max_length=self._max_length, max_batch=128, version=version,
            prompts=self._prompts,
        )  # fmt: skip
