"""OpenAI's chat completions: requests read with care, answers and errors in its form. Knows no models."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dpo_driver.core.records import Generation, Message, Sampling

# What a client may send beside what is read below, as long as it asks for nothing that is not done here.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "presence_penalty": (0, 0.0), "frequency_penalty": (0, 0.0), "tools": ([],), "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},), "top_logprobs": (0,), "logit_bias": ({},), "parallel_tool_calls": (True,),
    "store": (False,), "metadata": ({},), "modalities": (["text"],), "service_tier": ("auto", "default"),
}  # fmt: skip
_READ = frozenset(
    "model messages temperature top_p max_tokens max_completion_tokens n seed stop stream stream_options user logprobs "
    "repetition_penalty".split()
)
MOST_CHOICES, MOST_STOPS, MOST_STOP = 16, 4, 200


class RequestError(Exception):
    """A request that is refused: HTTP status, words, OpenAI's code, and the parameter that is to blame."""

    def __init__(self, status: int, words: str, code: str, param: str | None = None, retry_s: float = 0.0) -> None:
        super().__init__(words)
        self.status, self.words, self.code, self.param, self.retry_s = status, words, code, param, retry_s

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.words, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class ChatRequest:
    """What is asked for. ``stop``: texts before which an answer ends."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    choices: int
    stop: tuple[str, ...]
    stream: bool
    usage_in_stream: bool
    logprobs: bool
    user: str


def parse_chat(content: bytes, *, default_tokens: int, most_tokens: int) -> ChatRequest:
    """Read the body of a request.

    Args:
        content: JSON.
        default_tokens: new tokens where the request names no limit.
        most_tokens: more are refused.

    Raises:
        RequestError: it is no request that can be answered here; the parameter is named.
    """
    try:
        body = json.loads(content)
    except ValueError:
        raise RequestError(400, "the body is no JSON", "invalid_json") from None
    if not isinstance(body, dict):
        raise RequestError(400, "the body is no JSON object", "invalid_json")
    given = {key: value for key, value in body.items() if value is not None}
    for key, value in given.items():
        if key not in _READ and not (key in _NEUTRAL and value in _NEUTRAL[key]):
            known = "is not done here" if key in _NEUTRAL else "is not known"
            raise RequestError(400, f"the parameter {key!r} {known}", "unsupported_parameter", key)
    tokens = _whole(given, "max_completion_tokens", 1) or _whole(given, "max_tokens", 1) or default_tokens
    if tokens > most_tokens:
        raise RequestError(400, f"at most {most_tokens} new tokens", "max_tokens_exceeded", "max_tokens")
    sampling = _sampling(given, tokens)
    options = given.get("stream_options", {})
    if not isinstance(options, dict):
        raise RequestError(400, "stream_options is no object", "invalid_type", "stream_options")
    return ChatRequest(
        model=_text(given, "model"),
        messages=_messages(given.get("messages")),
        sampling=sampling,
        choices=_whole(given, "n", 1, MOST_CHOICES) or 1,
        stop=_stops(given.get("stop", [])),
        stream=_flag(given, "stream"),
        usage_in_stream=bool(options.get("include_usage")),
        logprobs=_flag(given, "logprobs"),
        user=_text(given, "user", needed=False),
    )


def _sampling(given: dict[str, Any], tokens: int) -> Sampling:
    values: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": tokens}
    values |= {key: given[key] for key in ("temperature", "top_p", "seed", "repetition_penalty") if key in given}
    try:
        found = Sampling.model_validate(values, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise RequestError(400, f"{name}: {first['msg']}", "invalid_value", name) from None
    if found.temperature > 2:
        raise RequestError(400, "temperature is above 2", "invalid_value", "temperature")
    return found


def _messages(given: Any) -> tuple[Message, ...]:
    if not isinstance(given, list) or not given:
        raise RequestError(400, "messages is no list of messages", "invalid_type", "messages")
    found = []
    for number, each in enumerate(given):
        param = f"messages[{number}]"
        if not isinstance(each, dict):
            raise RequestError(400, "a message is no object", "invalid_type", param)
        role = {"developer": "system"}.get(str(each.get("role")), each.get("role"))
        if role not in ("system", "user", "assistant"):
            raise RequestError(400, f"no role {role!r} here: system, user or assistant", "invalid_value", param)
        found.append(Message(role=role, content=_content(each.get("content"), param)))
    if found[-1].role == "assistant":
        raise RequestError(400, "the last message is the assistant's own", "invalid_value", "messages")
    return tuple(found)


def _content(given: Any, param: str) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, list) and all(isinstance(part, dict) for part in given):
        if all(part.get("type") == "text" and isinstance(part.get("text"), str) for part in given):
            return "".join(part["text"] for part in given)
        raise RequestError(400, "only parts of text are read here", "unsupported_content", param)
    raise RequestError(400, "the content is no text", "invalid_type", param)


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or not all(isinstance(each, str) and 0 < len(each) <= MOST_STOP for each in stops):
        raise RequestError(400, "stop is no text and no list of texts", "invalid_type", "stop")
    if len(stops) > MOST_STOPS:
        raise RequestError(400, f"at most {MOST_STOPS} texts to stop at", "invalid_value", "stop")
    return tuple(stops)


def _text(given: dict[str, Any], key: str, *, needed: bool = True) -> str:
    value = given.get(key, "")
    if not isinstance(value, str) or (needed and not value):
        raise RequestError(400, f"{key} is no text", "invalid_type", key)
    return value[:256]


def _flag(given: dict[str, Any], key: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise RequestError(400, f"{key} is neither true nor false", "invalid_type", key)
    return value


def _whole(given: dict[str, Any], key: str, least: int, most: int | None = None) -> int:
    """A whole number, or 0 where none is given."""
    value = given.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        limits = f"from {least} on" if most is None else f"from {least} to {most}"
        raise RequestError(400, f"{key} is no whole number {limits}", "invalid_value", key)
    return value


# -- answers ---------------------------------------------------------------------------------------------------------


def new_id() -> str:
    """A name for a completion; feedback gives it back."""
    return f"chatcmpl-{uuid.uuid4().hex}"


def usage_of(answers: Sequence[Generation]) -> dict[str, int]:
    """Tokens of one prompt and of all its answers."""
    prompt, made = answers[0].prompt_tokens, sum(len(answer.token_ids) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def completion(
    name: str, model: str, texts: Sequence[str], answers: Sequence[Generation], logprobs: Sequence[Any]
) -> dict[str, Any]:
    """The whole answer. ``logprobs`` holds an object or None for each choice."""
    return {
        "id": name, "object": "chat.completion", "created": int(time.time()), "model": model,
        "choices": [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": answer.finish_reason,
             "logprobs": detail}
            for i, (text, answer, detail) in enumerate(zip(texts, answers, logprobs, strict=True))
        ],
        "usage": usage_of(answers),
    }  # fmt: skip


def chunk(
    name: str, model: str, index: int, delta: Mapping[str, Any] | None, finish: str | None = None,
    usage: Mapping[str, int] | None = None,
) -> bytes:  # fmt: skip
    """One event of a stream; ``delta`` None: the closing one, with the usage and no choices."""
    choices = [] if delta is None else [{"index": index, "delta": dict(delta), "finish_reason": finish}]
    body: dict[str, Any] = {"id": name, "object": "chat.completion.chunk", "created": int(time.time()), "model": model,
                            "choices": choices}  # fmt: skip
    if usage is not None:
        body["usage"] = dict(usage)
    return event(body)


def event(body: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
