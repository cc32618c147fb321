"""Model folders: loaded safely, saved whole, named by what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Message
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.encoding import decode_completion, encode_completion, encode_prompt
from dpo_driver.policies.loading import (
    check_folder,
    content_hash,
    is_adapter,
    load_model,
    load_tokenizer,
    resolve,
    save_version,
    weights_hash,
)
from dpo_driver.policies.merge import export_merged
from dpo_driver.policies.pocket import pocket_folder
from dpo_driver.testing.tiny_models import ARCHITECTURES, tiny_model

INPUT = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, tokenizer = tiny_model()
    save_version(model, tokenizer, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_and_loaded_models_are_the_same(architecture: str, tmp_path: Path) -> None:
    model, tokenizer = tiny_model(architecture)
    save_version(model, tokenizer, tmp_path / "m")
    loaded = load_model(tmp_path / "m", device="cpu")
    assert torch.equal(loaded(INPUT).logits, model(INPUT).logits)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert (
        load_tokenizer(tmp_path / "m")("button Save[3] äö")["input_ids"] == tokenizer("button Save[3] äö")["input_ids"]
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


def test_training_everything_or_an_adapter(folder: Path) -> None:
    assert all(p.requires_grad for p in load_model(folder, trainable="full").parameters())
    model = load_model(folder, trainable="lora")
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(learning) == 2 * 2 * 7  # A and B, two layers, seven linear layers each
    assert all("lora_" in name for name in learning)
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha) == (16, 32)
    assert load_model(folder, trainable="lora", lora=LoraConfig(r=2)).peft_config["default"].r == 2
    assert load_model(folder, dtype="bfloat16").dtype == torch.bfloat16


def test_adapters_are_saved_loaded_continued_and_merged(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder, trainable="lora")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = model.eval()(INPUT).logits
    save_version(model, load_tokenizer(folder), tmp_path / "adapter")
    assert is_adapter(tmp_path / "adapter")
    assert torch.allclose(load_model(tmp_path / "adapter")(INPUT).logits, expected, atol=1e-6)
    assert torch.allclose(load_model(folder, adapter=tmp_path / "adapter")(INPUT).logits, expected, atol=1e-6)
    again = load_model(tmp_path / "adapter", trainable="lora")
    assert any(p.requires_grad for p in again.parameters())
    merged = load_model(tmp_path / "adapter", trainable="full").eval()
    assert not hasattr(merged, "peft_config")
    assert torch.allclose(merged(INPUT).logits, expected, atol=1e-4)
    with pytest.raises(ModelError, match="holds no adapter"):
        load_model(folder, adapter=folder)
    with pytest.raises(ModelError, match="on an adapter"):
        load_model(tmp_path / "adapter", adapter=tmp_path / "adapter")


def test_a_fresh_adapter_is_the_same_every_time(folder: Path) -> None:
    """Else a training that was stopped would not know its own parent again."""
    before = torch.random.get_rng_state()
    one, other = load_model(folder, trainable="lora"), load_model(folder, trainable="lora")
    assert weights_hash(one) == weights_hash(other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_rank_stabilised_adapters_are_scaled_by_the_root_of_the_rank(folder: Path) -> None:
    def scalings(**options: Any) -> set[float]:
        model = load_model(folder, trainable="lora", lora=LoraConfig(r=16, alpha=32, **options))
        return {layer.scaling["default"] for layer in model.modules() if hasattr(layer, "lora_A")}

    assert scalings() == {2.0}  # 32 / 16
    assert scalings(use_rslora=True) == {8.0}  # 32 / 4


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_merged_model_is_a_plain_folder(folder: Path, tmp_path: Path, dtype: str) -> None:
    adapter = load_model(folder, trainable="lora", lora=LoraConfig(r=4, use_rslora=True))
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = adapter.eval()(INPUT).logits
    save_version(adapter, load_tokenizer(folder), tmp_path / "adapter")
    digest = export_merged(tmp_path / "adapter", tmp_path / "merged", dtype=dtype)
    assert digest == content_hash(tmp_path / "merged") != content_hash(folder)
    assert not is_adapter(tmp_path / "merged")
    check_folder(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.dtype == (torch.float32 if dtype == "auto" else torch.bfloat16)
    assert torch.allclose(merged.float()(INPUT).logits, expected, atol=1e-4 if dtype == "auto" else 0.2)
    assert load_tokenizer(tmp_path / "merged")("a")["input_ids"] == load_tokenizer(folder)("a")["input_ids"]
    with pytest.raises(ModelError, match="there is something already"):
        export_merged(tmp_path / "adapter", tmp_path / "merged")
    with pytest.raises(ModelError, match="holds no adapter"):
        export_merged(folder, tmp_path / "other")
    with pytest.raises(ModelError, match="unknown dtype 'int4'"):
        export_merged(tmp_path / "adapter", tmp_path / "other", dtype="int4")


def test_merging_from_the_command_line(folder: Path, tmp_path: Path, cli: Any) -> None:
    save_version(load_model(folder, trainable="lora"), load_tokenizer(folder), tmp_path / "adapter")
    done = cli("models", "merge", str(tmp_path / "adapter"), "merged", "--dtype", "float16")
    assert done.returncode == 0, done.stderr
    assert "the merged model is in merged" in done.stderr
    assert load_model(tmp_path / "merged", dtype="float16").dtype == torch.float16
    again = cli("models", "merge", str(tmp_path / "adapter"), "merged")
    assert again.returncode == 2
    assert "there is something already (merged)" in again.stderr
    unknown = cli("models", "merge", "pocket/dpo-9", "elsewhere")
    assert unknown.returncode == 2
    assert "no registered model 'pocket/dpo-9'" in unknown.stderr


def test_hash_names_the_content(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = tiny_model()
    assert save_version(model, tokenizer, tmp_path / "twin") == content_hash(folder)
    (folder / "README.md").write_text("a card changes nothing")
    assert content_hash(folder) == content_hash(tmp_path / "twin")
    other, _ = tiny_model(seed=1)
    assert save_version(other, tokenizer, tmp_path / "twin") != content_hash(folder)
    assert weights_hash(model) == weights_hash(tiny_model()[0])
    assert weights_hash(model) != weights_hash(other)


def test_saving_again_replaces_the_folder(folder: Path) -> None:
    other, tokenizer = tiny_model(seed=1)
    (folder / "stale.txt").touch()
    save_version(other, tokenizer, folder)
    assert not (folder / "stale.txt").exists()
    assert weights_hash(load_model(folder)) == weights_hash(other)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(e for e in manifest["files"] if e["name"] == "model.safetensors")
    assert entry["size"] == (folder / "model.safetensors").stat().st_size
    assert len(entry["sha256"]) == 64


@pytest.mark.parametrize("name", ["no/such/folder/here", "/no/such", "./nothing", "~/nothing-here"])
def test_missing_folder(name: str) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        resolve(name)


def test_hub_ids_pass_through_and_fail_clearly_without_a_network() -> None:
    assert resolve("Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model("nobody/has-this-model")


def test_pocket_is_the_model_in_the_package() -> None:
    if (pocket_folder() / "config.json").is_file():
        assert resolve("pocket") == str(pocket_folder())
    else:
        with pytest.raises(ModelError, match="pocket"):
            resolve("pocket")


def test_pickles_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "manifest.json").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickle \(pytorch_model.bin\) and refused"):
        load_model(folder)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [_cut, _flip, Path.unlink])
@pytest.mark.parametrize("manifest", [True, False])
def test_damage_is_noticed(harm: Any, manifest: bool, folder: Path) -> None:
    if not manifest:
        if harm is _flip:
            pytest.skip("a flipped bit cannot be seen without a manifest")
        (folder / "manifest.json").unlink()
    harm(folder / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert "model" in str(caught.value)
    assert str(folder) in str(caught.value)


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_model(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no weights"):
        check_folder(tmp_path / "empty")
    (folder / "manifest.json").unlink()
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="part of the weights") as caught:
        load_model(folder)
    assert "model-00002.safetensors" in str(caught.value)


def test_wrong_dtype() -> None:
    with pytest.raises(ModelError, match="unknown dtype 'float31'"):
        load_model(".", dtype="float31")


@pytest.mark.parametrize(
    "text", ['thought: button Save\naction: click("[3]")', "äöü 🙂\n", 'a "quoted" thing [12] #3', ""]
)
def test_completions_round_trip(text: str) -> None:
    _, tokenizer = tiny_model()
    ids = encode_completion(tokenizer, text)
    assert ids[-1] == tokenizer.eos_token_id
    assert decode_completion(tokenizer, ids) == text


def test_prompt_and_completion_are_what_the_template_makes_of_the_conversation() -> None:
    _, tokenizer = tiny_model()
    messages = [Message(role="system", content="Be brief."), Message(role="user", content="goal: go\n")]
    turns = [m.model_dump() for m in messages] + [{"role": "assistant", "content": "thought: x"}]
    whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert encode_prompt(tokenizer, messages) + encode_completion(tokenizer, "thought: x") == whole


def test_tokenizer_without_a_template(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        encode_prompt(tokenizer, [Message(role="user", content="x")])
