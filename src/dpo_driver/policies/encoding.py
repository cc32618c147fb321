"""Messages and completions to token ids, the same way for training and for generation.

What generation produces after ``encode_prompt`` is what ``encode_completion`` gives for its text: the assistant text,
then the end-of-turn token. Prompt and completion are tokenized apart, as they are when a model generates. Called by
policies/hf.py and training/rows.py; must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Message


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids up to where the assistant's text begins.

    Raises:
        ModelError: the tokenizer has no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        remedy = "use an instruction-tuned model, or add chat_template.jinja to its folder"
        raise ModelError("the tokenizer has no chat template", where=tokenizer.name_or_path, remedy=remedy)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    # Our own format asks for a thought, so a template's separate thinking mode is left off; others ignore the key.
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    return _ids(tokenizer, text)


def encode_completion(tokenizer: Any, text: str) -> list[int]:
    """Token ids of an assistant text, with the end-of-turn token that teaches the model to stop."""
    return [*_ids(tokenizer, text), end_id(tokenizer)]


def decode_completion(tokenizer: Any, ids: Sequence[int]) -> str:
    """The assistant text of generated ids, without the end-of-turn token."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def end_id(tokenizer: Any) -> int:
    """The token that ends an assistant's turn.

    Raises:
        ModelError: the tokenizer names none.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer has no end-of-sequence token", where=tokenizer.name_or_path)
    return int(tokenizer.eos_token_id)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids
