"""One training on rows, as every process of a run does it. Called by flywheel/train.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_driver.core.records import Preference, TrainingSample
from dpo_driver.core.schema_training import ModelConfig

if TYPE_CHECKING:
    from dpo_driver.training.engine import TrainResult


@dataclass(frozen=True)
class Fitting:
    """What is trained on what: all that a process must know for its part of it. Pickles."""

    algorithm: str
    model: ModelConfig
    source: str  # the parent: a folder or a hub id
    rows: tuple[Preference | TrainingSample, ...]
    values: Mapping[str, Any]  # settings of engine and algorithm
    output: Path

    def run(self, on_log: Callable[[int, dict[str, float]], None]) -> tuple[Any, Any, TrainResult]:
        """Train. Returns the model, its tokenizer and what happened."""
        import torch

        from dpo_driver.policies.loading import load_model, load_tokenizer
        from dpo_driver.training.engine import train

        torch.manual_seed(
            int(self.values["seed"])
        )  # a fresh adapter is random, and must be the same when a run goes on
        model = load_model(
            self.source,
            dtype=self.model.dtype,
            device=self.model.device,
            quantization=self.model.quantization,
            trainable="lora" if self.model.uses_adapter else "full",
            lora=self.model.lora,
        )
        tokenizer = load_tokenizer(self.source)
        result = train(
            self.algorithm,
            model,
            tokenizer,
            [row for row in self.rows if row.split == "train"],
            [row for row in self.rows if row.split == "val"],
            self.values,
            self.output,
            on_log=on_log,
        )
        return model, tokenizer, result


def part_of_another(fitting: Fitting) -> None:
    """What a process that is not the main one does."""
    fitting.run(lambda step, metrics: None)
