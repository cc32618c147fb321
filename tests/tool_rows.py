"""Rows with tools in TRL's columns, and tokenizers with the chat templates that TRL ships: what tests of data share."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dpo_driver.policies.pocket import build_tokenizer

# Templates by TRL's file name, with the token that ends a turn in each.
SPEAKERS = {"qwen2_5": "<|im_end|>", "qwen3": "<|im_end|>", "qwen3_5_think": "<|im_end|>", "llama3_1": "<|eot_id|>"}


def say(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def function(name: str, **properties: str) -> dict[str, Any]:
    shape = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"type": "function", "function": {"name": name, "description": f"{name} it", "parameters": shape}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


TOOLS = [function("look_up", city="string"), function("book", day="integer", seat="string")]
ASKED = [say("system", "be brief"), say("user", "rain in Köln?")]
# The first side calls a tool, reads what it gives, and answers; the second answers at once.
LOOKED = [
    say("assistant", "", tool_calls=[call("look_up", city="Köln")]),
    say("tool", "rain", name="look_up"),
    say("assistant", "Yes."),
]
GUESSED = [say("assistant", "No.")]
CALLED = [say("assistant", "I book.", tool_calls=[call("book", day=3, seat="12a")])]


def tokenizer_of(template: str) -> Any:
    """The pocket model's tokenizer with a chat template of ``SPEAKERS``."""
    found = find_spec("trl")
    assert found is not None and found.origin is not None
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"eos_token": SPEAKERS[template], "bos_token": "<s>"})
    tokenizer.chat_template = (Path(found.origin).parent / "chat_templates" / f"{template}.jinja").read_text()
    return tokenizer


def lines(path: Path, *rows: Any) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path
