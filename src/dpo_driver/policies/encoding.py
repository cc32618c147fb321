"""Messages and completions to token ids, the same way for training and for generation.

What generation produces after ``encode_prompt`` is what ``encode_completion`` gives for its text: the assistant text,
then the end-of-turn token. Prompt and completion are tokenized apart, as they are when a model generates. Tools and
tool calls are written by the tokenizer's own chat template; one that has no words for them is refused. Called by
policies/hf.py and training/rows.py; must not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Message, ToolCall
from dpo_driver.core.tool_calls import split_calls, write_calls


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids up to where the assistant's text begins.

    Raises:
        ModelError: the tokenizer has no chat template, or one that leaves out the messages' tools or tool calls.
    """
    if not getattr(tokenizer, "chat_template", None):
        remedy = "use an instruction-tuned model, or add chat_template.jinja to its folder"
        raise ModelError("the tokenizer has no chat template", where=tokenizer.name_or_path, remedy=remedy)
    turns = [as_turn(message) for message in messages]
    tools = json.loads(messages[0].tools) if messages and messages[0].tools else None
    text = _render(tokenizer, turns, tools)
    uncalled = [{key: value for key, value in turn.items() if key != "tool_calls"} for turn in turns]
    unanswered = [turn | {"content": ""} if turn["role"] == "tool" else turn for turn in turns]
    for what, less in (
        ("tools", (turns, None)),
        ("tool calls", (uncalled, tools)),
        ("tool results", (unanswered, tools)),
    ):
        if less != (turns, tools) and _is_all_of(tokenizer, text, *less):
            raise _no_words(what, tokenizer)
    return _ids(tokenizer, text)


def generation_header(tokenizer: Any) -> tuple[int, ...]:
    """Token ids that every prompt ends with, whatever was said: those with which the chat template begins an answer.
    Where it begins answers with nothing (the pocket model's does), the line break that our prompts for it end with.

    Raises:
        ModelError: prompts do not end with the same tokens.
    """
    asked = [{"role": "user", "content": "?"}]
    prompt, before = _render(tokenizer, asked), _render(tokenizer, asked, answer=False)
    header = prompt.removeprefix(before) if prompt.startswith(before) else ""
    if not header:
        header, prompt = "\n", _render(tokenizer, [{"role": "user", "content": "?\n"}])
    ids = _ids(tokenizer, header)
    if _ids(tokenizer, prompt)[-len(ids) :] != ids:
        raise ModelError("the chat template does not begin an answer with tokens of its own",
                         where=tokenizer.name_or_path, remedy="train an adapter without lora.after_prompt")  # fmt: skip
    return tuple(ids)


def as_turn(message: Message) -> dict[str, Any]:
    """A message as chat templates, TRL and OpenAI-like endpoints know it: empty things are left out."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [_as_function(call) for call in message.tool_calls]
    named = {"name": message.name, "tool_call_id": message.tool_call_id}
    return turn | {key: value for key, value in named.items() if value is not None}


def _as_function(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.loads(call.arguments)}
    return {"type": "function", "function": function} | ({} if call.id is None else {"id": call.id})


def encode_completion(tokenizer: Any, text: str) -> list[int]:
    """Token ids of an assistant text, with the end-of-turn token that teaches the model to stop.

    Raises:
        ModelError: the text calls tools, and the chat template has no words for it.
    """
    return [*_ids(tokenizer, _in_own_words(tokenizer, text)), end_id(tokenizer)]


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


def end_ids(tokenizer: Any, model: Any) -> frozenset[int]:
    """All tokens that end a turn when a model generates: the tokenizer's, and what the model's generation settings list
    beside it."""
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    more = [] if listed is None else [listed] if isinstance(listed, int) else list(listed)
    return frozenset({end_id(tokenizer), *map(int, more)})


def _render(tokenizer: Any, turns: Sequence[dict[str, Any]], tools: Any = None, *, answer: bool = True) -> str:
    """The text of turns, up to where an assistant's text begins if ``answer`` is asked for."""
    offered = {"tools": tools} if tools else {}
    # Our own format asks for a thought, so a template's separate thinking mode is left off; others ignore the key.
    try:
        text: str = tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=answer, enable_thinking=False, **offered
        )
    except (TemplateError, TypeError) as error:
        what = f"the chat template refuses the conversation: {str(error).splitlines()[0]}"
        raise ModelError(what, where=tokenizer.name_or_path, remedy="see what its model card allows") from error
    return text


def _is_all_of(tokenizer: Any, text: str, turns: Sequence[dict[str, Any]], tools: Any) -> bool:
    """Whether a text is all that these turns give too: a template leaves out in silence what it has no words for."""
    try:
        return text == _render(tokenizer, turns, tools)
    except ModelError:
        return False  # it misses what was taken away


def _in_own_words(tokenizer: Any, text: str) -> str:
    """An assistant text with its tool calls as this tokenizer's models write them."""
    content, calls = split_calls(text)
    if not calls:
        return text
    asked = [{"role": "user", "content": "?"}]

    def written(content: str, calls: Sequence[ToolCall]) -> str:
        answer = as_turn(Message(role="assistant", content=content, tool_calls=tuple(calls)))
        return _render(tokenizer, [*asked, answer], answer=False)

    sample = [ToolCall(name="sample", arguments='{"of": 1}')]
    if write_calls("", sample) in written("", sample):
        return text  # these models write calls as our records do
    before, whole = _render(tokenizer, asked), written(content, calls)
    if not whole.startswith(before) or any(call.name not in whole for call in calls):
        raise _no_words("tool calls", tokenizer)
    if content.strip() not in whole:
        raise _no_words("a text beside tool calls", tokenizer)
    said, end, _ = whole[len(before) :].rpartition(tokenizer.eos_token or "\0")
    return said if end else whole[len(before) :].rstrip()


def _no_words(what: str, tokenizer: Any) -> ModelError:
    remedy = "use a model that was trained to call tools, or data without them"
    return ModelError(f"the chat template does not write {what}", where=tokenizer.name_or_path, remedy=remedy)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids
