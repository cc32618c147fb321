"""A run whose model is an adapter of somebody else's: it is the parent of everything, and acts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from dpo_driver.policies.loading import load_model, save_version
from dpo_driver.testing.tiny_models import tiny_model

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

CONFIG = """
project: {name: goes-on}
model: {name: theirs, profile: pocket, dtype: float32}
env: {tasks: [click-test]}
demos: {per_task: 2}
sft: {max_steps: 3, learning_rate: 0.003, per_device_train_batch_size: 2}
collect: {episodes_per_task: 2, group_size: 2, max_new_tokens: 8}
tracking: {mlflow: false}
"""


def test_a_run_goes_on_from_an_adapter_of_peft(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    save_version(*tiny_model("qwen3"), tmp_path / "base")
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = get_peft_model(base, LoraConfig(r=3, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "run.yaml").write_text(CONFIG)
    trained = cli("sft", "run.yaml", timeout=200)
    assert trained.returncode == 0, trained.stderr
    folder = tmp_path / "runs" / "goes-on" / "models" / "sft"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], sorted(config["target_modules"])) == (3, ["q_proj", "v_proj"])
    assert config["base_model_name_or_path"] == str(tmp_path / "base")
    acted = cli("collect", "run.yaml", timeout=200)
    assert acted.returncode == 0 and "2 rollouts" in acted.stderr, acted.stderr
    # A few small steps away from what they had, and what was learned loads in plain PEFT.
    ids_1T = torch.tensor([[5, 6, 7, 8]])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    loaded = PeftModel.from_pretrained(again, str(folder)).eval()
    with torch.no_grad():
        before, after = theirs.eval()(input_ids=ids_1T).logits, loaded(input_ids=ids_1T).logits
        ours = load_model(folder, device="cpu")(input_ids=ids_1T).logits
    assert torch.allclose(after, ours, atol=1e-6, rtol=0)
    assert 0 < (after - before).abs().max() < 1
