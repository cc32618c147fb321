"""Adapters that act only after the prompt, as PEFT has them ("activated LoRA", Greenewald et al., arXiv:2504.12397).

The adapter acts from the start of the last *invocation tokens* on: those with which the chat template begins an answer.
What stands before them is the prompt's *beginning*: computed by the frozen base model alone, so its keys and values are
the same whatever the adapter learns. Two models come out of one: the base without the adapter for beginnings, and the
adapter on every token for the rest. Called by policies/hf.py and training. Must not import agents or environments.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dpo_driver.core.errors import ModelError
from dpo_driver.policies.forward import Forward, forward_of
from dpo_driver.policies.lean import fits
from dpo_driver.policies.prefixes import Ids, Prefix, Prompts, Store, Task


def begin_of(prompt: Sequence[int], tokens: Ids) -> int:
    """How many tokens of a prompt are its beginning: those before the last invocation tokens.

    Raises:
        ModelError: they are not there, so the adapter would never act.
    """
    wanted, count = list(tokens), len(tokens)
    for start in range(len(prompt) - count, -1, -1):
        if list(prompt[start : start + count]) == wanted:
            return start
    raise ModelError(
        f"a prompt of {len(prompt)} tokens lacks those at which the adapter begins to act: {wanted}",
        remedy="use the chat template and the prompt profile that the adapter was trained with",
    )


# -- one model as two ------------------------------------------------------------------------------------------------


@contextmanager
def acting(model: Any) -> Iterator[None]:
    """Inside, the adapter acts on every token that the model is given; outside, on none."""
    taken = _take_variants(model)
    try:
        yield
    finally:
        for layer, name, variant in taken:
            layer.lora_variant[name] = variant


def _take_variants(model: Any) -> list[tuple[Any, str, Any]]:
    """PEFT's layers look for offsets only where they have a variant; without one they are ordinary LoRA layers."""
    layers = [layer for layer in model.modules() if getattr(layer, "lora_variant", None)]
    return [(layer, name, layer.lora_variant.pop(name)) for layer in layers for name in list(layer.lora_variant)]


def base_of(model: Any) -> Any:
    """The base model without the adapter, in evaluation mode: modules of its own around the same weights, so that what
    is done to the given model's attention, mode or adapter does not reach it. Make it while the attention is the
    model's own."""
    return _twin(model).unload().eval()


def _twin(model: Any) -> Any:
    shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def _adapted_forward(model: Any) -> Forward:
    """Runs the model with the adapter on every token. A small model on a CPU gets weights of its own, merged."""
    if fits(model.get_base_model()):
        merged = copy.deepcopy(model)
        _take_variants(merged)
        return forward_of(merged.merge_and_unload().eval())
    twin = _twin(model).eval()
    _take_variants(twin)
    return forward_of(twin)


# -- prompts ---------------------------------------------------------------------------------------------------------


class BeginningPrompts(Prompts):
    """Beginnings of prompts by the base model, kept for training: policy, reference, epochs and rollouts share them.

    Each is computed alone and from its first token, so that its bits depend on nothing but itself: what is computed
    again, after a resume or because there was no room, is the same. May be called by several threads.

    Args:
        base: of :func:`base_of`.
        padding: any token id.
        most_bytes: of keys and values that are kept, in main memory.
        turnover: what came last is worth most; without, what came first stays. Rows that come round in another order
            every epoch want the latter: pushing each other out, few would be left when their turn comes.
    """

    def __init__(self, base: Any, padding: int, most_bytes: int, *, turnover: bool) -> None:
        super().__init__(forward_of(base), padding, next(base.parameters()).device)
        self._store = Store(most_bytes, turnover=turnover)
        self._lock = threading.Lock()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Ids]) -> list[Prefix]:
        found: dict[Ids, Prefix] = {}
        # Whatever precision training computes in, a prompt is computed in the model's, as in a rollout.
        with self._lock, torch.autocast(self._device.type, enabled=False):
            for ids in dict.fromkeys(prompts):
                self.asked += len(ids)
                prefix = self._store.get(ids)
                if prefix is None:
                    self.computed += len(ids)
                    (prefix,) = self._compute([Task(ids, None, 0)])
                    self._store.put(ids, prefix.to("cpu"))
                found[ids] = prefix.to(self._device)
        return [found[ids] for ids in prompts]


class AdaptedPrompts(Prompts):
    """Whole prompts under an adapter that acts only after them: beginnings by the base, the rest by the adapter.

    Args:
        adapted: runs the model with the adapter on every token.
        tokens: the invocation tokens.
        beginnings: computes beginnings, and may outlive the adapter's weights.
        padding: any token id.
        device: the model's.
    """

    def __init__(self, adapted: Forward, tokens: Ids, beginnings: Prompts, padding: int, device: torch.device) -> None:
        super().__init__(adapted, padding, device)
        self._tokens, self._beginnings = tokens, beginnings

    def _beginner(self, missing: Sequence[Ids]) -> Callable[[Ids], Task]:
        """From what the base makes of it, however little of the rest is new."""
        starts = {ids: begin_of(ids, self._tokens) for ids in missing}
        begun = [ids for ids, start in starts.items() if start]
        bases = dict(zip(begun, self._beginnings([ids[: starts[ids]] for ids in begun]), strict=True))
        return lambda ids: Task(ids, bases.get(ids), starts[ids])


def halves(model: Any, tokens: Ids, padding: int, beginnings: Prompts | None = None) -> tuple[Forward, AdaptedPrompts]:
    """What decoding needs of a model whose adapter acts only after the prompt.

    Args:
        model: with the adapter; what happens to its modes and adapter layers later does not matter, but its weights are
            not to be changed while the forward is in use.
        tokens: its :func:`invocation`.
        padding: any token id.
        beginnings: computes beginnings; made here when None.

    Returns:
        A forward for what follows the prompts, and the prompts.
    """
    device = next(model.parameters()).device
    if beginnings is None:
        beginnings = Prompts(forward_of(base_of(model)), padding, device)
    adapted = _adapted_forward(model)
    return adapted, AdaptedPrompts(adapted, tokens, beginnings, padding, device)
