"""The sizes of a model, from its ``config.json`` alone: what a plan needs to know before anything is loaded.

Called by training/planner.py and tape.py. Must not import torch or transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import ModelError
from dpo_driver.core.schema_training import LoraConfig

# Architectures whose layers are written down in tape.py.
KNOWN = frozenset({"llama", "mistral", "qwen2", "qwen3"})
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Linear:
    """A linear layer: ``out x in`` weights, and as many biases as outputs if it has any."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        return self.weights + (self.outputs if self.bias else 0)


@dataclass(frozen=True)
class ModelShape:
    """A decoder of equal layers with a gated MLP."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False

    @property
    def qk_norm(self) -> bool:
        """Queries and keys are normalised head by head."""
        return self.model_type == "qwen3"

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The linear layers of one decoder layer, in the order in which they are computed."""
        hidden, queries = self.hidden_size, self.num_attention_heads * self.head_dim
        keys, inner = self.num_key_value_heads * self.head_dim, self.intermediate_size
        return (
            Linear("q_proj", hidden, queries, self.qkv_bias),
            Linear("k_proj", hidden, keys, self.qkv_bias),
            Linear("v_proj", hidden, keys, self.qkv_bias),
            Linear("o_proj", queries, hidden, self.o_bias),
            Linear("gate_proj", hidden, inner, self.mlp_bias),
            Linear("up_proj", hidden, inner, self.mlp_bias),
            Linear("down_proj", inner, hidden, self.mlp_bias),
        )

    @property
    def embedding(self) -> int:
        """Numbers in the table of token embeddings, and in the head."""
        return self.vocab_size * self.hidden_size

    @property
    def layer_parameters(self) -> int:
        """Of one decoder layer, norms included."""
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        return norms + sum(linear.parameters for linear in self.linears)

    @property
    def parameters(self) -> int:
        """Of the whole model, tied ones once."""
        tables = self.embedding * (1 if self.tie_word_embeddings else 2)
        return tables + self.hidden_size + self.num_hidden_layers * self.layer_parameters

    @property
    def quantizable(self) -> int:
        """Weights that bitsandbytes quantises: those of the layers' linear layers, not of embeddings and head."""
        return self.num_hidden_layers * sum(linear.weights for linear in self.linears)

    def adapted(self, lora: LoraConfig) -> frozenset[str]:
        """Names of the linear layers that get an adapter, by PEFT's rules for ``target_modules``.

        Raises:
            ModelError: none does.
        """
        targets = lora.target_modules
        names = [linear.name for linear in self.linears]
        if targets == "all-linear":
            return frozenset(names)
        if isinstance(targets, str):
            paths = {f"model.layers.0.{'self_attn' if name in ATTENTION else 'mlp'}.{name}": name for name in names}
            found = {name for path, name in paths.items() if re.fullmatch(targets, path)}
        else:
            found = {name for name in names if any(name == t or t.endswith("." + name) for t in targets)}
        if not found:
            raise ModelError(f"model.lora.target_modules {targets!r} names no linear layer of this model",
                             remedy=f"all-linear, or some of {', '.join(names)}")  # fmt: skip
        return frozenset(found)

    def adapter_parameters(self, lora: LoraConfig) -> int:
        """Numbers in both matrices of all adapted layers."""
        found = self.adapted(lora)
        each = sum(lora.r * (x.inputs + x.outputs) for x in self.linears if x.name in found)
        return self.num_hidden_layers * each


# Published architecture numbers of the models in configs/, so that a plan needs no download:
# hidden size, layers, heads, key heads, head size, inner size of the MLP, vocabulary.
_QWEN3_4B = ModelShape("qwen3", 2560, 36, 32, 8, 128, 9728, 151_936, tie_word_embeddings=True)
_QWEN2_7B = ModelShape("qwen2", 3584, 28, 28, 4, 128, 18_944, 152_064, tie_word_embeddings=False, qkv_bias=True)
_LLAMA_8B = ModelShape("llama", 4096, 32, 32, 8, 128, 14_336, 128_256, tie_word_embeddings=False)
PUBLISHED: Mapping[str, ModelShape] = {
    "Qwen/Qwen3-4B": _QWEN3_4B,
    "Qwen/Qwen2-7B": _QWEN2_7B,
    "Qwen/Qwen2-7B-Instruct": _QWEN2_7B,
    "meta-llama/Llama-3.1-8B": _LLAMA_8B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_8B,
}


def shape_of(name: str) -> ModelShape:
    """The sizes of ``pocket``, of a folder (of a model, or of an adapter, whose base is meant) or of a hub id.

    Raises:
        ModelError: a model whose ``config.json`` is not on this machine, or an architecture that plans do not know.
    """
    if name in PUBLISHED and not Path(name).is_dir():
        return PUBLISHED[name]
    path = _config_file(name)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the model's configuration cannot be read: {error}", where=str(path)) from None
    return read_shape(data, where=str(path))


def read_shape(data: Mapping[str, Any], *, where: str) -> ModelShape:
    """The sizes that a ``config.json`` gives.

    Raises:
        ModelError: an architecture that plans do not know, or a size that is missing.
    """
    kind = str(data.get("model_type"))
    if kind not in KNOWN:
        remedy = f"plans know {', '.join(sorted(KNOWN))}; the model may train all the same"
        raise ModelError(f"no plan can be made for {kind} models", where=where, remedy=remedy)
    try:
        heads, hidden = int(data["num_attention_heads"]), int(data["hidden_size"])
        attention_bias = bool(data.get("attention_bias", False))
        return ModelShape(
            model_type=kind,
            hidden_size=hidden,
            num_hidden_layers=int(data["num_hidden_layers"]),
            num_attention_heads=heads,
            num_key_value_heads=int(data.get("num_key_value_heads") or heads),
            head_dim=int(data.get("head_dim") or hidden // heads),
            intermediate_size=int(data["intermediate_size"]),
            vocab_size=int(data["vocab_size"]),
            tie_word_embeddings=bool(data.get("tie_word_embeddings", False)),
            qkv_bias=kind == "qwen2" or attention_bias,
            o_bias=kind != "qwen2" and attention_bias,
            mlp_bias=bool(data.get("mlp_bias", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the model's configuration lacks a size: {error}", where=where) from None


def _config_file(name: str) -> Path:
    from dpo_driver.policies.pocket import pocket_folder

    folder = pocket_folder() if name == "pocket" else Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder / "config.json"
    if (folder / "adapter_config.json").is_file():
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        return _config_file(str(base))
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        cached = None
    if isinstance(cached, str):
        return Path(cached)
    raise ModelError("the model's config.json is not on this machine", where=name,
                     remedy="give a folder, or load the model once so that it is in the hub's cache; known without: "
                     f"{', '.join(PUBLISHED)}")  # fmt: skip
