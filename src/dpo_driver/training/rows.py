"""Records to token ids: what the engine trains on, and what it had to leave out.

Called by training/engine.py and the benchmark. A row too long for the model is never cut and never dropped silently:
its name comes back in ``Encoded.overlong``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Message, Preference, TrainingSample
from dpo_driver.policies.encoding import encode_completion, encode_prompt
from dpo_driver.training.tree import Branch, Ids


@dataclass(frozen=True, slots=True)
class Example:
    """A row as token ids: a pair (chosen, rejected) or a single sample (chosen, None). A pair of whole trajectories has
    the turns after the first in ``chosen_more`` and ``rejected_more``."""

    id: str
    prompt: Ids
    chosen: Ids
    rejected: Ids | None
    weight: float
    chosen_more: tuple[Branch, ...] = ()
    rejected_more: tuple[Branch, ...] = ()

    @property
    def chosen_turns(self) -> tuple[Branch, ...]:
        """All that the model wrote on the better side: prompt and completion of each turn."""
        return ((self.prompt, self.chosen), *self.chosen_more)

    @property
    def rejected_turns(self) -> tuple[Branch, ...]:
        """The same for the worse side; empty for a sample."""
        return () if self.rejected is None else ((self.prompt, self.rejected), *self.rejected_more)

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (*self.chosen_turns, *self.rejected_turns)

    @property
    def prompt_length(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(prompt) for prompt, _ in self.branches)

    @property
    def length(self) -> int:
        """Tokens of the longest prompt with its completion."""
        return max(len(prompt) + len(completion) for prompt, completion in self.branches)


@dataclass(frozen=True)
class Encoded:
    """Rows that fit, and the names of those that do not."""

    examples: tuple[Example, ...]
    overlong: tuple[str, ...]

    def digest(self) -> str:
        """16 hex digits over everything that is learned from, in order."""
        hasher = hashlib.sha256()
        for e in self.examples:
            hasher.update(repr((e.chosen_turns, e.rejected_turns, e.weight)).encode())
        return hasher.hexdigest()[:16]


def encode_rows(
    tokenizer: Any,
    rows: Sequence[Preference | TrainingSample],
    *,
    max_length: int,
    max_prompt_length: int | None = None,
) -> Encoded:
    """Turn records into token ids.

    Args:
        tokenizer: of the model to train.
        rows: preferences (pairs) and training samples, mixed as they come.
        max_length: most tokens of prompt and completion together.
        max_prompt_length: most tokens of a prompt alone; no such limit when None.

    Raises:
        DataError: a preference whose two sides are the same tokens.
    """
    encode = _Encoder(tokenizer)
    examples: list[Example] = []
    overlong: list[str] = []
    for row in rows:
        example = encode.row(row)
        too_long = max_prompt_length is not None and example.prompt_length > max_prompt_length
        if too_long or example.length > max_length:
            overlong.append(row.id)
        else:
            examples.append(example)
    return Encoded(tuple(examples), tuple(overlong))


class _Encoder:
    """Prompts are encoded once each: many rows share theirs."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._prompts: dict[Any, Ids] = {}

    def row(self, row: Preference | TrainingSample) -> Example:
        prompt = self._prompt(row.messages)
        if isinstance(row, TrainingSample):
            return Example(row.id, prompt, self._completion(row.completion), None, row.weight)
        example = Example(
            row.id,
            prompt,
            self._completion(row.chosen),
            self._completion(row.rejected),
            row.weight,
            tuple((self._prompt(turn.messages), self._completion(turn.completion)) for turn in row.chosen_more),
            tuple((self._prompt(turn.messages), self._completion(turn.completion)) for turn in row.rejected_more),
        )
        if example.chosen_turns == example.rejected_turns:
            raise DataError("chosen and rejected are the same", where=f"preference {row.id}", remedy="remove the row")
        return example

    def _prompt(self, messages: tuple[Message, ...]) -> Ids:
        if messages not in self._prompts:
            self._prompts[messages] = tuple(encode_prompt(self._tokenizer, messages))
        return self._prompts[messages]

    def _completion(self, text: str) -> Ids:
        return tuple(encode_completion(self._tokenizer, text))
