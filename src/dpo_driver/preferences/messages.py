"""Message lists as TRL and OpenAI write them, to and from our records: roles, contents, tools, tool calls.

Called by formats.py. A value that does not fit raises RowError; what a record cannot hold (pictures, a separate
reasoning text) is refused by name, never passed over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dpo_driver.core.records import Message, ToolCall, Turn
from dpo_driver.core.tool_calls import split_calls, write_calls
from dpo_driver.preferences.jsonl import RowError, kind_of

ROLES = ("system", "user", "assistant", "tool")
# Keys of a message that chat templates render and our records do not have.
_NOT_READ = ("reasoning_content", "reasoning", "thinking", "images", "image", "audio", "function_call", "refusal")


def parse_prompt(value: Any, tools: Any = None) -> tuple[Message, ...]:
    """A prompt column: a list of messages, or a text, which becomes one user message. ``tools`` is TRL's column."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise RowError(f"'prompt' must be a text or a list of messages, not {kind_of(value)}")
    messages = parse_messages("prompt", value)
    if not any(message.content.strip() or message.tool_calls for message in messages):
        raise RowError("'prompt' is empty")
    return offering(messages, tools)


def offering(messages: Sequence[Message], tools: Any) -> tuple[Message, ...]:
    """A prompt whose first message offers the tools of a ``tools`` column."""
    schemas = parse_tools(tools)
    if not schemas:
        return tuple(messages)
    return (messages[0].model_copy(update={"tools": schemas}), *messages[1:])


def parse_messages(key: str, value: Sequence[Any]) -> tuple[Message, ...]:
    """A list of messages; ``key`` names the column in errors."""
    return tuple(_message(key, item) for item in value)


def parse_tools(value: Any) -> str:
    """A ``tools`` column, a list of function schemas or its JSON text, as the JSON text; empty when there are none."""
    if isinstance(value, str) and value.strip():
        value = _json("'tools'", value)
    if value in (None, "", []):
        return ""
    if not isinstance(value, list):
        raise RowError(f"'tools' must be a list of function schemas, not {kind_of(value)}")
    for schema in value:
        function = schema.get("function", schema) if isinstance(schema, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowError("'tools' must hold function schemas with a name")
    return json.dumps(value, ensure_ascii=False)


def turns_of(key: str, prompt: Sequence[Message], said: Sequence[Message]) -> tuple[Turn, ...]:
    """Every assistant's message in what follows a prompt, as a turn: all that came before it, and its text.

    Raises:
        RowError: it does not begin and end with the assistant, or an assistant's message is empty.
    """
    if not said or said[0].role != "assistant" or said[-1].role != "assistant":
        raise RowError(f"{key!r} must begin and end with an assistant message")
    turns = []
    for index, message in enumerate(said):
        if message.role == "assistant":
            text = text_of(message)
            if not text.strip():
                raise RowError(f"{key!r} is empty" if len(said) == 1 else f"{key!r}: message {index + 1} is empty")
            turns.append(Turn(messages=(*prompt, *said[:index]), completion=text))
    return tuple(turns)


def text_of(message: Message) -> str:
    """What the assistant wrote: its content and its tool calls."""
    return write_calls(message.content, message.tool_calls)


def message_of(text: str) -> Message:
    """An assistant's text as a message; :func:`text_of` gives the text back."""
    content, calls = split_calls(text)
    return Message(role="assistant", content=content, tool_calls=calls)


def _message(key: str, item: Any) -> Message:
    if not isinstance(item, dict):
        raise RowError(f"{key!r} must hold messages with role and content, not {kind_of(item)}")
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        raise RowError(f"{key!r}: a message's role must be system, user, assistant or tool, not {role!r}")
    lost = next((name for name in _NOT_READ if item.get(name)), None)
    if lost is not None:
        raise RowError(f"{key!r}: a message's {lost!r} cannot be kept; only its content and tool calls can")
    calls = tuple(_call(key, call) for call in _listed(key, item.get("tool_calls")))
    if calls and role != "assistant":
        raise RowError(f"{key!r}: only an assistant message may have tool_calls")
    if isinstance(content, list):
        content = "".join(_part(key, part) for part in content)
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise RowError(f"{key!r}: a message's content must be a text, not {kind_of(content)}")
    named = {name: _text_or_none(key, item, name) for name in ("name", "tool_call_id")}
    return Message(role=role, content=content, tool_calls=calls, **named)


def _listed(key: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise RowError(f"{key!r}: tool_calls must be a list, not {kind_of(value)}")
    return value


def _call(key: str, call: Any) -> ToolCall:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(f"{key!r}: a tool call must say which function it calls")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _json(f"{key!r}: a tool call's arguments", arguments or "{}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise RowError(f"{key!r}: a tool call's arguments must be an object, not {kind_of(arguments)}")
    written = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(name=function["name"], arguments=written, id=_text_or_none(key, call, "id"))


def _part(key: str, part: Any) -> str:
    """A piece of a content that is a list, as models with eyes have it."""
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else kind_of(part)
    raise RowError(f"{key!r}: a message's content must be a text; it holds {kind!r}")


def _text_or_none(key: str, item: dict[str, Any], name: str) -> str | None:
    value = item.get(name)
    if value is not None and not isinstance(value, str):
        raise RowError(f"{key!r}: {name!r} must be a text, not {kind_of(value)}")
    return value


def _json(what: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RowError(f"{what} must be JSON: {error}") from None
