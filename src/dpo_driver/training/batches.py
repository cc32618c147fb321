"""From examples to batches: which rows make a step, and how a step is cut into forests that fit the memory.

The rows of a step are a pure function of (seed, epoch, step), so a resumed run sees the same order. Rows with the same
prompt share one tree; equal completions of a prompt are computed once. Called by training/trainer.py and reference.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler

from dpo_driver.algorithms.base import Kind, Scored, Totals
from dpo_driver.training.logprobs import Scorer
from dpo_driver.training.rows import Example
from dpo_driver.training.tree import Branch, Forest, Ids, pack, plant

# Log-prob of a completion under the frozen parent, by (prompt, completion).
ReferenceSums = Mapping[Branch, float]


@dataclass(frozen=True, eq=False)
class Batch:
    """A forest and the roles of its completions; shapes as in algorithms/base.py."""

    forest: Forest
    branches: tuple[Branch, ...]  # in the order of the forest's scored segments
    turn_U: Tensor
    side_U: Tensor
    chosen_R: Tensor
    rejected_R: Tensor
    pair_weight_R: Tensor
    sample_M: Tensor
    sample_weight_M: Tensor
    reference_C: Tensor | None
    totals: Totals
    rows: tuple[str, ...]

    @property
    def unshared_tokens(self) -> int:
        return self.forest.unshared_tokens

    def scored(self, scorer: Scorer) -> Scored:
        """What an algorithm is given."""
        tokens = scorer(self.forest)
        return Scored(
            logps_N=tokens.logps_N,
            entropy_N=tokens.entropy_N,
            owner_N=self.forest.owner,
            lengths_C=self.forest.lengths,
            turn_U=self.turn_U,
            side_U=self.side_U,
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


class TreeBatch(Protocol):
    """What the trainer needs of a batch, whatever the algorithm learns from."""

    @property
    def forest(self) -> Forest: ...

    @property
    def rows(self) -> tuple[str, ...]: ...

    @property
    def unshared_tokens(self) -> int:
        """Tokens that computing every completion with its own prompt would take."""
        ...

    def scored(self, scorer: Scorer) -> Any:
        """What the algorithm is given, with the model's log-probs in it."""
        ...

    def to(self, device: Any, non_blocking: bool = False) -> TreeBatch: ...


@dataclass(frozen=True)
class StepBatch:
    """One process's batches of one optimizer step. Every process has equally many: the last ``padding`` of them are
    computed to keep in step with the others, and count nothing."""

    batches: tuple[TreeBatch, ...]
    padding: int = 0

    @property
    def weighted(self) -> Iterator[tuple[TreeBatch, float]]:
        """Each batch and how much its share counts: 1, or 0 for padding."""
        real = len(self.batches) - self.padding
        return ((batch, float(number < real)) for number, batch in enumerate(self.batches))

    def to(self, device: Any, non_blocking: bool = False) -> StepBatch:
        """The same step on a device."""
        return StepBatch(tuple(batch.to(device, non_blocking) for batch in self.batches), self.padding)


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


def step_batch(
    examples: Sequence[Example],
    *,
    tokens_per_pass: int,
    reads_rejected: bool = True,
    reference: ReferenceSums | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> StepBatch:
    """Cut the rows of one step into batches.

    Args:
        examples: the rows of the whole step, also where several processes share it.
        tokens_per_pass: most slots (tokens and padding) of one forest. One row may exceed it, since its turns are
            computed together; rows that share a prompt share it as far as they fit.
        reads_rejected: False leaves the rejected sides out.
        reference: log-probs under the parent of every completion, if the algorithm needs them.
        rank: whose batches; what the shares are shares of is the whole step all the same.
        ranks: how many processes share the step.
    """
    turns = [example.branches if reads_rejected else example.chosen_turns for example in examples]
    # A completion that had to be computed in two forests counts in both.
    computed = sum(len_of({branch for row in bundle for branch in turns[row]})
                   for bundle in bundled(turns, tokens_per_pass))  # fmt: skip
    totals = _totals(examples, computed)
    cut, padding = dealt(turns, tokens_per_pass, rank, ranks)
    batches = tuple(_batch([examples[i] for i in rows], reads_rejected, totals, reference) for rows in cut)
    return StepBatch(batches, padding)


def dealt(
    turns: Sequence[Sequence[Branch]], tokens_per_pass: int, rank: int = 0, ranks: int = 1
) -> tuple[list[list[int]], int]:
    """One process's rows of a step, by forest. Each process can tell without asking what the others have to do.

    Args:
        turns: of each row of the step.
        tokens_per_pass: see :func:`step_batch`.
        rank, ranks: which process of how many.

    Returns:
        The rows of each forest, and how many forests at the end are padding: rows of another forest once more, so that
        all processes compute equally many.
    """
    bundles = bundled(turns, tokens_per_pass)
    if ranks == 1:
        return list(packed(bundles, turns, tokens_per_pass)), 0
    costs = [_cost(bundle, turns) for bundle in bundles]
    shares: list[list[list[int]]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    # The largest first, each to whom has least so far: with ties by number, the same in every process.
    for number in sorted(range(len(bundles)), key=lambda i: (-costs[i], i)):
        least = min(range(ranks), key=lambda i: (load[i], i))
        shares[least].append(bundles[number])
        load[least] += costs[number]
    cut = [list(packed(share, turns, tokens_per_pass)) for share in shares]
    padding = max(map(len, cut)) - len(cut[rank])
    cheapest = bundles[min(range(len(bundles)), key=lambda i: (costs[i], i))]
    return cut[rank] + [list(cheapest)] * padding, padding


def _cost(bundle: Sequence[int], turns: Sequence[Sequence[Branch]]) -> int:
    """Tokens to compute, more or less: prompts that share a beginning are counted in full."""
    branches = {branch for row in bundle for branch in turns[row]}
    return sum(map(len, {prompt for prompt, _ in branches})) + len_of(branches)


def len_of(branches: Iterable[Branch]) -> int:
    """Completion tokens of some branches."""
    return sum(len(completion) for _, completion in branches)


def bundled(turns: Sequence[Sequence[Branch]], tokens_per_pass: int) -> list[list[int]]:
    """Rows that are computed together because they share a prompt, as far as they fit the budget; in order."""
    return [part for bundle in bound(turns) for part in _parts(bundle, turns, tokens_per_pass)]


def _parts(bundle: Sequence[int], turns: Sequence[Sequence[Branch]], tokens_per_pass: int) -> Iterator[list[int]]:
    """A bundle, or pieces of it that fit: memory is kept where it was promised, for the price of the prompt again."""
    part: list[int] = []
    for row in bundle:
        if part and _size([*part, row], turns).slots > tokens_per_pass:
            yield part
            part = []
        part.append(row)
    yield part


def bound(turns: Sequence[Sequence[Branch]]) -> list[list[int]]:
    """Rows that share a prompt, directly or through others; in order."""
    first: dict[Ids, int] = {}
    parent = list(range(len(turns)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for row, branches in enumerate(turns):
        for prompt, _ in branches:
            one, other = root(first.setdefault(prompt, row)), root(row)
            parent[max(one, other)] = min(one, other)
    bundles: dict[int, list[int]] = {}
    for row in range(len(turns)):
        bundles.setdefault(root(row), []).append(row)
    return list(bundles.values())


@dataclass(frozen=True)
class _Size:
    """What a bundle of rows takes in a forest."""

    prompts: int  # trees, at most
    prompt: int  # tokens of the longest prompt
    branch: int  # tokens of the longest row of completions

    @property
    def slots(self) -> int:
        """Of a forest of its own."""
        return self.prompts * (self.prompt + self.branch)


def packed(
    bundles: Sequence[Sequence[int]], turns: Sequence[Sequence[Branch]], tokens_per_pass: int
) -> Iterator[list[int]]:
    """Bundles of like size together, as many as fit the budget, as lists of rows."""
    sizes = [_size(bundle, turns) for bundle in bundles]
    order = sorted(range(len(bundles)), key=lambda i: (sizes[i].prompt, sizes[i].branch))
    group: list[int] = []
    prompts = branch = 0
    for i in order:  # prompts grow, so the newest is the longest
        widest, count = max(branch, sizes[i].branch), prompts + sizes[i].prompts
        if group and count * (sizes[i].prompt + widest) > tokens_per_pass:
            yield group
            group, widest, count = [], sizes[i].branch, sizes[i].prompts
        group += bundles[i]
        branch, prompts = widest, count
    if group:
        yield group


def _size(bundle: Sequence[int], turns: Sequence[Sequence[Branch]]) -> _Size:
    completions: dict[Ids, set[Ids]] = {}
    for row in bundle:
        for prompt, completion in turns[row]:
            completions.setdefault(prompt, set()).add(completion)
    widest = max(sum(map(len, found)) for found in completions.values())
    return _Size(len(completions), max(map(len, completions)), widest)


def _totals(examples: Sequence[Example], tokens: int) -> Totals:
    pairs = [e for e in examples if e.rejected is not None]
    samples = [e for e in examples if e.rejected is None]
    return Totals(
        pairs=float(sum(e.weight for e in pairs)),
        chosen_tokens=float(sum(e.weight * len_of(e.chosen_turns) for e in pairs)),
        samples=float(sum(e.weight for e in samples)),
        sample_tokens=float(sum(e.weight * len(e.chosen) for e in samples)),
        tokens=float(tokens),
    )


def _batch(examples: Sequence[Example], reads_rejected: bool, totals: Totals, reference: ReferenceSums | None) -> Batch:
    numbers: dict[Branch, int] = {}
    for example in examples:
        for branch in example.branches if reads_rejected else example.chosen_turns:
            numbers.setdefault(branch, len(numbers))
    trees, planted = plant(list(numbers))
    branches = [list(numbers)[number] for number in planted]
    place = {branch: at for at, branch in enumerate(branches)}  # scored segments in the forest's order
    sides: dict[tuple[int, ...], int] = {}

    def side(turns: Sequence[Branch]) -> int:
        return sides.setdefault(tuple(place[turn] for turn in turns), len(sides))

    pairs = [
        (side(e.chosen_turns), side(e.rejected_turns if reads_rejected else e.chosen_turns), e.weight)
        for e in examples
        if e.rejected is not None
    ]
    samples = [(place[e.prompt, e.chosen], e.weight) for e in examples if e.rejected is None]
    members = [(turn, number) for turns, number in sides.items() for turn in turns]
    sums = None if reference is None else [reference[branch] for branch in branches]
    return Batch(
        forest=pack(trees),
        branches=tuple(branches),
        turn_U=torch.tensor([m[0] for m in members], dtype=torch.long),
        side_U=torch.tensor([m[1] for m in members], dtype=torch.long),
        chosen_R=torch.tensor([p[0] for p in pairs], dtype=torch.long),
        rejected_R=torch.tensor([p[1] for p in pairs], dtype=torch.long),
        pair_weight_R=torch.tensor([p[2] for p in pairs], dtype=torch.float32),
        sample_M=torch.tensor([s[0] for s in samples], dtype=torch.long),
        sample_weight_M=torch.tensor([s[1] for s in samples], dtype=torch.float32),
        reference_C=None if sums is None else torch.tensor(sums, dtype=torch.float32),
        totals=totals,
        rows=tuple(example.id for example in examples),
    )
