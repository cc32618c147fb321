"""Chat completions as OpenAI has them, and Gemini's endpoint, Azure, vLLM, Ollama and many others after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpo_driver.policies.dialects.common import Answer, Asking, check_penalty, check_plain, count, text_of


class OpenAIDialect:
    """``POST /chat/completions``."""

    path = "/chat/completions"
    auth = "Authorization"
    headers: Mapping[str, str] = {}

    def body(self, asking: Asking) -> dict[str, Any]:
        """The JSON to send."""
        check_plain(asking.messages)
        check_penalty(asking)
        how = asking.sampling
        body: dict[str, Any] = {
            "model": asking.model,
            "messages": [{"role": message.role, "content": message.content} for message in asking.messages],
            "temperature": how.temperature,
            asking.limit_key: asking.limit,
        }
        if how.top_p < 1:
            body["top_p"] = how.top_p
        if how.seed is not None and "seed" in asking.knows:
            body["seed"] = how.seed
        if how.repetition_penalty != 1:
            body["repetition_penalty"] = how.repetition_penalty
        return asking.finished(body)

    def read(self, data: Any) -> Answer:
        """The first choice. Tokens that a model thought with count as output, whether or not the server lists them
        there: they are billed so."""
        try:
            choice = data["choices"][0]
            text = text_of(choice["message"].get("content"))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError("there is no choice with a message in it") from error
        usage = data.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        given, made, whole = (count(usage.get(f"{kind}_tokens")) for kind in ("prompt", "completion", "total"))
        if given is not None and made is not None and whole is not None:
            made = max(made, whole - given)
        return Answer(text, "length" if choice.get("finish_reason") == "length" else "stop", given, made)
