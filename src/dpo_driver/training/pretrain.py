"""Pretraining of the pocket model: synthetic pages only, from random weights, on a laptop.

A row is one page with several goals: the page is computed once and every goal with its decision branches off it
(the same prefix sharing as in DPO). Loss is taken on the decisions only. A share of the rows are random sequences
written twice, which teach copying with a dense signal; a curriculum widens the pages as accuracy grows. Muon drives the
hidden matrices, AdamW the rest. Called by ``dpo-driver pretrain``; see docs/pocket.md for the curve.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AttentionInterface, PreTrainedTokenizerFast, Qwen3ForCausalLM

from dpo_driver.agents.prompt import PROFILES, pocket_line, render_completion
from dpo_driver.core.errors import ConfigError
from dpo_driver.core.memory import keep_freed_memory
from dpo_driver.policies.pocket import build_config, build_tokenizer
from dpo_driver.training.synthetic.goals import branches
from dpo_driver.training.synthetic.scenes import scene

# Shapes: B rows, P page tokens, S branch tokens (all branches of a row, packed), T = P + S, V vocabulary.


class PretrainConfig(BaseModel):
    """The recipe. Token counts include padding-free page, goal and decision tokens."""

    model_config = ConfigDict(extra="forbid")

    seed: int = 1
    layers: int = 4
    width: int = 128
    heads: int = 4
    ff: int = 384
    max_tokens: int = Field(default=60_000_000, gt=0)
    rows: int = Field(default=10, gt=0)
    goals_per_page: int = Field(default=6, gt=0)
    repeat_share: float = Field(default=0.15, ge=0, lt=1)
    muon_lr: float = 0.01
    adamw_lr: float = 0.002
    warmup_steps: int = 50
    decay_share: float = Field(default=0.35, gt=0, le=1)
    first_size: int = 2
    last_size: int = 8
    widen_at: float = 0.7
    page_tokens: int = 384
    branch_tokens: int = 640
    log_every: int = 100
    checkpoint_every: int = 500


def load_pretrain_config(path: Path) -> PretrainConfig:
    """Read the YAML recipe; ConfigError names file and key."""
    try:
        return PretrainConfig(**(yaml.safe_load(path.read_text()) or {}))
    except FileNotFoundError:
        raise ConfigError("no such recipe", where=str(path)) from None
    except (yaml.YAMLError, TypeError, ValidationError) as error:
        raise ConfigError(f"cannot read the recipe: {error}", where=str(path)) from None


@dataclass(frozen=True)
class Forest:
    """Where pages and branches lie in one flat sequence of T real tokens; no token is padding.

    ``page`` [B, P] and ``branch`` [N, L] hold positions (0 where there is nothing), ``page_real`` and ``branch_real``
    say which are real, ``owner`` [N] is the page of each branch, ``back`` [T] leads from padded to flat.
    """

    page: Tensor
    page_real: Tensor
    branch: Tensor
    branch_real: Tensor
    owner: Tensor
    back: Tensor
    causal: Tensor
    bias: Tensor


def page_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float,
    forest: Forest, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention in two parts: every page among itself, then every branch against its page and its own past."""
    heads = query.shape[1]

    def laid_out(x_1HTD: Tensor, index: Tensor) -> Tensor:  # -> [rows, H, length, D]
        return x_1HTD[0].index_select(1, index.flatten()).unflatten(1, index.shape).transpose(0, 1)

    asked = laid_out(query * scaling, forest.page)
    page_k, page_v = laid_out(key, forest.page), laid_out(value, forest.page)
    first = (asked @ page_k.transpose(-1, -2)).add_(forest.causal).softmax(-1, dtype=value.dtype) @ page_v
    asked = laid_out(query * scaling, forest.branch)
    keys = torch.cat([page_k.index_select(0, forest.owner), laid_out(key, forest.branch)], dim=2)
    values = torch.cat([page_v.index_select(0, forest.owner), laid_out(value, forest.branch)], dim=2)
    second = (asked @ keys.transpose(-1, -2)).add_(forest.bias).softmax(-1, dtype=value.dtype) @ values
    both = torch.cat([first.transpose(1, 2).reshape(-1, heads, value.shape[-1]),
                      second.transpose(1, 2).reshape(-1, heads, value.shape[-1])])  # fmt: skip
    return both.index_select(0, forest.back)[None], None


RESUME = "resume.safetensors"
AttentionInterface.register("page_attention", page_attention)


class Rows:
    """An endless, seeded source of batches."""

    def __init__(self, config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.rng = random.Random(config.seed)
        self.size = config.first_size
        assert isinstance(tokenizer.eos_token_id, int)
        self.eos = tokenizer.eos_token_id

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def page_row(self) -> tuple[list[int], list[tuple[list[int], list[int], str]]]:
        """(page ids, [(context ids, completion ids, kind of goal)])."""
        limit = PROFILES["pocket"].max_name_chars
        while True:
            size = self.rng.randint(2, self.size)
            page = scene(self.rng, size)
            ids = self._ids("\n".join(pocket_line(e, limit) for e in page.elements) + "\n")
            if len(ids) > self.config.page_tokens:
                continue
            out, used = [], 0
            for branch in branches(self.rng, page, self.config.goals_per_page):
                past = "".join(f"past: {line}\n" for line in branch.past)
                if self.rng.random() < 0.03:
                    past += "failed\n"
                context = self._ids(f"{past}goal: {branch.goal}\n")
                completion = self._ids(render_completion(PROFILES["pocket"], branch.thought, branch.action))
                completion.append(self.eos)
                used += len(context) + len(completion)
                if used > self.config.branch_tokens:
                    break
                out.append((context, completion, branch.kind))
            if out:
                return ids, out

    def repeat_row(self) -> tuple[list[int], list[tuple[list[int], list[int], str]]]:
        """A random sequence written twice; the second time is the completion."""
        ids = [self.rng.randrange(len(self.tokenizer)) for _ in range(self.rng.randint(10, 50))]
        spots = sorted(self.rng.sample(range(len(ids)), 3))
        out = []
        for start in spots:
            piece = ids[start : start + 24]
            if len(piece) > 3:
                out.append((piece[:2], piece[2:], "repeat"))
        return ids, out or [(ids[:1], ids[1:], "repeat")]

    def batch(self) -> dict[str, Any]:
        rows = [
            self.repeat_row() if self.rng.random() < self.config.repeat_share else self.page_row()
            for _ in range(self.config.rows)
        ]
        return collate(rows)


def collate(rows: list[tuple[list[int], list[tuple[list[int], list[int], str]]]]) -> dict[str, Any]:
    """Lay all pages and branches out in one flat sequence and say where everything is."""
    flat: list[int] = []
    positions: list[int] = []
    predicts: list[int] = []  # flat positions whose next token belongs to a completion
    targets: list[int] = []
    answer: list[int] = []  # which branch a target belongs to
    pages: list[range] = []
    stems: list[range] = []
    owner: list[int] = []
    kinds: list[str] = []
    for r, (ids, found) in enumerate(rows):
        pages.append(range(len(flat), len(flat) + len(ids)))
        flat += ids
        positions += range(len(ids))
        for context, completion, kind in found:
            start = len(flat)
            flat += context + completion
            stems.append(range(start, len(flat)))
            positions += range(len(ids), len(ids) + len(flat) - start)
            predicts += range(len(flat) - len(completion) - 1, len(flat) - 1)
            targets += completion
            answer += [len(kinds)] * len(completion)
            owner.append(r)
            kinds.append(kind)
    page, page_real = _padded(pages)
    branch, branch_real = _padded(stems)
    back = torch.empty(len(flat), dtype=torch.long)
    back[page[page_real]] = torch.arange(page.numel()).view_as(page)[page_real]
    back[branch[branch_real]] = page.numel() + torch.arange(branch.numel()).view_as(branch)[branch_real]
    causal = (
        torch.zeros(page.shape[1], page.shape[1])
        .masked_fill(~torch.ones(page.shape[1], page.shape[1]).tril().bool(), -1e4)
        .bfloat16()
    )
    forest = Forest(
        page,
        page_real,
        branch,
        branch_real,
        torch.tensor(owner),
        back,
        causal,
        _bias(page_real[torch.tensor(owner)], branch.shape[1]),
    )
    return {"input_ids": torch.tensor(flat)[None], "position_ids": torch.tensor(positions)[None], "forest": forest,
            "predicts": torch.tensor(predicts), "targets": torch.tensor(targets), "answer": torch.tensor(answer),
            "kinds": kinds, "real": len(flat)}  # fmt: skip


def _bias(page_real_NP: Tensor, length: int) -> Tensor:
    """[N, 1, L, P + L]: 0 where a branch token may look, else minus infinity."""
    count = page_real_NP.shape[0]
    own = torch.ones(length, length, dtype=torch.bool).tril().expand(count, length, length)
    may = torch.cat([page_real_NP[:, None, :].expand(-1, length, -1), own], dim=-1)
    return torch.zeros(may.shape).masked_fill(~may, -1e4)[:, None].bfloat16()


def _padded(spans: list[range]) -> tuple[Tensor, Tensor]:
    """Positions [rows, longest] and which of them are real."""
    longest = max(map(len, spans))
    index = torch.zeros(len(spans), longest, dtype=torch.long)
    real = torch.zeros(len(spans), longest, dtype=torch.bool)
    for row, span in enumerate(spans):
        index[row, : len(span)] = torch.arange(span.start, span.stop)
        real[row, : len(span)] = True
    return index, real


def make_optimizers(model: torch.nn.Module, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(hidden, lr=config.muon_lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=config.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(step: int, tokens: int, config: PretrainConfig) -> float:
    """Warm up, hold, then fall linearly to 2 % over the last ``decay_share`` of the tokens."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    left = 1.0 - tokens / config.max_tokens
    return warm * max(0.02, min(1.0, left / config.decay_share))


def forward_backward(model: Qwen3ForCausalLM, batch: dict[str, Any]) -> tuple[float, dict[str, list[float]]]:
    """One step's loss (mean NLL per completion token) and exact-match accuracy by kind of goal."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden_1TD = model.model(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            attention_mask=None,
            use_cache=False,
            forest=batch["forest"],
        ).last_hidden_state
        logits_NV = model.lm_head(hidden_1TD[0, batch["predicts"]])
    targets_N = batch["targets"]
    loss = F.cross_entropy(logits_NV.float(), targets_N)
    loss.backward()
    wrong = (logits_NV.argmax(-1) != targets_N).float()
    missed = torch.zeros(len(batch["kinds"])).index_add_(0, batch["answer"], wrong)
    exact: dict[str, list[float]] = defaultdict(list)
    for kind, count in zip(batch["kinds"], missed.tolist(), strict=True):
        exact[kind].append(float(count == 0))
    return loss.item(), exact


def pretrain(
    config: PretrainConfig, output: Path, on_log: Callable[[dict[str, Any]], None] = lambda row: None
) -> dict[str, Any]:
    """Train from random weights and save a folder that AutoModelForCausalLM loads. Stopped, the same call goes on.

    One thread: matrices this small do not gain from several.

    Args:
        config: the recipe.
        output: folder for model, tokenizer, ``curve.jsonl`` and the checkpoint to resume from.
        on_log: called with each row of the curve.

    Returns:
        The last row of the curve: tokens, seconds, loss, exact match overall and by kind of goal.

    Raises:
        ConfigError: the folder holds an unfinished run of another recipe.
    """
    output.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer()
    model = Qwen3ForCausalLM(
        build_config(tokenizer, layers=config.layers, width=config.width, heads=config.heads, ff=config.ff)
    )
    model.set_attn_implementation("page_attention")
    run = _Run(model, make_optimizers(model, config), Rows(config, tokenizer), config)
    run.resume(output)
    row: dict[str, Any] = {}
    try:
        with (output / "curve.jsonl").open("a") as curve:
            for row in run.steps():
                curve.write(json.dumps(row) + "\n")
                curve.flush()
                on_log(row)
                if row["step"] % config.checkpoint_every == 0:
                    run.checkpoint(output)
                    save(model, tokenizer, output)
        save(model, tokenizer, output)
    finally:
        torch.set_num_threads(threads)
    return row


@dataclass
class _Run:
    """The loop and what it needs to go on after a stop: weights, moments, the rows' generator and the counters."""

    model: Qwen3ForCausalLM
    optimizers: list[torch.optim.Optimizer]
    rows: Rows
    config: PretrainConfig
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def steps(self) -> Iterator[dict[str, Any]]:
        """Train; yields a row of the curve every ``log_every`` steps."""
        config, model, rows = self.config, self.model, self.rows
        base = [group.setdefault("full_lr", group["lr"]) for o in self.optimizers for group in o.param_groups]
        started, before = time.monotonic(), self.seconds
        exact: dict[str, list[float]] = defaultdict(list)
        losses: list[float] = []
        shares: list[float] = []
        while self.tokens < config.max_tokens:
            factor = schedule(self.step, self.tokens, config)
            for group, lr in zip((g for o in self.optimizers for g in o.param_groups), base, strict=True):
                group["lr"] = lr * factor
            batch = rows.batch()
            loss, found = forward_backward(model, batch)
            right = [v for kind, values in found.items() if kind != "repeat" for v in values]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            self.step, self.tokens = self.step + 1, self.tokens + batch["real"]
            losses.append(loss)
            shares += right
            for kind, values in found.items():
                exact[kind] += values
            if self.step % config.log_every == 0 or self.tokens >= config.max_tokens:
                accuracy = math.fsum(shares) / len(shares)
                if accuracy > config.widen_at and rows.size < config.last_size:
                    rows.size += 1
                self.seconds = before + time.monotonic() - started
                yield {
                    "step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 1), "size": rows.size,
                    "loss": round(math.fsum(losses) / len(losses), 4), "exact": round(accuracy, 4),
                    "kinds": {k: round(math.fsum(v) / len(v), 3) for k, v in sorted(exact.items())},
                }  # fmt: skip
                exact.clear()
                losses.clear()
                shares.clear()

    def checkpoint(self, folder: Path) -> None:
        """Write everything that the next step depends on, in one file."""
        tensors = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        for number, optimizer in enumerate(self.optimizers):
            for key, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{number}.{key}.{name}": value for name, value in state.items()}
        counters = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds, "size": self.rows.size,
                    "config": self.config.model_dump(), "generator": self.rows.rng.getstate()}  # fmt: skip
        fresh = folder / "resume.safetensors.new"
        save_file(tensors, fresh, metadata={"counters": json.dumps(counters)})
        fresh.replace(folder / RESUME)

    def resume(self, folder: Path) -> None:
        """Go on from the last checkpoint of the same recipe, if there is one."""
        if not (folder / RESUME).is_file():
            return
        with safe_open(folder / RESUME, framework="pt") as file:
            state = json.loads(file.metadata()["counters"])
        if state["config"] != self.config.model_dump():
            raise ConfigError("the unfinished pretraining in this folder had another recipe", where=str(folder),
                              remedy="give another --out, or delete the folder")  # fmt: skip
        tensors = load_file(folder / RESUME)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
        for number, optimizer in enumerate(self.optimizers):
            moments: dict[int, dict[str, Tensor]] = defaultdict(dict)
            for name, value in tensors.items():
                if name.startswith(f"{number}."):
                    _, key, field = name.split(".", 2)
                    moments[int(key)][field] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": dict(moments)})
        version, internal, gauss = state["generator"]
        self.rows.rng.setstate((version, tuple(internal), gauss))
        self.rows.size = state["size"]
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights, configuration and tokenizer; the attention used in pretraining is not part of them."""
    model.set_attn_implementation("sdpa")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.set_attn_implementation("page_attention")
