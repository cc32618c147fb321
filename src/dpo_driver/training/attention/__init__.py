"""How a model attends over a forest: back-ends behind one interface, and which of them a model can take.

A back-end is a file with a ``NAME``, the function that transformers calls in every layer, and ``arguments(forest)``,
which the forward hands down to it. ``sdpa`` works everywhere, ``flex`` on CUDA devices, ``AFTER_PROMPT`` is for
adapters that act only after the prompt. Models that cannot take a tree are computed without sharing
(training/logprobs.py). Called by training/logprobs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import AttentionInterface

from dpo_driver.core.errors import UnknownNameError
from dpo_driver.training.attention import after_prompt, flex, sdpa
from dpo_driver.training.attention.last_layer import predictors_only
from dpo_driver.training.tree import Forest

# Architectures whose forward hands keywords down to attention, positions by ``position_ids`` and have nothing else that
# mixes tokens, and whose last layer can be called as last_layer.py does. Others are computed without sharing; see
# ``why_not``.
TREE_MODELS = frozenset({"qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3_text"})


@dataclass(frozen=True)
class Backend:
    """A way to attend over a forest."""

    name: str  # what transformers calls it
    title: str  # for the log
    arguments: Callable[[Any], dict[str, Any]]  # of a Forest, or what else the back-end is given
    softcap: bool  # whether it can cap scores


BACKENDS: dict[str, Backend] = {
    "sdpa": Backend(sdpa.NAME, "two-part SDPA", sdpa.arguments, softcap=False),
    "flex": Backend(flex.NAME, "FlexAttention", flex.arguments, softcap=True),
}
AFTER_PROMPT = Backend(after_prompt.NAME, "adapter after the prompt only", after_prompt.arguments, softcap=False)
AttentionInterface.register(sdpa.NAME, sdpa.prefix_tree_sdpa)
AttentionInterface.register(flex.NAME, flex.prefix_tree_flex)
AttentionInterface.register(after_prompt.NAME, after_prompt.prefix_tree_after_prompt)


def backend(name: str) -> Backend:
    """A back-end; UnknownNameError lists the known ones."""
    if name not in BACKENDS:
        raise UnknownNameError("attention", name, BACKENDS)
    return BACKENDS[name]


def plain_model(model: nn.Module) -> Any:
    """The transformers model inside a PEFT or accelerate wrapper (LoRA layers stay where they are)."""
    while hasattr(model, "module"):
        model = model.module  # type: ignore[assignment]
    return model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]


def why_not(model: nn.Module, way: Backend = BACKENDS["sdpa"]) -> str | None:
    """Why a model cannot take a tree, or None when it can."""
    config = plain_model(model).config
    if config.model_type not in TREE_MODELS:
        return f"{config.model_type} models are not known to take a tree"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"it has {', '.join(sorted(kinds))} layers"
    if getattr(config, "attn_logit_softcapping", None) and not way.softcap:
        return f"it caps attention scores, which {way.title} cannot"
    return None


def window(model: nn.Module) -> int | None:
    """How far the model's sliding layers look back, in tokens; None where all layers see everything. Within the window
    they are as full ones."""
    config = plain_model(model).config
    kinds = getattr(config, "layer_types", None)
    slides = config.model_type == "mistral" if kinds is None else "sliding_attention" in kinds
    return getattr(config, "sliding_window", None) if slides else None


@contextmanager
def tree_attention(model: nn.Module, way: Backend = BACKENDS["sdpa"]) -> Iterator[None]:
    """While inside, the model attends over forests, and gives hidden states [1, U, E] of their predicting tokens alone;
    afterwards as before."""
    plain = plain_model(model)
    before = plain.config._attn_implementation
    plain.set_attn_implementation(way.name)
    try:
        with predictors_only(plain.base_model.layers[-1]):
            yield
    finally:
        plain.set_attn_implementation(before)


@contextmanager
def plain_attention(model: nn.Module, implementation: str) -> Iterator[None]:
    """Inside a tree_attention(), the model's own attention for a while."""
    plain = plain_model(model)
    inside = plain.config._attn_implementation
    plain.set_attn_implementation(implementation)
    try:
        yield
    finally:
        plain.set_attn_implementation(inside)


def arguments(model: nn.Module, forest: Forest) -> dict[str, Any]:
    """What the model's forward must be given, by the back-end that is set. RuntimeError outside of tree_attention()."""
    name = plain_model(model).config._attn_implementation
    for way in BACKENDS.values():
        if way.name == name:
            return way.arguments(forest)
    raise RuntimeError("a forest needs tree_attention()")
