"""Forests under an adapter that acts only after the prompt: the base's part once, then the adapter's.

What the base computes of a prompt depends on the prompt alone, so it is kept: over the steps, for policy and reference,
for all completions and epochs, and for the rollout that made them (policies/after_prompt.py holds it). A step then
computes the answer's header and the completions only. Turns of one conversation are told apart here: the later turn's
prompt is the base's throughout, what the adapter wrote before included. Called by training/logprobs.py.

Shapes: T flat tokens, U predicting tokens, N scored tokens, B prompts, K key heads, P longest beginning, D head size, E
hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dpo_driver.core.errors import TrainingError
from dpo_driver.policies.after_prompt import BeginningPrompts, base_of, begin_of
from dpo_driver.policies.prefixes import Prefix
from dpo_driver.training.attention import plain_model
from dpo_driver.training.attention.after_prompt import Grafted, arguments, graft_mask, graft_predictors
from dpo_driver.training.tree import Forest, Ids, Tree, pack

GB = 10**9
_SUCH = "an adapter that acts only after the prompt, on a model that cannot share prompts,"


def beginnings_of(model: nn.Module, cache_gb: float, *, turnover: bool) -> BeginningPrompts:
    """What computes and keeps the beginnings of prompts. Make it while the model's attention is its own.

    Args:
        model: with its adapter.
        cache_gb: 10^9 bytes that are kept.
        turnover: see :class:`BeginningPrompts`; for prompts that are always new ones.
    """
    return BeginningPrompts(base_of(model), 0, int(cache_gb * GB), turnover=turnover)


def hidden_after_prompt(model: nn.Module, forest: Forest, tokens: Ids, beginnings: BeginningPrompts) -> Tensor:
    """Hidden states [N, E] that predict the forest's scored tokens, in their order.

    Args:
        model: inside ``acting(model)`` and ``tree_attention(model, AFTER_PROMPT)``.
        forest: on the model's device.
        tokens: the adapter's invocation tokens.
        beginnings: computes what stands before them.

    Raises:
        ModelError: a prompt without them.
    """
    begun, rests, pick_N = graft(forest, tokens)
    device = forest.input_ids.device
    rests = rests.to(device)
    lengths_B = torch.tensor([len(ids) for ids in begun])
    found = dict(zip(wanted := [ids for ids in begun if ids], beginnings(wanted), strict=True))
    mask = graft_mask(rests, lengths_B)
    kept = stacked([found.get(ids) for ids in begun])
    grafted = Grafted(rests, mask, graft_predictors(rests, mask), kept)
    body = plain_model(model).base_model
    hidden_1UE = body(
        input_ids=rests.input_ids,
        position_ids=rests.position_ids,
        attention_mask=None,
        use_cache=False,
        **arguments(grafted),
    ).last_hidden_state
    hidden_NE: Tensor = hidden_1UE[0].index_select(0, pick_N.to(device))
    return hidden_NE


def graft(forest: Forest, tokens: Ids) -> tuple[list[Ids], Forest, Tensor]:
    """Part a forest where the adapter begins to act.

    Returns:
        The beginning of each prompt; the forest of what follows them, a star a prompt, with positions that go on; and
        [N] which of its predictors predicts each scored token of the given forest, in that one's order.
    """
    stars: dict[Ids, list[int]] = {}
    completions: list[Ids] = []
    for tree in forest.trees:
        prompts: dict[int, Ids] = {}
        for segment in tree.segments:
            if segment.scored:
                if segment.parent not in prompts:
                    prompts[segment.parent] = tuple(tree.path(segment.parent))
                stars.setdefault(prompts[segment.parent], []).append(len(completions))
                completions.append(segment.ids)
    starts = [begin_of(prompt, tokens) for prompt in stars]
    rests = pack(
        [
            Tree.star(prompt[start:], [completions[number] for number in numbers])
            for (prompt, numbers), start in zip(stars.items(), starts, strict=True)
        ]
    )
    begun_T = torch.repeat_interleave(torch.tensor(starts), torch.tensor([tree.tokens for tree in rests.trees]))
    order = [number for numbers in stars.values() for number in numbers]
    pick = dict(zip(order, rests.predictors.pick.split(rests.lengths.long().tolist()), strict=True))
    pick_N = torch.cat([pick[number] for number in range(len(completions))])
    begun = [prompt[:start] for prompt, start in zip(stars, starts, strict=True)]
    return begun, replace(rests, position_ids=rests.position_ids + begun_T), pick_N


def stacked(prefixes: Sequence[Prefix | None]) -> tuple[tuple[Tensor, Tensor], ...]:
    """Keys and values [B, K, P, D] of each layer, zeros behind the shorter ones; nothing where all are None."""
    begun = [prefix for prefix in prefixes if prefix is not None]
    if not begun:
        return ()
    longest = max(prefix.length for prefix in begun)
    layers = []
    for number, pattern in enumerate(begun[0].layers):
        pair = []
        for side in (0, 1):
            heads, _, size = pattern[side].shape
            # Fresh memory also because what a rollout has computed must not go into a gradient as it is.
            rows = pattern[side].new_empty(len(prefixes), heads, longest, size)
            for row, prefix in zip(rows, prefixes, strict=True):
                length = 0 if prefix is None else prefix.length
                if prefix is not None:
                    row[:, :length] = prefix.layers[number][side]
                row[:, length:] = 0
            pair.append(rows)
        layers.append((pair[0], pair[1]))
    return tuple(layers)


@contextmanager
def by_offsets(model: Any, prompts: Sequence[Ids], length: int, tokens: Ids) -> Iterator[None]:
    """PEFT's own way, for models that cannot take a tree: inside, the adapter acts in each row from its offset on.

    Args:
        model: with its adapter, outside of ``acting``.
        prompts: of each row, from the row's first token.
        length: of the rows with padding.
        tokens: the invocation tokens.

    Raises:
        TrainingError: gradient checkpointing, or an adapter on the LM head, which PEFT's offsets do not reach.
    """
    plain = plain_model(model)
    if any(getattr(module, "gradient_checkpointing", False) for module in plain.modules()):
        raise TrainingError(f"{_SUCH} does not go with gradient checkpointing", remedy="turn it off")
    if hasattr(plain.get_output_embeddings(), "lora_variant"):
        raise TrainingError(f"{_SUCH} cannot change the LM head", remedy="leave it out of lora.target_modules")
    offsets = [length - begin_of(prompt, tokens) for prompt in prompts]
    with model.base_model._enable_peft_forward_hooks(alora_offsets=offsets):
        yield
