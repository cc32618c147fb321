"""Seconds of a DPO step with an ordinary LoRA adapter and with one that acts only after the prompt.

``python benchmarks/after_prompt.py`` prints a table and, last, JSON; on a CPU it ends within ten minutes. Same model
(random Qwen3 of 4 layers, LoRA of rank 16 on all linear layers), same rows, three ways: ``lora``; ``first``, where no
prompt is kept, so that every step costs what the first epoch does; ``kept``, where all are, as in every epoch after the
first and, since the reference is computed before the first step, as in all of a DPO run's. A run's whole time, with the
reference, stands beside it. Options: ``--prompts``, ``--completion``, ``--states``, ``--pairs``, ``--steps``,
``--repeats``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dpo_driver.core.records import Message, Preference
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.loading import load_model, load_tokenizer
from dpo_driver.training.bench import RANK, SEED, Clock, device, make_model, preferences
from dpo_driver.training.engine import train

WAYS = ("lora", "first", "kept")


def rows_of(prompt: int, completion: int, states: int, pairs: int) -> list[Preference]:
    """Pairs whose prompts end as the model's chat template has it: with a line break."""

    def ended(message: Message) -> Message:
        return message.model_copy(update={"content": message.content + "\n"})

    rows = preferences(prompt - 1, completion, pairs, states)
    return [row.model_copy(update={"messages": tuple(map(ended, row.messages))}) for row in rows]


def run(folder: Path, rows: Sequence[Preference], way: str, steps: int) -> dict[str, float]:
    """Median seconds of a step (the first, which warms up, is left out) and of the whole run."""
    torch.manual_seed(SEED)
    lora = LoraConfig(r=RANK, alpha=2 * RANK, after_prompt=way != "lora")
    dtype = "bfloat16" if device() == "cuda" else "float32"
    model = load_model(folder, dtype=dtype, device=device(), trainable="lora", lora=lora)
    clock = Clock()
    config = {
        "learning_rate": 1e-4, "lr_scheduler_type": "constant", "max_steps": steps, "seed": SEED, "logging_steps": 1,
        "per_device_train_batch_size": len(rows), "save_steps": 10_000, "max_length": 100_000, "tokens_per_pass": 8192,
        "prompt_cache_gb": 0.0 if way == "first" else 8.0,
    }  # fmt: skip
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as output, clock.running():
        train("dpo", model, load_tokenizer(folder), rows, [], config, output, resume=False,
              on_log=lambda step, metrics: clock.tick(metrics))  # fmt: skip
    return {
        "step": clock.seconds,
        "run": time.perf_counter() - began,
        "loss": clock.losses[0],
        "peak_mb": clock.peak_mb,
    }


def point(folder: Path, prompt: int, given: argparse.Namespace) -> dict[str, Any]:
    """All ways at one length of prompt; what is repeated takes turns, so that a busy moment hits all alike."""
    rows = rows_of(prompt, given.completion, given.states, given.pairs)
    runs = [{way: run(folder, rows, way, given.steps) for way in WAYS} for _ in range(given.repeats)]
    found: dict[str, Any] = {
        "prompt": prompt,
        "completion": given.completion,
        "states": given.states,
        "pairs": given.pairs,
    }
    for key in ("step", "run", "peak_mb"):
        found[key] = {way: round(statistics.median(each[way][key] for each in runs), 4) for way in WAYS}
    for key in ("step", "run"):
        found[f"{key}_ratio"] = {way: round(found[key]["lora"] / found[key][way], 2) for way in WAYS[1:]}
    found["first_losses"] = {way: runs[0][way]["loss"] for way in WAYS}  # ln 2: all start from the same place
    return found


def table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table(
        "prompt", "completion", "pairs", *(f"{way} s/step" for way in WAYS), "first x", "kept x", "run x (kept)"
    )
    for row in rows:
        shown.add_row(
            str(row["prompt"]), str(row["completion"]), f"{row['states']} x {row['pairs']}",
            *(f"{row['step'][way]:.3f}" for way in WAYS), *(f"{row['step_ratio'][way]:.2f}" for way in WAYS[1:]),
            f"{row['run_ratio']['kept']:.2f}",
        )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1024, 4096], help="tokens")
    parser.add_argument("--completion", type=int, default=48, help="tokens, with the end of turn")
    parser.add_argument("--states", type=int, default=2, help="different prompts of a step")
    parser.add_argument("--pairs", type=int, default=1, help="pairs of each")
    parser.add_argument("--steps", type=int, default=4, help="of a run; the first is not timed")
    parser.add_argument("--repeats", type=int, default=3, help="of every run; the median counts")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        parameters = make_model(Path(scratch) / "model")
        rows = [point(Path(scratch) / "model", prompt, given) for prompt in given.prompts]
    Console(stderr=True, width=120).print(table(rows))
    print(json.dumps({"parameters": parameters, "device": device(), "threads": torch.get_num_threads(), "rows": rows}))


if __name__ == "__main__":
    main()
