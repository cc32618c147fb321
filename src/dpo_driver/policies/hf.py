"""A policy that is a transformers model on this machine, with its own batched decoding.

Prompts are computed once each (siblings of a group share theirs, also across calls), without padding in front; tokens
are then drawn for all rows together, several at once where they can be foreseen (drafts.py), and rows leave when they
end; in serving others join on the way. Each row draws from its own seeded stream, so that its sample depends neither on
who shares the batch nor on what was foreseen. Called through core.protocols.Policy by agents and serving. Must not
import agents or environments.

Shapes: B rows, Q new tokens of a row in one pass, L slots, V vocabulary, E hidden size, N draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Generation, Message, Sampling
from dpo_driver.policies.after_prompt import halves
from dpo_driver.policies.drafts import Drafts, Table, prompt_table
from dpo_driver.policies.encoding import decode_completion, encode_prompt, end_id, end_ids
from dpo_driver.policies.forward import Buffer, Workspace, forward_of
from dpo_driver.policies.loading import content_hash, invocation, load_model, load_tokenizer, resolve, weights_hash
from dpo_driver.policies.penalty import mask_of, penalised
from dpo_driver.policies.prefixes import Prefix, Prompts

# Told each row's number and its tokens so far, as they are drawn; False ends the row.
Watch = Callable[[int, list[int]], bool]
Asked = tuple[int, tuple[int, ...], Sampling]  # a row's number, its prompt and how it is drawn

MOST_DRAFTED = 4  # tokens guessed ahead; a longer guess costs more than it saves


@dataclass
class _Row:
    """One generation in progress."""

    index: int
    prompt: tuple[int, ...]
    sampling: Sampling
    draws: np.ndarray  # one uniform number per new token
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    kept: list[tuple[int, ...]] = field(default_factory=list)  # what could be drawn, where top_p left something out
    seen_V: Tensor | None = None  # what stands in the prompt or was written, where a penalty asks for it
    ended: bool = False

    @property
    def limit(self) -> int:
        return len(self.draws)

    @cached_property
    def table(self) -> Table:
        """What the prompt proposes."""
        return prompt_table(self.prompt)


class HFPolicy:
    """``HFPolicy("pocket").generate([messages], [Sampling()])``.

    Args:
        name_or_path: ``pocket``, a folder, or a hub id; ignored when ``model`` is given.
        adapter: PEFT adapter folder.
        dtype: as in :func:`dpo_driver.policies.loading.load_model`; ``device`` and ``quantization`` too.
        max_length: most tokens of prompt and completion together; a prompt that leaves no room for one is an error.
        max_batch: most rows decoded together.
        model: use this model instead of loading one, with ``tokenizer``.
        version: what the given model is called; the hash of its weights when None.
        prompts: computes the beginnings of prompts, for an adapter that acts only after them; shared with training.
    """

    def __init__(
        self,
        name_or_path: str | Path = "pocket",
        adapter: str | Path | None = None,
        dtype: str = "auto",
        device: str = "auto",
        max_length: int = 2048,
        *,
        quantization: Literal["none", "nf4"] = "none",
        max_batch: int = 64,
        model: Any = None,
        tokenizer: Any = None,
        version: str | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        if model is None:
            model = load_model(name_or_path, adapter=adapter, dtype=dtype, device=device, quantization=quantization)
            source = Path(adapter if adapter is not None else resolve(name_or_path))
            self._version = content_hash(source) if source.is_dir() else weights_hash(model)
            whole = invocation(model) is None and not getattr(model, "is_quantized", False)
            if hasattr(model, "peft_config") and whole:
                model = model.merge_and_unload()  # nothing to learn here, so one product instead of three
        else:
            self._version = version or weights_hash(model)
        self._tokenizer = tokenizer if tokenizer is not None else load_tokenizer(name_or_path)
        self._device = next(model.parameters()).device
        self._end, self._ends = end_id(self._tokenizer), end_ids(self._tokenizer, model)
        self._max_length = min(max_length, getattr(model.config, "max_position_embeddings", max_length))
        self._max_batch = max_batch
        tokens = invocation(model.eval())
        if tokens is None:
            self._forward = forward_of(model)
            self._prompts = Prompts(self._forward, self._end, self._device)
        else:
            self._forward, self._prompts = halves(model, tokens, self._end, prompts)
        self._workspace = Workspace()
        self._drafts = Drafts()
        kinds = set(getattr(model.config, "layer_types", None) or ()) - {"full_attention"}
        if kinds:
            remedy = "serve it behind an OpenAI-compatible endpoint"
            raise ModelError(f"local decoding does not know {', '.join(sorted(kinds))} layers", remedy=remedy)

    @property
    def version(self) -> str:
        """Content hash of the weights."""
        return self._version

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._ends

    def generate(self, prompts: Sequence[Sequence[Message]], sampling: Sequence[Sampling]) -> list[Generation]:
        """One generation per prompt, in order; see :class:`dpo_driver.core.protocols.Policy`.

        ``logprobs`` are those of the distribution that was drawn from; a greedy choice was certain: 0.0.
        """
        encoded = [tuple(encode_prompt(self._tokenizer, messages)) for messages in prompts]
        return self.generate_ids(encoded, sampling)

    @torch.inference_mode()
    def generate_ids(
        self, prompts: Sequence[tuple[int, ...]], sampling: Sequence[Sampling], watch: Watch | None = None
    ) -> list[Generation]:
        """The same for prompts that are token ids already; ``watch`` is asked after each token whether to go on."""
        answers: dict[int, Generation] = {}
        rows = self._rows(list(zip(range(len(prompts)), prompts, sampling, strict=True)), answers.__setitem__)
        rows.sort(key=lambda row: len(row.prompt))  # rows of like length share a batch
        for start in range(0, len(rows), self._max_batch):
            self._decode(rows[start : start + self._max_batch], answers.__setitem__, watch)
        return [answers[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def generate_joining(
        self, joining: Callable[[int], Sequence[Asked]], watch: Watch, done: Callable[[int, Generation], None]
    ) -> None:
        """Answer whoever asks, until all are answered and nobody joins: for serving.

        Args:
            joining: told how many rows there is room for, before each token of the others; gives those that join.
            watch: as for :meth:`generate_ids`.
            done: told each row's number and answer as soon as it has ended.
        """
        self._decode([], done, watch, lambda room: self._rows(joining(room), done))

    def _rows(self, asked: Sequence[Asked], done: Callable[[int, Generation], None]) -> list[_Row]:
        """Rows to decode; a prompt that leaves no room is done already."""
        rows = []
        for number, ids, how in asked:
            room = self._max_length - len(ids)
            if room < 1 or not ids:
                done(number, self._generation(_Row(number, ids, how, np.empty(0))))
            else:
                rows.append(_Row(number, ids, how, _uniform(how.seed, min(how.max_new_tokens, room))))
        return rows

    def _generation(self, row: _Row) -> Generation:
        finish: Literal["stop", "length", "error"] = "length" if row.ids else "error"
        if row.ids and row.ids[-1] in self._ends:
            finish = "stop"
        said = row.ids[:-1] if row.ids and row.ids[-1] in self._ends else row.ids
        return Generation(
            text=decode_completion(self._tokenizer, said) if said else "",
            prompt_tokens=len(row.prompt),
            token_ids=tuple(row.ids),
            logprobs=tuple(row.logprobs),
            kept=tuple(row.kept),
            sampling=row.sampling,
            finish_reason=finish,
            policy_version=self._version,
        )

    def _decode(
        self, rows: list[_Row], done: Callable[[int, Generation], None], watch: Watch | None = None,
        joining: Callable[[int], list[_Row]] = lambda room: [],
    ) -> None:  # fmt: skip
        """Draw tokens until every row has ended and none joins. A row's tokens lie in the slots of their positions."""
        active: list[_Row] = []
        buffers: list[Buffer] = []
        while True:
            going = sum(not row.ended for row in active)
            fresh = rows or joining(self._max_batch - going)
            rows = []
            if not fresh and not going:
                return
            if fresh:
                prefixes = self._prompts([row.prompt for row in fresh])
                scores_BQV = torch.stack([prefix.scores_V for prefix in prefixes])[:, None]
                self._step(fresh, scores_BQV, [[] for _ in fresh], done, watch)
                active, buffers = self._joined(active, buffers, fresh, prefixes)
            kept = [i for i, row in enumerate(active) if not row.ended]
            if not kept:
                continue
            if 2 * len(kept) <= len(active):
                index = torch.tensor(kept, device=self._device)
                active = [active[i] for i in kept]
                for buffer in buffers:
                    buffer.keep(index)
            drafts = [[] if row.ended else self._drafts.propose(row.table, row.ids, MOST_DRAFTED) for row in active]
            self._step(active, self._score(active, drafts, buffers), drafts, done, watch)

    def _step(
        self, rows: list[_Row], scores_BQV: Tensor, drafts: list[list[int]], done: Callable[[int, Generation], None],
        watch: Watch | None,
    ) -> None:  # fmt: skip
        """Draw, ask who may go on, and tell who has ended."""
        before = [(row, len(row.ids)) for row in rows if not row.ended]
        self._draw(rows, scores_BQV, drafts)
        for row, count in before:
            if watch is not None and len(row.ids) > count and not watch(row.index, row.ids):
                row.ended = True
            if row.ended:
                done(row.index, self._generation(row))

    def _joined(
        self, active: list[_Row], buffers: list[Buffer], fresh: list[_Row], prefixes: list[Prefix]
    ) -> tuple[list[_Row], list[Buffer]]:
        """New rows beside those that go on: in the places of ended ones if they fit there, else in larger buffers."""
        free = [i for i, row in enumerate(active) if row.ended]
        needed = max(len(row.prompt) + row.limit for row in fresh) + MOST_DRAFTED
        if len(fresh) <= len(free) and needed <= buffers[0].room:
            for place, row, prefix in zip(free, fresh, prefixes, strict=False):
                active[place] = row
                for buffer, (keys, values) in zip(buffers, prefix.layers, strict=True):
                    buffer.put(place, keys, values)
            return active, buffers
        kept = [i for i, row in enumerate(active) if not row.ended]
        # Copies: the workspace gives the same memory again.
        old = [[buffer.row(i, len(active[i].prompt) + len(active[i].ids) - 1) for i in kept] for buffer in buffers]
        new = list(zip(*(prefix.layers for prefix in prefixes), strict=True))
        rows = [*(active[i] for i in kept), *fresh]
        longest, room = max(len(row.prompt) for row in rows), max(row.limit for row in rows)
        by_layer = [[*one, *other] for one, other in zip(old or [[] for _ in new], new, strict=True)]
        return rows, self._workspace.buffers(by_layer, longest, room + MOST_DRAFTED)

    def _score(self, rows: list[_Row], drafts: list[list[int]], buffers: list[Buffer]) -> Tensor:
        """Scores [B, Q, V] behind each row's last token and behind each token of its draft, one pass for all."""
        most = max(map(len, drafts))
        ids_BQ = torch.tensor(
            [
                [row.ids[-1], *draft, *[self._end] * (most - len(draft))]
                for row, draft in zip(rows, drafts, strict=True)
            ],
            device=self._device,
        )
        last = [len(row.prompt) + len(row.ids) - 1 for row in rows]
        positions_BQ = torch.tensor(last, device=self._device)[:, None] + torch.arange(most + 1, device=self._device)
        used = max(last) + most + 1
        mask_B1QL = (torch.arange(used, device=self._device) <= positions_BQ[..., None])[:, None]
        for buffer in buffers:
            buffer.aim(positions_BQ, used)
        return self._forward.scores(self._forward.more(ids_BQ, positions_BQ, buffers, mask_B1QL))

    def _draw(self, rows: list[_Row], scores_BQV: Tensor, drafts: list[list[int]]) -> None:
        """Give each row the tokens that it draws: one, and one more for every token of its draft that was drawn too."""
        count = scores_BQV.shape[1]
        scores_BQV = _with_penalties(rows, scores_BQV, drafts)
        best_BQ = scores_BQV.argmax(-1)
        logps_BQ = torch.zeros_like(best_BQ, dtype=torch.float32)
        kept: list[tuple[int, ...]] = []
        warm = [row.sampling.temperature > 0 for row in rows]
        if any(warm):
            draws = [float(row.draws[min(len(row.ids) + q, row.limit - 1)]) for row in rows for q in range(count)]
            how = [row.sampling for row in rows for _ in range(count)]
            ids_N, logps_N, kept = sample(scores_BQV.flatten(0, 1), how, draws)
            warm_B1 = torch.tensor(warm, device=ids_N.device)[:, None]
            best_BQ = torch.where(warm_B1, ids_N.view_as(best_BQ), best_BQ)
            logps_BQ = torch.where(warm_B1, logps_N.view_as(best_BQ), 0.0)
        columns = zip(rows, drafts, best_BQ.tolist(), logps_BQ.tolist(), strict=True)
        for number, (row, draft, ids, logps) in enumerate(columns):
            for q, (token, logp) in enumerate(zip(ids, logps, strict=True)):
                if row.ended or q > len(draft) or (q > 0 and draft[q - 1] != ids[q - 1]):
                    break
                row.ids.append(token)
                row.logprobs.append(logp)
                if row.seen_V is not None:
                    row.seen_V[token] = True
                if row.sampling.top_p < 1 and row.sampling.temperature > 0:
                    row.kept.append(kept[number * count + q])
                row.ended = token in self._ends or len(row.ids) >= row.limit
                if row.ended:
                    self._drafts.learn(row.ids)


def _with_penalties(rows: Sequence[_Row], scores_BQV: Tensor, drafts: Sequence[Sequence[int]]) -> Tensor:
    """Scores after each row's repetition penalty. Behind a token of its draft a row has seen the draft up to there:
    what is drawn there counts only if these were drawn too, so a guess still changes nothing but the speed."""
    if all(row.sampling.repetition_penalty == 1 for row in rows):
        return scores_BQV
    _, count, vocabulary = scores_BQV.shape
    device = scores_BQV.device
    seen = []
    for row, draft in zip(rows, drafts, strict=True):
        if row.sampling.repetition_penalty == 1:
            seen.append(torch.zeros(count, vocabulary, dtype=torch.bool, device=device))
            continue
        if row.seen_V is None:
            row.seen_V = mask_of(row.prompt, vocabulary, device)
        seen_QV = row.seen_V.repeat(count, 1)
        for q, token in enumerate(draft):
            seen_QV[q + 1 :, token] = True
        seen.append(seen_QV)
    penalty_N = torch.tensor([row.sampling.repetition_penalty for row in rows for _ in range(count)], device=device)
    return penalised(scores_BQV.flatten(0, 1), torch.cat(seen), penalty_N).view(scores_BQV.shape)


def sample(
    scores_BV: Tensor, sampling: Sequence[Sampling], draws: Sequence[float]
) -> tuple[Tensor, Tensor, list[tuple[int, ...]]]:
    """Draw one token per row by inverting the cumulative distribution at the row's own uniform number.

    Args:
        scores_BV: raw scores.
        sampling: temperature and top_p of each row; rows at temperature 0 are drawn as at 1 (the caller replaces them).
        draws: a number in [0, 1) for each row.

    Returns:
        Token ids [B], their log-probs [B] under the distribution after temperature and top_p, and for each row the ids
        that could be drawn (an empty list where top_p left nothing out for anybody).
    """
    device = scores_BV.device
    temperature_B = torch.tensor([how.temperature or 1.0 for how in sampling], device=device)
    logps_BV = (scores_BV.float() / temperature_B[:, None]).log_softmax(-1)
    kept: list[tuple[int, ...]] = []
    if any(how.top_p < 1 for how in sampling):
        top_p_B = torch.tensor([how.top_p for how in sampling], device=device)
        logps_BV = _nucleus(logps_BV, top_p_B)
        kept = [tuple(row.nonzero()[:, 0].tolist()) for row in logps_BV > -torch.inf]
    mass_BV = logps_BV.double().exp().cumsum(-1)
    aim_B = torch.tensor(draws, dtype=torch.float64, device=device) * mass_BV[:, -1]
    ids_B = (mass_BV <= aim_B[:, None]).sum(-1).clamp_(max=scores_BV.shape[-1] - 1)
    return ids_B, logps_BV.gather(-1, ids_B[:, None])[:, 0], kept


def _nucleus(logps_BV: Tensor, top_p_B: Tensor) -> Tensor:
    """Keep the fewest tokens whose mass reaches top_p, renormalised; the rest get minus infinity."""
    ordered_BV, order_BV = logps_BV.sort(-1, descending=True)
    mass_BV = ordered_BV.exp()
    before_BV = mass_BV.cumsum(-1) - mass_BV
    dropped_BV = (before_BV >= top_p_B[:, None]).scatter(-1, order_BV, before_BV >= top_p_B[:, None])
    return logps_BV.masked_fill(dropped_BV, -torch.inf).log_softmax(-1)


def _uniform(seed: int | None, count: int) -> np.ndarray:
    """``count`` numbers in [0, 1) from a stream of their own."""
    bits = np.random.Philox(seed) if seed is None else np.random.Philox(key=seed)
    return np.random.Generator(bits).random(count)
