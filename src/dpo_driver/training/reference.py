"""Log-probs under the frozen parent: computed once with the same tree pass, kept in safetensors.

The file is named by the hashes of the parent's weights and of the data, so a stale one cannot be picked up. Called by
training/engine.py before the first step, when the model still is its parent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dpo_driver.core import ranks
from dpo_driver.training.batches import Batch, ReferenceSums, step_batch
from dpo_driver.training.logprobs import Scorer
from dpo_driver.training.rows import Example
from dpo_driver.training.tree import Branch


def reference_sums(
    scorer: Scorer, examples: Sequence[Example], *, folder: Path, key: str, tokens_per_pass: int
) -> ReferenceSums:
    """Summed log-prob of every completion under the model as it is now.

    Args:
        scorer: of the parent, inside its session.
        examples: rows whose completions are needed.
        folder: where ``reference-<key>.safetensors`` is kept.
        key: hash of parent and data.
        tokens_per_pass: as in training/batches.py.
    """
    wanted = sorted({branch for example in examples for branch in example.branches})
    path = folder / f"reference-{key}.safetensors"
    sums = ranks.of_main(lambda: _read(path, wanted))
    if sums is None:
        logps = _compute(scorer, examples, tokens_per_pass, wanted)
        if ranks.is_main():
            _write(path, torch.cat(logps), wanted)
        sums = [float(part.sum()) for part in logps]
    return dict(zip(wanted, sums, strict=True))


def _write(path: Path, logps: torch.Tensor, wanted: list[Branch]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    lengths = torch.tensor([len(completion) for _, completion in wanted])
    save_file({"logps": logps, "lengths": lengths}, fresh)
    with fresh.open("rb") as handle:
        os.fsync(handle.fileno())
    fresh.rename(path)


def _read(path: Path, wanted: list[Branch]) -> list[float] | None:
    """What an earlier run kept; None when there is nothing or it is damaged."""
    if not path.is_file():
        return None
    try:
        kept = load_file(path)
    except (SafetensorError, OSError):
        return None
    lengths = kept["lengths"].tolist()
    if lengths != [len(completion) for _, completion in wanted]:
        return None
    return [float(part.sum()) for part in kept["logps"].split(lengths)]


@torch.no_grad()
def _compute(
    scorer: Scorer, examples: Sequence[Example], tokens_per_pass: int, wanted: list[Branch]
) -> list[torch.Tensor]:
    """Per-token log-probs of each wanted completion, without dropout. Each process computes its share."""
    device = next(scorer.model.parameters()).device
    was_training = scorer.model.training
    scorer.model.eval()
    place = {branch: number for number, branch in enumerate(wanted)}
    found: dict[int, torch.Tensor] = {}
    share = step_batch(examples, tokens_per_pass=tokens_per_pass, rank=ranks.rank(), ranks=ranks.count())
    for batch, counts in share.weighted:
        assert isinstance(batch, Batch)
        if counts:
            logps = scorer(batch.forest.to(device)).logps_N.cpu()
            parts = logps.split(batch.forest.lengths.long().tolist())
            found |= {place[branch]: part.clone() for branch, part in zip(batch.branches, parts, strict=True)}
    scorer.model.train(was_training)
    everyones = {number: part for share in ranks.gather(found) for number, part in share.items()}
    return [everyones[number] for number in range(len(wanted))]
