"""Registries for tests: folders of a few bytes that pass for models, where runs put them, on a real MLflow database."""

from __future__ import annotations

from pathlib import Path

from dpo_driver.core.records import ModelVersion
from dpo_driver.core.store import RunStore
from dpo_driver.registry import Registry


def weights(folder: Path, content: str) -> Path:
    """A folder with the files of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(content.encode())
    (folder / "config.json").write_text("{}")
    return folder


def put(
    root: Path, name: str, parent: ModelVersion | None = None, *, folder: str = "", content: str = ""
) -> ModelVersion:
    """Register ``p/dpo-1`` as the run p does; ``folder`` and ``content`` where they are not the name's own."""
    run, _, stage = name.partition("/")
    path = weights(root / run / "models" / (folder or stage), content or name)
    values = {
        "name": name, "version": 0, "path": str(path), "parent": parent.content_hash if parent else None,
        "base_model": "pocket", "algorithm": stage.partition("-")[0], "content_hash": "",
    }  # fmt: skip
    return Registry(root).register(ModelVersion.model_validate(values))


def decide(root: Path, run: str, *stages: str, begun: str = "") -> None:
    """Finish stages of a run, and begin one more."""
    with RunStore(root / run) as store:
        for stage in stages:
            store.begin_stage(stage)
            store.finish_stage(stage, 1.0, {})
        if begun:
            store.begin_stage(begun)
