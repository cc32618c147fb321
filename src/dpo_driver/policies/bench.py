"""Generation speed on this machine: actions a second of the local policy against plain transformers ``generate``.

The pocket model plays its own pages: prompts are those of real episodes of the toy environment, in the order in which
episodes meet them, so that siblings and later steps share beginnings as they do in rollouts. Both decode greedily and
write the same text. Called by ``dpo-driver bench generate`` and benchmarks/train.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dpo_driver.core.records import Sampling
from dpo_driver.policies.encoding import decode_completion, end_ids
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.policies.loading import load_model, load_tokenizer

NEW_TOKENS = 64
Prompts = Sequence[tuple[int, ...]]


def bench_generate(
    prompts: Prompts,
    *,
    model: str = "pocket",
    batches: Sequence[int] = (1, 8, 32),
    repeats: int = 3,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Actions a second, by batch size, the two taking turns.

    Args:
        prompts: token ids, in the order in which rollouts ask.
        model: any model that the policy can load.
        batches: prompts at once.
        repeats: runs over all prompts; medians are reported with the spread of the ratio.
        on_row: called with each row.

    Returns:
        ``rows``: ``batch``, ``ours`` and ``transformers`` in actions a second, ``speedup`` {median, low, high},
        ``same``: how many of the texts are the same.
    """
    loaded, tokenizer = load_model(model), load_tokenizer(model)
    rows = []
    for batch in batches:
        ours: list[float] = []
        theirs: list[float] = []
        texts: dict[str, list[str]] = {}
        for _ in range(repeats):
            policy = HFPolicy(model=loaded, tokenizer=tokenizer, max_batch=batch)  # nothing remembered from before
            for name, times, run in (("ours", ours, _policy(policy)), ("theirs", theirs, _plain(loaded, tokenizer))):
                began = time.perf_counter()
                texts[name] = [text for part in _parts(prompts, batch) for text in run(part)]
                times.append(time.perf_counter() - began)
        ratios = [there / here for here, there in zip(ours, theirs, strict=True)]
        row = {
            "batch": batch,
            "ours": round(len(prompts) / statistics.median(ours), 1),
            "transformers": round(len(prompts) / statistics.median(theirs), 1),
            "speedup": {"median": round(statistics.median(ratios), 2), "low": round(min(ratios), 2),
                        "high": round(max(ratios), 2)},
            "same": sum(a == b for a, b in zip(texts["ours"], texts["theirs"], strict=True)),
            "prompts": len(prompts),
        }  # fmt: skip
        rows.append(row)
        on_row(row)
    return {"model": model, "threads": torch.get_num_threads(), "rows": rows}


def _parts(prompts: Prompts, size: int) -> list[Prompts]:
    return [prompts[i : i + size] for i in range(0, len(prompts), size)]


def _policy(policy: HFPolicy) -> Callable[[Prompts], list[str]]:
    how = Sampling(temperature=0.0, max_new_tokens=NEW_TOKENS)
    return lambda part: [answer.text for answer in policy.generate_ids(part, [how] * len(part))]


def _plain(model: Any, tokenizer: Any) -> Callable[[Prompts], list[str]]:
    pad = tokenizer.pad_token_id

    @torch.inference_mode()
    def run(part: Prompts) -> list[str]:
        longest = max(map(len, part))
        ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in part], device=model.device)
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in part], device=model.device)
        made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False,
                              pad_token_id=pad, eos_token_id=sorted(end_ids(tokenizer, model)))  # fmt: skip
        return [decode_completion(tokenizer, row[longest:].tolist()) for row in made]

    return run
