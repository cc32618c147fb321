"""What a plan counts, against what torch allocates, PEFT adds, and the batches that the engine makes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from dpo_driver.core.config import load_config
from dpo_driver.core.errors import ConfigError, ModelError, UnknownNameError
from dpo_driver.core.schema import RunConfig
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.loading import _fresh_adapter, load_model, save_version
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training import passes, planner
from dpo_driver.training.batches import step_batch
from dpo_driver.training.cards import CARDS, GIB, Card, find_card
from dpo_driver.training.flops import attention_forward, last_layer_flops, layer_flops, rest_flops
from dpo_driver.training.logprobs import Scorer
from dpo_driver.training.passes import Layout, Numerics, Pass
from dpo_driver.training.planner import Job, job_of, make_plan, memory_of
from dpo_driver.training.proposals import propose
from dpo_driver.training.rows import Example
from dpo_driver.training.shapes import PUBLISHED, ModelShape, read_shape, shape_of
from dpo_driver.training.tree import Tree, pack

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ("qwen2", "qwen3", "llama", "mistral")
LAYOUT = Layout(trees=2, prompt=120, completions=2, completion=10)


def shape_like(model: Any) -> ModelShape:
    return read_shape(model.config.to_dict(), where="a test")


def model_of(family: str, **options: Any) -> Any:
    return tiny_model(family, **options)[0]


# --- shapes ---


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family: str) -> None:
    model = model_of(family)
    shape = shape_like(model)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    every = LoraConfig(r=3)
    some = LoraConfig(r=5, target_modules=("q_proj", "self_attn.v_proj"))
    pattern = LoraConfig(r=2, target_modules=r".*\.(up|down)_proj")
    assert len(shape.adapted(some)) == len(shape.adapted(pattern)) == 2
    for lora in (every, some, pattern):
        adapted = _fresh_adapter(model_of(family), lora)
        assert shape.adapter_parameters(lora) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    with pytest.raises(ModelError, match="names no linear layer"):
        shape.adapted(LoraConfig(target_modules=("head",)))


def test_sizes_come_from_folders_adapters_the_package_and_published_numbers(tmp_path: Path) -> None:
    model, tokenizer = tiny_model("llama")
    save_version(model, tokenizer, tmp_path / "base")
    adapter = load_model(tmp_path / "base", trainable="lora")
    save_version(adapter, tokenizer, tmp_path / "adapter")
    assert shape_of(str(tmp_path / "adapter")) == shape_of(str(tmp_path / "base")) == shape_like(model)
    assert shape_of("pocket").parameters == 910_720
    # What the model cards say: 4.0, 7.6 and 8.0 billion.
    assert shape_of("Qwen/Qwen3-4B").parameters == pytest.approx(4.0e9, rel=0.01)
    assert shape_of("Qwen/Qwen2-7B").parameters == pytest.approx(7.6e9, rel=0.01)
    assert shape_of("meta-llama/Llama-3.1-8B-Instruct").parameters == pytest.approx(8.03e9, rel=0.001)
    with pytest.raises(ModelError, match=r"config\.json is not on this machine"):
        shape_of("nobody/has-this-model")
    with pytest.raises(ModelError, match="no plan can be made for gemma models"):
        read_shape({"model_type": "gemma"}, where="x")
    with pytest.raises(ModelError, match="lacks a size: 'vocab_size'"):
        read_shape({k: v for k, v in model.config.to_dict().items() if k != "vocab_size"}, where="x")


@pytest.mark.parametrize(("rank", "millions"), [(16, 33), (32, 66), (64, 132), (128, 264)])
def test_the_rank_guide_of_the_docs(rank: int, millions: int) -> None:
    found = PUBLISHED["Qwen/Qwen3-4B"].adapter_parameters(LoraConfig(r=rank, alpha=2 * rank))
    assert round(found / 1e6) == millions
    assert f"| {rank} / {2 * rank} | {millions}M |" in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


# --- memory ---


def allocated(work: Callable[[], None]) -> tuple[int, int]:
    """Most bytes at once, and bytes held when the profiler's mark ``BACKWARD`` begins; beyond those at the start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = profiled.profiler.kineto_results.events()
    mark = next(event.start_ns() for event in events if event.name() == "BACKWARD")
    live = peak = kept = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
        if event.start_ns() <= mark:
            kept = live
    return peak, kept


def measured(model: Any, layout: Layout, *, bf16: bool, checkpointing: bool) -> tuple[int, int]:
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trees = [
        Tree.star([i % 97 for i in range(layout.prompt)], [[c] * layout.completion for c in range(layout.completions)])
        for _ in range(layout.trees)
    ]
    forest, scorer = pack(trees), Scorer(model.train(), bf16=bf16)

    def work() -> None:
        with scorer.session():
            logps = scorer(forest).logps_N.sum()
            with torch.profiler.record_function("BACKWARD"):
                logps.backward()

    work()  # kernels set themselves up
    for parameter in model.parameters():
        parameter.grad = None
    return allocated(work)


def counted(shape: ModelShape, layout: Layout, numerics: Numerics) -> tuple[int, int]:
    found = Pass(shape, numerics)
    kept, _ = found.forward(layout)
    found.backward()
    return found.tape.peak, kept


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_activations_are_what_torch_allocates(family: str, adapter: bool, checkpointing: bool) -> None:
    model = model_of(family, layers=3, width=64)
    shape, lora = shape_like(model), LoraConfig(r=4, dropout=0.1 if family == "llama" else 0.0)
    model = _fresh_adapter(model, lora) if adapter else model.requires_grad_(True)
    numerics = Numerics(
        adapted=shape.adapted(lora) if adapter else frozenset(), rank=4 if adapter else 0,
        dropout=adapter and lora.dropout > 0, checkpointing=checkpointing,
    )  # fmt: skip
    peak, kept = measured(model, LAYOUT, bf16=False, checkpointing=checkpointing)
    our_peak, our_kept = counted(shape, LAYOUT, numerics)
    assert our_kept == pytest.approx(kept, rel=0.02)
    assert our_peak == pytest.approx(peak, rel=0.04)


@pytest.mark.parametrize(("dtype", "autocast"), [("float32", True), ("bfloat16", False), ("bfloat16", True)])
def test_activations_in_narrower_numbers(dtype: str, autocast: bool) -> None:
    model = model_of("qwen3", layers=2, width=64)
    shape, lora = shape_like(model), LoraConfig(r=4)
    model = _fresh_adapter(model.to(getattr(torch, dtype)), lora)
    numerics = Numerics(
        weights=2 if dtype == "bfloat16" else 4, autocast=autocast, adapted=shape.adapted(lora), rank=4
    )  # fmt: skip
    peak, kept = measured(model, LAYOUT, bf16=autocast, checkpointing=False)
    our_peak, our_kept = counted(shape, LAYOUT, numerics)
    assert our_kept == pytest.approx(kept, rel=0.03)
    assert our_peak == pytest.approx(peak, rel=0.08)


def test_a_head_in_chunks() -> None:
    assert passes.head_chunk(512) == 1024
    assert passes.head_chunk(151_936) == 441  # 256 MiB of logits
    model = model_of("qwen3", layers=1).requires_grad_(True)
    layout = Layout(trees=8, prompt=8, completions=2, completion=80)
    assert layout.scored > passes.head_chunk(model.config.vocab_size)
    peak, kept = measured(model, layout, bf16=False, checkpointing=False)
    our_peak, our_kept = counted(shape_like(model), layout, Numerics())
    assert our_kept == pytest.approx(kept, rel=0.02)
    assert our_peak == pytest.approx(peak, rel=0.05)


def job(**changes: Any) -> Job:
    shape = read_shape(tiny_model("qwen3")[0].config.to_dict(), where="a test")
    values: dict[str, Any] = {
        "stage": "dpo", "shape": shape, "numerics": Numerics(), "lora": None, "optim": "adamw_torch_fused", "rows": 2,
        "replayed": 0, "prompt": 20, "completion": 5, "tokens_per_pass": 4096,
    }  # fmt: skip
    return Job(**(values | changes))


def test_weights_gradients_and_optimizer() -> None:
    shape = job().shape
    full = memory_of(job(), runtime=1000)
    assert full.weights == full.gradients == 4 * shape.parameters
    assert full.optimizer == 8 * shape.parameters
    assert full.phases["optimizer"] == 16 * shape.parameters
    assert full.peak == max(full.phases.values()) + full.allocator + 1000
    lora = LoraConfig(r=2)
    half = Numerics(weights=2, adapted=shape.adapted(lora), rank=2, on_cpu=False)
    adapter = memory_of(job(lora=lora, numerics=half), runtime=0)
    numbers = shape.adapter_parameters(lora)
    assert (adapter.weights, adapter.adapter, adapter.gradients) == (2 * shape.parameters, 4 * numbers, 4 * numbers)
    assert adapter.optimizer == 8 * numbers
    small = memory_of(job(lora=lora, numerics=half, optim="adamw_8bit"), runtime=0)
    assert small.optimizer == int(numbers * (2 + 8 / 256))
    paged = memory_of(job(lora=lora, numerics=half, optim="paged_adamw_8bit"), runtime=0)
    assert paged.optimizer == 0
    assert paged.phases["optimizer"] == small.phases["optimizer"]


def test_four_bits_and_their_scales() -> None:
    """256 blocks of 64 weights: 8,192 bytes of weights, 256 of scales, 4 of the scales' scale."""
    shape = ModelShape("llama", 64, 1, 1, 1, 64, 64, 10, tie_word_embeddings=True)
    assert shape.quantizable == 7 * 64 * 64
    assert planner.NF4 * 64 * 256 == 8192 + 256 + 4
    rest = shape.parameters - shape.quantizable
    assert planner.weight_bytes(shape, Numerics(weights=2, quantized=True)) == int(7 * 64 * 64 * planner.NF4) + 2 * rest


def test_gradients_of_an_earlier_pass_are_there_when_the_next_one_begins() -> None:
    card = {"numerics": Numerics(on_cpu=False), "tokens_per_pass": 30}
    one, two = memory_of(job(rows=1, **card), runtime=0), memory_of(job(rows=2, **card), runtime=0)
    assert two.activations == one.activations
    assert two.phases["forward"] - one.phases["forward"] == two.gradients
    assert 0 < two.phases["backward"] - one.phases["backward"] <= two.gradients


def test_checkpointing_and_smaller_numbers_take_less() -> None:
    lora = LoraConfig(r=4)
    shape = PUBLISHED["Qwen/Qwen3-4B"]
    base = {"weights": 2, "adapted": shape.adapted(lora), "rank": 4, "on_cpu": False}
    big = {"shape": shape, "lora": lora, "prompt": 1000, "rows": 1}
    plain = memory_of(job(numerics=Numerics(**base), **big), runtime=0)
    kept = memory_of(job(numerics=Numerics(**base, checkpointing=True), **big), runtime=0)
    nf4 = memory_of(job(numerics=Numerics(**base, checkpointing=True, quantized=True), **big), runtime=0)
    assert kept.activations < plain.activations / 10
    # One input of 1,010 tokens x 2,560 numbers of 2 bytes for each of 36 layers, and as much again at the end.
    assert kept.activations == pytest.approx(37 * 1010 * 2560 * 2, rel=0.1)
    assert nf4.weights < 0.4 * kept.weights
    assert nf4.peak < kept.peak < plain.peak


# --- passes and operations ---


@pytest.mark.parametrize(("stage", "rows", "budget"), [("sft", 5, 60), ("dpo", 5, 60), ("dpo", 7, 99), ("dpo", 3, 1)])
def test_passes_are_those_that_the_engine_makes(stage: str, rows: int, budget: int) -> None:
    rejected = tuple(range(5)) if stage == "dpo" else None
    examples = [Example(str(i), (i, *range(19)), tuple(range(1, 6)), rejected, 1.0) for i in range(rows)]
    made = [(batch.forest.size, batch.forest.tokens) for batch in step_batch(examples, tokens_per_pass=budget).batches]
    planned = job(stage=stage, rows=rows, tokens_per_pass=budget).passes
    expected = [(layout.trees, layout.tokens) for layout, times in planned.items() for _ in range(times)]
    assert sorted(made) == sorted(expected)


def test_operations_by_hand() -> None:
    shape = ModelShape("llama", 4, 1, 2, 1, 3, 5, 7, tie_word_embeddings=True)
    # q 4x6, k and v 4x3, o 6x4, and three of 4x5: 132 weights.
    assert sum(linear.weights for linear in shape.linears) == 24 + 12 + 12 + 24 + 60
    layout = Layout(trees=2, prompt=10, completions=2, completion=3)
    assert (layout.tokens, layout.scored) == (32, 12)
    attention = 4 * 6 * 2 * (10 * 10 / 2 + 6 * 16)
    assert attention_forward(shape, layout) == attention
    linear = 2 * 32 * 132
    assert layer_flops(shape, layout) == 3 * linear + 3.5 * attention
    assert layer_flops(shape, layout, full=False) == 2 * linear + 3.5 * attention
    assert layer_flops(shape, layout, full=False, checkpointing=True) == 3 * linear + 4.5 * attention
    only_q = layer_flops(shape, layout, full=False, rank=2, adapted=frozenset({"q_proj"}))
    assert only_q == 2 * linear + 3.5 * attention + 3 * 2 * 32 * 2 * (4 + 6)
    assert rest_flops(shape, layout, full=True) == 3 * 2 * 12 * 28
    # In the last layer 2 x (1 + 2 x 2) tokens predict, and look at all 16 of their tree; keys and values are of all.
    assert layout.predictors == 10
    linear, attention = 2 * (32 * (12 + 12) + 10 * (24 + 24 + 60)), 4 * 6 * 10 * 16
    assert last_layer_flops(shape, layout) == 3 * linear + 3.5 * attention
    assert last_layer_flops(shape, layout, full=False, checkpointing=True) == 3 * linear + 4.5 * attention
    only_k = last_layer_flops(shape, layout, full=False, rank=2, adapted=frozenset({"k_proj"}))
    assert only_k == 2 * linear + 3.5 * attention + 3 * 2 * 32 * 2 * (4 + 3)


# --- cards and proposals ---


def test_cards() -> None:
    assert find_card("8GB").memory == find_card("8 GiB").memory == 8 * GIB
    assert find_card("RTX 4090") == CARDS["rtx-4090"]
    assert find_card("8GB").flops == min(CARDS["rtx-4060"].flops, CARDS["rtx-3070"].flops or math.inf)
    assert find_card("cpu").is_cpu
    assert find_card(None, "cpu").present
    with pytest.raises(UnknownNameError, match="did you mean h200"):
        find_card("h20")


def test_longest_rows_come_from_the_configuration() -> None:
    card = CARDS["rtx-4090"]
    config = RunConfig.model_validate(
        {"model": {"name": "Qwen/Qwen3-4B", "max_length": 1000}, "collect": {"max_new_tokens": 100}}
    )
    found = job_of(config, "dpo", card)
    assert (found.prompt, found.completion, found.rows, found.replayed) == (900, 100, 16, 0)
    assert found.numerics.weights == 2
    limited = RunConfig.model_validate({"model": {"max_length": 1000, "max_prompt_length": 500}})
    assert job_of(limited, "sft", card).prompt == 500
    replaying = RunConfig.model_validate({"dpo": {"replay_coefficient": 1.0}})
    assert job_of(replaying, "dpo", card).replayed == 16
    assert job_of(replaying, "sft", card).replayed == 0
    with pytest.raises(ConfigError, match=r"prompt 950 and completion 100 are longer than model\.max_length 1000"):
        job_of(config, "sft", card, prompt=950)


READY = {
    "qwen3-4b-8gb": "8GB", "qwen3-4b-16gb": "16GB", "llama-3.1-8b-24gb": "24GB", "qwen2-7b-8gb": "8GB", "h200": "h200",
}  # fmt: skip


@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize("name", READY)
def test_ready_configurations_fit_their_cards(name: str, stage: planner.Stage) -> None:
    card = find_card(READY[name])
    plan = make_plan(job_of(load_config(ROOT / "configs" / f"{name}.yaml"), stage, card), card)
    assert plan.fits, f"{plan.memory.peak / GIB:.2f} GiB of {card.usable / GIB:.2f}"
    assert plan.memory.peak > 0.45 * card.usable, "the card could do more"
    assert plan.seconds is not None and plan.seconds > 0


def naive(**changes: Any) -> Callable[[Any], tuple[RunConfig, planner.Plan]]:
    """Plans of a LoRA on Qwen3-4B with nothing saved, for changed settings."""

    def plan_with(overrides: Any) -> tuple[RunConfig, planner.Plan]:
        found = load_config(ROOT / "configs" / "qwen3-4b-16gb.yaml", [*NAIVE, *changes.get("more", ()), *overrides])
        return found, make_plan(job_of(found, "dpo", changes["card"]), changes["card"])

    return plan_with


NAIVE = ("dpo.gradient_checkpointing=false", "dpo.bf16=false", "dpo.tokens_per_pass=16384")


def test_proposals_change_what_harms_least_first() -> None:
    card = find_card("24GB")
    proposal = propose("dpo", card, naive(card=card))
    assert proposal.plan.fits
    assert proposal.changes[0] == "dpo.gradient_checkpointing=true"
    assert not any("nf4" in change or "max_length" in change for change in proposal.changes)
    small = find_card("8GB")
    tighter = propose("dpo", small, naive(card=small)).changes
    assert "model.quantization=nf4" in tighter
    assert not any("max_length" in change for change in tighter)
    tiny = Card("tiny", 6 * GIB)
    assert any("model.max_length" in change for change in propose("dpo", tiny, naive(card=tiny)).changes)
    with pytest.raises(ConfigError, match="nothing fits: dpo takes at least"):
        propose("dpo", Card("none", GIB), naive(card=Card("none", GIB)))


def test_a_full_training_that_does_not_fit_becomes_an_adapter() -> None:
    card = find_card("24GB")
    proposal = propose("dpo", card, naive(card=card, more=["model.training=full"]))
    assert "model.training=lora" in proposal.changes
    assert proposal.plan.fits
