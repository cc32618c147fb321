"""Which of two answers a saved model finds more probable: what preference training is measured by on held-out pairs.

Loads the model from its folder, so what is measured is what was saved. Called by flywheel/roles.py, in the main process
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dpo_driver.core.records import Preference
from dpo_driver.core.schema_training import ModelConfig
from dpo_driver.policies.loading import load_model, load_tokenizer
from dpo_driver.training.batches import Batch, step_batch
from dpo_driver.training.logprobs import Scorer
from dpo_driver.training.rows import encode_rows
from dpo_driver.training.tree import Branch


@dataclass(frozen=True)
class Ranked:
    """One pair under one model: natural-log probabilities of whole answers, and their tokens."""

    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    @property
    def right(self) -> bool:
        """The chosen answer is the more probable one per token; by the sum the shorter one would nearly always be."""
        return self.chosen / self.chosen_tokens > self.rejected / self.rejected_tokens

    def reward_margin(self, parent: Ranked, beta: float) -> float:
        """DPO's reward of chosen minus that of rejected, against the parent's figures of the same pair."""
        return beta * ((self.chosen - parent.chosen) - (self.rejected - parent.rejected))


@torch.no_grad()
def rank(
    source: str | Path, rows: Sequence[Preference], config: ModelConfig, tokens_per_pass: int = 4096
) -> dict[str, Ranked]:
    """Every pair under a model, by the pair's id; those that are too long for ``config`` are left out.

    Args:
        source: a model's folder or hub id, or an adapter's folder.
        rows: pairs with ids of their own.
        config: dtype, device, quantisation and the longest row.
        tokens_per_pass: see training/batches.py.
    """
    model = load_model(source, dtype=config.dtype, device=config.device, quantization=config.quantization)
    encoded = encode_rows(
        load_tokenizer(source), rows, max_length=config.max_length, max_prompt_length=config.max_prompt_length
    )
    device = next(model.parameters()).device
    sums: dict[Branch, float] = {}
    with Scorer(model).session() as scorer:
        for batch in step_batch(encoded.examples, tokens_per_pass=tokens_per_pass).batches:
            assert isinstance(batch, Batch)
            logps = scorer(batch.forest.to(device)).logps_N.cpu()
            parts = logps.split(batch.forest.lengths.long().tolist())
            sums |= {branch: float(part.sum()) for branch, part in zip(batch.branches, parts, strict=True)}
    return {
        one.id: Ranked(
            sum(sums[turn] for turn in one.chosen_turns),
            sum(sums[turn] for turn in one.rejected_turns),
            sum(len(completion) for _, completion in one.chosen_turns),
            sum(len(completion) for _, completion in one.rejected_turns),
        )
        for one in encoded.examples
    }
