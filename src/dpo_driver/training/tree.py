"""Prefix trees: prompts with any number of branching completions, laid out so that each prompt is computed once.

A *tree* is a list of segments; the first is the prompt (the root), every other names its parent. A *forest* is a
batch of trees as tensors: one flat sequence of real tokens (no padding for the linear layers) and, for attention,
where each tree's prompt and branches lie in padded rows. Called by training/batches.py and training/logprobs.py;
knows no model.

Shapes: T real tokens, B trees, P longest prompt, S longest row of branch tokens, N scored tokens, C scored segments,
U predicting tokens, Q the most of them in a tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = -1
LONG = 256  # tokens that prompts must have in common before they are put on one tree

Ids = tuple[int, ...]
Branch = tuple[Ids, Ids]  # prompt, completion


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens that follows its parent. ``Segment((5, 6), parent=0)`` continues the prompt; ``scored`` segments
    are completions, whose log-probs come out."""

    ids: tuple[int, ...]
    parent: int = ROOT
    scored: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """Segments in an order where parents come first. Segment 0 is the prompt and the only root."""

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        for i, segment in enumerate(self.segments):
            if not segment.ids:
                raise ValueError(f"segment {i} is empty")
            if (i == 0) != (segment.parent == ROOT) or segment.parent >= i:
                raise ValueError(
                    f"segment {i} has parent {segment.parent}: parents come first and only segment 0 is a root"
                )
        if self.segments[0].scored:
            raise ValueError("the first token of a prompt has no prediction: a prompt cannot be scored")

    @classmethod
    def star(cls, prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> Tree:
        """One prompt and the completions that branch from its end."""
        return cls((Segment(tuple(prompt)), *(Segment(tuple(ids), 0, True) for ids in completions)))

    @property
    def tokens(self) -> int:
        """Tokens computed: each segment once."""
        return sum(len(segment.ids) for segment in self.segments)

    @property
    def unshared_tokens(self) -> int:
        """Tokens that computing every scored segment with its whole prefix would take."""
        depth: list[int] = []
        for segment in self.segments:
            depth.append(len(segment.ids) + (depth[segment.parent] if segment.parent != ROOT else 0))
        return sum(depth[i] for i, segment in enumerate(self.segments) if segment.scored)

    def path(self, index: int) -> list[int]:
        """All token ids from the root to the end of a segment."""
        segment = self.segments[index]
        return (self.path(segment.parent) if segment.parent != ROOT else []) + list(segment.ids)


def plant(branches: Sequence[Branch]) -> tuple[list[Tree], list[int]]:
    """Trees that hold every branch, with what prompts have in common computed once.

    Completions of one prompt always branch from it. A prompt that goes on from another branch (the turns of one
    conversation), or shares a long beginning with others (a common system prompt), is put on the same tree where at
    least half of it is shared and ``LONG`` tokens are: attention among branches costs their square, so less than that
    would cost more than it saves.

    Args:
        branches: prompt and completion each; no branch twice.

    Returns:
        The trees, and for each scored segment, in order of trees and segments, the number of its branch.
    """
    by_prompt: dict[Ids, list[int]] = {}
    for number, (prompt, _) in enumerate(branches):
        by_prompt.setdefault(prompt, []).append(number)
    trees, numbers = [], []
    for stem, prompts in _clusters(sorted(by_prompt)):
        segments, scored = [Segment(stem)], []
        ends = {stem: 0}  # every token path that ends with a segment -> that segment
        for prompt in prompts:
            depths = sorted({len(path) for path in ends}, reverse=True)
            host = next(prompt[:n] for n in depths if n <= len(prompt) and prompt[:n] in ends)
            at = ends[host]
            if len(host) < len(prompt):
                segments.append(Segment(prompt[len(host) :], at))
                at = ends[prompt] = len(segments) - 1
            for number in by_prompt[prompt]:
                completion = branches[number][1]
                segments.append(Segment(completion, at, True))
                ends.setdefault(prompt + completion, len(segments) - 1)
                scored.append(number)
        trees.append(Tree(tuple(segments)))
        numbers += scored
    return trees, numbers


def _clusters(prompts: Sequence[Ids]) -> Iterator[tuple[Ids, list[Ids]]]:
    """Sorted prompts in runs that share at least half of the longest, with what they share."""
    run: list[Ids] = []
    stem: Ids = ()
    for prompt in prompts:
        common = stem[: _common(stem, prompt)] if run else prompt
        if run and not _worth(len(common), max(len(prompt), max(map(len, run)))):
            yield stem, run
            run, common = [], prompt
        run.append(prompt)
        stem = common
    if run:
        yield stem, run


def _worth(shared: int, longest: int) -> bool:
    return shared >= LONG and 2 * shared >= longest


def _common(one: Ids, other: Ids) -> int:
    """How many tokens two sequences begin with alike."""
    n = min(len(one), len(other))
    differs = np.flatnonzero(np.asarray(one[:n]) != np.asarray(other[:n]))
    return int(differs[0]) if len(differs) else n


@dataclass(frozen=True, eq=False)
class Predictors:
    """The tokens of a forest whose outputs predict scored tokens, each once, in flat order: the last token of a prompt
    that completions follow, and every token of a completion but its last. ``slots``, ``real`` and ``back`` lay them out
    in padded rows as the forest's do all tokens, and ``mask`` says where each may look."""

    rows: Tensor  # [U] flat positions
    pick: Tensor  # [N] which of them predicts each scored token
    slots: Tensor  # [B*Q]
    real: Tensor  # [B*Q] bool
    back: Tensor  # [U]
    mask: Tensor  # [B, 1, Q, P+S] bool
    length: int  # Q

    def to(self, device: Any, non_blocking: bool = False) -> Predictors:
        """The same on a device."""
        return _moved(self, device, non_blocking)


@dataclass(frozen=True, eq=False)
class Forest:
    """A batch of trees as tensors.

    The flat sequence holds every token once. ``slots`` lists, for all B*P prompt slots and then all B*S branch slots,
    the flat position in each (0 in padding); ``real`` says which slots are no padding; ``back`` leads from a flat
    position to its slot. ``branch_mask`` [B, 1, S, P+S] is True where a branch token may look: its own past, its
    ancestors, its prompt.
    """

    trees: tuple[Tree, ...]
    input_ids: Tensor  # [1, T]
    position_ids: Tensor  # [1, T]
    slots: Tensor  # [B*P + B*S]
    real: Tensor  # [B*P + B*S] bool
    back: Tensor  # [T]
    branch_mask: Tensor  # [B, 1, S, P+S] bool
    target: Tensor  # [N] the scored tokens
    owner: Tensor  # [N] which scored segment, 0..C-1, in order of trees and segments
    lengths: Tensor  # [C] float32
    predictors: Predictors
    prompt_length: int  # P
    branch_length: int  # S

    @property
    def size(self) -> int:
        """Number of trees, B."""
        return len(self.trees)

    @property
    def tokens(self) -> int:
        """Tokens computed, T."""
        return int(self.input_ids.shape[1])

    @property
    def unshared_tokens(self) -> int:
        """Tokens that the computation without sharing would take, without padding."""
        return sum(tree.unshared_tokens for tree in self.trees)

    @property
    def depth(self) -> int:
        """Tokens from a root to the farthest leaf."""
        return int(self.position_ids.max()) + 1

    def to(self, device: Any, non_blocking: bool = False) -> Forest:
        """The same forest on a device."""
        return _moved(self, device, non_blocking)


def _moved(tensors: Any, device: Any, non_blocking: bool) -> Any:
    moved = {
        f.name: getattr(tensors, f.name).to(device, non_blocking=non_blocking)
        for f in fields(tensors)
        if isinstance(getattr(tensors, f.name), Tensor | Predictors)
    }
    return replace(tensors, **moved)


def pack(trees: Sequence[Tree]) -> Forest:
    """Lay trees out as one forest. Trees of similar size waste the least padding in attention.

    Raises:
        ValueError: no trees.
    """
    if not trees:
        raise ValueError("a forest needs at least one tree")
    layouts = [_layout(tree) for tree in trees]
    prompt_len = np.array([len(tree.segments[0].ids) for tree in trees])
    branch_len = np.array([tree.tokens for tree in trees]) - prompt_len
    size, longest_prompt, longest_branch = len(trees), int(prompt_len.max()), int(branch_len.max())
    starts = np.concatenate([[0], np.cumsum(prompt_len + branch_len)])
    in_prompt = np.arange(longest_prompt) < prompt_len[:, None]
    in_branch = np.arange(longest_branch) < branch_len[:, None]
    prompt_at = np.where(in_prompt, starts[:-1, None] + np.arange(longest_prompt), 0)
    branch_at = np.where(in_branch, (starts[:-1] + prompt_len)[:, None] + np.arange(longest_branch), 0)
    slots = np.concatenate([prompt_at.ravel(), branch_at.ravel()])
    real = np.concatenate([in_prompt.ravel(), in_branch.ravel()])
    back = np.empty(int(starts[-1]), dtype=np.int64)
    back[slots[real]] = np.flatnonzero(real)
    counts = [layout.scored for layout in layouts]
    firsts = np.concatenate([[0], np.cumsum(counts)])

    def joined(name: str, offsets: np.ndarray) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(x, name) + o for x, o in zip(layouts, offsets, strict=False)]))

    zeros = np.zeros(size, dtype=np.int64)
    owner = joined("owner", firsts)
    branch_mask = _branch_mask(layouts, in_prompt, longest_branch)
    return Forest(
        trees=tuple(trees),
        input_ids=joined("ids", zeros)[None],
        position_ids=joined("positions", zeros)[None],
        slots=torch.from_numpy(slots),
        real=torch.from_numpy(real),
        back=torch.from_numpy(back),
        branch_mask=branch_mask,
        target=joined("target", zeros),
        owner=owner,
        lengths=torch.bincount(owner, minlength=int(firsts[-1])).float(),
        predictors=_predictors(joined("predict", starts).numpy(), starts, prompt_len, in_prompt, branch_mask.numpy()),
        prompt_length=longest_prompt,
        branch_length=longest_branch,
    )


@dataclass(frozen=True)
class _Layout:
    """One tree's tokens in flat order, positions counted from the tree's own start."""

    ids: np.ndarray
    positions: np.ndarray
    segment: np.ndarray  # of each branch token
    above: np.ndarray  # [segments, segments] bool: row may look at column (itself or an ancestor, the root left out)
    predict: np.ndarray
    target: np.ndarray
    owner: np.ndarray
    scored: int


def _layout(tree: Tree) -> _Layout:
    ids: list[int] = []
    positions: list[int] = []
    segment: list[int] = []
    predict: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    ends: list[int] = []  # flat position of each segment's last token
    above = np.eye(len(tree.segments), dtype=bool)
    scored = 0
    for i, part in enumerate(tree.segments):
        start, length = len(ids), len(part.ids)
        first = 0
        if part.parent != ROOT:
            first = positions[ends[part.parent]] + 1
            above[i] |= above[part.parent]
            segment += [i] * length
        ids += part.ids
        positions += range(first, first + length)
        ends.append(start + length - 1)
        if part.scored:
            predict += [ends[part.parent], *range(start, start + length - 1)]
            target += part.ids
            owner += [scored] * length
            scored += 1

    def array(values: list[int]) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    return _Layout(
        array(ids), array(positions), array(segment), above, array(predict), array(target), array(owner), scored
    )


def _branch_mask(layouts: Sequence[_Layout], in_prompt: np.ndarray, length: int) -> Tensor:
    size, prompt = in_prompt.shape
    mask = np.zeros((size, 1, length, prompt + length), dtype=bool)
    mask[:, 0, :, :prompt] = in_prompt[:, None, :]
    causal = np.tri(length, dtype=bool)
    for row, layout in enumerate(layouts):
        used = len(layout.segment)
        kin = layout.above[layout.segment[:, None], layout.segment[None, :]]
        mask[row, 0, :used, prompt : prompt + used] = kin & causal[:used, :used]
    return torch.from_numpy(mask)


def _predictors(
    predict: np.ndarray, starts: np.ndarray, prompt_len: np.ndarray, in_prompt: np.ndarray, branch_mask: np.ndarray
) -> Predictors:
    rows, pick = np.unique(predict, return_inverse=True)
    tree = np.searchsorted(starts, rows, side="right") - 1
    counts = np.bincount(tree, minlength=len(prompt_len))
    longest = int(counts.max())
    real = np.arange(longest) < counts[:, None]
    back = np.flatnonzero(real)
    slots = np.zeros(real.size, dtype=np.int64)
    slots[back] = np.arange(len(rows))
    # Only a prompt's last token predicts; it looks at the prompt. So does padding, for whose sake no row may be empty.
    mask = np.zeros((len(prompt_len), 1, longest, branch_mask.shape[-1]), dtype=bool)
    mask[:, 0, :, : in_prompt.shape[1]] = in_prompt[:, None, :]
    in_branch = rows - starts[tree] - prompt_len[tree]
    branches = in_branch >= 0
    column = back - tree * longest
    mask[tree[branches], 0, column[branches]] = branch_mask[tree[branches], 0, in_branch[branches]]
    tensors = {"rows": rows, "pick": pick, "slots": slots, "real": real.ravel(), "back": back, "mask": mask}
    return Predictors(**{name: torch.from_numpy(array) for name, array in tensors.items()}, length=longest)
