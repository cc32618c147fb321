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
from dpo_driver.core.records import Preference, TrainingSample
from dpo_driver.policies.encoding import encode_completion, encode_prompt

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A row as token ids: a pair (chosen, rejected) or a single sample (chosen, None)."""

    id: str
    prompt: Ids
    chosen: Ids
    rejected: Ids | None
    weight: float

    @property
    def completions(self) -> tuple[Ids, ...]:
        return (self.chosen,) if self.rejected is None else (self.chosen, self.rejected)

    @property
    def length(self) -> int:
        """Tokens of prompt and longest completion."""
        return len(self.prompt) + max(map(len, self.completions))


@dataclass(frozen=True)
class Encoded:
    """Rows that fit, and the names of those that do not."""

    examples: tuple[Example, ...]
    overlong: tuple[str, ...]

    def digest(self) -> str:
        """16 hex digits over everything that is learned from, in order."""
        hasher = hashlib.sha256()
        for e in self.examples:
            hasher.update(repr((e.prompt, e.chosen, e.rejected, e.weight)).encode())
        return hasher.hexdigest()[:16]


def encode_rows(tokenizer: Any, rows: Sequence[Preference | TrainingSample], *, max_length: int) -> Encoded:
    """Turn records into token ids.

    Args:
        tokenizer: of the model to train.
        rows: preferences (pairs) and training samples, mixed as they come.
        max_length: most tokens of prompt and completion together.

    Raises:
        DataError: a preference whose two sides are the same tokens.
    """
    prompts: dict[Any, Ids] = {}
    examples: list[Example] = []
    overlong: list[str] = []
    for row in rows:
        if row.messages not in prompts:
            prompts[row.messages] = tuple(encode_prompt(tokenizer, row.messages))
        pair = isinstance(row, Preference)
        chosen = tuple(encode_completion(tokenizer, row.chosen if pair else row.completion))  # type: ignore[union-attr]
        rejected = tuple(encode_completion(tokenizer, row.rejected)) if isinstance(row, Preference) else None
        if chosen == rejected:
            raise DataError("chosen and rejected are the same", where=f"preference {row.id}", remedy="remove the row")
        example = Example(row.id, prompts[row.messages], chosen, rejected, row.weight)
        if example.length > max_length:
            overlong.append(row.id)
        else:
            examples.append(example)
    return Encoded(tuple(examples), tuple(overlong))
