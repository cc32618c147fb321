"""What all dialects share: what is asked, what comes back, and how servers word a refusal. Called by the dialects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dpo_driver.core.errors import DriverError
from dpo_driver.core.records import Message, Sampling


class EndpointError(DriverError):
    """An endpoint that cannot be used as it is asked: a key, an address, a model, a setting."""


@dataclass(frozen=True)
class Asking:
    """A request before it is worded.

    ``limit_key`` is what the server calls ``max_new_tokens``; ``spare`` tokens are added to it, for models that think
    before they answer; ``knows`` are the settings of Sampling beyond temperature and top_p that the server has;
    ``extra`` goes into the body as it is, and a None in it takes a key out.
    """

    model: str
    messages: Sequence[Message]
    sampling: Sampling
    limit_key: str = "max_tokens"
    spare: int = 0
    knows: frozenset[str] = frozenset()
    extra: Mapping[str, Any] | None = None

    @property
    def limit(self) -> int:
        """Most tokens that may come back."""
        return self.sampling.max_new_tokens + self.spare

    def finished(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body with ``extra``."""
        body |= self.extra or {}
        return {key: value for key, value in body.items() if value is not None}


@dataclass(frozen=True)
class Answer:
    """What a server said. Tokens are None where it did not count them."""

    text: str
    finish: Literal["stop", "length"]
    input_tokens: int | None
    output_tokens: int | None


class Dialect(Protocol):
    """The words of one kind of server."""

    path: str  # behind the base address
    auth: str  # the header that carries the key
    headers: Mapping[str, str]

    def body(self, asking: Asking) -> dict[str, Any]:
        """The JSON to send. EndpointError: these servers have no words for it."""
        ...

    def read(self, data: Any) -> Answer:
        """ValueError: this is no answer."""
        ...


def check_plain(messages: Sequence[Message]) -> None:
    """EndpointError where messages hold more than text: our agents write actions, not tool calls."""
    if any(message.role == "tool" or message.tools or message.tool_calls for message in messages):
        raise EndpointError("tools cannot be sent to an endpoint", remedy="use a prompt profile without tools")


def check_penalty(asking: Asking) -> None:
    """EndpointError where a repetition penalty is asked of a server that would ignore it: the record would lie."""
    if asking.sampling.repetition_penalty != 1 and "repetition_penalty" not in asking.knows:
        raise EndpointError("this endpoint has no repetition penalty", where=asking.model,
                            remedy="set repetition_penalty to 1")  # fmt: skip


def count(value: Any) -> int | None:
    """A number of tokens, or None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def text_of(content: Any) -> str:
    """The text of a content: a string, nothing, or parts of which some are text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise ValueError("the content is neither text nor parts")
    return "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")


# -- refusals --------------------------------------------------------------------------------------------------------

_TOO_LONG = re.compile(
    r"context[ _](length|window|size)|prompt is too long|input is too long|input token count|too many input tokens",
    re.IGNORECASE,
)


def problem_of(data: Any) -> tuple[str, Any]:
    """A server's own words for what is wrong, and its code: as OpenAI, Anthropic, Google (a list of one), vLLM and
    FastAPI write them."""
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, dict):
        return (data if isinstance(data, str) else ""), None
    error = data.get("error", data)
    if not isinstance(error, dict):
        return str(error), data.get("code")
    words = error.get("message") or error.get("detail") or error.get("type") or ""
    return str(words), error.get("code") or error.get("type")


def is_too_long(words: str, code: Any) -> bool:
    """Whether the problem is a prompt that does not fit the model."""
    return code == "context_length_exceeded" or bool(_TOO_LONG.search(words))
