"""Anthropic's own messages API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpo_driver.policies.dialects.common import (
    Answer,
    Asking,
    EndpointError,
    check_penalty,
    check_plain,
    count,
    text_of,
)

_CUT = {"max_tokens", "model_context_window_exceeded"}


class AnthropicDialect:
    """``POST /messages``: the system prompt stands apart, and turns alternate."""

    path = "/messages"
    auth = "x-api-key"
    headers: Mapping[str, str] = {"anthropic-version": "2023-06-01"}

    def body(self, asking: Asking) -> dict[str, Any]:
        """The JSON to send."""
        check_plain(asking.messages)
        check_penalty(asking)
        how = asking.sampling
        if how.temperature > 1:
            raise EndpointError(f"temperature {how.temperature:g} is more than these models take",
                                where=asking.model, remedy="Anthropic's go up to 1")  # fmt: skip
        system = [message.content for message in asking.messages if message.role == "system"]
        body: dict[str, Any] = {
            "model": asking.model,
            "messages": [
                {"role": message.role, "content": message.content}
                for message in asking.messages
                if message.role != "system"
            ],
            "max_tokens": asking.limit,
            "temperature": how.temperature,
        }
        if system:
            body["system"] = "\n\n".join(system)
        if how.top_p < 1:
            body["top_p"] = how.top_p
        return asking.finished(body)

    def read(self, data: Any) -> Answer:
        """All text blocks. What was read from a cache or written to one is input as well."""
        if not isinstance(data, dict) or not isinstance(data.get("content"), list):
            raise ValueError("there is no list of content blocks")
        usage = data.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        given = count(usage.get("input_tokens"))
        if given is not None:
            given += sum(count(usage.get(f"cache_{kind}_input_tokens")) or 0 for kind in ("creation", "read"))
        finish = "length" if data.get("stop_reason") in _CUT else "stop"
        return Answer(text_of(data["content"]), finish, given, count(usage.get("output_tokens")))  # type: ignore[arg-type]
