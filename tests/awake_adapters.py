"""Adapters that act only after the prompt, for the tests of them: small, and awake."""

from __future__ import annotations

from typing import Any

import torch

# As ChatML: a header of several tokens, the same for every answer.
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def awake(model: Any, std: float = 0.1) -> Any:
    """Give an adapter weights that matter; it is born with zeros."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    return model
