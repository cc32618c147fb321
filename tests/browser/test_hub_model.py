"""A model of the hub, by its id, through real stages: fetched from a cache on disk, trained with an adapter, acting."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dpo_driver.testing.tiny_models import tiny_model

pytestmark = [pytest.mark.browser, pytest.mark.learning, pytest.mark.slow]

CONFIG = """
project: {name: hub}
model: {name: tiny/qwen3, max_length: 2048}
env: {tasks: [click-test]}
demos: {per_task: 3}
sft: {max_steps: 2, per_device_train_batch_size: 2}
collect: {episodes_per_task: 2, group_size: 2, max_new_tokens: 8}
tracking: {mlflow: false}
"""


def hub_cache(folder: Path) -> Path:
    """A hub cache as `huggingface_hub` keeps it, with one small random model in it."""
    snapshot = folder / "models--tiny--qwen3" / "snapshots" / ("0" * 40)
    model, tokenizer = tiny_model("qwen3")
    model.save_pretrained(snapshot)
    tokenizer.save_pretrained(snapshot)
    refs = folder / "models--tiny--qwen3" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    return folder


@pytest.mark.timeout(400)
def test_a_hub_id_is_trained_and_acts(cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    cache = {"HF_HUB_CACHE": str(hub_cache(tmp_path / "cache")), "HF_HUB_OFFLINE": "1"}
    (tmp_path / "hub.yaml").write_text(CONFIG)
    trained = cli("sft", "hub.yaml", timeout=200, **cache)
    assert trained.returncode == 0, trained.stderr
    adapter = json.loads((tmp_path / "runs/hub/models/sft/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "tiny/qwen3"
    assert adapter["r"] == 16 and adapter["lora_alpha"] == 32
    acted = cli("collect", "hub.yaml", timeout=200, **cache)
    assert acted.returncode == 0, acted.stderr
    assert "2 rollouts" in acted.stderr
    absent = cli("sft", "hub.yaml", "--set", "project.name=x", "--set", "model.name=tiny/other", timeout=100, **cache)
    assert absent.returncode == 2
    assert "tiny/other" in absent.stderr and "Traceback" not in absent.stderr
