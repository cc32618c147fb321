"""transformers' Trainer over forests: its loop, schedule, optimizer and accelerate; our batches, loss and checkpoints.

One optimizer step is one :class:`StepBatch`: it is cut into forests by a token budget and dealt to the processes that
train together, and the gradient is that of the whole step however it was cut. Only the main process writes and reports.
Called by training/engine.py and online.py; knows no algorithm by name.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback

from dpo_driver.algorithms.base import Algorithm
from dpo_driver.core import ranks
from dpo_driver.core.errors import TrainingError
from dpo_driver.training import checkpoint as disk
from dpo_driver.training.batches import ReferenceSums, StepBatch, StepSampler, TreeBatch, step_batch
from dpo_driver.training.config import TrainConfig
from dpo_driver.training.logprobs import Scorer
from dpo_driver.training.pieces import drop_after_each_pass, whole, wholes
from dpo_driver.training.processes import shard_on_cpu
from dpo_driver.training.rows import Example

Metrics = dict[str, float]
Sums = dict[str, Any]  # numbers or scalar tensors, by name
STATE = "state.json"


class StepLoader(DataLoader[StepBatch]):
    """A loader whose order depends on the epoch only."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class TreeTrainer(Trainer):
    """See the module. ``train_dataset`` and ``eval_dataset`` are lists of :class:`Example`."""

    def __init__(
        self,
        *,
        algorithm: Algorithm,
        scorer: Scorer,
        config: TrainConfig,
        fingerprint: Mapping[str, Any],
        reference: ReferenceSums | None,
        on_log: Callable[[int, Metrics], None],
        on_checkpoint: Callable[[int, Path], None],
        on_eval: Callable[[int, Metrics], bool | None],
        **kwargs: Any,
    ) -> None:
        self.algorithm, self.scorer, self.config = algorithm, scorer, config
        self.fingerprint, self.reference = fingerprint, reference
        self.on_log, self.on_checkpoint, self.on_eval = on_log, on_checkpoint, on_eval
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)
        self.add_callback(_Stops(self))
        self.interrupted = False
        self.stop_reason = "finished"
        self.best: dict[str, Any] = {"step": None, "value": None, "bad": 0}
        self.seconds_before = 0.0
        self.started = time.monotonic()
        self.history: list[Metrics] = []
        self.tokens, self.unshared_tokens = 0, 0
        self._sums: Sums = {}
        self._steps_summed = 0
        self._window = (time.monotonic(), 0, 0)  # when the log window began, and the token counts then
        self._current: TreeBatch | None = None  # the one to look at when something is not finite
        self._finite = True  # so far, in this process
        self._validation: StepBatch | None = None

    @property
    def path(self) -> str:
        """How log-probs are computed, and by how many processes."""
        if ranks.count() == 1:
            return self.scorer.path
        how = "FSDP2" if self.is_fsdp_enabled else "DeepSpeed" if self.is_deepspeed_enabled else "DDP"
        return f"{self.scorer.path}; {ranks.count()} processes, {how}"

    @property
    def seconds(self) -> float:
        """Wall-clock time of training, earlier sittings included."""
        return self.seconds_before + time.monotonic() - self.started

    # --- batches and loss ---

    def collate(self, examples: list[Example]) -> StepBatch:
        """Rows -> the forests of a step."""
        return step_batch(
            examples,
            tokens_per_pass=self.config.tokens_per_pass,
            reads_rejected=self.algorithm.reads_rejected,
            reference=self.reference,
            rank=ranks.rank(),
            ranks=ranks.count(),
        )

    def get_train_dataloader(self) -> DataLoader[StepBatch]:
        sampler = StepSampler(
            self.train_dataset, self.config.rows_per_step, self.config.seed, self.algorithm.learns_from
        )
        return StepLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.collate)

    def planned_steps(self) -> int:
        """Steps of the whole run, if nothing stops it."""
        if self.config.max_steps > 0:
            return self.config.max_steps
        return math.ceil(self.config.num_train_epochs * len(self.get_train_dataloader()))

    def compute_loss(
        self, model: nn.Module, inputs: TreeBatch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This batch's share of the step's loss; with ``return_outputs`` also its metrics."""
        loss, metrics = self.algorithm.loss(inputs.scored(self.scorer))
        return (loss, metrics) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: StepBatch, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of all forests of a step; gradients add up to the step's. Returns the step's loss."""
        model.train()
        found: Sums = {}
        for number, (batch, counts) in enumerate(inputs.weighted):
            batch = batch.to(self.args.device)
            loss, metrics = self.compute_loss(model, batch, return_outputs=True)
            if self._finite:
                self._current = batch
                self._finite = bool(torch.isfinite(loss))
            self._backward(model, counts * loss, last=number == len(inputs.batches) - 1)
            size = {"tokens": batch.forest.tokens, "unshared_tokens": batch.unshared_tokens}
            _add(found, {"loss": loss.detach(), **metrics, **size}, counts)
        found = _over_processes(found)
        total = torch.as_tensor(found.pop("loss"), device=self.args.device)
        if not torch.isfinite(total):
            raise self._not_finite("loss")
        self.tokens += int(found.pop("tokens"))
        self.unshared_tokens += int(found.pop("unshared_tokens"))
        _add(self._sums, found)
        self._steps_summed += 1
        return total

    def _backward(self, model: nn.Module, loss: Tensor, *, last: bool) -> None:
        """Processes exchange gradients once a step, with the last forest. They average them, and shares must add up."""
        if self.is_deepspeed_enabled:
            self.accelerator.gradient_state._set_sync_gradients(last)  # it steps where gradients are complete
        with nullcontext() if last else self.accelerator.no_sync(model):
            self.accelerator.backward(loss * ranks.count())

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3:
            raise TrainingError("ZeRO-3 is not supported", remedy="use configs/launch/fsdp2.yaml")
        shard_on_cpu(self)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        found = super()._clip_grad_norm(model)
        norm = whole(torch.as_tensor(0.0 if found is None else found))  # DeepSpeed may not tell it
        if not torch.isfinite(norm):
            raise self._not_finite("gradient")
        return norm

    def _get_num_items_in_batch(self, batch_samples: list[StepBatch], device: torch.device) -> None:
        """Nothing to count: a step knows its own totals."""

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def _not_finite(self, what: str) -> TrainingError:
        """Save the batch for a look, and say where."""
        path = Path(self.args.output_dir) / "bad_batch.json"
        batch = self._current
        broken = ranks.gather(not self._finite)
        if batch is not None and ranks.rank() == (broken.index(True) if any(broken) else 0):
            trees = [[list(segment.ids) for segment in tree.segments] for tree in batch.forest.trees]
            path.write_text(json.dumps({"step": self.state.global_step, "rows": list(batch.rows), "trees": trees}))
        remedy = "lower the learning rate, or look at the rows listed in that file"
        return TrainingError(
            f"the {what} is not finite at step {self.state.global_step + 1}", where=str(path), remedy=remedy
        )

    # --- logs and validation ---

    def log(self, logs: Metrics, start_time: float | None = None) -> None:
        """Add our metrics to Trainer's training rows, and hand every row on."""
        self.control.should_log = False
        if "train_runtime" in logs:
            return
        if "loss" in logs:
            logs |= {name: float(value) / self._steps_summed for name, value in self._sums.items()}
            began, tokens, unshared = self._window
            seconds = max(time.monotonic() - began, 1e-9)
            logs["tokens_per_second"] = (self.tokens - tokens) / seconds
            logs["sharing_ratio"] = (self.unshared_tokens - unshared) / max(1, self.tokens - tokens)
            self._sums, self._steps_summed = {}, 0
            self._window = (time.monotonic(), self.tokens, self.unshared_tokens)
        logs = {name: float(value) for name, value in logs.items()}
        logs["epoch"] = float(self.state.epoch or 0.0)
        self.history.append({"step": self.state.global_step, **logs})
        if ranks.is_main():
            self.on_log(self.state.global_step, logs)

    @torch.no_grad()
    def measure(self, step: StepBatch) -> Metrics:
        """Loss and metrics of some rows, without dropout and without learning."""
        model = self.scorer.model
        model.eval()
        sums: Sums = {}
        for batch, counts in step.weighted:
            loss, metrics = self.compute_loss(model, batch.to(self.args.device), return_outputs=True)
            _add(sums, {"loss": loss, **metrics}, counts)
        return {name: float(value) for name, value in _over_processes(sums).items()}

    def evaluate(self, *args: Any, **kwargs: Any) -> Metrics:
        """Measure the validation rows, keep the best weights, decide about stopping."""
        self.control.should_evaluate = False
        if self._validation is None:
            self._validation = self.collate(list(self.eval_dataset))
        paused = time.monotonic()
        found = self.measure(self._validation)
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self.log(dict(metrics))
        self._judge(found)
        if ranks.of_main(lambda: self.on_eval(self.state.global_step, metrics)):
            self._stop("callback")
        began, tokens, unshared = self._window
        self._window = (began + time.monotonic() - paused, tokens, unshared)
        return metrics

    def _judge(self, found: Metrics) -> None:
        name = self.config.metric_for_best_model.removeprefix("eval_")
        if name not in found:
            raise TrainingError(f"there is no validation metric {name!r}", remedy=f"known: {', '.join(sorted(found))}")
        value, best = found[name], self.best["value"]
        better = best is None or (value > best if self.config.best_is_greatest else value < best)
        if better:
            self.best = {"step": self.state.global_step, "value": value, "bad": 0, "metrics": found}
            weights = wholes(disk.trainable(self.scorer.model))
            if ranks.is_main():
                disk.write_folder(self._best_folder(), {disk.WEIGHTS: weights}, {STATE: self.best})
            return
        self.best["bad"] += 1
        if 0 < self.config.early_stopping_patience <= self.best["bad"]:
            self._stop("early_stopping")

    def _best_folder(self) -> Path:
        return Path(self.args.output_dir) / f"best-{self.best['step']}"

    def _stop(self, reason: str) -> None:
        self.stop_reason = reason
        self.control.should_training_stop = True

    # --- checkpoints ---

    def progress(self) -> dict[str, Any]:
        """What is known beside weights and optimizer, as JSON."""
        return {
            "fingerprint": dict(self.fingerprint),
            "step": self.state.global_step,
            "best": self.best,
            "seconds": self.seconds,
            "history": self.history,
            "tokens": [self.tokens, self.unshared_tokens],
        }

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Take over what :meth:`progress` gave."""
        self.state.global_step = progress["step"]
        self.best, self.seconds_before, self.history = progress["best"], progress["seconds"], progress["history"]
        self.tokens, self.unshared_tokens = progress["tokens"]
        self._window = (time.monotonic(), self.tokens, self.unshared_tokens)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.is_deepspeed_enabled:
            return  # each process has a part of the optimizer, and DeepSpeed would write it as a pickle
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        weights = wholes(disk.trainable(self.scorer.model))
        optimizer, optimizer_document = disk.pack_optimizer(self.optimizer.state_dict())
        optimizer = wholes(optimizer)
        generators = ranks.gather(disk.rng_state())  # each process has drawn its own dropout
        if not ranks.is_main():
            return
        scheduler = {k: v for k, v in self.lr_scheduler.state_dict().items() if k != "lr_lambdas"}
        names = [disk.rng_name(rank) for rank in range(len(generators))]
        disk.write_folder(
            folder,
            {disk.WEIGHTS: weights, f"{disk.OPTIMIZER}.safetensors": optimizer}
            | {f"{name}.safetensors": tensors for name, (tensors, _) in zip(names, generators, strict=True)},
            {
                f"{disk.OPTIMIZER}.json": optimizer_document,
                STATE: self.progress() | {"scheduler": scheduler, "processes": ranks.count()},
                "trainer_state.json": asdict(self.state) | {"log_history": [], "stateful_callbacks": {}},
            }
            | {f"{name}.json": document for name, (_, document) in zip(names, generators, strict=True)},
        )
        self._tidy()
        self.on_checkpoint(self.state.global_step, folder)

    def _tidy(self) -> None:
        """Keep the newest checkpoints and the best weights that they, or this run, know of."""
        output = Path(self.args.output_dir)
        disk.rotate(output, self.config.save_total_limit)
        sound = [folder for folder in disk.checkpoints(output) if disk.problem(folder) is None]
        known = {disk.read_json(folder / STATE)["best"]["step"] for folder in sound} | {self.best["step"]}
        for folder in output.glob("best-*"):
            if folder.name not in {f"best-{step}" for step in known}:
                shutil.rmtree(folder, ignore_errors=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        disk.load_weights(self.scorer.model, disk.read_tensors(folder / disk.WEIGHTS), str(folder))
        state = disk.read_json(folder / STATE)
        self.restore(state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        tensors = disk.read_tensors(folder / f"{disk.OPTIMIZER}.safetensors")
        document = disk.read_json(folder / f"{disk.OPTIMIZER}.json")
        state = disk.unpack_optimizer(tensors, document)
        self.optimizer.load_state_dict(disk.in_pieces(state, self.optimizer.param_groups))
        scheduler = disk.read_json(folder / STATE)["scheduler"]
        self.lr_scheduler.load_state_dict({**self.lr_scheduler.state_dict(), **scheduler})

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            # More processes than wrote it: nothing is drawn then, or the engine would have refused.
            name = disk.rng_name(ranks.rank())
            name = name if (Path(checkpoint) / f"{name}.json").is_file() else disk.rng_name(0)
            path = Path(checkpoint) / name
            disk.restore_rng(
                disk.read_tensors(path.with_suffix(".safetensors")), disk.read_json(path.with_suffix(".json"))
            )

    def load_best(self) -> bool:
        """Go back to the weights of the best validation; False when there was none."""
        folder = self._best_folder()
        if self.best["step"] is None or ranks.of_main(lambda: disk.problem(folder)) is not None:
            return False
        disk.load_weights(self.scorer.model, disk.read_tensors(folder / disk.WEIGHTS), str(folder))
        return True


def _add(sums: Sums, values: Mapping[str, Any], counts: float = 1.0) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0) + counts * value


def _over_processes(sums: Sums) -> Sums:
    """Shares of a step added up over the processes that share it. All have the same names."""
    if ranks.count() == 1:
        return sums
    names = sorted(sums)
    return dict(zip(names, ranks.total([float(sums[name]) for name in names]), strict=True))


class _Stops(TrainerCallback):
    """Stops between two steps: Ctrl-C and the time limit. Both leave a checkpoint. The last step is always logged. From
    the first step on, log-probs come through whatever is wrapped around the model."""

    def __init__(self, trainer: TreeTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        wrapped = self.trainer.model_wrapped  # by now, if there is anything to wrap
        self.trainer.scorer.through = None if wrapped is self.trainer.scorer.model else wrapped
        drop_after_each_pass(wrapped)
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        limit = self.trainer.config.max_seconds
        late = ranks.is_main() and limit is not None and self.trainer.seconds >= limit
        late, interrupted = (count > 0 for count in ranks.total([late, self.trainer.interrupted]))
        if (late or interrupted) and state.global_step < state.max_steps:
            self.trainer.stop_reason = "interrupted" if interrupted else "max_seconds"
            control.should_training_stop = control.should_save = True
            # The last validation of a run that ran out of time decides with the others which weights are kept.
            control.should_evaluate = late and args.eval_strategy != "no"
        control.should_log = control.should_log or control.should_training_stop
        return control
