"""Online training on live environments: roll out, compare siblings, update, again. M-GRPO, RLOO and REINFORCE++.

With ``max_staleness`` the next rollouts are made while the last ones are learned from; without, the two take turns and
a run can be repeated bit by bit. The steps come from training/stream.py; loop, optimizer, checkpoints and clean stops
are the engine's. Under ``torchrun`` or ``accelerate launch`` every process calls ``train_online`` with the same
arguments; they share rollouts and updates. Knows no algorithm and no environment by name. Called by the flywheel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from dpo_driver.algorithms import load_algorithm, option_names
from dpo_driver.algorithms.rollouts import OnlineAlgorithm
from dpo_driver.core import ranks
from dpo_driver.core.errors import ConfigError, TrainingError
from dpo_driver.core.schema_training import GrpoConfig
from dpo_driver.policies.loading import invocation
from dpo_driver.training import checkpoint as disk
from dpo_driver.training.actor import Actor, published
from dpo_driver.training.after_prompt import beginnings_of
from dpo_driver.training.batches import StepBatch
from dpo_driver.training.config import TrainConfig
from dpo_driver.training.curriculum import Curriculum
from dpo_driver.training.engine import as_it_was, check_resume, ctrl_c, settle, training_arguments, was_finished
from dpo_driver.training.experience import Rollout, online_step
from dpo_driver.training.journal import Journal
from dpo_driver.training.logprobs import Scorer
from dpo_driver.training.parent import Parent
from dpo_driver.training.processes import learner, same_weights, to_train
from dpo_driver.training.stream import Producer, RolloutStream, Stage
from dpo_driver.training.trainer import Metrics, TreeTrainer

JOURNAL = "journal"
SAME = 1e-4  # how far the first update's probability ratios may be from 1, in float32


@dataclass(frozen=True)
class OnlineResult:
    """What happened. The model was trained in place and holds the weights that did best on validation seeds."""

    steps: int
    episodes: int
    stop_reason: str  # finished, max_seconds, nothing_to_learn, early_stopping, interrupted
    seconds: float
    metrics: Metrics  # of the last update
    best_step: int | None
    best_metrics: Metrics
    start_metrics: Metrics  # of the validation before the first update
    path: str
    sharing_ratio: float
    tokens_per_second: float
    interrupted: bool  # Ctrl-C was pressed, if only after the last update; the same call goes on from here
    resumed_from: int | None = None
    damaged: tuple[str, ...] = ()
    history: tuple[Metrics, ...] = field(default=(), repr=False)


def train_online(
    model: Any,
    tokenizer: Any,
    stage: Stage,
    curriculum: Curriculum,
    config: GrpoConfig,
    output_dir: str | Path,
    *,
    seed: int = 0,
    max_length: int = 2048,
    on_log: Callable[[int, Metrics], None] = lambda step, metrics: None,
    on_checkpoint: Callable[[int, Path], None] = lambda step, folder: None,
    resume: bool = True,
) -> OnlineResult:
    """Train a model in place on what it does.

    Args:
        model: the parent: a causal LM, fully trainable or with a LoRA adapter. The KL is measured against what it is
            now.
        tokenizer: the model's.
        stage: where it acts.
        curriculum: which tasks it acts on.
        config: ``algorithm`` names the objective; the rest as in the configuration's section ``grpo``.
        output_dir: for checkpoints and the journal of rollouts; an unfinished run found there is continued.
        seed: of dropout.
        max_length: most tokens of prompt and completion.
        on_log: step and metrics of every update; those of a validation are named ``eval_...``.
        on_checkpoint: step and folder of each checkpoint.
        resume: False starts over.

    Raises:
        TrainingError: a first update whose probability ratios are not 1, a loss that is not finite, another run's
            output_dir. ConfigError: settings that contradict each other.
    """
    _check(config)
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    options = {name: getattr(config, name) for name in option_names(config.algorithm) if hasattr(config, name)}
    algorithm: Any = load_algorithm(config.algorithm, **options)
    settings = _settings(config, seed, max_length)
    fingerprint = {
        "parent": same_weights(model),
        "algorithm": [type(algorithm).__name__, asdict(algorithm)],
        "config": _remembered(config),
    }
    found, damaged = ranks.of_main(lambda: disk.newest(output)) if resume else (None, [])
    check_resume(found, fingerprint, model)
    journal = Journal(output / JOURNAL)
    if ranks.is_main():
        if not resume or (found is None and not journal.belongs_to(fingerprint)):
            journal.drop_after(0)
        journal.sign(fingerprint)
    with ExitStack() as opened:
        opened.enter_context(ranks.attended())
        trained = opened.enter_context(learner(model))
        # Copies of the model are made before its attention is set.
        prompts = beginnings_of(trained, settings.prompt_cache_gb, turnover=True) if invocation(trained) else None
        parent, actor = Parent(trained), Actor(trained, tokenizer, max_length=max_length, prompts=prompts)
        # Rollouts made ahead go on during a validation, which therefore acts with a copy of its own.
        judged = Actor(trained, tokenizer, max_length=max_length, prompts=prompts) if config.max_staleness else actor
        scorer = opened.enter_context(Scorer(trained, bf16=settings.bf16, prompts=prompts).session())
        opened.enter_context(as_it_was(trained, settings))
        arguments = training_arguments(settings, output, trained, validates=True)
        arguments.ignore_data_skip = True  # the stream knows by itself where it stands
        trainer = OnlineTrainer(
            stage=stage,
            curriculum=curriculum,
            grpo=config,
            journal=journal,
            parent=parent,
            actor=actor,
            judged=judged,
            tokenizer=tokenizer,
            algorithm=algorithm,
            scorer=scorer,
            config=settings,
            fingerprint=fingerprint,
            reference=None,
            on_log=on_log,
            on_checkpoint=on_checkpoint,
            on_eval=lambda step, metrics: None,
            model=to_train(scorer),
            args=arguments,
            train_dataset=[],
            eval_dataset=["validation seeds"],
        )
        _run(trainer, found)
    return _result(trainer, found, damaged)


# May change when a run is resumed.
_FREE = {"logging_steps", "save_steps", "max_seconds", "episodes", "max_steps", "prompt_cache_gb"}


def _remembered(config: GrpoConfig) -> dict[str, Any]:
    """What a run must agree with to go on."""
    found = config.model_dump(mode="json", exclude=_FREE)
    if found["repetition_penalty"] == 1:  # runs from before there was such a key go on
        del found["repetition_penalty"]
    return found


def _check(config: GrpoConfig) -> None:
    if config.top_p < 1 and config.max_staleness:
        raise ConfigError(
            "grpo.top_p below 1 and grpo.max_staleness do not go together: two versions of the model would leave out "
            "different tokens of the same text",
            remedy="set grpo.top_p to 1, or grpo.max_staleness to 0",
        )


def _settings(config: GrpoConfig, seed: int, max_length: int) -> TrainConfig:
    shared = {key: value for key, value in dict(config).items() if key in TrainConfig.model_fields}
    parts = config.steps_per_generation * config.num_iterations
    batches = -(-config.episodes // (config.groups_per_step * config.num_generations))
    most = config.max_steps if config.max_steps > 0 else max(1, batches * parts)
    return TrainConfig(**shared | {
        "max_steps": most, "logging_steps": 1, "seed": seed, "max_length": max_length,
        "metric_for_best_model": "success", "greater_is_better": True,
    })  # fmt: skip


class OnlineTrainer(TreeTrainer):
    """The trainer over a stream of rollouts; validation is success in the environment."""

    def __init__(
        self,
        *,
        stage: Stage,
        curriculum: Curriculum,
        grpo: GrpoConfig,
        journal: Journal,
        parent: Parent,
        actor: Actor,
        judged: Actor,
        tokenizer: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.add_callback(_Publishes(self))
        self.stage, self.parent, self.grpo = stage, parent, grpo
        self._objective: OnlineAlgorithm = kwargs["algorithm"]
        self._judged = judged
        self.stream = RolloutStream(
            Producer(stage, curriculum, grpo), curriculum, journal, grpo, tokenizer, actor, self._learn, self._newest
        )
        self._published = (0, published(self.scorer.model))
        self._told = 0  # the last generation batch that was accounted for

    # --- steps ---

    def get_train_dataloader(self) -> Any:
        """Not a loader: steps are made one at a time, none ahead of the update before it."""
        return self.stream

    def planned_steps(self) -> int:
        """At most; the budget of episodes may end it before."""
        return self.config.max_steps

    def publish(self) -> None:
        """Let the next rollouts act with the weights of now."""
        self._published = (self.state.global_step, published(self.scorer.model))

    def _newest(self) -> tuple[int, dict[str, Tensor]]:
        return self._published

    def _learn(self, rollouts: Sequence[Rollout]) -> StepBatch:
        return online_step(
            rollouts,
            self._objective,
            scorer=self.scorer,
            parent=self.parent,
            tokens_per_pass=self.config.tokens_per_pass,
        )

    # --- logs and validation ---

    def log(self, logs: Metrics, start_time: float | None = None) -> None:
        """Add the account of the rollouts to that of the update."""
        current = self.stream.current
        if "loss" in logs and current is not None:
            logs |= {
                "generation": float(current.number),
                "staleness": float(self.state.global_step - 1 - current.version),
            }
            if current.number != self._told:  # its first update tells how it came about
                logs |= current.metrics
                self._told = current.number
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> Metrics:
        """Success on validation seeds decides which weights are kept."""
        self.control.should_evaluate = False
        policy = self._judged.policy(published(self.scorer.model), f"update-{self.state.global_step}")
        found = self.stage.validate(policy)
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self.log(dict(metrics))
        self._judge(found)
        return metrics

    # --- checkpoints ---

    def progress(self) -> dict[str, Any]:
        return super().progress() | {"stream": self.stream.state()}

    def restore(self, progress: Any) -> None:
        super().restore(progress)
        self.stream.restore(progress["stream"])
        self._told = progress["stream"]["generation"] + (progress["stream"]["part"] > 0)
        self.publish()


class _Publishes(TrainerCallback):
    """After each update: new weights for the actor, and the end when the stream is over."""

    def __init__(self, trainer: OnlineTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        trainer = self.trainer
        trainer.publish()
        trainer.stream.offer()
        if state.global_step == 1:
            _check_first_update(trainer)
        if trainer.stream.over is not None and not control.should_training_stop:
            trainer.stop_reason = trainer.stream.over
            control.should_training_stop = control.should_save = control.should_evaluate = True
        return control


def _check_first_update(trainer: OnlineTrainer) -> None:
    """What was sampled must have the same probability now: another temperature, mask or template would show here."""
    off = float(trainer._sums["ratio/off"]) / max(1, trainer._steps_summed)
    exact = trainer.scorer.exact and trainer.grpo.max_staleness == 0
    if exact and not off <= SAME:
        raise TrainingError(
            f"the first update's probability ratios are {off:.1e} from 1 in the mean",
            remedy="the model that acted is not the one in training: check dtype, chat template and sampling",
        )


def _run(trainer: OnlineTrainer, found: Path | None) -> None:
    trainer.started = time.monotonic()
    limits = {"budget": {"max_seconds": trainer.config.max_seconds, "episodes": trainer.grpo.episodes}}
    if was_finished(trainer, found, limits):
        return
    with ctrl_c(trainer):
        try:
            if found is None:
                trainer.evaluate()
            trainer.train(resume_from_checkpoint=str(found) if found else None)
        finally:
            trainer.stream.stop()
    settle(trainer, limits)


def _result(trainer: OnlineTrainer, found: Path | None, damaged: Sequence[str]) -> OnlineResult:
    logged = [row for row in trainer.history if "loss" in row]
    validated = [row for row in trainer.history if "eval_success" in row]
    return OnlineResult(
        steps=trainer.state.global_step,
        episodes=trainer.stream.episodes,
        stop_reason=trainer.stop_reason,
        seconds=trainer.seconds,
        metrics=logged[-1] if logged else {},
        best_step=trainer.best["step"],
        best_metrics=trainer.best.get("metrics", {}),
        start_metrics=validated[0] if validated else {},
        path=trainer.path,
        sharing_ratio=trainer.unshared_tokens / max(1, trainer.tokens),
        tokens_per_second=trainer.tokens / max(trainer.seconds, 1e-9),
        interrupted=trainer.interrupted,
        resumed_from=disk.step_of(found) if found else None,
        damaged=tuple(damaged),
        history=tuple(trainer.history),
    )
