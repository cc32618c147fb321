"""What only this machine can tell a plan: memory of a training process that trains next to nothing, and seconds of the
engine's own pass over one and over three layers of the model's widths.

Run as a process of its own by training/planner.py, ``python -m dpo_driver.training.probe``, with a :class:`Question` as
JSON on its standard input; prints :class:`Answer` as JSON. Nothing of the model is loaded: the layers are random.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from dpo_driver.core.errors import ModelError
from dpo_driver.core.memory import keep_freed_memory
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.training.flops import end_flops, layer_flops
from dpo_driver.training.passes import Layout
from dpo_driver.training.shapes import ModelShape

# Of one layer, forward and backward: larger passes are measured on a part and scaled. What does not grow with tokens,
# such as writing the gradients of weights, is scaled along, so the part must not be small. On a GPU a small one takes
# as long as the whole.
MOST_FLOPS, MOST_FLOPS_ON_GPU = 6e10, 2e13
MOST_TABLE = 2**27  # numbers in the table of embeddings; larger ones are measured on a part and scaled
# So often at least, and on for some seconds: other work on this machine disturbs some turns, rarely half of them.
REPEATS, MOST_REPEATS, ENOUGH = 4, 20, 3.0
SHALLOW, DEEP = 1, 3  # layers; the last one of each is computed for the predicting tokens only


@dataclass(frozen=True)
class Question:
    """What is to be measured."""

    shape: ModelShape
    layout: Layout
    lora: dict[str, Any] | None  # of the configuration's model.lora; None: the whole model learns
    bf16: bool
    checkpointing: bool
    trainable: int  # numbers that learn
    device: str


@dataclass(frozen=True)
class Answer:
    """Bytes and seconds on this machine."""

    runtime: int  # resident memory of a process that trained a model of next to nothing
    layer: float  # of one pass over the layout: each layer but the last ...
    rest: float  # ... and embeddings, last layer, last norm and head
    collate: float  # rows to tensors, the whole layout
    optimizer: float
    step: float  # what Trainer does beside, for each step


def ask(questions: Sequence[Question], *, timeout: float = 300.0) -> list[Answer]:
    """Measure in a fresh process.

    Raises:
        ModelError: the process failed, or took too long.
    """
    command = [sys.executable, "-m", "dpo_driver.training.probe"]
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    asked = json.dumps([asdict(question) for question in questions])
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=timeout, env=environment,
                              check=True)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ModelError(f"this machine could not be measured within {timeout:.0f} s") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ModelError(f"this machine could not be measured: {last}") from None
    return [Answer(**item) for item in json.loads(done.stdout.splitlines()[-1])]


def answer(questions: Sequence[Question]) -> list[Answer]:
    """Measure in this process."""
    keep_freed_memory()
    idle = {
        adapter: _idle_training(questions[0].device, adapter) for adapter in {q.lora is not None for q in questions}
    }
    return [_answer(question, *idle[question.lora is not None]) for question in questions]


def _answer(question: Question, runtime: int, step: float) -> Answer:
    layout, shape = _part(question), question.shape
    if shape.embedding > MOST_TABLE:
        shape = replace(shape, vocab_size=max(1024, MOST_TABLE // shape.hidden_size))
    shallow, deep = _passes(question, shape, layout)
    layer = (deep - shallow) / (DEEP - SHALLOW) * _ratio(layer_flops, question, shape, layout)
    rest = shallow * _ratio(end_flops, question, shape, layout)
    return Answer(runtime, layer, rest, _collate(question.layout), _optimizer(question), step)


def _ratio(flops: Callable[..., float], question: Question, shape: ModelShape, layout: Layout) -> float:
    """By how much the whole is more than the part that was measured."""
    full = question.lora is None
    return flops(question.shape, question.layout, full=full) / flops(shape, layout, full=full)


def _part(question: Question) -> Layout:
    """The layout, or as much of it as can be measured at once: fewer trees, then shorter prompts."""
    layout = question.layout
    most = MOST_FLOPS if question.device == "cpu" else MOST_FLOPS_ON_GPU
    while layer_flops(question.shape, layout) > most:
        if layout.trees > 1:
            layout = replace(layout, trees=layout.trees // 2)
        elif layout.prompt > 64:
            layout = replace(layout, prompt=layout.prompt // 2, completion=max(1, layout.completion // 2))
        else:
            break
    return layout


def _passes(question: Question, shape: ModelShape, layout: Layout) -> tuple[float, float]:
    """Seconds of a pass over few and over more layers, the median of some turns: as steps of a training vary too."""
    runs = [_pass(question, replace(shape, num_hidden_layers=depth), layout) for depth in (SHALLOW, DEEP)]
    for run in runs:  # the first one sets things up
        run()
    began = time.perf_counter()
    times: list[list[float]] = []
    while len(times) < REPEATS or (len(times) < MOST_REPEATS and time.perf_counter() - began < ENOUGH):
        times.append([_seconds(run) for run in runs])
    shallow, deep = (statistics.median(column) for column in zip(*times, strict=True))
    return shallow, deep


def _pass(question: Question, shape: ModelShape, layout: Layout) -> Callable[[], None]:
    """The engine's forward and backward over random layers."""
    import torch

    from dpo_driver.training.logprobs import Scorer
    from dpo_driver.training.tree import Tree, pack

    model = _random_model(shape, question.lora)
    device = torch.device(question.device)
    model = model.to(device).train()
    if question.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    prompt = [i % 97 for i in range(layout.prompt)]
    branches = [[i % 89 + c for i in range(layout.completion)] for c in range(layout.completions)]
    forest = pack([Tree.star(prompt, branches) for _ in range(layout.trees)]).to(device)
    scorer = Scorer(model, bf16=question.bf16)

    def run() -> None:
        with scorer.session():
            scorer(forest).logps_N.sum().backward()
        for parameter in model.parameters():
            parameter.grad = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def _random_model(shape: ModelShape, lora: dict[str, Any] | None) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    from dpo_driver.policies.loading import _fresh_adapter

    sizes = asdict(shape)
    kind, bias = sizes.pop("model_type"), sizes.pop("qkv_bias")
    sizes.pop("o_bias")
    if kind in ("llama", "qwen3"):
        sizes["attention_bias"] = bias
    config = AutoConfig.for_model(kind, **sizes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return model if lora is None else _fresh_adapter(model, LoraConfig(**lora))


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _median(work: Callable[[], Any]) -> float:
    return statistics.median(_seconds(work) for _ in range(5))


def _collate(layout: Layout) -> float:
    from dpo_driver.training.batches import step_batch
    from dpo_driver.training.rows import Example

    def ids(start: int, length: int) -> tuple[int, ...]:
        return tuple(range(start, start + length))

    pairs = layout.completions > 1
    rows = [
        Example(str(i), ids(i, layout.prompt), ids(i + 1, layout.completion),
                ids(i + 2, layout.completion) if pairs else None, 1.0)
        for i in range(layout.trees)
    ]  # fmt: skip
    return _median(lambda: step_batch(rows, tokens_per_pass=2**40))


def _optimizer(question: Question) -> float:
    """Clipping and AdamW over as many numbers as learn; many are measured on a part and scaled."""
    import torch

    numbers = min(question.trainable, 2**22)
    parameter = torch.nn.Parameter(torch.zeros(numbers, device=question.device))
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW([parameter], lr=1e-4, fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        optimizer.step()
        if parameter.is_cuda:
            torch.cuda.synchronize()

    step()
    return _median(step) * question.trainable / numbers


def _idle_training(device: str, adapter: bool) -> tuple[int, float]:
    """Peak resident memory and seconds a step of the engine with a model of some thousand numbers."""
    import tempfile

    from transformers import Qwen3ForCausalLM

    from dpo_driver.core.records import Message, TrainingSample
    from dpo_driver.policies.loading import _fresh_adapter
    from dpo_driver.policies.pocket import build_config, build_tokenizer
    from dpo_driver.training.batches import step_batch
    from dpo_driver.training.engine import train
    from dpo_driver.training.logprobs import Scorer
    from dpo_driver.training.rows import encode_rows

    tokenizer = build_tokenizer()
    model: Any = Qwen3ForCausalLM(build_config(tokenizer, layers=1, width=16, heads=1, ff=16))
    if adapter:
        model = _fresh_adapter(model, LoraConfig(r=1))
    rows = [
        TrainingSample(id=str(i), messages=(Message(role="user", content="a"),), completion=f"b{i}", source="probe")
        for i in range(2)
    ]
    ends: list[float] = []
    config = {"max_steps": 6, "logging_steps": 1, "per_device_train_batch_size": 2, "save_steps": 10_000}
    with tempfile.TemporaryDirectory() as output:
        train("sft", model.to(device), tokenizer, rows, [], config, output,
              on_log=lambda step, metrics: ends.append(time.perf_counter()), resume=False)  # fmt: skip
    peak = peak_resident()
    steps = statistics.median(later - earlier for earlier, later in pairwise(ends))
    scorer = Scorer(model)
    forest = step_batch(encode_rows(tokenizer, rows, max_length=99).examples, tokens_per_pass=99).batches[0].forest

    def own() -> None:
        with scorer.session():
            scorer(forest.to(device)).logps_N.sum().backward()

    return peak, max(0.0, steps - _median(own))


def peak_resident() -> int:
    """The most bytes that this process ever had in memory. Unlike ``getrusage``'s, not those of whoever started it."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise ModelError("this system does not tell what a process takes", where="/proc/self/status")


def _read(text: str) -> list[Question]:
    return [
        Question(**data | {"shape": ModelShape(**data["shape"]), "layout": Layout(**data["layout"])})
        for data in json.loads(text)
    ]


if __name__ == "__main__":
    print(json.dumps([asdict(found) for found in answer(_read(sys.stdin.read()))]))
