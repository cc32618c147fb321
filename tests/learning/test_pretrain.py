"""The pretraining recipe learns: loss falls on fresh pages, and the folder it leaves is an ordinary causal LM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_driver.core.errors import ConfigError
from dpo_driver.training.pretrain import (
    PretrainConfig,
    Rows,
    build_tokenizer,
    forward_backward,
    load_pretrain_config,
    pretrain,
)

pytestmark = pytest.mark.learning


def test_loss_falls_and_the_model_loads(tmp_path: Path) -> None:
    config = PretrainConfig(
        layers=2, width=64, heads=2, ff=128, max_tokens=120_000, rows=6, log_every=10, warmup_steps=5
    )
    pretrain(config, tmp_path)
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["loss"] < 0.75 * curve[0]["loss"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("goal: x\n", return_tensors="pt")["input_ids"]
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]


def test_the_flat_layout_is_exact() -> None:
    """Sharing the page changes no log-prob: each branch alone, computed the plain way, gives the same loss."""
    from transformers import Qwen3ForCausalLM

    from dpo_driver.policies.pocket import build_config

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(build_config(tokenizer, layers=2, width=32, heads=2, ff=64))
    rows = Rows(PretrainConfig(rows=3, repeat_share=0.0), tokenizer)
    from dpo_driver.training.pretrain import collate

    pages = [rows.page_row() for _ in range(3)]
    model.set_attn_implementation("page_attention")
    shared, _ = forward_backward(model, collate(pages))
    model.set_attn_implementation("eager")
    total = count = 0.0
    for page, found in pages:
        for context, completion, _ in found:
            ids = torch.tensor([page + context + completion])
            logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            picked = logps.gather(-1, ids[0, 1:, None])[-len(completion) :]
            total, count = total - picked.sum().item(), count + len(completion)
    assert shared == pytest.approx(total / count, rel=2e-3)  # bfloat16 against float32


def test_an_unknown_key_names_the_file(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("layerz: 3\n")
    with pytest.raises(ConfigError, match="layerz"):
        load_pretrain_config(recipe)


def test_a_stopped_run_goes_on_bit_equal(tmp_path: Path) -> None:
    config = PretrainConfig(
        layers=1, width=32, heads=2, ff=64, rows=2, log_every=4, checkpoint_every=4, max_tokens=8_000
    )
    pretrain(config, tmp_path / "straight")

    class Stop(Exception):
        pass

    def stop_after_two_rows(row: dict[str, object]) -> None:
        if row["step"] == 8:
            raise Stop

    with pytest.raises(Stop):
        pretrain(config, tmp_path / "stopped", stop_after_two_rows)
    pretrain(config, tmp_path / "stopped")
    straight, stopped = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "stopped"))
    assert straight == stopped
