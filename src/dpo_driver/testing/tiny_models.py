"""Small random models of several architectures, for tests and examples: real transformers classes, quick to build."""

from __future__ import annotations

from typing import Any

ARCHITECTURES = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma3_text")
# What a small model of a family needs beside the common shape.
_MORE: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": None},
    # As released: most layers look back over a window only. Here it is wider than any test's page.
    "gemma3_text": {"sliding_window": 1024, "layer_types": ["sliding_attention", "full_attention"],
                    "query_pre_attn_scalar": 8},
}  # fmt: skip


def tiny_model(architecture: str = "qwen3", *, layers: int = 2, width: int = 32, seed: int = 0) -> tuple[Any, Any]:
    """A random causal LM with grouped-query attention, and the pocket tokenizer.

    Args:
        architecture: one of ``ARCHITECTURES``.
        layers: decoder layers.
        width: hidden size; four query heads share two key heads.
        seed: of the weights.

    Returns:
        Model in float32 evaluation mode, tokenizer.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from dpo_driver.policies.pocket import build_tokenizer

    tokenizer = build_tokenizer()
    config = AutoConfig.for_model(
        architecture,
        vocab_size=(len(tokenizer) + 7) // 8 * 8,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width // 4,
        max_position_embeddings=2048,
        tie_word_embeddings=architecture != "llama",
        initializer_range=0.2,  # large enough for attention to matter
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **_MORE.get(architecture, {}),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # torch's kernels cannot cap scores, as Gemma 2 does.
        kernel = "eager" if architecture == "gemma2" else "sdpa"
        model = AutoModelForCausalLM.from_config(config, attn_implementation=kernel)
    return model.eval(), tokenizer
