"""The configuration's sections about models and their training: what is trained, and how. See core/schema.py.

Key names are those of TRL and Transformers wherever they have one. Imports pydantic only.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dpo_driver.core.section import Count, CountOrNone, Fraction, NotNegative, Positive, Section

# Names that Transformers knows. Which of them need bitsandbytes is in training/config.py.
Optimizer = Literal["adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]


class LoraConfig(Section):
    """PEFT's adapter, used when ``model.training`` is ``lora``."""

    r: Count = 16
    alpha: Count = 32
    dropout: Fraction = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    use_rslora: bool = False  # scale by alpha / sqrt(r) instead of alpha / r
    after_prompt: bool = False  # act only from the answer's header on: prompts are the frozen base's, computed once


class ModelConfig(Section):
    """The model to train. ``model: Qwen/Qwen3-4B`` is short for ``model: {name: Qwen/Qwen3-4B}``."""

    name: str = Field(default="pocket", min_length=1)  # "pocket", a folder, or a hub id
    # prompt profile; auto: pocket for the pocket model, else chat
    profile: Literal["auto", "chat", "chat-turns", "pocket"] = "auto"
    thought: bool = True  # written before each action; false: the profile's variant with the action alone
    training: Literal["auto", "full", "lora"] = "auto"  # auto: full for the pocket model, else lora
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: float32 on CPU, else bfloat16
    device: str = "auto"
    # nf4: the frozen linear layers in 4 bits with double quantisation, below an adapter; needs bitsandbytes and CUDA
    quantization: Literal["none", "nf4"] = "none"
    max_length: Count = 2048  # tokens of prompt and completion; longer samples are counted and named, never cut
    max_prompt_length: Count | None = None  # of the prompt alone, in training rows; likewise
    lora: LoraConfig = LoraConfig()

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _only_adapters_on_quantized_weights(self) -> ModelConfig:
        if self.quantization != "none" and not self.uses_adapter:
            raise ValueError(f"quantization {self.quantization} freezes the weights: it goes with training: lora")
        if self.lora.after_prompt and not self.uses_adapter:
            raise ValueError("lora.after_prompt is about an adapter: it goes with training: lora")
        if self.max_prompt_length is not None and self.max_prompt_length >= self.max_length:
            raise ValueError(
                f"max_prompt_length {self.max_prompt_length} leaves no room for a completion in "
                f"max_length {self.max_length}"
            )
        return self

    @property
    def is_pocket(self) -> bool:
        return self.name == "pocket"

    @property
    def prompt_profile(self) -> str:
        """A name in agents/prompt.py: ``profile`` with ``auto`` resolved, without thought where that is off."""
        name = self.profile if self.profile != "auto" else "pocket" if self.is_pocket else "chat"
        return name if self.thought else f"{name}-no-thought"

    def reading(self, prompt_profile: str) -> ModelConfig:
        """The same with another ``prompt_profile``; an empty one changes nothing."""
        if not prompt_profile:
            return self
        name = prompt_profile.removesuffix("-no-thought")
        return self.model_copy(update={"profile": name, "thought": name == prompt_profile})

    @property
    def uses_adapter(self) -> bool:
        """``training`` with ``auto`` resolved: True means LoRA."""
        return self.training == "lora" or (self.training == "auto" and not self.is_pocket)


class TrainingArgs(Section):
    """What SFT and DPO share, under Transformers' names. ``max_steps`` beats ``num_train_epochs`` when positive."""

    learning_rate: Positive = 1e-3
    num_train_epochs: Positive = 3
    max_steps: Annotated[int, Field(ge=-1)] = -1
    per_device_train_batch_size: Count = 16  # SFT: completions, DPO: pairs
    gradient_accumulation_steps: Count = 1
    warmup_ratio: Fraction = 0.1
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    optim: Optimizer = "adamw_torch_fused"  # 8bit and paged ones are bitsandbytes' and need CUDA
    bf16: bool = False  # linear layers in bfloat16
    gradient_checkpointing: bool = False  # keep each layer's input only and compute the rest again
    tokens_per_pass: Count = 4096  # slots of one pass; smaller takes less memory, the step stays the same
    prompt_cache_gb: NotNegative = 2.0  # with model.lora.after_prompt: prompts' keys and values kept, in main memory
    logging_steps: Count = 5
    eval_steps: Count = 25  # steps between validations; the best one's weights are kept
    early_stopping_patience: CountOrNone = 4  # validations without a gain before stopping; 0: never stop early
    save_steps: Count = 25  # steps between checkpoints to resume from; a run rounds it up to a multiple of eval_steps
    max_seconds: Positive | None = None  # of training; None: no limit

    def aligned(self) -> Self:
        """The same with ``save_steps`` rounded up to a multiple of ``eval_steps``: every checkpoint then comes with a
        verdict on its own weights, and none is made between two verdicts."""
        saves = -(-self.save_steps // self.eval_steps) * self.eval_steps
        return self if saves == self.save_steps else self.model_copy(update={"save_steps": saves})


class SftConfig(TrainingArgs):
    """Imitation of the demonstrations."""


class SftBestConfig(Section):
    """SFT trained to its best on the same demonstrations, the yardstick: of several lengths, and of ``sft`` itself, the
    one that does best on validation seeds."""

    learning_rate: Positive = 5e-4
    epochs: Annotated[tuple[Count, ...], Field(min_length=1)] = (4, 12, 30)


class DpoConfig(TrainingArgs):
    """Preference training against the frozen parent."""

    learning_rate: Positive = 1e-4
    num_train_epochs: Positive = 1
    beta: Positive = 0.1
    loss_type: Literal["sigmoid", "sigmoid_norm", "ipo", "hinge"] = "sigmoid"  # a file each in algorithms/pair_losses
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    rpo_alpha: NotNegative = 0.0  # weight of the chosen answers' NLL beside the preference loss
    replay_coefficient: NotNegative = 0.0  # weight of the NLL on the round's successes, mixed into the batches
    replay_per_task: Count = 60  # successes of each family that are replayed, in rows


class CurriculumConfig(Section):
    """Which task families are open: those whose step limit is within the horizon."""

    start_steps: CountOrNone = 0  # the first horizon; 0: everything is open from the start
    open_by: Count = 2  # steps that the horizon grows by ...
    threshold: Fraction = 0.6  # ... when the mean of the last rewards passes this ...
    window: Count = 20  # ... and so many of them were seen


class GrpoConfig(TrainingArgs):
    """Online training on live browsers, under TRL's names. ``max_steps`` and ``eval_steps`` count updates; validation
    is success on validation seeds. ``episodes`` 0 leaves it out of a run."""

    algorithm: Literal["grpo", "rloo", "reinforce_pp"] = "grpo"
    episodes: CountOrNone = 0  # rollouts in all, unless max_steps or max_seconds end it before
    learning_rate: Positive = 1e-4
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "constant_with_warmup"
    groups_per_step: Count = 8  # groups of siblings that a generation batch learns from
    num_generations: Annotated[int, Field(ge=2)] = 8  # siblings of a group
    steps_per_generation: Count = 1  # updates that a generation batch is cut into ...
    num_iterations: Count = 1  # ... and how often it is gone through
    beta: NotNegative = 0.001  # of the KL to the parent
    epsilon: Positive = 0.2
    epsilon_high: Positive | None = None
    scale_rewards: Literal["group", "batch", "none"] = "group"
    loss_type: Literal["dapo", "grpo", "trajectory"] = "dapo"
    baseline: bool = False  # reinforce_pp: take the group's mean off the reward first
    step_credit: NotNegative = 0.0  # weight of the comparison among decisions in the same state
    gamma: Fraction = 0.95  # discount a step, for step_credit
    reward: Literal["strict", "positive", "dense"] = "strict"
    temperature: Positive = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Positive = 1.0  # of rollouts, and of the probabilities that are learned from; 1: none
    max_completion_length: Count = 512
    max_refills: CountOrNone = 2  # rounds of new groups in place of those in which all siblings did the same
    max_staleness: CountOrNone = 0  # updates that rollouts may be behind; 0: rollouts and updates take turns
    curriculum: CurriculumConfig = CurriculumConfig()
