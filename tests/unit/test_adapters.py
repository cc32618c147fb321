"""Adapters go both ways: ours load in plain PEFT and merge, and those of PEFT and TRL are parents here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLora
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_driver.core.records import Message, Preference, TrainingSample
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.policies.loading import is_adapter, load_model, load_tokenizer, save_version
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.engine import TrainResult, train

WORDS = ("Save", "Stop", "Open", "Close", "Send", "Back")


def prompt(i: int) -> str:
    return f"button {WORDS[i]}[{i + 1}]\ngoal: press {WORDS[i]}\n"


SAMPLES = [
    TrainingSample(id=f"s{i}", messages=(Message(role="user", content=prompt(i)),), completion=word, source="t")
    for i, word in enumerate(WORDS)
]
PAIRS = [
    Preference(id=f"p{i}", messages=row.messages, chosen=row.completion, rejected="no", level="text", source="t")
    for i, row in enumerate(SAMPLES)
]
SETTINGS = {"learning_rate": 1e-2, "per_device_train_batch_size": 4, "logging_steps": 1}


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / request.param
    save_version(*tiny_model(request.param), folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    """Scores [T, V] of a fixed row under a model in evaluation mode."""
    ids_1T = torch.tensor([[5, 60, 7, 100, 33, 81, 9, 12]])
    with torch.no_grad():
        scores_TV: torch.Tensor = model.eval()(input_ids=ids_1T).logits[0]
    return scores_TV


def plain(base: Path) -> Any:
    """The base as somebody without our code loads it."""
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def fit(algorithm: str, rows: Any, folder: Path, adapter: Path | None, out: Path, **more: Any) -> TrainResult:
    """Two steps with an adapter, saved as a run saves it."""
    source = adapter or folder
    model = load_model(source, device="cpu", trainable="lora", lora=LoraConfig(r=4, alpha=8))
    tokenizer = load_tokenizer(source)
    config = SETTINGS | {"max_steps": 2, "max_length": 500} | more
    val = [row.model_copy(update={"id": f"v{row.id}", "split": "val"}) for row in rows[:2]]
    result = train(algorithm, model, tokenizer, rows, val, config, out.with_name(f"{out.name}-checkpoints"))
    save_version(model, tokenizer, out)
    return result


def assert_plain_peft_agrees(base: Path, adapter: Path) -> None:
    ours = logits(load_model(adapter, device="cpu"))
    theirs = PeftModel.from_pretrained(plain(base), str(adapter))
    assert torch.allclose(logits(theirs), ours, atol=1e-6, rtol=0)
    merged = theirs.merge_and_unload()
    assert not hasattr(merged, "peft_config")
    assert torch.allclose(logits(merged), ours, atol=1e-5, rtol=0)
    assert (ours - logits(plain(base))).abs().max() > 1e-2  # the adapter does something


def test_an_adapter_trained_here_is_a_peft_adapter(base: Path, tmp_path: Path) -> None:
    result = fit("sft", SAMPLES, base, None, tmp_path / "adapter")
    assert result.steps == 2
    assert is_adapter(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["task_type"]) == (str(base), 4, "CAUSAL_LM")
    assert_plain_peft_agrees(base, tmp_path / "adapter")
    # transformers' own short way, and ours for what is merged when it is served.
    auto = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    assert torch.allclose(logits(auto), logits(load_model(tmp_path / "adapter", device="cpu")), atol=1e-6, rtol=0)
    merged = load_model(tmp_path / "adapter", device="cpu", trainable="full")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    save_version(merged, tokenizer, tmp_path / "merged")
    assert torch.allclose(logits(plain(tmp_path / "merged")), logits(auto), atol=1e-5, rtol=0)
    assert HFPolicy(tmp_path / "adapter", device="cpu").version != HFPolicy(base, device="cpu").version


def by_peft(base: Path, folder: Path, **shape: Any) -> Path:
    """An adapter that nothing of ours has touched, with weights that matter."""
    torch.manual_seed(3)
    model = get_peft_model(plain(base), PeftLora(task_type="CAUSAL_LM", **shape))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def with_trl(base: Path, folder: Path, trainer_name: str) -> Path:
    """One step of TRL's own trainer, saved by its ``save_model``."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    pair = trainer_name == "DPO"
    rows = [
        {"prompt": [{"role": "user", "content": row.messages[0].content}]}
        | {key: [{"role": "assistant", "content": getattr(row, key)}] for key in
           (("chosen", "rejected") if pair else ("completion",))}
        for row in (PAIRS if pair else SAMPLES)
    ]  # fmt: skip
    config = getattr(trl, f"{trainer_name}Config")(
        output_dir=str(folder / "trainer"), max_steps=1, learning_rate=0.1, lr_scheduler_type="constant",
        per_device_train_batch_size=6, save_strategy="no", report_to="none", use_cpu=True, bf16=False,
        disable_tqdm=True, dataloader_pin_memory=False, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = getattr(trl, f"{trainer_name}Trainer")(
        model=str(base), args=config, train_dataset=datasets.Dataset.from_list(rows),
        processing_class=load_tokenizer(base),
        peft_config=PeftLora(r=4, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(folder / "saved"))
    return folder / "saved"


PARENTS: dict[str, Callable[[Path, Path], Path]] = {
    "peft": lambda base, folder: by_peft(base, folder, r=4, target_modules="all-linear"),
    # Shapes that `model.lora` of a configuration cannot ask for: an adapter brings its own.
    "peft-rslora-dropout": lambda base, folder: by_peft(
        base, folder, r=8, lora_alpha=4, use_rslora=True, lora_dropout=0.3, target_modules=["q_proj", "v_proj"]
    ),
    "peft-dora": lambda base, folder: by_peft(base, folder, r=2, use_dora=True, target_modules=["gate_proj"]),
    "trl-sft": lambda base, folder: with_trl(base, folder, "SFT"),
    "trl-dpo": lambda base, folder: with_trl(base, folder, "DPO"),
}


@pytest.mark.parametrize("origin", PARENTS)
def test_an_adapter_from_elsewhere_continues_here(origin: str, base: Path, tmp_path: Path) -> None:
    """It is the parent: with it as reference the first loss is ln 2. With the base as reference it could not be."""
    adapter = PARENTS[origin](base, tmp_path / "theirs")
    assert_plain_peft_agrees(base, adapter)
    result = fit("dpo", PAIRS, base, adapter, tmp_path / "ours", beta=0.5)
    assert result.history[0]["step"] == 0
    assert result.start_metrics["eval_loss"] == pytest.approx(math.log(2), abs=1e-4)
    if "dropout" not in origin:  # dropout is on while training: then no step sees the parent as it is
        assert result.history[1]["preference_loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert result.metrics["preference_loss"] < math.log(2) - 1e-3  # and the second step has learned from the first
    assert_plain_peft_agrees(base, tmp_path / "ours")
    ours, theirs = (json.loads((folder / "adapter_config.json").read_text()) for folder in (tmp_path / "ours", adapter))
    for key in ("r", "lora_alpha", "use_rslora", "use_dora", "lora_dropout", "base_model_name_or_path"):
        assert ours[key] == theirs[key]
    assert set(ours["target_modules"]) == set(theirs["target_modules"])


def test_sft_goes_on_from_where_an_adapter_stood(base: Path, tmp_path: Path) -> None:
    """Its first loss is that of the adapter, computed by plain PEFT and transformers."""
    adapter = by_peft(base, tmp_path / "theirs", r=4, target_modules="all-linear")
    result = fit("sft", SAMPLES[:1], base, adapter, tmp_path / "ours")
    tokenizer = load_tokenizer(base)
    asked = tokenizer(prompt(0), add_special_tokens=False)["input_ids"]
    said = [*tokenizer(WORDS[0], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    theirs = PeftModel.from_pretrained(plain(base), str(adapter)).eval()
    labels_1T = torch.tensor([[-100] * len(asked) + said])
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([[*asked, *said]]), labels=labels_1T).loss.item()
    assert result.start_metrics["eval_loss"] == pytest.approx(expected, abs=1e-5)
