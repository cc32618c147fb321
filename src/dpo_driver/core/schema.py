"""The configuration of a run: its schema, with defaults, and nothing about where it comes from.

``core/config.py`` reads it from YAML with ``--set`` overrides; the command line and the flywheel take a ``RunConfig``.
Key names are those of TRL and Transformers wherever they have one. Unknown keys are errors. Imports pydantic and YAML
only: names of environments and tasks are checked by whoever can see their tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dpo_driver.core.records import PreferenceSource

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
# Names that Transformers knows. Which of them need bitsandbytes is in training/config.py.
Optimizer = Literal["adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]
PairSource = Literal["step", "outcome", "trajectory", "search", "human", "teacher", "heuristic", "memory", "import"]
# Names in preferences/heuristic.py. `shorter` is length alone, so it must be asked for.
PairRule = Literal["fewer_steps", "no_invalid_action", "no_repeated_action", "no_forbidden_origin", "shorter"]
EvaluatedAgent = Literal["random", "oracle", "base", "sft", "control", "sft_best", "memory", "dpo", "grpo"]


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, no infinities. ``sft:`` with nothing under it means defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: Any) -> Any:
        return {} if data is None else data


class ProjectConfig(Section):
    """Who this run is. Everything it writes lies under ``run_dir``."""

    name: Name = "pocket"
    run_dir: Path | None = None  # runs/<name> when not given
    seed: CountOrNone = 0  # of training: order, sampling, dropout
    encrypt: bool = False  # what it keeps, under a key of yours: docs/integrity.md


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

    @property
    def uses_adapter(self) -> bool:
        """``training`` with ``auto`` resolved: True means LoRA."""
        return self.training == "lora" or (self.training == "auto" and not self.is_pocket)


class EnvConfig(Section):
    """Where the agent acts."""

    name: str = "miniwob"
    folder: str | None = None  # of tasks, for the environment website
    base_url: str | None = None  # where the site is, if not where its site.yaml says
    tasks: tuple[str, ...] = Field(default=("click-button",), min_length=1)  # task families
    rollouts: str | None = None  # a faster environment of the same tasks, for all but what is tested on
    workers: Annotated[int, Field(ge=1, le=256)] = 4  # pages at once
    max_steps: Count | None = None  # None: each task family's own limit

    @model_validator(mode="after")
    def _no_task_twice(self) -> EnvConfig:
        twice = sorted({task for task in self.tasks if self.tasks.count(task) > 1})
        if twice:
            raise ValueError(f"listed twice: {', '.join(twice)}")
        return self

    @property
    def source(self) -> str:
        """What the tables of core/plugins.py are asked for: the name, with the folder or the site's address if there is
        one."""
        if self.folder is None:
            return f"{self.name}:{self.base_url}" if self.base_url else self.name
        return f"{self.name}:{self.folder}@{self.base_url}" if self.base_url else f"{self.name}:{self.folder}"


class SeedsConfig(Section):
    """Blocks of task seeds, first and last inclusive, the same for every task family. They must not overlap: what
    is demonstrated, trained on, chosen by and finally tested on are four different things."""

    demo: tuple[int, int] = (1, 999)
    train: tuple[int, int] = (10_000, 99_999)
    val: tuple[int, int] = (100_000, 199_999)
    test: tuple[int, int] = (900_000, 999_999)

    @model_validator(mode="after")
    def _disjoint(self) -> SeedsConfig:
        blocks: dict[str, tuple[int, int]] = dict(self)
        for name, (first, last) in blocks.items():
            if first < 0 or last < first:
                raise ValueError(f"{name}: [{first}, {last}] is no block of seeds; write [first, last]")
        for (one, a), (other, b) in combinations(blocks.items(), 2):
            if a[0] <= b[1] and b[0] <= a[1]:
                raise ValueError(f"{one} {list(a)} and {other} {list(b)} overlap; seeds of different use must differ")
        return self


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


class DemosConfig(Section):
    """Expert demonstrations: live ones from the first seeds of ``seeds.demo``, and recorded ones."""

    model_config = ConfigDict(serialize_by_alias=True, populate_by_name=True)

    per_task: CountOrNone = 8  # of live ones; 0: only what was recorded
    # a run directory that `dpo-driver collect --agent` or `--import` filled; what is proven there is learned from, too
    from_: Path | None = Field(default=None, alias="from")

    # of SFT: the experts' own, which is the label of what they act on, or what `dpo-driver annotate` made of them
    thoughts: Literal["template", "annotated"] = "template"
    annotations: Path | None = None  # the run directory that holds the annotated ones, if it is another

    @model_validator(mode="after")
    def _some(self) -> DemosConfig:
        if self.per_task == 0 and self.from_ is None:
            raise ValueError("per_task 0 leaves no demonstrations: name recorded ones with from")
        return self


class SamplingConfig(Section):
    """How the agent draws its text."""

    temperature: NotNegative = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count = 64


class CollectConfig(SamplingConfig):
    """Rollouts to learn from, per round: ``episodes_per_task / group_size`` seeds with ``group_size`` siblings each."""

    episodes_per_task: Count = 64
    group_size: Count = 8


class SearchConfig(SamplingConfig):
    """Search over page states, per round. Budgets are a start state's own; a line that has begun is played out."""

    per_task: Count = 8  # start states of each family
    iterations: Count = 15  # lines played from a start state
    candidates: Count = 5  # asked for on a page; equal actions are one
    exploration: NotNegative = 1.4  # UCB1's constant
    blend: Fraction = 0.7  # the outcome's share in a line's value; the critic has the rest
    min_margin: Fraction = 0.2  # smallest difference of Q values between chosen and rejected
    max_actions: Count | None = None  # in the browser, replayed ones included
    max_seconds: Positive | None = None  # of the browser
    # policy: the model of the round; random, oracle; or a provider's: google, anthropic:MODEL, local, ...
    agent: str = Field(default="policy", min_length=1)


class PairConfig(Section):
    """Which of two continuations become a preference."""

    # Names in preferences/build.py; where two find the same pair, the earlier one's is kept. human, teacher and import
    # are read from a preference log, the run's own unless `log` names another.
    sources: Annotated[tuple[PairSource, ...], Field(min_length=1)] = ("step", "outcome")
    log: Path | None = None
    mix: dict[str, Positive] = {}  # times the weight of a pair, by who preferred it; 1 for sources that are not named
    rules: Annotated[tuple[PairRule, ...], Field(min_length=1)] = (
        "fewer_steps", "no_invalid_action", "no_repeated_action", "no_forbidden_origin"
    )  # fmt: skip
    examples: Count = 2  # solved tasks that an agent with memory is shown
    exactly: Count | None = None  # pairs, spread over the families; fewer are an error: for comparing sources
    min_margin: Fraction = 0.25  # smallest difference of mean outcome between chosen and rejected
    max_per_state: Count = 2
    max_per_task: Count = 200
    max_parse_error_share: Fraction = 0.2  # at most this share of pairs may teach "do not write nonsense"
    val_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.1  # of seeds

    @property
    def reads_log(self) -> bool:
        """Whether a source is read from a preference log."""
        return not {"human", "teacher", "import"}.isdisjoint(self.sources)

    @field_validator("mix")
    @classmethod
    def _known_sources(cls, mix: dict[str, float]) -> dict[str, float]:
        known = get_args(PreferenceSource)
        unknown = [name for name in mix if name not in known]
        if unknown:
            raise ValueError(f"unknown preference source {unknown[0]!r}; known: {', '.join(known)}")
        return mix


class EvaluateConfig(Section):
    """The final test: the first seeds of ``seeds.test``, the same for every agent, used once per run."""

    episodes_per_task: Count = 60
    reference_episodes: Count = 300  # in all, for random, oracle, base and sft_best
    choose_per_task: Count = 20  # episodes a family on validation seeds, after each training, to choose by
    # Families that are never trained on, in named groups; on the same test seeds, apart, and no part of the gate.
    held_out: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    held_out_per_task: Count = 20  # episodes of each of them
    agents: tuple[EvaluatedAgent, ...] = ("random", "oracle", "base", "sft", "sft_best", "control", "dpo", "grpo")
    max_new_tokens: Count = 64

    @model_validator(mode="after")
    def _in_one_group_only(self) -> EvaluateConfig:
        listed = [family for group in self.held_out.values() for family in group]
        twice = sorted({family for family in listed if listed.count(family) > 1})
        if twice:
            raise ValueError(f"held_out lists twice: {', '.join(twice)}")
        return self


class PromoteConfig(Section):
    """The gate: the paired gain's interval must lie above ``min_gain``."""

    min_gain: Fraction = 0.0


class TrackingConfig(Section):
    """MLflow on sqlite, beside the run directories."""

    mlflow: bool = True
    experiment: str = "dpo-driver"


class ReportConfig(Section):
    """The HTML page."""

    replays: CountOrNone = 12  # step-by-step replays of each kind (won by DPO, lost by DPO)


class RunConfig(Section):
    """Everything a run needs. ``RunConfig()`` is valid: the pocket model on click-button."""

    project: ProjectConfig = ProjectConfig()
    model: ModelConfig = ModelConfig()
    env: EnvConfig = EnvConfig()
    seeds: SeedsConfig = SeedsConfig()
    demos: DemosConfig = DemosConfig()
    sft: SftConfig = SftConfig()
    sft_best: SftBestConfig = SftBestConfig()
    rounds: CountOrNone = 1  # of collect -> pair -> dpo
    collect: CollectConfig = CollectConfig()
    search: SearchConfig = SearchConfig()
    pair: PairConfig = PairConfig()
    dpo: DpoConfig = DpoConfig()
    grpo: GrpoConfig = GrpoConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promote: PromoteConfig = PromoteConfig()
    tracking: TrackingConfig = TrackingConfig()
    report: ReportConfig = ReportConfig()

    @field_validator("sft", "dpo", "grpo")
    @classmethod
    def _aligned(cls, section: TrainingArgs) -> TrainingArgs:
        return section.aligned()

    @model_validator(mode="after")
    def _held_out_is_not_trained_on(self) -> RunConfig:
        both = [family for group in self.evaluate.held_out.values() for family in group if family in self.env.tasks]
        if both:
            raise ValueError(f"{', '.join(both)} cannot be in evaluate.held_out and in env.tasks")
        return self

    @model_validator(mode="after")
    def _thoughts_have_a_place(self) -> RunConfig:
        if self.demos.thoughts == "annotated" and not self.model.thought:
            raise ValueError("demos.thoughts: annotated needs thoughts, and with model.thought: false there are none")
        return self

    @model_validator(mode="after")
    def _blocks_are_large_enough(self) -> RunConfig:
        collected = self.rounds * -(-self.collect.episodes_per_task // self.collect.group_size)
        searched = self.rounds * self.search.per_task if "search" in self.pair.sources else 0
        for block, wanted, key in (
            ("train", searched, "rounds * search.per_task"),
            ("demo", self.demos.per_task, "demos.per_task"),
            ("train", collected, "rounds * collect.episodes_per_task / collect.group_size"),
            ("val", self.evaluate.choose_per_task, "evaluate.choose_per_task"),
            ("test", self.evaluate.episodes_per_task, "evaluate.episodes_per_task"),
            ("test", self.evaluate.held_out_per_task if self.evaluate.held_out else 0, "evaluate.held_out_per_task"),
        ):
            first, last = getattr(self.seeds, block)
            if last - first + 1 < wanted:
                raise ValueError(f"seeds.{block} holds {last - first + 1} seeds, but {key} asks for {wanted}")
        return self

    @property
    def run_dir(self) -> Path:
        """Where this run writes: ``project.run_dir`` or ``runs/<name>``."""
        return self.project.run_dir or Path("runs") / self.project.name

    def resolved_yaml(self) -> str:
        """All keys with their values, defaults filled in; reading it back gives an equal configuration."""
        data = self.model_dump(mode="json")
        data["project"]["run_dir"] = str(self.run_dir)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)

    def hash(self, sections: Sequence[str] | None = None) -> str:
        """16 hex digits over everything that can change a result; not over where it is written, tracked or shown.

        Args:
            sections: only these, for a stage that depends on no others, such as ``("model", "env", "sft")``.
        """
        data = self.model_dump(mode="json", exclude={"tracking", "report"})
        del data["project"]["run_dir"], data["project"]["name"], data["env"]["workers"], data["env"]["base_url"]
        del data["project"]["encrypt"]
        # Runs from before there was such a key keep their hash.
        if data["env"]["folder"] is None:
            del data["env"]["folder"]
        if data["grpo"]["repetition_penalty"] == 1:
            del data["grpo"]["repetition_penalty"]
        if data["demos"]["from"] is None:
            del data["demos"]["from"]
        if data["demos"]["thoughts"] == "template":
            del data["demos"]["thoughts"], data["demos"]["annotations"]
        if not data["evaluate"]["held_out"]:
            del data["evaluate"]["held_out"], data["evaluate"]["held_out_per_task"]
        if not data["pair"]["mix"]:
            del data["pair"]["mix"]
        if not self.pair.reads_log or self.pair.log is None:  # a log that no source reads changes nothing
            del data["pair"]["log"]
        for name in ("rules", "examples", "exactly"):
            if getattr(self.pair, name) == getattr(PairConfig(), name):
                del data["pair"][name]
        if self.search == SearchConfig():
            del data["search"]
        if sections is not None:
            data = {name: data[name] for name in sections}
        text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
