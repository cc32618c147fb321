"""Tool calls inside an assistant's text: how records write what a model answers by calling functions.

Answers are texts here, and models write calls as text too, each family in a form of its own. Records use the form of
the Hermes and Qwen models; policies/encoding.py turns it into that of the tokenizer at hand. Called by encoding.py and
by the readers and writers of data files. Imports records only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from dpo_driver.core.records import ToolCall

_BLOCK = re.compile(r"<tool_call>\n(\{[^\n]*\})\n</tool_call>")
_AT_END = re.compile(rf"(?:^|\n)((?:{_BLOCK.pattern}(?:\n|\Z))+)\Z")


def write_calls(content: str, calls: Sequence[ToolCall]) -> str:
    """The assistant's text for what it says and calls. A call's ``id`` is not part of it: models do not write ids."""
    blocks = [f"<tool_call>\n{json.dumps(_as_json(call), ensure_ascii=False)}\n</tool_call>" for call in calls]
    return "\n".join([content, *blocks] if content else blocks)


def split_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """What :func:`write_calls` put together. A text that it would not have written in just this way holds no calls."""
    found = _AT_END.search(text)
    if found is None:
        return text, ()
    content = text[: found.start()]
    calls = []
    for written in _BLOCK.findall(found[1]):
        try:
            call = json.loads(written)
            calls.append(ToolCall(name=call["name"], arguments=json.dumps(call["arguments"], ensure_ascii=False)))
        except (ValueError, KeyError, RecursionError):
            return text, ()
    return (content, tuple(calls)) if write_calls(content, calls) == text else (text, ())


def _as_json(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": json.loads(call.arguments)}
