"""4-bit weights below an adapter, and bitsandbytes' optimizers, on a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dpo_driver.core.records import Message, Preference
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.policies.loading import load_model, load_tokenizer, save_version, weights_hash
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.checkpoint import trainable
from dpo_driver.training.engine import TrainResult, train
from dpo_driver.training.passes import Numerics
from dpo_driver.training.planner import weight_bytes
from dpo_driver.training.shapes import shape_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("bitsandbytes")
    model, tokenizer = tiny_model("qwen3", width=256, layers=4)
    save_version(model, tokenizer, tmp_path / "model")
    return tmp_path / "model"


def pairs(count: int) -> list[Preference]:
    return [
        Preference(id=f"p{i}", messages=(Message(role="user", content=f"goal: {i}\n" * (i + 1)),),
                   chosen=f"thought: {i}", rejected=f"no {i}", level="step", source="t")
        for i in range(count)
    ]  # fmt: skip


def test_weights_are_in_four_bits_and_take_what_a_plan_counts(folder: Path) -> None:
    before = torch.cuda.memory_allocated()
    model = load_model(folder, device="cuda", quantization="nf4")
    taken = torch.cuda.memory_allocated() - before
    layer = model.model.layers[0].mlp.up_proj
    assert layer.weight.dtype == torch.uint8
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert taken == pytest.approx(weight_bytes(shape_of(str(folder)), Numerics(weights=2, quantized=True)), rel=0.1)
    assert weights_hash(model) == weights_hash(model)


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"])
def test_an_adapter_learns_on_frozen_four_bits_and_resumes(folder: Path, tmp_path: Path, optim: str) -> None:
    config = {"learning_rate": 1e-2, "max_steps": 6, "save_steps": 2, "logging_steps": 1, "optim": optim, "bf16": True,
              "gradient_checkpointing": True}  # fmt: skip

    def fit(output: Path, last: int) -> TrainResult:
        def stop(step: int, metrics: dict[str, float]) -> None:
            if step >= last:
                raise KeyboardInterrupt

        model = load_model(folder, device="cuda", quantization="nf4", trainable="lora", lora=LoraConfig(r=4))
        assert all("lora_" in name for name in trainable(model))
        return train("dpo", model, load_tokenizer(folder), pairs(8), [], config, output, on_log=stop)

    straight = fit(tmp_path / "straight", 99)
    assert straight.metrics["loss"] < 0.69
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", 4)
    resumed = fit(tmp_path / "stopped", 99)
    assert resumed.resumed_from == 2
    assert resumed.metrics["loss"] == pytest.approx(straight.metrics["loss"], abs=0.02)


def test_an_adapter_is_saved_alone_and_acts_on_the_same_four_bits(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder, device="cuda", quantization="nf4", trainable="lora", lora=LoraConfig(r=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tokenizer = load_tokenizer(folder)
    save_version(model, tokenizer, tmp_path / "adapter")
    size = sum(path.stat().st_size for path in (tmp_path / "adapter").glob("*.safetensors"))
    assert size < 1.2 * sum(p.nbytes for p in trainable(model).values()) + 10_000
    again = load_model(tmp_path / "adapter", device="cuda", quantization="nf4", trainable="lora")
    assert weights_hash(again) == weights_hash(model)
    policy = HFPolicy(tmp_path / "adapter", device="cuda", quantization="nf4")
    assert policy.version
