"""Will it fit, and how long does a step take? Peak memory and seconds of a training stage, before anything is loaded.

Memory is counted: parameters, gradients and optimizer from the model's shapes, activations by going through the
engine's pass with sizes in place of numbers (training/passes.py). Seconds on this machine are measured on a few layers
(training/probe.py), on other cards derived from their data sheet. Where a plan does not fit, training/proposals.py
changes settings. Called by cli/plan.py and benchmarks/plan.py. Must not import torch or transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dpo_driver.core.errors import ConfigError
from dpo_driver.core.schema import RunConfig
from dpo_driver.core.schema_training import DpoConfig, LoraConfig, TrainingArgs
from dpo_driver.training.cards import CUDA_RUNTIME, Card
from dpo_driver.training.flops import attention_forward, end_flops, last_attention_forward, layer_flops
from dpo_driver.training.passes import FLOAT, HALF, Layout, Numerics, Pass
from dpo_driver.training.probe import Answer, Question, ask
from dpo_driver.training.shapes import ModelShape, shape_of

Stage = Literal["sft", "dpo"]
# Bytes of a weight in nf4 with double quantisation: 4 bits, an 8-bit scale for 64 weights, a float32 for 256 scales.
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
# glibc cannot put a freed tensor's place to use for one of the same size: torch asks for 64-byte alignment, and small
# objects settle in the gaps. Of what a forward pass allocates and frees again, this share is lost. Measured by
# benchmarks/plan.py with glibc 2.36: 0.5 to 0.9 without, 0.36 to 0.44 with checkpointing, less in deeper models.
HEAP_LOSS, HEAP_LOSS_CHECKPOINTING = 0.6, 0.38
# torch's allocator on GPUs rounds blocks up and cannot join pieces of different segments. A stated allowance. Steps of
# a 4B model in nf4 reserved 4 and 6 % more than they used without, 13 and 18 % with checkpointing, on a card of 141 GB
# where nothing made the allocator return what it keeps; what it must keep on a small card has not been measured.
CUDA_LOSS = 0.05
# Shares of a card's peak that products and attention reach, and of its bandwidth that pointwise operations reach; each
# result is written once and about two operands are read. Stated, but for the bandwidth's, which was 0.75 until a 4B
# model in nf4 was measured on an H200, where a plain copy reached 0.89: four of its steps are predicted 5 and 3 % too
# long, 7 and 9 % too short (with 0.75: 14 and 11 % too long, 1 and 3 % too short). See benchmarks/gpu.py.
PRODUCTS_REACH, ATTENTION_REACH, BANDWIDTH_REACH, TRAFFIC = 0.55, 0.35, 0.9, 3.0
CUDA_STEP = 0.05  # seconds of Trainer and launches a pass


@dataclass(frozen=True)
class Job:
    """A training stage in figures. Lengths in tokens."""

    stage: Stage
    shape: ModelShape
    numerics: Numerics
    lora: LoraConfig | None
    optim: str
    rows: int  # of one step: pairs, or samples
    replayed: int  # samples beside pairs
    prompt: int
    completion: int
    tokens_per_pass: int

    @property
    def trainable(self) -> int:
        """Numbers that learn."""
        return self.shape.parameters if self.lora is None else self.shape.adapter_parameters(self.lora)

    @property
    def passes(self) -> dict[Layout, int]:
        """The forests of a step, if every row has the longest prompt and completion and shares nothing; and how many
        there are of each."""
        found: dict[Layout, int] = {}
        for rows, completions in ((self.rows, 2 if self.stage == "dpo" else 1), (self.replayed, 1)):
            slots = self.prompt + completions * self.completion
            most = max(1, self.tokens_per_pass // slots)
            whole, left = divmod(rows, most)
            for trees, times in ((most, whole), (left, 1)):
                if trees and times:
                    layout = Layout(trees, self.prompt, completions, self.completion)
                    found[layout] = found.get(layout, 0) + times
        return found


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, and how they come about."""

    weights: int
    adapter: int
    optimizer: int
    gradients: int
    activations: int  # kept for the backward pass of the largest forest
    transient: int  # held beside them at the worst moment
    allocator: int  # lost between tensors
    runtime: int  # the process, or the CUDA context, without any tensor
    phases: Mapping[str, int]  # bytes of tensors at the worst moment of each

    @property
    def peak(self) -> int:
        """All of it together."""
        return max(self.phases.values()) + self.allocator + self.runtime


@dataclass(frozen=True)
class Plan:
    """What a stage will take on a card."""

    job: Job
    card: Card
    memory: Memory
    seconds: float | None  # a step; None where the card's speed is not known
    seconds_from: str  # how that is known

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.card.usable


def job_of(
    config: RunConfig, stage: Stage, card: Card, *, prompt: int | None = None, completion: int | None = None
) -> Job:
    """The figures of a stage of a configuration.

    Args:
        config: the run.
        stage: ``sft`` or ``dpo``.
        card: decides what ``dtype: auto`` means.
        prompt: tokens of the longest prompt; what ``model.max_length`` leaves beside the completion when None.
        completion: tokens of the longest completion; ``collect.max_new_tokens`` when None.

    Raises:
        ConfigError: lengths that do not go together. ModelError: a model that plans do not know.
    """
    model, settings = config.model, section(config, stage)
    longest = model.max_length
    answer = min(completion or config.collect.max_new_tokens, longest - 1)
    asked = prompt or min(model.max_prompt_length or longest, longest - answer)
    if asked + answer > longest:
        raise ConfigError(f"prompt {asked} and completion {answer} are longer than model.max_length {longest}",
                          remedy="such rows are left out of training; give shorter ones")  # fmt: skip
    shape = shape_of(model.name)
    half = model.dtype in ("bfloat16", "float16") or (model.dtype == "auto" and not card.is_cpu)
    numerics = Numerics(
        weights=HALF if half else FLOAT,
        quantized=model.quantization == "nf4",
        autocast=settings.bf16,
        adapted=shape.adapted(model.lora) if model.uses_adapter else frozenset(),
        rank=model.lora.r if model.uses_adapter else 0,
        dropout=model.uses_adapter and model.lora.dropout > 0,
        on_cpu=card.is_cpu,
        checkpointing=settings.gradient_checkpointing,
    )
    # Behind the prompt only, an adapter takes less; plans are of the ordinary pass.
    lora = model.lora.model_copy(update={"after_prompt": False}) if model.uses_adapter else None
    rows = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    replays = isinstance(settings, DpoConfig) and settings.replay_coefficient > 0
    return Job(
        stage=stage, shape=shape, numerics=numerics, lora=lora,
        optim=settings.optim, rows=rows, replayed=rows if replays else 0, prompt=asked, completion=answer,
        tokens_per_pass=settings.tokens_per_pass,
    )  # fmt: skip


def section(config: RunConfig, stage: Stage) -> TrainingArgs:
    """The configuration's section of a stage."""
    return config.sft if stage == "sft" else config.dpo


# --- memory ---


def weight_bytes(shape: ModelShape, numerics: Numerics) -> int:
    """Of the base model: quantised linear layers in nf4, everything else in its own numbers."""
    small = shape.quantizable if numerics.quantized else 0
    return int(small * NF4) + (shape.parameters - small) * numerics.weights


def optimizer_bytes(job: Job) -> tuple[int, int]:
    """State of the optimizer on the device, and what it needs beside it during a step.

    Adam keeps two numbers for each that learns, as wide as the parameter; in 8 bits, one byte each and a float32 scale
    for 256 of them. A paged state leaves the device while a pass needs the room, so it counts during the step only.
    """
    width = FLOAT if job.lora is not None else job.numerics.weights
    state = int(job.trainable * (2 + 2 * FLOAT / 256)) if "8bit" in job.optim else 2 * job.trainable * width
    beside = job.trainable * width if job.optim == "adamw_torch" and not job.numerics.on_cpu else 0
    return (0, state) if job.optim.startswith("paged") else (state, beside)


def memory_of(job: Job, runtime: int) -> Memory:
    """Count a stage's memory.

    Args:
        job: the stage.
        runtime: bytes that the process takes without any tensor of the model.
    """
    weights, adapter = weight_bytes(job.shape, job.numerics), 0 if job.lora is None else job.trainable * FLOAT
    gradients = job.trainable * (FLOAT if job.lora is not None else job.numerics.weights)
    state, beside = optimizer_bytes(job)
    passes = job.passes
    largest = max(passes, key=lambda layout: (layout.tokens, layout.scored))
    several = sum(passes.values()) > 1
    counted = Pass(job.shape, job.numerics)
    tape = counted.tape
    if several:  # the gradients of an earlier pass are there already
        counted.run(min(passes, key=lambda layout: layout.tokens))
        tape.peak = tape.live
    kept, lost = counted.forward(largest)
    forward = tape.peak
    counted.backward()
    worst = tape.peak
    if job.numerics.on_cpu and not several:
        # Activations go as gradients come, but what one leaves in the heap does not fit the other.
        worst = max(worst, forward + gradients)
    still = weights + adapter + state
    phases = {
        "forward": still + forward,
        "backward": still + worst,
        "optimizer": weights + adapter + gradients + state + beside,
    }
    share = HEAP_LOSS_CHECKPOINTING if job.numerics.checkpointing else HEAP_LOSS
    allocator = int(share * lost) if job.numerics.on_cpu else int(CUDA_LOSS * max(phases.values()))
    return Memory(
        weights=weights, adapter=adapter, optimizer=state, gradients=gradients, activations=kept,
        transient=max(0, max(phases.values()) - still - gradients - kept), allocator=allocator, runtime=runtime,
        phases=phases,
    )  # fmt: skip


# --- seconds ---


def seconds_on_card(job: Job, card: Card) -> float | None:
    """From the card's data sheet: products and attention at a share of its peak, the rest at its bandwidth."""
    if card.flops is None or card.bandwidth is None:
        return None
    total = 0.0
    numerics = job.numerics
    for layout, times in job.passes.items():
        counted = Pass(job.shape, numerics)
        counted.run(layout)
        before = job.shape.num_hidden_layers - 1
        attention = before * attention_forward(job.shape, layout) + last_attention_forward(job.shape, layout)
        attention *= 3.5  # both ways
        products = before * _layer(job, layout) + _rest(job, layout) - attention
        moved = TRAFFIC * counted.tape.volume
        total += times * (
            products / (PRODUCTS_REACH * card.flops)
            + attention / (ATTENTION_REACH * card.flops)
            + moved / (BANDWIDTH_REACH * card.bandwidth)
            + CUDA_STEP
        )
    return total


def seconds_measured(job: Job, answer: Answer, layout: Layout) -> float:
    """From what a few layers took on this machine; forests of other sizes by their operations."""
    total = 0.0
    for other, times in job.passes.items():
        layer = answer.layer * _layer(job, other) / _layer(job, layout)
        rest = answer.rest * _rest(job, other) / _rest(job, layout)
        collate = answer.collate * other.tokens / layout.tokens
        total += times * ((job.shape.num_hidden_layers - 1) * layer + rest + collate)
    return total + answer.optimizer + answer.step


def _layer(job: Job, layout: Layout) -> float:
    """Operations of a layer but the last."""
    return layer_flops(job.shape, layout, **_ways(job))


def _rest(job: Job, layout: Layout) -> float:
    """Operations of the last layer and the head."""
    return end_flops(job.shape, layout, **_ways(job))


def _ways(job: Job) -> dict[str, Any]:
    numerics = job.numerics
    return {"full": job.lora is None, "checkpointing": numerics.checkpointing, "rank": numerics.rank,
            "adapted": numerics.adapted}  # fmt: skip


# --- plans ---


def measure(jobs: Sequence[Job], card: Card) -> list[tuple[Answer, Layout]]:
    """Ask this machine about the largest forest of each job; takes some seconds each."""
    layouts = [max(job.passes, key=lambda layout: layout.tokens) for job in jobs]
    questions = [
        Question(
            shape=job.shape, layout=layout, lora=None if job.lora is None else job.lora.model_dump(mode="json"),
            bf16=job.numerics.autocast or (not card.is_cpu and job.numerics.weights == HALF),
            checkpointing=job.numerics.checkpointing, trainable=job.trainable, device="cpu" if card.is_cpu else "cuda",
        )
        for job, layout in zip(jobs, layouts, strict=True)
    ]  # fmt: skip
    return list(zip(ask(questions), layouts, strict=True))


def make_plan(job: Job, card: Card, asked: tuple[Answer, Layout] | None = None, *, runtime: int | None = None) -> Plan:
    """The plan of a job.

    Args:
        job: the stage.
        card: what it runs on.
        asked: of :func:`measure`, if the card is in this machine.
        runtime: bytes of a process without tensors; as measured, or a card's stated constant, when None.
    """
    if runtime is None:
        runtime = CUDA_RUNTIME if not card.is_cpu else asked[0].runtime if asked else 0
    memory = memory_of(job, runtime)
    if asked is not None and not job.numerics.quantized:
        return Plan(job, card, memory, seconds_measured(job, *asked), "measured on a few layers here")
    seconds = seconds_on_card(job, card)
    return Plan(job, card, memory, seconds, "the card's data sheet" if seconds is not None else "not known")
