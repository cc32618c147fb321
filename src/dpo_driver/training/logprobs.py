"""Per-token log-probs of the completions of a forest: shared prefixes computed once, LM head on completion tokens only.

``Scorer`` picks the way a model can be computed and says which it took. ``unshared_scores`` gives the same numbers the
plain way, for models that cannot take a tree; tests hold the two equal. Called by training/trainer.py and
training/reference.py.

Shapes: T flat tokens, U predicting tokens, N scored tokens, E hidden size, V vocabulary, Q rows and L length of the
unshared batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpo_driver.policies.after_prompt import BeginningPrompts, acting
from dpo_driver.policies.loading import invocation
from dpo_driver.policies.penalty import penalised, seen_before
from dpo_driver.training.after_prompt import beginnings_of, by_offsets, hidden_after_prompt
from dpo_driver.training.attention import (
    AFTER_PROMPT,
    arguments,
    backend,
    plain_attention,
    plain_model,
    tree_attention,
    why_not,
    window,
)
from dpo_driver.training.passes import head_chunk
from dpo_driver.training.tree import Forest


@dataclass(frozen=True)
class TokenScores:
    """Of every scored token, in the order of ``forest.target``, float32."""

    logps_N: Tensor  # natural log
    entropy_N: Tensor  # of the whole distribution, in nats, without gradient


@dataclass(frozen=True)
class Repetition:
    """The repetition penalty that tokens were sampled with, and what each of them had before it."""

    penalty_N: Tensor
    prompts: tuple[
        Tensor, ...
    ]  # for each token the different ids of its prompt; a completion's tokens share one tensor
    written_M: Tensor  # all completions one after the other, those of other parts too
    first_N: Tensor  # where in it each token's completion begins ...
    at_N: Tensor  # ... and where the token itself is

    def to(self, device: Any) -> Repetition:
        """The same on a device; shared tensors stay shared."""
        moved = {id(ids): ids.to(device) for ids in self.prompts}
        return Repetition(
            self.penalty_N.to(device),
            tuple(moved[id(ids)] for ids in self.prompts),
            self.written_M.to(device),
            self.first_N.to(device),
            self.at_N.to(device),
        )

    def part(self, part: slice) -> Repetition:
        """Of some of the tokens."""
        return Repetition(self.penalty_N[part], self.prompts[part], self.written_M, self.first_N[part], self.at_N[part])

    def on(self, logits_NV: Tensor) -> Tensor:
        """Raw scores with the penalty."""
        seen_NV = seen_before(self.prompts, self.written_M, self.first_N, self.at_N, logits_NV.shape[-1])
        return penalised(logits_NV, seen_NV, self.penalty_N)


@dataclass(frozen=True)
class Distribution:
    """What tokens were sampled from, where that is not the model's plain softmax: what was there before is made less
    probable, scores are divided by the temperature, and tokens that could not be drawn are left out."""

    temperature_N: Tensor  # [N]
    kept: tuple[Tensor | None, ...] | None = None  # for each token the ids that could be drawn; None: all
    repetition: Repetition | None = None  # None: no penalty

    def to(self, device: Any) -> Distribution:
        """The same on a device."""
        kept = None if self.kept is None else tuple(None if ids is None else ids.to(device) for ids in self.kept)
        repetition = None if self.repetition is None else self.repetition.to(device)
        return Distribution(self.temperature_N.to(device), kept, repetition)

    def part(self, part: slice) -> Distribution:
        """Of some of the tokens."""
        kept = None if self.kept is None else self.kept[part]
        repetition = None if self.repetition is None else self.repetition.part(part)
        return Distribution(self.temperature_N[part], kept, repetition)


class Scorer:
    """Log-probs of a forest under a model, by the fastest exact way that the model allows.

    Args:
        model: a causal LM, plain or with LoRA layers.
        bf16: compute the linear layers in bfloat16 (autocast); log-probs stay float32.
        attention: a back-end of training/attention; ``auto`` is ``sdpa``; ``unshared`` computes every completion with
            its own prompt, for comparison. An adapter that acts only after the prompt has a back-end of its own.
        prompts: where such an adapter's prompts are computed and kept; one of its own when None ...
        prompt_cache_gb: ... that keeps so many 10^9 bytes.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        bf16: bool = False,
        attention: str = "auto",
        prompts: BeginningPrompts | None = None,
        prompt_cache_gb: float = 2.0,
    ) -> None:
        self.model, self.bf16 = model, bf16
        self._begins_at = invocation(model)
        self._way = backend("sdpa" if attention in ("auto", "unshared") else attention)
        if self._begins_at is not None:
            self._way = AFTER_PROMPT
        reason = "sharing is off" if attention == "unshared" else why_not(model, self._way)
        self._window = window(model)
        if self._begins_at is not None and self._window is not None:
            reason = reason or f"its layers look back {self._window} tokens only"
        self.shares = reason is None
        self._taken = f"prefix tree, {self._way.title}" if self.shares else f"unshared: {reason}"
        self._own = plain_model(model).config._attn_implementation
        self._prompts: BeginningPrompts | None = None
        if self.shares and self._begins_at is not None:
            self._prompts = prompts or beginnings_of(model, prompt_cache_gb, turnover=False)
        self.through: nn.Module | None = None  # what torch has wrapped around a module that calls by_itself()
        self.forests, self.beyond = 0, 0  # computed; of these longer than a sliding window

    @property
    def path(self) -> str:
        """Which way was taken, and why not the better one."""
        if self._prompts is not None:
            return f"{self._taken}; {self._prompts.computed} of {self._prompts.asked} prompt tokens computed"
        if not self.beyond:
            return self._taken
        return (
            f"{self._taken}; {self.beyond} of {self.forests} forests unshared: longer than the window of {self._window}"
        )

    @property
    def exact(self) -> bool:
        """Whether the same tokens get the same log-probs, to rounding, whatever they are packed with."""
        return not self.bf16 and plain_model(self.model).dtype == torch.float32

    @contextmanager
    def session(self) -> Iterator[Scorer]:
        """Prepare the model for scoring; afterwards it is as it was."""
        if not self.shares:
            yield self
            return
        with tree_attention(self.model, self._way), acting(self.model) if self._begins_at else nullcontext():
            yield self

    def __call__(self, forest: Forest, sampled: Distribution | None = None) -> TokenScores:
        """Scores of all completion tokens, under the distribution that they were sampled from where one is given."""
        if self.through is not None:
            return TokenScores(*self.through(forest, sampled))
        return self.by_itself(forest, sampled)

    def by_itself(self, forest: Forest, sampled: Distribution | None = None) -> TokenScores:
        """The same by the model alone, past what is wrapped around it."""
        self.forests += 1
        with torch.autocast(forest.input_ids.device.type, torch.bfloat16, enabled=self.bf16):
            if not self.shares:
                return unshared_scores(self.model, forest, sampled)
            if self._begins_at is not None and self._prompts is not None:
                hidden_NE = hidden_after_prompt(self.model, forest, self._begins_at, self._prompts)
                return _by_chunks(plain_model(self.model), hidden_NE, forest.target, sampled)
            if self._window is None or forest.depth <= self._window:
                return tree_scores(self.model, forest, sampled)
            self.beyond += 1
            with plain_attention(self.model, self._own):
                return unshared_scores(self.model, forest, sampled)


def tree_scores(
    model: nn.Module, forest: Forest, sampled: Distribution | None = None, *, chunk: int | None = None
) -> TokenScores:
    """All scored tokens in one pass over the flat sequence. Call it inside ``tree_attention(model)``.

    Args:
        model: a causal LM for which ``attention.why_not`` is None, plain or with LoRA layers.
        forest: the batch, on the model's device.
        sampled: the distribution to score under, on the model's device; the plain softmax when None.
        chunk: at most this many positions get logits at once, as the vocabulary allows if None; more are recomputed in
            the backward pass.
    """
    plain = plain_model(model)
    hidden_1UE = plain.base_model(
        input_ids=forest.input_ids,
        position_ids=forest.position_ids,
        attention_mask=None,
        use_cache=False,
        **arguments(model, forest),
    ).last_hidden_state
    hidden_NE = hidden_1UE[0].index_select(0, forest.predictors.pick)
    return _by_chunks(plain, hidden_NE, forest.target, sampled, chunk)


def _head_of(plain: Any) -> Callable[[Tensor], Tensor]:
    """Hidden states to raw scores, with what some models do to them afterwards (Gemma 2)."""
    head, cap = plain.get_output_embeddings(), getattr(plain.config, "final_logit_softcapping", None)
    return head if cap is None else lambda hidden: torch.tanh(head(hidden) / cap) * cap


def _by_chunks(
    plain: Any, hidden_NE: Tensor, target_N: Tensor, sampled: Distribution | None, chunk: int | None = None
) -> TokenScores:
    head = _head_of(plain)
    chunk = chunk or head_chunk(plain.config.get_text_config().vocab_size)
    if len(hidden_NE) <= chunk:
        return TokenScores(*_score(head, hidden_NE, target_N, sampled))
    parts: list[Any] = []
    for start in range(0, len(hidden_NE), chunk):
        part = slice(start, start + chunk)
        some = None if sampled is None else sampled.part(part)
        parts.append(checkpoint(_score, head, hidden_NE[part], target_N[part], some, use_reentrant=False))
    return TokenScores(torch.cat([logps for logps, _ in parts]), torch.cat([entropy for _, entropy in parts]))


def _score(
    head: Callable[[Tensor], Tensor], hidden_NE: Tensor, target_N: Tensor, sampled: Distribution | None
) -> tuple[Tensor, Tensor]:
    return _scores_of(head(hidden_NE), target_N, sampled)


def _scores_of(logits_NV: Tensor, target_N: Tensor, sampled: Distribution | None) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of raw scores."""
    logits_NV = logits_NV.float()
    if sampled is not None:
        if sampled.repetition is not None:
            logits_NV = sampled.repetition.on(logits_NV)
        logits_NV = logits_NV / sampled.temperature_N[:, None]
        if sampled.kept is not None:
            logits_NV = _without_the_impossible(logits_NV, sampled.kept)
    logps_N = -F.cross_entropy(logits_NV, target_N, reduction="none")
    with torch.no_grad():
        mass_N = logits_NV.logsumexp(-1)
        weighted_NV = logits_NV.softmax(-1).mul_(logits_NV.masked_fill(logits_NV == -torch.inf, 0.0))
        entropy_N = mass_N - weighted_NV.sum(-1)
    return logps_N, entropy_N


def _without_the_impossible(logits_NV: Tensor, kept: Sequence[Tensor | None]) -> Tensor:
    """Minus infinity for all tokens that could not be drawn."""
    dropped_NV = torch.zeros_like(logits_NV, dtype=torch.bool)
    for row, ids in enumerate(kept):
        if ids is not None:
            dropped_NV[row] = True
            dropped_NV[row, ids] = False
    return logits_NV.masked_fill(dropped_NV, -torch.inf)


def unshared_scores(model: nn.Module, forest: Forest, sampled: Distribution | None = None) -> TokenScores:
    """The same as :func:`tree_scores`, every completion with its own copy of its prefix, by the model's own
    attention."""
    paths: list[list[int]] = []
    counts: list[int] = []
    for tree in forest.trees:
        for i, segment in enumerate(tree.segments):
            if segment.scored:
                paths.append(tree.path(i))
                counts.append(len(segment.ids))
    device = forest.input_ids.device
    length = max(map(len, paths))
    tokens = invocation(model)
    prompts = [tuple(path[:-count]) for path, count in zip(paths, counts, strict=True)]
    ids_QL = torch.zeros(len(paths), length, dtype=torch.long)
    mask_QL = torch.zeros(len(paths), length, dtype=torch.long)
    for row, path in enumerate(paths):
        ids_QL[row, : len(path)] = torch.tensor(path)
        mask_QL[row, : len(path)] = 1
    with by_offsets(model, prompts, length, tokens) if tokens else nullcontext():
        hidden_QLE = plain_model(model).base_model(
            input_ids=ids_QL.to(device), attention_mask=mask_QL.to(device), use_cache=False
        ).last_hidden_state  # fmt: skip
    rows = torch.repeat_interleave(torch.arange(len(paths)), torch.tensor(counts))
    columns = torch.cat([torch.arange(len(p) - n - 1, len(p) - 1) for p, n in zip(paths, counts, strict=True)])
    hidden_NE = hidden_QLE[rows.to(device), columns.to(device)]
    return _by_chunks(plain_model(model), hidden_NE, forest.target, sampled)
