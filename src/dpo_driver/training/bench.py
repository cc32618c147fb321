"""Training speed on this machine: one DPO step here against TRL's DPOTrainer, same weights, same rows, same run.

Called by ``dpo-driver bench train`` and benchmarks/train.py. Loads TRL only when asked to measure. TRL runs twice: as
it comes (reference recomputed in every step, gradient checkpointing on) and tuned (reference computed before, no
checkpointing). Both get a ``max_length`` that fits, since by default TRL drops rows whose prompt has 1,024 tokens.
All in float32.
"""

from __future__ import annotations

import contextlib
import gc
import io
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from dpo_driver.core.errors import ConfigError
from dpo_driver.core.records import Message, Preference
from dpo_driver.policies.loading import load_model, load_tokenizer, save_version
from dpo_driver.policies.pocket import build_config, build_tokenizer

BETA, LEARNING_RATE, SEED = 0.1, 1e-4, 0


def bench_train(
    prompts: Sequence[int] = (512, 1024),
    completions: Sequence[int] = (32,),
    pairs_per_state: Sequence[int] = (1, 4),
    *,
    states: int = 2,
    steps: int = 4,
) -> dict[str, Any]:
    """Seconds per DPO step, full training of a random model of the pocket model's size.

    Args:
        prompts: prompt lengths in tokens.
        completions: completion lengths in tokens, end-of-turn token included.
        pairs_per_state: pairs that share one prompt.
        states: different prompts in a step.
        steps: steps per run; the first is not timed.

    Returns:
        ``rows``: per point of the grid ``prompt``, ``completion``, ``pairs``, ``seconds`` {ours, trl_default,
        trl_tuned}, ``speedup`` {default, tuned} and ``max_loss_diff``, the largest difference of the loss at any step.
    """
    try:
        import trl
    except ImportError:
        raise ConfigError("TRL is not installed", remedy="pip install 'dpo-driver[dev]'") from None
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parameters = _make_model(folder / "model")
        for prompt in prompts:
            for completion in completions:
                for pairs in pairs_per_state:
                    data = _preferences(prompt, completion, states, pairs)
                    rows.append(
                        {"prompt": prompt, "completion": completion, "pairs": pairs} | _point(folder, data, steps)
                    )
    return {
        "parameters": parameters,
        "threads": torch.get_num_threads(),
        "states_per_step": states,
        "trl": trl.__version__,
        "max_loss_diff": max(row["max_loss_diff"] for row in rows),
        "rows": rows,
    }


def _point(folder: Path, data: list[Preference], steps: int) -> dict[str, Any]:
    ours, our_losses = _run_ours(folder, data, steps)
    default, losses = _run_trl(folder, data, steps, tuned=False)
    tuned, tuned_losses = _run_trl(folder, data, steps, tuned=True)
    differences = [abs(a - b) for other in (losses, tuned_losses) for a, b in zip(our_losses, other, strict=True)]
    return {
        "seconds": {"ours": round(ours, 4), "trl_default": round(default, 4), "trl_tuned": round(tuned, 4)},
        "speedup": {"default": round(default / ours, 2), "tuned": round(tuned / ours, 2)},
        "max_loss_diff": max(differences),
    }


def _make_model(folder: Path) -> int:
    from transformers import Qwen3ForCausalLM

    tokenizer = build_tokenizer()
    torch.manual_seed(SEED)
    model = Qwen3ForCausalLM(build_config(tokenizer, layers=4, width=128, heads=4, ff=384))
    save_version(model, tokenizer, folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _preferences(prompt: int, completion: int, states: int, pairs: int) -> list[Preference]:
    """Random letters, one token each; the completion leaves room for the end-of-turn token."""
    rng = random.Random(SEED)

    def text(length: int) -> str:
        return "".join(rng.choice("bcdfghjkqvwxyz") for _ in range(length))

    rows = []
    for state in range(states):
        messages = (Message(role="user", content=text(prompt)),)
        for pair in range(pairs):
            chosen, rejected = text(completion - 1), text(completion - 1)
            rows.append(Preference(id=f"{state}-{pair}", messages=messages, chosen=chosen, rejected=rejected,
                                   level="text", source="bench"))  # fmt: skip
    return rows


def _run_ours(folder: Path, data: list[Preference], steps: int) -> tuple[float, list[float]]:
    from dpo_driver.training.engine import train

    model = load_model(folder / "model", dtype="float32", device="cpu", trainable="full")
    times: list[float] = []
    losses: list[float] = []

    def log(step: int, metrics: dict[str, float]) -> None:
        times.append(time.perf_counter())
        losses.append(metrics["loss"])

    config = {
        "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "max_steps": steps, "beta": BETA, "seed": SEED,
        "per_device_train_batch_size": len(data), "logging_steps": 1, "save_steps": 10_000, "max_length": 100_000,
        "tokens_per_pass": 8192,
    }  # fmt: skip
    tokenizer = load_tokenizer(folder / "model")
    with tempfile.TemporaryDirectory() as output:
        train("dpo", model, tokenizer, data, [], config, output, on_log=log, resume=False)
    return _seconds(times), losses


def _run_trl(folder: Path, data: list[Preference], steps: int, *, tuned: bool) -> tuple[float, list[float]]:
    from datasets import Dataset, disable_progress_bars
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            times.append(time.perf_counter())

    def turn(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    rows = [
        {
            "prompt": turn("user", row.messages[0].content),
            "chosen": turn("assistant", row.chosen),
            "rejected": turn("assistant", row.rejected),
        }
        for row in data
    ]
    with tempfile.TemporaryDirectory() as output, contextlib.redirect_stdout(io.StringIO()):
        config = DPOConfig(
            output_dir=output, per_device_train_batch_size=len(data), max_steps=steps, learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant", beta=BETA, seed=SEED, logging_steps=1, save_strategy="no", report_to="none",
            disable_tqdm=True, bf16=False, use_cpu=True, max_length=100_000, dataloader_pin_memory=False,
            precompute_ref_log_probs=tuned, gradient_checkpointing=not tuned,
        )  # fmt: skip
        trainer = DPOTrainer(
            model=load_model(folder / "model", dtype="float32", device="cpu", trainable="full"),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(folder / "model"),
            callbacks=[Clock()],
        )
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    del trainer
    gc.collect()
    return _seconds(times[: len(losses)]), losses


def _seconds(times: list[float]) -> float:
    """Median time between the ends of two steps; what came before the end of the first is warming up."""
    return statistics.median(later - earlier for earlier, later in pairwise(times))
