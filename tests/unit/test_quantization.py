"""Quantised weights, bitsandbytes' optimizers and prompts with a limit: what can be held without a GPU. The rest is in
tests/gpu."""

from __future__ import annotations

import json
import typing
from pathlib import Path

import pytest
import torch
from transformers.training_args import OptimizerNames

from dpo_driver.core.config import load_config
from dpo_driver.core.errors import ConfigError, ModelError
from dpo_driver.core.records import Message, TrainingSample
from dpo_driver.core.schema import RunConfig
from dpo_driver.core.schema_training import DpoConfig, Optimizer
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.policies.loading import _nf4, load_model, require_bitsandbytes, save_version
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.checkpoint import pack_optimizer, unpack_optimizer
from dpo_driver.training.config import BITSANDBYTES_OPTIMIZERS, TrainConfig, split_config
from dpo_driver.training.engine import train
from dpo_driver.training.rows import encode_rows

ROOT = Path(__file__).resolve().parents[2]
OPTIMIZERS = typing.get_args(Optimizer)


def samples(count: int) -> list[TrainingSample]:
    return [
        TrainingSample(id=f"s{i}", messages=(Message(role="user", content="goal: go\n" * (i + 1)),),
                       completion=f"thought: {i}", source="t")
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, tokenizer = tiny_model()
    save_version(model, tokenizer, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("trainable", ["lora", None])
def test_four_bits_need_a_cuda_device(folder: Path, trainable: typing.Any) -> None:
    with pytest.raises(ModelError, match="quantization nf4 needs a CUDA device, not cpu"):
        load_model(folder, device="cpu", quantization="nf4", trainable=trainable)
    with pytest.raises(ModelError, match="needs a CUDA device"):
        HFPolicy(folder, device="cpu", quantization="nf4")


def test_bitsandbytes_must_be_installed() -> None:
    if any(path.name == "bitsandbytes" for path in Path(torch.__file__).parents[1].iterdir()):
        require_bitsandbytes("x", torch.device("cuda"))
    else:
        with pytest.raises(ModelError, match="x needs bitsandbytes") as caught:
            require_bitsandbytes("x", torch.device("cuda"))
        assert "pip install 'dpo-driver[gpu]'" in str(caught.value)


def test_the_quantisation_is_qloras() -> None:
    found = _nf4()
    assert (found.load_in_4bit, found.bnb_4bit_quant_type, found.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert found.bnb_4bit_compute_dtype == torch.bfloat16


def test_quantised_weights_are_frozen() -> None:
    with pytest.raises(ValueError, match="quantization nf4 freezes the weights: it goes with training: lora"):
        RunConfig.model_validate({"model": {"quantization": "nf4"}})  # the pocket model trains all of its weights
    assert RunConfig.model_validate({"model": {"quantization": "nf4", "training": "lora"}}).model.uses_adapter
    assert RunConfig.model_validate({"model": {"name": "Qwen/Qwen3-4B", "quantization": "nf4"}}).model.uses_adapter


# --- optimizers ---


def test_optimizers_are_transformers_own() -> None:
    assert set(OPTIMIZERS) <= {name.value for name in OptimizerNames}
    assert set(OPTIMIZERS) >= BITSANDBYTES_OPTIMIZERS
    assert {name for name in OPTIMIZERS if "8bit" in name or "paged" in name} == BITSANDBYTES_OPTIMIZERS
    with pytest.raises(ValueError, match="adamw_torch_fused"):
        DpoConfig.model_validate({"optim": "adam"})


@pytest.mark.parametrize("name", sorted(BITSANDBYTES_OPTIMIZERS))
def test_bitsandbytes_optimizers_need_a_cuda_device(name: str, tmp_path: Path) -> None:
    model, tokenizer = tiny_model()
    with pytest.raises(ModelError, match=f"optim {name} needs a CUDA device"):
        train("sft", model.requires_grad_(True), tokenizer, samples(2), [], {"optim": name, "max_steps": 1}, tmp_path)


def test_the_optimizer_that_is_asked_for_is_used(tmp_path: Path) -> None:
    """Fused or not, AdamW is AdamW: the same losses; the default is what Transformers takes by itself."""
    losses = []
    for name in ("adamw_torch_fused", "adamw_torch"):
        model, tokenizer = tiny_model()
        config = {"optim": name, "max_steps": 3, "learning_rate": 1e-3, "logging_steps": 1}
        result = train("sft", model.requires_grad_(True), tokenizer, samples(4), [], config, tmp_path / name)
        losses.append([row["loss"] for row in result.history])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0][-1] < losses[0][0]
    assert TrainConfig().optim == DpoConfig().optim == "adamw_torch_fused"


def test_states_within_states_are_kept() -> None:
    """bitsandbytes wraps its 8-bit states in a dictionary of their own."""
    inner = {"state1": torch.arange(5, dtype=torch.uint8), "absmax1": torch.ones(1), "bits": 8}
    state = {"state": {0: {"step": 3, "wrapped": inner}, 1: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    tensors, document = pack_optimizer(state)
    assert set(tensors) == {"0.wrapped/state1", "0.wrapped/absmax1", "1.exp_avg"}
    again = unpack_optimizer(tensors, json.loads(json.dumps(document)))
    assert again["param_groups"] == state["param_groups"]
    assert again["state"][0]["step"] == 3
    assert again["state"][0]["wrapped"]["bits"] == 8
    assert torch.equal(again["state"][0]["wrapped"]["state1"], inner["state1"])
    assert again["state"][1].keys() == {"exp_avg"}


# --- keys of the configuration reach the engine ---


def test_keys_of_a_section_are_settings_of_the_engine() -> None:
    section = DpoConfig(gradient_checkpointing=True, tokens_per_pass=77, optim="adamw_torch", bf16=True)
    _, settings = split_config("dpo", section, max_prompt_length=9)
    assert (settings.gradient_checkpointing, settings.tokens_per_pass, settings.optim) == (True, 77, "adamw_torch")
    assert (settings.bf16, settings.max_prompt_length) == (True, 9)


def test_saving_is_aligned_with_validating() -> None:
    config = load_config(
        ROOT / "configs" / "pocket.yaml", ["sft.eval_steps=10", "sft.save_steps=25", "dpo.eval_steps=7"]
    )
    assert config.sft.save_steps == 30
    assert config.dpo.save_steps == 28  # 25, the default
    assert "save_steps: 30" in config.resolved_yaml()
    same = load_config(ROOT / "configs" / "pocket.yaml", ["sft.eval_steps=10", "sft.save_steps=30", "dpo.eval_steps=7"])
    assert same.hash() == config.hash()
    assert DpoConfig(eval_steps=5, save_steps=5).aligned() == DpoConfig(eval_steps=5, save_steps=5)


def test_prompts_with_a_limit_of_their_own() -> None:
    _, tokenizer = tiny_model()
    rows = samples(4)
    encoded = encode_rows(tokenizer, rows, max_length=999)
    assert not encoded.overlong
    lengths = [len(example.prompt) for example in encoded.examples]
    assert lengths == sorted(set(lengths))
    limited = encode_rows(tokenizer, rows, max_length=999, max_prompt_length=lengths[1])
    assert limited.overlong == ("s2", "s3")
    assert [example.id for example in limited.examples] == ["s0", "s1"]
    with pytest.raises(ConfigError, match="max_prompt_length 2048 leaves no room for a completion in max_length 2048"):
        load_config(ROOT / "configs" / "pocket.yaml", ["model.max_prompt_length=2048"])


def test_overlong_prompts_are_named_by_the_training(tmp_path: Path) -> None:
    model, tokenizer = tiny_model()
    limit = len(encode_rows(tokenizer, samples(4), max_length=999).examples[2].prompt)
    config = {"max_steps": 1, "max_prompt_length": limit}
    result = train("sft", model.requires_grad_(True), tokenizer, samples(4), samples(4), config, tmp_path)
    assert result.overlong == {"train": ("s3",), "val": ("s3",)}
    assert result.rows == {"train": 3, "val": 3}


def test_learning_by_heart_is_warned_of(tmp_path: Path) -> None:
    from dpo_driver.flywheel.train import _warnings

    model, tokenizer = tiny_model(width=64)
    config = {"max_steps": 60, "learning_rate": 1e-2, "logging_steps": 1, "per_device_train_batch_size": 4}
    result = train("sft", model.requires_grad_(True), tokenizer, samples(4), [], config, tmp_path)
    assert result.metrics["loss"] < 0.2
    first, second = _warnings("sft", result)
    assert first.startswith("60.0 epochs over 4 rows")
    step = next(row["step"] for row in result.history if row["loss"] < 0.2)
    assert f"at step {step:.0f}, under 0.2" in second
    assert len(_warnings("dpo", result)) == 1, "only SFT's loss means that"
    calm, other = tiny_model()
    short = train("sft", calm.requires_grad_(True), other, samples(4), [], config | {"max_steps": 3}, tmp_path / "b")
    assert _warnings("sft", short) == []
