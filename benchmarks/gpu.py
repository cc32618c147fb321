"""A 4B model in four bits on the CUDA device of this machine, against TRL and the plan: ``python benchmarks/gpu.py``.

A random Qwen3-4B in nf4 with LoRA of rank 16 on all seven projections, rows of 5,632 and 512 tokens: seconds and peak
memory of a DPO step here, as configs/qwen3-4b-8gb.yaml has it and without checkpointing, against TRL as it comes and
tuned (reference computed before, no checkpointing), and against what ``dpo-driver plan`` says. Each runs in a process
of its own, and so does what builds the model: nobody else may hold memory of the card. Prints a line as each is done
and, last, JSON; about eight minutes. ``--shape small`` is a model of 30 million, for a try. ``--limit 7`` gives torch
no more than so many GiB of the card, as if it were a smaller one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dpo_driver.core.config import RunConfig, load_config

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "qwen3-4b-8gb.yaml"
PROMPT, COMPLETION = 5632, 512
STEPS = 3  # the first is not timed
GIB = 2**30
# Layers, hidden size, heads, key heads, head size, inner size, vocabulary.
SHAPES = {
    "4b": (36, 2560, 32, 8, 128, 9728, 151_936),
    "small": (6, 512, 8, 4, 64, 1536, 8192),
}
# Name: pairs of one state, states of a step, and how.
CASES: dict[str, tuple[int, int, str]] = {
    "ours": (1, 4, "ours"),
    "ours, nothing computed twice": (1, 4, "ours-fast"),
    "TRL default": (1, 4, "trl-default"),
    "TRL tuned": (1, 4, "trl-tuned"),
    "ours, four pairs a state": (4, 1, "ours"),
    "ours, four pairs a state, nothing computed twice": (4, 1, "ours-fast"),
    "TRL default, four pairs a state": (4, 1, "trl-default"),
    "TRL tuned, four pairs a state": (4, 1, "trl-tuned"),
}


def build(shape: str, folder: Path) -> None:
    """Random weights, as a folder that is loaded like any other."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from dpo_driver.policies.loading import save_version
    from dpo_driver.policies.pocket import build_tokenizer

    layers, hidden, heads, keys, size, inner, vocabulary = SHAPES[shape]
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 1_000_000
    config = AutoConfig.for_model(
        "qwen3", num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=keys,
        head_dim=size, intermediate_size=inner, vocab_size=vocabulary, max_position_embeddings=40_960,
        tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(place()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    save_version(model, tokenizer, folder)


def place() -> str:
    """``cuda`` or, to try the script, ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def config_of(folder: Path, way: str, rows: int, prompt: int) -> RunConfig:
    """The shipped configuration with this model, and as many pairs a step as are measured."""
    sets = [
        f"model.name={folder}",
        f"model.max_length={prompt + COMPLETION}",
        f"model.max_prompt_length={prompt}",
        f"dpo.gradient_accumulation_steps={rows}",
    ]
    if way == "ours-fast":
        sets += ["dpo.gradient_checkpointing=false", "dpo.tokens_per_pass=10240"]
    if place() == "cpu":
        sets += ["model.quantization=none", "dpo.optim=adamw_torch", "dpo.bf16=false", "model.dtype=float32"]
    return load_config(CONFIG, sets)


def measure(case: str, folder: Path, limit: float | None) -> dict[str, Any]:
    """Train for some steps, in this process, which must be a fresh one. Bytes and seconds."""
    import torch

    from dpo_driver.policies.encoding import encode_prompt
    from dpo_driver.policies.loading import load_model, load_tokenizer
    from dpo_driver.training import bench

    pairs, states, way = CASES[case]
    data = bench.preferences(PROMPT, COMPLETION, pairs, states)
    prompt = len(encode_prompt(load_tokenizer(folder), data[0].messages))
    config = config_of(folder, way, len(data), prompt)
    found: dict[str, Any] = {"case": case, "prompt": prompt, "pairs": len(data), "limit": limit}
    tokenizer = load_tokenizer(folder)
    if limit is not None and place() == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit * GIB / torch.cuda.mem_get_info()[1]))

    def make() -> Any:
        began = time.perf_counter()
        torch.manual_seed(0)
        model = load_model(folder, dtype=config.model.dtype, quantization=config.model.quantization, trainable="lora",
                           lora=config.model.lora)  # fmt: skip
        found["load"] = time.perf_counter() - began
        if place() == "cuda":
            found["weights"] = torch.cuda.memory_allocated()
        return model

    if way.startswith("ours"):
        clock = bench.run_ours(make, tokenizer, data, settings(config))
    else:
        more = {
            "per_device_train_batch_size": 1, "gradient_accumulation_steps": len(data), "optim": config.dpo.optim,
            "learning_rate": config.dpo.learning_rate, "beta": config.dpo.beta,
        }  # fmt: skip
        clock = bench.run_trl(make, tokenizer, data, STEPS, tuned=way == "trl-tuned", more=more)
    found |= {"seconds": clock.seconds, "losses": clock.losses, "norms": clock.norms}
    if place() == "cuda":
        free, total = torch.cuda.mem_get_info()
        context = total - free - torch.cuda.memory_reserved()  # of CUDA itself; nobody else is on the card
        reserved = torch.cuda.max_memory_reserved()
        found |= {"allocated": torch.cuda.max_memory_allocated(), "reserved": reserved, "taken": reserved + context}
    if way.startswith("ours"):  # also where rows share a prompt, which plans do not count on: one sees what it costs
        found["plan"] = planned(config, prompt)
    return found


def settings(config: RunConfig) -> dict[str, Any]:
    """The section ``dpo``, for a few steps, of equal learning rate."""
    values = config.dpo.model_dump(exclude={"replay_per_task"})
    return values | {
        "max_length": config.model.max_length, "max_steps": STEPS, "logging_steps": 1, "save_steps": 10_000,
        "lr_scheduler_type": "constant", "warmup_ratio": 0.0, "replay_coefficient": 0.0, "rpo_alpha": 0.0,
    }  # fmt: skip


def planned(config: RunConfig, prompt: int) -> dict[str, Any]:
    """What a plan says of the same rows on this card, without loading anything."""
    from dpo_driver.training.cards import find_card
    from dpo_driver.training.planner import job_of, make_plan

    card = find_card(None)
    plan = make_plan(job_of(config, "dpo", card, prompt=prompt, completion=COMPLETION), card)
    return {"peak": plan.memory.peak, "runtime": plan.memory.runtime, "allocator": plan.memory.allocator,
            "weights": plan.memory.weights, "seconds": plan.seconds}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="4b")
    parser.add_argument("--case", action="append", help="a case's whole name; may be repeated")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, help="GiB of the card that torch may take (default: all)")
    given = parser.parse_args()
    if given.folder is not None:
        if given.case is None:
            build(given.shape, given.folder)
        else:
            print(json.dumps(measure(given.case[0], given.folder, given.limit)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        # Not in this process: what torch's allocator once had of the card it keeps, beside all that is measured.
        subprocess.run([sys.executable, __file__, "--shape", given.shape, "--folder", str(folder)], check=True)
        for case in given.case or CASES:
            child = [sys.executable, __file__, "--case", case, "--folder", str(folder)]
            child += [] if given.limit is None else ["--limit", str(given.limit)]
            done = subprocess.run(child, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{case}: failed\n{done.stderr[-1500:]}", flush=True)
                continue
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            _print(rows[-1])
    print(json.dumps({"shape": given.shape, "rows": rows}))


def _print(row: dict[str, Any]) -> None:
    gib = {name: row[name] / GIB for name in ("weights", "allocated", "reserved", "taken") if name in row}
    sizes = ", ".join(f"{name} {size:.2f} GiB" for name, size in gib.items())
    plan = row.get("plan")
    said = ""
    if plan:  # what torch reserves is without the CUDA context, so the plan is shown without it too
        seconds = "no time" if plan["seconds"] is None else f"{plan['seconds']:.2f} s"
        context = plan["runtime"] / GIB
        said = f"; planned {plan['peak'] / GIB - context:.2f} GiB and {context:.2f} of context, {seconds}"
    rate = row["pairs"] / row["seconds"]
    print(f"{row['case']:50} {row['seconds']:7.2f} s a step, {rate:6.2f} pairs/s, {sizes}{said}", flush=True)


if __name__ == "__main__":
    main()
