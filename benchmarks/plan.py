"""Predicted against measured peak memory and seconds a step on this machine: ``python benchmarks/plan.py``.

Each case is a training by the engine in a fresh process, of the pocket model or of a small random one: peak resident
memory (VmHWM) of that process, or on a CUDA device what it takes of the card, and the median of its steps, against what
``dpo-driver plan`` says beforehand. A machine's pace drifts by as much as a plan may be off, so a case is planned and
trained in turn, several rounds: figures are medians over the rounds, with the least and the largest ratio beside them.
Random letters are prompts and completions, so that rows have the lengths that the plan was asked about. Run it on an
idle machine; ``--case`` picks some, ``--json`` prints all figures.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from dpo_driver.core.config import RunConfig
from dpo_driver.core.memory import keep_freed_memory
from dpo_driver.core.records import Message, Preference, TrainingSample
from dpo_driver.training import bench
from dpo_driver.training.cards import find_card
from dpo_driver.training.planner import job_of, make_plan, measure, section
from dpo_driver.training.probe import peak_resident

MIB = 2**20
# Random models: architecture, then layers, hidden size, heads, key heads, head size, inner size, vocabulary.
MODELS: dict[str, tuple[Any, ...]] = {
    "qwen3-5M": ("qwen3", 6, 256, 8, 2, 32, 768, 448),
    "llama-15M": ("llama", 8, 384, 6, 6, 64, 1024, 448),
    "qwen2-5M": ("qwen2", 12, 192, 6, 2, 32, 512, 448),
    "qwen3-10M": ("qwen3", 2, 512, 8, 4, 64, 1536, 8192),
    "qwen3-67M": ("qwen3", 4, 1024, 16, 8, 64, 3072, 16_384),
}


@dataclass(frozen=True)
class Case:
    """A training: rows of one step, lengths in tokens."""

    model: str
    stage: str
    training: str
    prompt: int
    completion: int
    rows: int
    checkpointing: bool = False
    tokens_per_pass: int = 8192

    @property
    def name(self) -> str:
        more = "+checkpointing" if self.checkpointing else ""
        return f"{self.model}/{self.stage}/{self.training}{more}/{self.prompt}+{self.completion}x{self.rows}"


CASES = (
    Case("pocket", "sft", "full", 500, 32, 8),
    Case("pocket", "dpo", "full", 1900, 64, 2),
    Case("pocket", "dpo", "full", 300, 32, 16, tokens_per_pass=4096),
    Case("pocket", "dpo", "lora", 1000, 64, 4),
    Case("pocket", "dpo", "full", 1900, 64, 2, checkpointing=True),
    Case("qwen3-5M", "sft", "full", 1000, 64, 2),
    Case("qwen3-5M", "dpo", "full", 2000, 64, 1),
    Case("qwen3-5M", "dpo", "lora", 600, 64, 4),
    Case("llama-15M", "dpo", "full", 700, 64, 2),
    Case("llama-15M", "dpo", "lora", 700, 64, 2, checkpointing=True),
    Case("qwen2-5M", "dpo", "full", 1000, 64, 2),
    Case("qwen3-10M", "sft", "full", 600, 200, 2),
    Case("qwen3-67M", "dpo", "full", 200, 32, 2),
)


def device() -> str:
    """Where the trainings run."""
    return bench.device()


def build(name: str, folder: Path) -> str:
    """A model's folder, or ``pocket``."""
    if name == "pocket":
        return name
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from dpo_driver.policies.loading import save_version
    from dpo_driver.policies.pocket import build_tokenizer

    kind, layers, hidden, heads, keys, size, inner, vocabulary = MODELS[name]
    tokenizer = build_tokenizer()
    config = AutoConfig.for_model(
        kind, num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=keys,
        head_dim=size, intermediate_size=inner, vocab_size=vocabulary, max_position_embeddings=8192,
        tie_word_embeddings=kind != "llama", pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    save_version(AutoModelForCausalLM.from_config(config), tokenizer, folder / name)
    return str(folder / name)


def config_of(case: Case, model: str, steps: int) -> RunConfig:
    """The configuration that the plan is asked about and the training is run with."""
    stage = {
        "per_device_train_batch_size": case.rows, "gradient_checkpointing": case.checkpointing, "max_steps": steps,
        "tokens_per_pass": case.tokens_per_pass, "logging_steps": 1, "eval_steps": 10_000,
    }  # fmt: skip
    longest = case.prompt + case.completion
    return RunConfig.model_validate(
        {"model": {"name": model, "training": case.training, "device": device(), "dtype": "float32",
                   "max_length": longest}, case.stage: stage}
    )  # fmt: skip


def rows_of(case: Case) -> list[Preference | TrainingSample]:
    """Random letters, one token each; the end-of-turn token is the completion's last."""
    rng = random.Random(0)

    def text(length: int) -> str:
        return "".join(rng.choice("bcdfghjkqvwxyz") for _ in range(length))

    found: list[Preference | TrainingSample] = []
    for i in range(case.rows):
        messages = (Message(role="user", content=text(case.prompt)),)
        chosen, rejected = text(case.completion - 1), text(case.completion - 1)
        if case.stage == "dpo":
            found.append(Preference(id=str(i), messages=messages, chosen=chosen, rejected=rejected, level="text",
                                    source="benchmark"))  # fmt: skip
        else:
            found.append(TrainingSample(id=str(i), messages=messages, completion=chosen, source="benchmark"))
    return found


def train_once(case: Case, model: str, steps: int) -> dict[str, float]:
    """What a training took: in this process, which must be a fresh one. Bytes and seconds."""
    keep_freed_memory()  # as every run does
    from dpo_driver.policies.loading import load_model, load_tokenizer
    from dpo_driver.training.engine import train

    config = config_of(case, model, steps)
    settings = section(config, case.stage)  # type: ignore[arg-type]
    trainable: Any = "lora" if config.model.uses_adapter else "full"
    loaded = load_model(model, dtype="float32", device=device(), trainable=trainable, lora=config.model.lora)
    ends: list[float] = []
    values = settings.model_dump(exclude={"replay_per_task"}) | {"max_length": config.model.max_length}
    with tempfile.TemporaryDirectory() as output:
        train(case.stage, loaded, load_tokenizer(model), rows_of(case), [], values, output,
              on_log=lambda step, metrics: ends.append(time.perf_counter()))  # fmt: skip
    steps = [later - earlier for earlier, later in pairwise(ends)]
    return {"peak": _peak(), "seconds": statistics.median(steps)}


def _peak() -> int:
    """Of this process: memory, or what it holds of the card, beside which nobody else may be."""
    if device() == "cpu":
        return peak_resident()
    import torch

    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved() + torch.cuda.max_memory_reserved()


def compare(case: Case, folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Plan, then train in a process of its own, and again."""
    model = build(case.model, folder)
    card = find_card(None)
    job = job_of(config_of(case, model, steps), case.stage, card, prompt=case.prompt, completion=case.completion)  # type: ignore[arg-type]
    child = [sys.executable, __file__, "--train", json.dumps(asdict(case)), "--model", model, "--steps", str(steps)]
    plans, trainings = [], []
    for _ in range(rounds):
        (asked,) = measure([job], card)
        plans.append(make_plan(job, card, asked))
        assert plans[-1].seconds is not None
        done = subprocess.run(child, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{case.name} failed:\n{done.stderr[-2000:]}")
        trainings.append(json.loads(done.stdout.splitlines()[-1]))
    above = [plan.memory.peak - plan.memory.runtime for plan in plans]
    measured_above = [took["peak"] - plan.memory.runtime for plan, took in zip(plans, trainings, strict=True)]
    return {
        "case": case.name,
        "peak": _against([plan.memory.peak for plan in plans], [took["peak"] for took in trainings]),
        "above_runtime": _against(above, measured_above),
        "seconds": _against([plan.seconds for plan in plans], [took["seconds"] for took in trainings]),
        "terms": asdict(plans[-1].memory),
    }


def _against(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, Any]:
    """Medians over the rounds, and of the rounds' ratios the median and the range."""
    ratios = [one / other for one, other in zip(predicted, measured, strict=True)]
    return {"predicted": statistics.median(predicted), "measured": statistics.median(measured),
            "ratio": statistics.median(ratios), "range": [min(ratios), max(ratios)]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="part of a case's name; may be repeated")
    parser.add_argument("--steps", type=int, default=7, help="of each training")
    parser.add_argument("--rounds", type=int, default=3, help="of planning and training each case")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        print(json.dumps(train_once(Case(**json.loads(given.train)), given.model, given.steps)))
        return
    cases = [case for case in CASES if not given.case or any(part in case.name for part in given.case)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            rows.append(compare(case, Path(folder), given.steps, given.rounds))
            if not given.json:
                _print(rows[-1], header=len(rows) == 1)
    off = [row["case"] for row in rows if abs(row["peak"]["ratio"] - 1) > 0.1 or abs(row["seconds"]["ratio"] - 1) > 0.1]
    if given.json:
        print(json.dumps({"rows": rows, "off_by_more_than_a_tenth": off}, indent=1))
    else:
        print(f"{len(rows) - len(off)} of {len(rows)} within 10 % in memory and time", *off, sep="\n  ")


def _print(row: dict[str, Any], *, header: bool) -> None:
    if header:
        names = ("peak MiB", "measured", "ratio", "s/step", "measured", "ratio", "least", "largest")
        print(f"{'case':44}", *(f"{name:>8}" for name in names))
    peak, seconds = row["peak"], row["seconds"]
    sizes = (f"{peak[name] / MIB:8.0f}" for name in ("predicted", "measured"))
    times = (f"{value:8.3f}" for value in (*(seconds[name] for name in ("predicted", "measured", "ratio")),
                                           *seconds["range"]))  # fmt: skip
    print(f"{row['case']:44}", *sizes, f"{peak['ratio']:8.3f}", *times, flush=True)


if __name__ == "__main__":
    main()
