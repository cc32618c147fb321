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
from typing import Annotated, Literal, get_args

import yaml
from pydantic import ConfigDict, Field, field_validator, model_validator

from dpo_driver.core.records import PreferenceSource
from dpo_driver.core.schema_training import (
    DpoConfig,
    GrpoConfig,
    ModelConfig,
    SftBestConfig,
    SftConfig,
    TrainingArgs,
)
from dpo_driver.core.section import Count, CountOrNone, Fraction, Name, NotNegative, Positive, Section

PairSource = Literal["step", "outcome", "trajectory", "search", "human", "teacher", "heuristic", "memory", "import"]
# Names in preferences/heuristic.py. `shorter` is length alone, so it must be asked for.
PairRule = Literal["fewer_steps", "no_invalid_action", "no_repeated_action", "no_forbidden_origin", "shorter"]
EvaluatedAgent = Literal["random", "oracle", "base", "sft", "control", "sft_best", "memory", "dpo", "grpo"]


class ProjectConfig(Section):
    """Who this run is. Everything it writes lies under ``run_dir``."""

    name: Name = "pocket"
    run_dir: Path | None = None  # runs/<name> when not given
    seed: CountOrNone = 0  # of training: order, sampling, dropout
    encrypt: bool = False  # what it keeps, under a key of yours: docs/integrity.md


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
