"""The engine's settings under Transformers' key names. Called by training/engine.py and the flywheel; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpo_driver.algorithms import ALGORITHMS, load_algorithm, option_names
from dpo_driver.algorithms.base import Algorithm
from dpo_driver.core.errors import ConfigError
from dpo_driver.core.schema_training import Optimizer

# Optimizers of bitsandbytes: their states are 8 bits wide, or are moved to the host's memory when the device's is full.
BITSANDBYTES_OPTIMIZERS = frozenset({"adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"})


class TrainConfig(BaseModel):
    """How to train. Options of the algorithm (``beta``, ...) are not here; see :func:`split_config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(default=1e-4, gt=0)
    num_train_epochs: float = Field(default=1, gt=0)
    max_steps: int = Field(default=-1, ge=-1)  # beats num_train_epochs when positive
    per_device_train_batch_size: int = Field(default=16, ge=1)  # pairs, or samples where there are no pairs
    gradient_accumulation_steps: int = Field(default=1, ge=1)  # multiplies the rows of a step
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)  # beats warmup_ratio when positive
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    optim: Optimizer = "adamw_torch_fused"
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    logging_steps: int = Field(default=5, ge=1)
    eval_steps: int = Field(default=25, ge=1)
    save_steps: int = Field(default=25, ge=1)
    save_total_limit: int = Field(default=2, ge=1)
    early_stopping_patience: int = Field(default=0, ge=0)  # validations without a gain before stopping; 0: never
    metric_for_best_model: str = "loss"  # of the validation rows; the weights at its best are kept
    greater_is_better: bool | None = None  # None: true for accuracies, margins and rewards/chosen
    seed: int = Field(default=0, ge=0)
    max_length: int = Field(default=2048, ge=1)  # tokens of prompt and completion
    max_prompt_length: int | None = Field(default=None, ge=1)  # of the prompt alone
    max_seconds: float | None = Field(default=None, gt=0)  # of training, evaluations included; checked after each step
    bf16: bool = False  # linear layers in bfloat16
    gradient_checkpointing: bool = False
    tokens_per_pass: int = Field(default=4096, ge=1)  # slots of one forest; smaller takes less memory, same result
    # Of an adapter that acts only after the prompt: 10^9 bytes of prompts' keys and values that are kept.
    prompt_cache_gb: float = Field(default=2.0, ge=0)

    @property
    def rows_per_step(self) -> int:
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def best_is_greatest(self) -> bool:
        if self.greater_is_better is not None:
            return self.greater_is_better
        return any(word in self.metric_for_best_model for word in ("accurac", "margin", "rewards/chosen"))

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same when a run is resumed: everything that changes the weights of a step."""
        free = {"logging_steps", "save_steps", "save_total_limit", "max_seconds", "prompt_cache_gb"}
        return self.model_dump(mode="json", exclude=free)


def split_config(
    algorithm: str | Algorithm, config: TrainConfig | BaseModel | Mapping[str, Any], **more: Any
) -> tuple[Algorithm, TrainConfig]:
    """Settings of the algorithm and of the engine from one section, such as ``RunConfig.dpo``.

    Args:
        algorithm: a name, whose options are taken from the section, or an object that is complete already.
        config: a section, which may hold keys for others too (how rows are chosen), or a mapping, which may not.
        more: settings that beat the section's.

    Raises:
        ConfigError: a key that neither knows, or a value that is out of range.
    """
    values: dict[str, Any] = dict(config) | more
    known = set(TrainConfig.model_fields)
    options: dict[str, Any] = {}
    if isinstance(algorithm, str):
        options = {key: values[key] for key in option_names(algorithm) if key in values}
    # A section may hold options of a sibling: the control trains from DPO's section.
    foreign = set().union(*map(option_names, ALGORITHMS))
    unknown = sorted(set(values) - known - foreign)
    if unknown and not isinstance(config, BaseModel):
        raise ConfigError(f"unknown training key {unknown[0]!r}", remedy=f"known: {', '.join(sorted(known | foreign))}")
    try:
        settings = TrainConfig(**{key: value for key, value in values.items() if key in known})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return (load_algorithm(algorithm, **options) if isinstance(algorithm, str) else algorithm), settings
