"""Models that a server can find: the shipped one and two adapters on it, in a registry of their own."""

from __future__ import annotations

from pathlib import Path

import torch

from dpo_driver.core.records import Decision, ModelVersion
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.loading import is_adapter, load_model, load_tokenizer, save_version
from dpo_driver.registry import Registry


def adapter(base: Path, folder: Path, seed: int) -> Path:
    """An adapter that changes what the model says."""
    torch.manual_seed(seed)
    model = load_model(base, device="cpu", trainable="lora", lora=LoraConfig(r=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    save_version(model, load_tokenizer(base), folder)
    return folder


def register(root: Path, name: str) -> ModelVersion:
    folder = root / "pocket" / "models" / name.partition("/")[2]
    return Registry(root).register(
        ModelVersion(name=name, version=0, path=str(folder), parent=None, base_model="pocket", algorithm="dpo",
                     content_hash="", adapter=is_adapter(folder))
    )  # fmt: skip


def place_aliases(root: Path) -> None:
    """dpo-1 is champion, sft previous, dpo-2 candidate, whatever an earlier test moved."""
    registry = Registry(root)
    for alias, name in (("champion", "dpo-1"), ("previous", "sft"), ("candidate", "dpo-2")):
        registry.set_alias(alias, f"pocket/{name}")


def served_root(root: Path) -> Path:
    """pocket/sft (the shipped model) and adapters on it: dpo-1 is champion, dpo-2 candidate; sft is previous."""
    models = root / "pocket" / "models"
    model = load_model("pocket", device="cpu")
    save_version(model, load_tokenizer("pocket"), models / "sft")
    for seed, name in enumerate(("dpo-1", "dpo-2")):
        adapter(models / "sft", models / name, seed)
    for name in ("pocket/sft", "pocket/dpo-1", "pocket/dpo-2"):
        register(root, name)
    registry = Registry(root)
    registry.set_alias("champion", "pocket/sft")
    decision = Decision(promoted=True, candidate="pocket/dpo-1", champion="pocket/sft", reasons=("a test",))
    registry.promote("pocket/dpo-1", decision)
    registry.set_alias("candidate", "pocket/dpo-2")
    return root
