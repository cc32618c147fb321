"""The one training engine: rows in, trained weights out, for every algorithm.

``train`` encodes the rows, computes what the frozen parent thinks of them, refuses to start when model and reference
disagree, runs transformers' Trainer over prefix trees, stops early on validation, survives kill -9 and Ctrl-C. Under
``torchrun`` or ``accelerate launch`` every process calls it with the same arguments. Called by the flywheel; knows no
algorithm by name.
"""

from __future__ import annotations

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import nn
from transformers import TrainingArguments

from dpo_driver.algorithms.base import Algorithm
from dpo_driver.core import ranks
from dpo_driver.core.errors import TrainingError
from dpo_driver.core.records import Preference, TrainingSample
from dpo_driver.policies.loading import require_bitsandbytes
from dpo_driver.training import checkpoint as disk
from dpo_driver.training.attention import why_not
from dpo_driver.training.batches import ReferenceSums
from dpo_driver.training.config import BITSANDBYTES_OPTIMIZERS, TrainConfig, split_config
from dpo_driver.training.logprobs import Scorer
from dpo_driver.training.processes import drops_out, learner, same_weights, to_train
from dpo_driver.training.reference import reference_sums
from dpo_driver.training.rows import Encoded, encode_rows
from dpo_driver.training.trainer import STATE, Metrics, TreeTrainer

Row = Preference | TrainingSample
FINISHED = "finished.json"


@dataclass(frozen=True)
class TrainResult:
    """What happened. The model was trained in place and holds the best weights (without validation rows: the last)."""

    steps: int
    stop_reason: str  # finished, early_stopping, max_seconds, interrupted, callback
    seconds: float
    metrics: Metrics  # of the last logged training row
    best_step: int | None  # None without validation rows; 0 means that nothing beat the parent
    best_metrics: Metrics  # of the validation rows at best_step
    start_metrics: Metrics  # of the validation rows before training
    overlong: Mapping[str, tuple[str, ...]]  # "train" and "val": names of the rows left out because they do not fit
    rows: Mapping[str, int]  # "train" and "val": rows used
    path: str  # "prefix tree", or "unshared: ..." and why; and the processes, if there are several
    sharing_ratio: float  # tokens without sharing / tokens computed
    tokens_per_second: float
    parent_hash: str
    data_hash: str
    interrupted: bool  # Ctrl-C was pressed, if only after the last step; the same call goes on from here
    resumed_from: int | None = None  # step
    damaged: tuple[str, ...] = ()  # checkpoints that could not be used, and why
    history: tuple[Metrics, ...] = field(default=(), repr=False)  # every logged row


def train(
    algorithm: str | Algorithm,
    model: Any,
    tokenizer: Any,
    train_rows: Sequence[Row],
    val_rows: Sequence[Row],
    config: TrainConfig | BaseModel | Mapping[str, Any],
    output_dir: str | Path,
    *,
    reference_logps: ReferenceSums | None = None,
    on_log: Callable[[int, Metrics], None] = lambda step, metrics: None,
    on_checkpoint: Callable[[int, Path], None] = lambda step, folder: None,
    on_eval: Callable[[int, Metrics], bool | None] = lambda step, metrics: None,
    resume: bool = True,
) -> TrainResult:
    """Train a model in place.

    Args:
        algorithm: a name of ``dpo_driver.algorithms.ALGORITHMS``, or an algorithm.
        model: the parent: a causal LM, fully trainable or with a LoRA adapter. What it is now is the reference.
        tokenizer: the model's.
        train_rows: preferences and samples; see :class:`dpo_driver.training.batches.StepSampler` for how they mix.
        val_rows: of the same kinds, may be empty; then there is no early stopping and the last weights are kept.
        config: engine settings and algorithm options together, such as ``RunConfig.dpo`` or a dict.
        output_dir: for checkpoints; an unfinished run found there is continued when ``resume`` is set.
        reference_logps: (prompt ids, completion ids) -> log-prob under the reference; computed and cached when needed.
        on_log: called with step and metrics of each logged row; validation metrics are named ``eval_...``. Callbacks
            are called in the main process only.
        on_checkpoint: called with step and folder of each checkpoint.
        on_eval: called after each validation; True stops the training.
        resume: False starts over.

    Raises:
        TrainingError: nothing to learn from, a failed self-check, a loss that is not finite, or another run's
        output_dir. ConfigError: unknown keys.
    """
    chosen, settings = split_config(algorithm, config)
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    longest, prompt = settings.max_length, settings.max_prompt_length
    encoded = {
        "train": encode_rows(tokenizer, train_rows, max_length=longest, max_prompt_length=prompt),
        "val": encode_rows(tokenizer, val_rows, max_length=longest, max_prompt_length=prompt),
    }
    _check_rows(encoded, chosen)
    parent_hash = same_weights(model)
    data_hash = hashlib.sha256(f"{encoded['train'].digest()}/{encoded['val'].digest()}".encode()).hexdigest()[:16]
    fingerprint = {
        "parent": parent_hash,
        "data": data_hash,
        "algorithm": [type(chosen).__name__, asdict(chosen)],  # type: ignore[call-overload]
        "config": settings.fingerprint(),
    }
    found, damaged = ranks.of_main(lambda: disk.newest(output)) if resume else (None, [])
    check_resume(found, fingerprint, model)
    with ranks.attended(), learner(model) as trained, \
            Scorer(trained, bf16=settings.bf16, prompt_cache_gb=settings.prompt_cache_gb).session() as scorer, \
            as_it_was(trained, settings):  # fmt: skip
        if chosen.needs_reference and reference_logps is None:
            reference_logps = reference_sums(
                scorer,
                [*encoded["train"].examples, *encoded["val"].examples],
                folder=output,
                key=f"{parent_hash}-{data_hash}",
                tokens_per_pass=settings.tokens_per_pass,
            )
        trainer = TreeTrainer(
            algorithm=chosen,
            scorer=scorer,
            config=settings,
            fingerprint=fingerprint,
            reference=reference_logps,
            on_log=on_log,
            on_checkpoint=on_checkpoint,
            on_eval=on_eval,
            model=to_train(scorer),
            args=training_arguments(settings, output, trained, bool(encoded["val"].examples)),
            train_dataset=list(encoded["train"].examples),
            eval_dataset=list(encoded["val"].examples),
        )
        _run(trainer, chosen, found)
    return _result(trainer, encoded, parent_hash, data_hash, found, damaged)


def _run(trainer: TreeTrainer, algorithm: Algorithm, found: Path | None) -> None:
    """Self-check, then the loop, then the best weights. A run that is over is not run again."""
    trainer.started = time.monotonic()
    limits = {"max_seconds": trainer.config.max_seconds}
    if was_finished(trainer, found, limits):
        return
    if found is None:
        first = next(iter(trainer.get_train_dataloader()))
        algorithm.check_start(trainer.measure(first), _start_tolerance(trainer))
    with ctrl_c(trainer):
        if found is None and trainer.eval_dataset:
            trainer.evaluate()
        if found is not None and disk.step_of(found) >= trainer.planned_steps():
            trainer._load_from_checkpoint(str(found))  # killed after its last step
        else:
            trainer.train(resume_from_checkpoint=str(found) if found else None)
    settle(trainer, limits)


def _start_tolerance(trainer: TreeTrainer) -> float:
    """How far from its exact value the untrained model's loss may be, in nats.

    In bfloat16 a sequence's log-prob moves by some hundredths with what it is packed with, and the reference was packed
    otherwise; another parent than the reference moves it by far more.
    """
    return 1e-4 if trainer.scorer.exact else 1e-2


def was_finished(trainer: TreeTrainer, found: Path | None, limits: Mapping[str, Any]) -> bool:
    """Whether the run in this folder has come to its end, under the same limits; the model is then as it left it."""
    over = Path(trainer.args.output_dir) / FINISHED
    done = ranks.of_main(lambda: disk.read_json(over) if found is not None and over.is_file() else None)
    same = {"fingerprint": dict(trainer.fingerprint), **limits}
    if done is None or found is None or any(done.get(name) != value for name, value in same.items()):
        if ranks.is_main():
            over.unlink(missing_ok=True)
        return False
    trainer._load_from_checkpoint(str(found))
    trainer.restore(done)
    trainer.stop_reason = done["stop_reason"]
    settle(trainer)
    return True


def settle(trainer: TreeTrainer, limits: Mapping[str, Any] | None = None) -> None:
    """Leave the model with the weights that the run is about; with ``limits``, note that it is over under these.

    All processes then know whether one of them was asked to stop: too late for the loop to do it, perhaps, but whoever
    trains must not go on to the next thing.
    """
    trainer.interrupted = ranks.total([trainer.interrupted])[0] > 0
    if trainer.stop_reason != "interrupted":
        if limits is not None and ranks.is_main():
            over = Path(trainer.args.output_dir) / FINISHED
            disk.write_json(over, trainer.progress() | {"stop_reason": trainer.stop_reason, **limits})
        trainer.load_best()
    trainer.scorer.model.eval()


def _check_rows(encoded: Mapping[str, Encoded], algorithm: Algorithm) -> None:
    pairs = [example for example in encoded["train"].examples if example.rejected is not None]
    count = len(pairs) if algorithm.learns_from == "pairs" else len(encoded["train"].examples) - len(pairs)
    if count == 0:
        left_out = len(encoded["train"].overlong)
        what = f"there are no {algorithm.learns_from} to learn from"
        remedy = "raise max_length" if left_out else "collect more episodes, or loosen the filters of the pairs"
        raise TrainingError(f"{what} ({left_out} rows were too long)" if left_out else what, remedy=remedy)


def check_resume(found: Path | None, fingerprint: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse to go on with another run's checkpoint, or where processes were called with different things."""
    if any(other != fingerprint for other in ranks.gather(dict(fingerprint))):
        raise TrainingError("the processes of this run were given different rows or settings",
                            remedy="start the same command in all of them")  # fmt: skip
    if found is None:
        return
    state = disk.read_json(found / STATE)
    before, now = state.get("processes", 1), ranks.count()
    if before != now and drops_out(model):
        what = f"the unfinished training has dropout and was made by {before} processes, not {now}"
        raise TrainingError(what, where=str(found), remedy=f"start {before}, or delete this folder to start over")
    kept = state["fingerprint"]
    for name, value in fingerprint.items():
        if kept.get(name) != value:
            what = f"the unfinished training in this folder had another {name}"
            raise TrainingError(what, where=str(found), remedy="use another folder, or delete this one to start over")


def training_arguments(config: TrainConfig, output: Path, model: Any, validates: bool) -> TrainingArguments:
    """Our settings as Trainer's; what Trainer would do beside the loop (bars, printing, reporting) is off."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    if config.optim in BITSANDBYTES_OPTIMIZERS:
        require_bitsandbytes(f"optim {config.optim}", next(model.parameters()).device)
    return TrainingArguments(
        output_dir=str(output),
        learning_rate=config.learning_rate,
        num_train_epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        per_device_train_batch_size=config.rows_per_step,
        warmup_steps=config.warmup_steps or config.warmup_ratio,
        lr_scheduler_type=config.lr_scheduler_type,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=config.optim,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=config.eval_steps,
        save_strategy="steps",
        save_steps=config.save_steps,
        seed=config.seed,
        use_cpu=on_cpu,
        # Models that cannot take a tree may have experts, and those that no token chose have no gradient.
        ddp_find_unused_parameters=why_not(model) is not None,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )


@contextmanager
def as_it_was(model: Any, config: TrainConfig) -> Iterator[None]:
    """Set up what training needs of the model, and take it back: Trainer would leave ``use_cache`` off for good."""
    use_cache = model.config.use_cache
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        model.config.use_cache = use_cache
        if config.gradient_checkpointing:
            model.gradient_checkpointing_disable()


@contextmanager
def ctrl_c(trainer: TreeTrainer) -> Iterator[None]:
    """The first Ctrl-C stops after the step in progress, with a checkpoint; the second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if trainer.interrupted:
            raise KeyboardInterrupt
        trainer.interrupted = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _result(
    trainer: TreeTrainer,
    encoded: Mapping[str, Encoded],
    parent_hash: str,
    data_hash: str,
    found: Path | None,
    damaged: Sequence[str],
) -> TrainResult:
    logged = [row for row in trainer.history if "loss" in row]
    validated = [row for row in trainer.history if "eval_loss" in row]
    return TrainResult(
        steps=trainer.state.global_step,
        stop_reason=trainer.stop_reason,
        seconds=trainer.seconds,
        metrics=logged[-1] if logged else {},
        best_step=trainer.best["step"],
        best_metrics=trainer.best.get("metrics", {}),
        start_metrics=validated[0] if validated else {},
        overlong={name: rows.overlong for name, rows in encoded.items()},
        rows={name: len(rows.examples) for name, rows in encoded.items()},
        path=trainer.path,
        sharing_ratio=trainer.unshared_tokens / max(1, trainer.tokens),
        tokens_per_second=trainer.tokens / max(trainer.seconds, 1e-9),
        parent_hash=parent_hash,
        data_hash=data_hash,
        interrupted=trainer.interrupted,
        resumed_from=disk.step_of(found) if found else None,
        damaged=tuple(damaged),
        history=tuple(trainer.history),
    )
