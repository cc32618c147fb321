"""Guesses at what a model is about to write, so that one pass can check several tokens instead of making one.

An agent's text is mostly foreseeable: it copies names from the page, and its form repeats from decision to decision. A
guess never changes what is written, only how fast: policies/hf.py keeps it as far as the model's own draws agree. Must
not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

ORDER = 3  # tokens that an earlier completion must share to be followed
MOST_LEARNED = 100_000

Table = dict[tuple[int, int], int]


def prompt_table(prompt: Sequence[int]) -> Table:
    """What followed each two tokens of a prompt, the last time they stood there."""
    return dict(zip(pairwise(prompt), prompt[2:], strict=False))


class Drafts:
    """Learns from finished completions; proposes from those and from the prompt."""

    def __init__(self) -> None:
        self._learned: dict[tuple[int, ...], int] = {}

    def learn(self, ids: Sequence[int]) -> None:
        """Remember a completion."""
        if len(self._learned) > MOST_LEARNED:
            self._learned.clear()
        for i in range(1, len(ids)):
            self._learned[tuple(ids[max(0, i - ORDER) : i])] = ids[i]

    def propose(self, table: Table, ids: Sequence[int], most: int) -> list[int]:
        """Up to ``most`` tokens that may follow ``ids``, the completion so far.

        Args:
            table: the prompt's.
        """
        known, proposed = list(ids[-ORDER:]), list[int]()
        while len(proposed) < most:
            token = self._learned.get(tuple(known[-ORDER:]))
            if token is None and len(known) > 1:
                token = table.get((known[-2], known[-1]))
            if token is None:
                break
            proposed.append(token)
            known.append(token)
        return proposed
