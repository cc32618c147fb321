"""A policy that answers from a function: for tests, examples and conformance checks. No model, no tokenizer.

A token is a word with the space before it, and every log-probability is 0.0 (it was certain), so its records have the
shape of a real policy's. Must not import agents or environments.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Sequence

from dpo_driver.core.records import Generation, Message, Sampling

Answer = Callable[[Sequence[Message], Sampling], str]
_WORD = re.compile(r"\s*\S+|\s+")


class ScriptedPolicy:
    """``ScriptedPolicy(lambda messages, sampling: 'thought: go\\naction: click("1")')``.

    Args:
        answer: gives the assistant text for one prompt; it may use ``sampling.seed``.
        version: recorded with every generation.
        max_prompt_chars: a longer prompt comes back with ``finish_reason="error"``, as one that does not fit a model.
    """

    def __init__(self, answer: Answer, *, version: str = "scripted", max_prompt_chars: int = 1_000_000) -> None:
        self._answer = answer
        self._version = hashlib.sha256(version.encode()).hexdigest()[:16]
        self._max_prompt_chars = max_prompt_chars
        self.batches: list[int] = []  # prompts of each generate call, for looking at how calls were batched

    @property
    def version(self) -> str:
        return self._version

    def generate(self, prompts: Sequence[Sequence[Message]], sampling: Sequence[Sampling]) -> list[Generation]:
        """One generation per prompt, in order."""
        self.batches.append(len(prompts))
        return [self._one(messages, how) for messages, how in zip(prompts, sampling, strict=True)]

    def _one(self, messages: Sequence[Message], sampling: Sampling) -> Generation:
        length = sum(len(message.content) for message in messages)
        if length > self._max_prompt_chars:
            return Generation(
                text="", prompt_tokens=length, sampling=sampling, finish_reason="error", policy_version=self._version
            )
        words = _WORD.findall(self._answer(messages, sampling))
        kept = words[: sampling.max_new_tokens]
        return Generation(
            text="".join(kept),
            prompt_tokens=length,
            token_ids=tuple(zlib.crc32(word.encode()) for word in kept),
            logprobs=(0.0,) * len(kept),
            sampling=sampling,
            finish_reason="stop" if len(kept) == len(words) else "length",
            policy_version=self._version,
        )
