"""From examples to batches: which rows make a step, and how a step is cut into forests that fit the memory.

The rows of a step are a pure function of (seed, epoch, step), so a resumed run sees the same order. Rows with the same
prompt share one tree; equal completions of a prompt are computed once. Called by training/trainer.py and reference.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler

from dpo_driver.algorithms.base import Kind, Scored, Totals
from dpo_driver.training.rows import Example, Ids
from dpo_driver.training.tree import Forest, Tree, pack

# Log-prob of a completion under the frozen parent, by (prompt, completion).
ReferenceSums = Mapping[tuple[Ids, Ids], float]


@dataclass(frozen=True, eq=False)
class Batch:
    """A forest and the roles of its completions; shapes as in algorithms/base.py."""

    forest: Forest
    chosen_R: Tensor
    rejected_R: Tensor
    pair_weight_R: Tensor
    sample_M: Tensor
    sample_weight_M: Tensor
    reference_C: Tensor | None
    totals: Totals
    rows: tuple[str, ...]

    def scored(self, logps_N: Tensor) -> Scored:
        """What an algorithm is given."""
        return Scored(
            logps_N=logps_N,
            owner_N=self.forest.owner,
            lengths_C=self.forest.lengths,
            chosen_R=self.chosen_R,
            rejected_R=self.rejected_R,
            pair_weight_R=self.pair_weight_R,
            sample_M=self.sample_M,
            sample_weight_M=self.sample_weight_M,
            totals=self.totals,
            reference_C=self.reference_C,
        )

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        """The same batch on a device."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=non_blocking)
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor | Forest)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class StepBatch:
    """All batches of one optimizer step."""

    batches: tuple[Batch, ...]

    def to(self, device: Any, non_blocking: bool = False) -> StepBatch:
        """The same step on a device."""
        return StepBatch(tuple(batch.to(device, non_blocking) for batch in self.batches))


class StepSampler(BatchSampler):
    """Row numbers of each step of an epoch.

    An epoch passes once over the rows of the kind that the algorithm learns from. Beside pairs, every step also gets as
    many samples as pairs (replay), going round them in shuffled order.

    Args:
        examples: all rows.
        batch_size: pairs (or samples) per step.
        seed: of the order.
        learns_from: the kind of row that an epoch counts.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int, learns_from: Kind) -> None:
        pairs = [i for i, example in enumerate(examples) if example.rejected is not None]
        samples = [i for i, example in enumerate(examples) if example.rejected is None]
        self._main, self._replay = (pairs, samples) if learns_from == "pairs" else (samples, [])
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self._replay_count = min(batch_size, len(self._replay))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._main) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._shuffled(self._main, 0, self.epoch)
        for step in range(len(self)):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            first = (self.epoch * len(self) + step) * self._replay_count
            yield rows + [self._replayed(first + i) for i in range(self._replay_count)]

    def _replayed(self, number: int) -> int:
        lap, place = divmod(number, len(self._replay))
        return self._shuffled(self._replay, 1, lap)[place]

    def _shuffled(self, rows: list[int], stream: int, lap: int) -> list[int]:
        order = np.random.default_rng((self.seed, stream, lap)).permutation(len(rows))
        return [rows[i] for i in order]


@dataclass
class _Branches:
    """The different completions of one prompt."""

    index: dict[Ids, int]
    pairs: list[tuple[int, int, float]]
    samples: list[tuple[int, float]]
    rows: list[str]

    def number(self, completion: Ids) -> int:
        return self.index.setdefault(completion, len(self.index))

    @property
    def tokens(self) -> int:
        return sum(map(len, self.index))


def step_batch(
    examples: Sequence[Example],
    *,
    tokens_per_pass: int,
    reads_rejected: bool = True,
    reference: ReferenceSums | None = None,
) -> StepBatch:
    """Cut the rows of one step into batches.

    Args:
        examples: the rows.
        tokens_per_pass: most slots (tokens and padding) of one forest; a single tree may exceed it.
        reads_rejected: False leaves the rejected sides out.
        reference: log-probs under the parent of every completion, if the algorithm needs them.
    """
    trees = _grouped(examples, reads_rejected)
    totals = _totals(examples)
    ordered = sorted(trees.items(), key=lambda item: (len(item[0]), item[1].tokens))
    batches = []
    for group in _cut(ordered, tokens_per_pass):
        batches.append(_batch(group, totals, reference))
    return StepBatch(tuple(batches))


def _grouped(examples: Sequence[Example], reads_rejected: bool) -> dict[Ids, _Branches]:
    trees: dict[Ids, _Branches] = {}
    for example in examples:
        tree = trees.setdefault(example.prompt, _Branches({}, [], [], []))
        tree.rows.append(example.id)
        chosen = tree.number(example.chosen)
        if example.rejected is None:
            tree.samples.append((chosen, example.weight))
        else:
            rejected = tree.number(example.rejected) if reads_rejected else chosen
            tree.pairs.append((chosen, rejected, example.weight))
    return trees


def _totals(examples: Sequence[Example]) -> Totals:
    pairs = [e for e in examples if e.rejected is not None]
    samples = [e for e in examples if e.rejected is None]
    return Totals(
        pairs=float(sum(e.weight for e in pairs)),
        chosen_tokens=float(sum(e.weight * len(e.chosen) for e in pairs)),
        samples=float(sum(e.weight for e in samples)),
        sample_tokens=float(sum(e.weight * len(e.chosen) for e in samples)),
    )


def _cut(ordered: list[tuple[Ids, _Branches]], budget: int) -> Iterator[list[tuple[Ids, _Branches]]]:
    group: list[tuple[Ids, _Branches]] = []
    branch = 0
    for prompt, tree in ordered:  # prompts grow, so the newest is the longest
        widest = max(branch, tree.tokens)
        if group and (len(group) + 1) * (len(prompt) + widest) > budget:
            yield group
            group, widest = [], tree.tokens
        group.append((prompt, tree))
        branch = widest
    if group:
        yield group


def _batch(group: list[tuple[Ids, _Branches]], totals: Totals, reference: ReferenceSums | None) -> Batch:
    pairs: list[tuple[int, int, float]] = []
    samples: list[tuple[int, float]] = []
    sums: list[float] = []
    offset = 0
    for prompt, tree in group:
        pairs += [(chosen + offset, rejected + offset, weight) for chosen, rejected, weight in tree.pairs]
        samples += [(chosen + offset, weight) for chosen, weight in tree.samples]
        if reference is not None:
            sums += [reference[prompt, completion] for completion in tree.index]
        offset += len(tree.index)
    return Batch(
        forest=pack([Tree.star(prompt, list(tree.index)) for prompt, tree in group]),
        chosen_R=torch.tensor([p[0] for p in pairs], dtype=torch.long),
        rejected_R=torch.tensor([p[1] for p in pairs], dtype=torch.long),
        pair_weight_R=torch.tensor([p[2] for p in pairs], dtype=torch.float32),
        sample_M=torch.tensor([s[0] for s in samples], dtype=torch.long),
        sample_weight_M=torch.tensor([s[1] for s in samples], dtype=torch.float32),
        reference_C=torch.tensor(sums, dtype=torch.float32) if reference is not None else None,
        totals=totals,
        rows=tuple(row for _, tree in group for row in tree.rows),
    )
