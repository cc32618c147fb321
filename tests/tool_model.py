"""A tiny model that calls tools, for tests of TRL's trainers: random weights, then a moment of SFT on random clicks.

A model with random weights never writes a tool call by chance, so nothing of an environment would be tried. Its chat
template is Qwen3's, which TRL ships and knows how to parse; its words are learned from the texts that it will see.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from dpo_driver.core.records import Message, ToolCall, TrainingSample
from dpo_driver.core.tool_calls import write_calls
from dpo_driver.policies.loading import save_version

END = "<|im_end|>"
SPECIAL = ("<|endoftext|>", "<|im_start|>", END, "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
           "<think>", "</think>")  # fmt: skip


def tool_tokenizer(texts: list[str], vocabulary: int = 600) -> Any:
    """Byte-level BPE learned from texts, with Qwen3's chat template."""
    import trl
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[SPECIAL[0]], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    # As in Qwen's own tokenizer, the marks of calls and thoughts are single tokens but part of the text.
    tokenizer.add_special_tokens(list(SPECIAL[:3]))
    tokenizer.add_tokens(list(SPECIAL[3:]))
    template = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=END, chat_template=template.read_text(),
        model_max_length=4096, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def small_qwen3(tokenizer: Any, seed: int = 0) -> Any:
    """A Qwen3 with random weights and room for pages."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=(len(tokenizer) + 7) // 8 * 8, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=12, max_position_embeddings=4096,
        tie_word_embeddings=True, initializer_range=0.1, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config)


def clicking_model(folder: Path, tools: list[dict[str, Any]], pages: list[str], refs: range, steps: int = 60) -> Path:
    """A model that answers every page with a click on some element of ``refs``, saved in ``folder``.

    Args:
        folder: where it is saved.
        tools: schemas of the tools that its prompts offer.
        pages: user turns as it will see them.
        refs: numbers that it clicks on, about equally often.
        steps: of SFT.
    """
    from dpo_driver.training.engine import train

    rng = random.Random(0)
    samples = [
        TrainingSample(
            id=f"{i}", source="test",
            messages=(Message(role="user", content=rng.choice(pages), tools=json.dumps(tools)),),
            completion=write_calls("", [ToolCall(name="click", arguments=json.dumps({"ref": str(ref)}))]),
        )
        for i, ref in enumerate([*refs] * 4)
    ]  # fmt: skip
    tokenizer = tool_tokenizer([*pages, *(row.completion for row in samples), json.dumps(tools)])
    model = small_qwen3(tokenizer)
    config = {"learning_rate": 2e-2, "max_steps": steps, "per_device_train_batch_size": 8, "max_length": 4096,
              "lr_scheduler_type": "cosine", "save_steps": 10_000}  # fmt: skip
    train("sft", model.train().requires_grad_(True), tokenizer, samples, [], config, folder / "sft")
    save_version(model, tokenizer, folder / "model")
    return folder / "model"
