"""Training speed on this machine: one DPO step here against TRL's DPOTrainer, same weights, same rows, same run.

Called by ``dpo-driver bench train`` and benchmarks/train.py. Loads TRL only when asked to measure. TRL runs twice: as
it comes (reference recomputed in every step, gradient checkpointing on) and tuned (reference computed before, no
checkpointing). Both get a ``max_length`` that fits, since by default TRL drops rows whose prompt has 1,024 tokens.
A random Qwen3 of 4 layers with a LoRA adapter, in float32; on a CUDA device in bfloat16.
"""

from __future__ import annotations

import contextlib
import gc
import io
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from dpo_driver.core.errors import ConfigError
from dpo_driver.core.records import Message, Preference
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.loading import load_model, load_tokenizer, save_version
from dpo_driver.policies.pocket import build_config, build_tokenizer
from dpo_driver.training.peak import PeakMemory, memory_left

BETA, LEARNING_RATE, SEED = 0.1, 1e-4, 0
RANK, VOCABULARY = 16, 8192
BUDGET_S = 560.0  # of the default grid: it ends within ten minutes
PROMPTS, FULL_PROMPTS = (512, 1024, 4096), (512, 1024, 4096, 16384)
COMPLETIONS, PAIRS = (32, 64, 256), (1, 4)
TARGET = (4096, 48)  # the point that is promised: it is measured first
Point = tuple[int, int, int]  # prompt, completion, pairs of a state


def grid(*, full: bool = False) -> list[Point]:
    """The points to measure, the promised ones first, then the cheap before the dear."""
    points = [(p, c, n) for p in (FULL_PROMPTS if full else PROMPTS) for c in COMPLETIONS for n in PAIRS]
    return [(*TARGET, n) for n in PAIRS] + sorted(points, key=lambda point: (point[0] * point[2], point[1]))


def bench_train(
    points: Sequence[Point] | None = None,
    *,
    full: bool = False,
    steps: int = 3,
    loss_type: str = "sigmoid",
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Seconds per DPO step, peak memory, and how far losses and gradients are from TRL's.

    Args:
        points: (prompt tokens, completion tokens with the end of turn, pairs of a state); the grid when None.
        full: the grid with prompts of 16,384 tokens, however long it takes; otherwise points that would pass ten
            minutes are left out. Points that would not fit into memory are left out of both.
        steps: steps per run; the first is not timed.
        loss_type: of the pairs, see algorithms/pair_losses.
        on_row: called with each row.

    Returns:
        ``rows``: per point ``prompt``, ``completion``, ``pairs``, ``seconds`` {ours, trl_default, trl_tuned},
        ``speedup`` {default, tuned}, ``peak_mb`` beyond what the process held before, ``max_loss_diff`` and
        ``max_grad_diff`` (of the gradient's norm, relative) over all steps; ``left_out``: per point of the grid that
        was not measured ``prompt``, ``completion``, ``pairs`` and ``why``.
    """
    trl = import_trl()
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, quiet():
        folder = Path(scratch)
        parameters = make_model(folder / "model")
        for point in grid(full=full) if points is None else points:
            why = None
            if points is None and _expected_mb(rows, point) > memory_left(device()):
                why = "too little memory"
            elif points is None and not full and time.monotonic() - began + _expected(rows, point) > BUDGET_S:
                why = "it would pass ten minutes, --full measures it"
            if why is not None:
                left_out.append({**dict(zip(("prompt", "completion", "pairs"), point, strict=True)), "why": why})
                continue
            rows.append(_point(folder / "model", point, steps, loss_type))
            on_row(rows[-1])
    return {
        "parameters": parameters,
        "device": device(),
        "threads": torch.get_num_threads(),
        "trl": trl.__version__,
        "max_loss_diff": max(row["max_loss_diff"] for row in rows),
        "rows": rows,
        "left_out": left_out,
    }


def import_trl() -> Any:
    """TRL, or an error that says how to get it."""
    try:
        import trl
    except ImportError:
        raise ConfigError("TRL is not installed", remedy="pip install 'dpo-driver[dev]'") from None
    return trl


def device() -> str:
    """Where the benchmarks run."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _expected(rows: Sequence[dict[str, Any]], point: Point) -> float:
    """Seconds that a point will take: in proportion to tokens from the slowest like it; attention makes it more."""
    prompt, completion, pairs = point
    tokens = (prompt + completion) * pairs
    known = [row["wall"] * max(1.0, tokens / ((row["prompt"] + row["completion"]) * row["pairs"])) for row in rows
             if row["prompt"] >= prompt / 2]  # fmt: skip
    return min(known, default=0.0)


def _expected_mb(rows: Sequence[dict[str, Any]], point: Point) -> float:
    """Megabytes of the hungriest of a point's trainings: in proportion to tokens from the largest so far."""
    prompt, completion, pairs = point
    known = [((row["prompt"] + row["completion"]) * row["pairs"], max(row["peak_mb"].values())) for row in rows]
    tokens, most = max(known, default=(1, 0.0))
    return most * (prompt + completion) * pairs / tokens


def _point(model: Path, point: Point, steps: int, loss_type: str) -> dict[str, Any]:
    began = time.monotonic()
    prompt, completion, pairs = point
    data = preferences(prompt, completion, pairs)
    runs = {
        "ours": _run_ours(model, data, steps, loss_type),
        "trl_default": _run_trl(model, data, steps, loss_type, tuned=False),
        "trl_tuned": _run_trl(model, data, steps, loss_type, tuned=True),
    }
    ours = runs["ours"]
    others = [runs["trl_default"], runs["trl_tuned"]]
    seconds = {name: run.seconds for name, run in runs.items()}
    return {
        "prompt": prompt,
        "completion": completion,
        "pairs": pairs,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "speedup": {
            "default": round(seconds["trl_default"] / seconds["ours"], 2),
            "tuned": round(seconds["trl_tuned"] / seconds["ours"], 2),
        },
        "peak_mb": {name: round(run.peak_mb) for name, run in runs.items()},
        "max_loss_diff": max(abs(a - b) for other in others for a, b in zip(ours.losses, other.losses, strict=True)),
        "max_grad_diff": max(
            abs(a - b) / max(a, 1e-12) for other in others for a, b in zip(ours.norms, other.norms, strict=True)
        ),
        "wall": round(time.monotonic() - began, 1),
    }


class Clock:
    """Times, losses and gradient norms of a run's steps, and its peak memory."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.peak_mb = 0.0

    def tick(self, metrics: dict[str, Any]) -> None:
        """A step is done."""
        self.times.append(time.perf_counter())
        self.losses.append(float(metrics["loss"]))
        self.norms.append(float(metrics["grad_norm"]))

    @property
    def seconds(self) -> float:
        """Median of the timed steps."""
        return statistics.median(later - earlier for earlier, later in pairwise(self.times))

    @contextlib.contextmanager
    def running(self) -> Iterator[Clock]:
        """Watch the memory of what happens inside."""
        gc.collect()
        with PeakMemory(device()) as memory:
            yield self
        self.peak_mb = memory.mb


def make_model(folder: Path) -> int:
    """Save the benchmark's model; returns its parameters."""
    from transformers import Qwen3ForCausalLM

    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 1_000_000
    config = build_config(tokenizer, layers=4, width=192, heads=4, ff=512)
    config.vocab_size, config.max_position_embeddings = VOCABULARY, 32768
    torch.manual_seed(SEED)
    model = Qwen3ForCausalLM(config)
    save_version(model, tokenizer, folder)
    return sum(parameter.numel() for parameter in model.parameters())


def trainable_model(folder: Path) -> Any:
    """The benchmark's model with a fresh adapter, the same each time."""
    torch.manual_seed(SEED)
    lora = LoraConfig(r=RANK, alpha=2 * RANK, target_modules="all-linear")
    dtype = "bfloat16" if device() == "cuda" else "float32"
    return load_model(folder, dtype=dtype, device=device(), trainable="lora", lora=lora)


def random_text(rng: random.Random, length: int) -> str:
    """Letters, one token each."""
    return "".join(rng.choices("bcdfghjkqvwxyz", k=length))


def preferences(prompt: int, completion: int, pairs: int, states: int = 1) -> list[Preference]:
    """Pairs of random letters, so many of each state; the completion leaves room for the end-of-turn token."""
    rng = random.Random(SEED)
    rows = []
    for state in range(states):
        messages = (Message(role="user", content=random_text(rng, prompt)),)
        for pair in range(pairs):
            chosen, rejected = random_text(rng, completion - 1), random_text(rng, completion - 1)
            rows.append(Preference(id=f"{state}-{pair}", messages=messages, chosen=chosen, rejected=rejected,
                                   level="text", source="bench"))  # fmt: skip
    return rows


def _together(data: Sequence[Preference]) -> int:
    """Tokens, and some more, of a state with all its pairs: a letter is a token."""
    pairs = [len(row.chosen) + len(row.rejected) + 8 for row in data if row.messages == data[0].messages]
    return len(data[0].messages[0].content) + sum(pairs) + 64


def _run_ours(model: Path, data: list[Preference], steps: int, loss_type: str) -> Clock:
    config = {
        "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "max_steps": steps, "beta": BETA, "seed": SEED,
        "per_device_train_batch_size": len(data), "logging_steps": 1, "save_steps": 10_000, "max_length": 100_000,
        "tokens_per_pass": max(8192, _together(data)), "loss_type": loss_type,
    }  # fmt: skip
    return run_ours(lambda: trainable_model(model), load_tokenizer(model), data, config)


def _run_trl(model: Path, data: list[Preference], steps: int, loss_type: str, *, tuned: bool) -> Clock:
    more = {
        "per_device_train_batch_size": len(data), "learning_rate": LEARNING_RATE, "beta": BETA, "loss_type": loss_type,
    }  # fmt: skip
    return run_trl(lambda: trainable_model(model), load_tokenizer(model), data, steps, tuned=tuned, more=more)


def run_ours(make: Callable[[], Any], tokenizer: Any, data: list[Preference], config: dict[str, Any]) -> Clock:
    """A short DPO training by this engine.

    Args:
        make: gives the model; its memory counts.
        tokenizer: of the model.
        data: pairs.
        config: for the engine.
    """
    from dpo_driver.training.engine import train

    clock = Clock()
    with tempfile.TemporaryDirectory() as output, clock.running():
        train("dpo", make(), tokenizer, data, [], config, output, resume=False,
              on_log=lambda step, metrics: clock.tick(metrics))  # fmt: skip
    return clock


def run_trl(
    make: Callable[[], Any], tokenizer: Any, data: list[Preference], steps: int, *, tuned: bool, more: dict[str, Any]
) -> Clock:
    """The same by TRL's trainer.

    Args:
        make, tokenizer, data: see :func:`run_ours`.
        steps: of the optimizer.
        tuned: reference computed before, no gradient checkpointing.
        more: for DPOConfig.
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    clock = Clock()

    class Ticks(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:
                clock.tick(logs)

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
    with tempfile.TemporaryDirectory() as output, clock.running():
        config = DPOConfig(
            output_dir=output, max_steps=steps, lr_scheduler_type="constant", seed=SEED, logging_steps=1,
            save_strategy="no", report_to="none", disable_tqdm=True, bf16=device() == "cuda",
            use_cpu=device() == "cpu", max_length=100_000, dataloader_pin_memory=False,
            precompute_ref_log_probs=tuned, gradient_checkpointing=not tuned, **more,
        )  # fmt: skip
        trainer = DPOTrainer(
            model=make(), args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
            callbacks=[Ticks()],
        )  # fmt: skip
        trainer.train()
        del trainer
    return clock


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The peers' bars and warnings would drown the figures."""
    import logging

    from datasets import disable_progress_bars, enable_progress_bars

    named = logging.getLogger("transformers")
    level = named.level
    named.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        named.setLevel(level)
        enable_progress_bars()
