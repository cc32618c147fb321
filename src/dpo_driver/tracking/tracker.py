"""One job's record in MLflow. Training never waits for it: numbers go into a queue that one thread writes in batches,
and a tracker that breaks says so once and steps aside.

Each training stage is a child run of the job's run, so equal names lie over each other in MLflow's charts: ``loss``,
``rewards/chosen``, ``rewards/rejected``, ``rewards/margins``, ``rewards/accuracies``, ``grad_norm``, ``learning_rate``,
``success``. The older pipeline's names are written beside them: ``train_loss`` = loss, ``implicit_reward`` =
rewards/chosen (beta times the log-ratio to the reference), ``accuracy`` = rewards/accuracies, and ``convergence`` =
|s(t) - s(t-1)| / |s(t-1)|, where s is the exponentially smoothed loss (weight 0.1 for the new value): it falls
towards 0 as training settles.
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from dpo_driver.core.config import RunConfig
from dpo_driver.core.provenance import describe_environment, lock_file
from dpo_driver.core.records import EvalReport
from dpo_driver.tracking.client import ARTIFACTS, open_client, server_uri, tracking_uri

SAVED = "tracking.json"
OLDER_NAMES = {"loss": "train_loss", "rewards/chosen": "implicit_reward", "rewards/accuracies": "accuracy"}
FLUSH_S = 2.0  # how long numbers may wait to be written together
BATCH = 1000  # MLflow refuses more metrics in one call
FINISH_DEADLINE_S = 20.0
SYSTEM_INTERVAL_S = 10.0
SMOOTHING = 0.1

_log = logging.getLogger(__name__)


def flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """``{"dpo": {"beta": 0.1}}`` -> ``("dpo.beta", "0.1")``; lists stay one value."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


class _Convergence:
    """Relative change of the smoothed loss, one number per logged loss after the first."""

    def __init__(self) -> None:
        self._smooth: float | None = None

    def update(self, loss: float) -> float | None:
        before = self._smooth
        self._smooth = loss if before is None else before + SMOOTHING * (loss - before)
        return None if before is None or before == 0 else abs(self._smooth - before) / abs(before)


# -- the tracker -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Numbers:
    """Metrics of one step of one stage ("" is the job itself), with the time at which they were measured."""

    stage: str
    step: int
    values: dict[str, float]
    at_ms: int


@dataclass(frozen=True)
class _File:
    """An artifact; given as text, it is written under its name."""

    path: Path | None
    folder: str | None
    name: str = ""
    text: str = ""


class Tracker:
    """One job's record in MLflow: ``with Tracker("runs/pocket") as t: t.log_metrics("sft", 1, {"loss": 2.0})``.

    Opening it again on the same run directory continues the same MLflow run, so a resumed job is one line in the UI.

    Args:
        run_dir: the run directory; ``tracking.json`` in it remembers the MLflow run.
        experiment: MLflow's experiment.
        root: folder of ``mlflow.db`` and the artifacts; the run directory's parent by default.
        enabled: False makes every call a no-op (``tracking.mlflow: false``).
        system_metrics: sample CPU, memory, disk and network every 10 s.

    Attributes:
        problem: why tracking stopped, or None. Never raised: a training run does not die of its logbook.
    """

    def __init__(
        self,
        run_dir: str | Path,
        experiment: str = "dpo-driver",
        *,
        root: str | Path | None = None,
        enabled: bool = True,
        system_metrics: bool = True,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.root = Path(root) if root is not None else self.run_dir.resolve().parent
        self.problem: str | None = None
        self.run_id: str | None = None
        self._children: dict[str, str] = {}
        self._convergence: dict[str, _Convergence] = defaultdict(_Convergence)
        self._queue: queue.Queue[_Numbers | _File | dict[str, str] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._monitor: Any = None
        if not enabled:
            return
        try:
            self._open(experiment, system_metrics)
        except Exception as error:  # noqa: BLE001 - the boundary: MLflow's trouble is recorded, training goes on
            self._give_up(error)

    @property
    def active(self) -> bool:
        """Whether what is logged now still reaches MLflow."""
        return self._thread is not None and self.problem is None

    # -- what the flywheel calls -------------------------------------------------------------------------------------

    def log_config(self, config: RunConfig) -> None:
        """The resolved configuration, as flat parameters and as an artifact."""
        parameters = dict(flatten(config.model_dump(mode="json")))
        self._put({f"param:{key}": value for key, value in parameters.items()})
        self._put(_File(None, None, "config.yaml", config.resolved_yaml()))

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Facts about the job that are no numbers."""
        self._put(dict(tags))

    def log_metrics(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one training step, also under their older names. Values that are not finite are left out: MLflow
        would store them as 0 or the largest double."""
        numbers = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        numbers |= {OLDER_NAMES[name]: value for name, value in numbers.items() if name in OLDER_NAMES}
        if "loss" in numbers:
            change = self._convergence[stage].update(numbers["loss"])
            if change is not None:
                numbers["convergence"] = change
        self._put(_Numbers(stage, step, numbers, int(time.time() * 1000)))

    def log_evaluation(self, report: EvalReport, stage: str | None = None) -> None:
        """An agent's held-out success: ``success/<agent>`` on the job, ``success`` on the stage that trained it."""
        strict, now = report.strict, int(time.time() * 1000)
        shown = {"success": strict.success, "success_low": strict.low, "success_high": strict.high}
        numbers = {name: value for name, value in shown.items() if value is not None}
        counts = {"n": float(strict.n), "excluded": float(strict.excluded)}
        named = {f"{name}/{report.agent}": value for name, value in (numbers | counts).items()}
        self._put(_Numbers("", 0, named, now))
        if stage:
            self._put(_Numbers(stage, 0, numbers, now))

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Copy a file, such as the report, beside the run."""
        self._put(_File(Path(path), folder))

    def finish(self, status: str = "FINISHED") -> None:
        """Write what is waiting and end the MLflow run: "FINISHED", "FAILED" or "KILLED". May be called twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._queue.put(None)
        thread.join(FINISH_DEADLINE_S)
        if thread.is_alive():
            self._give_up(TimeoutError(f"MLflow did not take the last numbers within {FINISH_DEADLINE_S:g} s"))
            return
        try:
            if self._monitor is not None:
                self._monitor.finish()
            for run_id in (*self._children.values(), self.run_id):
                self._client.set_terminated(run_id, status)
        except Exception as error:  # noqa: BLE001 - the boundary, as above
            self._give_up(error)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.finish("FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED")

    # -- how it is done ----------------------------------------------------------------------------------------------

    def _open(self, experiment: str, system_metrics: bool) -> None:
        # In the caller's thread on purpose: two threads that import large packages at once can deadlock in Python.
        server = server_uri()
        self._client = open_client(self.root, server)
        found = self._client.get_experiment_by_name(experiment)
        artifacts = None if server else (self.root.resolve() / ARTIFACTS / experiment).as_uri()
        identity = found.experiment_id if found else self._client.create_experiment(experiment, artifacts)
        saved = self._saved()
        self._experiment_id, self._children = identity, dict(saved.get("children", {}))
        self.run_id = self._resume(saved.get("run_id")) or self._create(self.run_dir.resolve().name, {})
        self._remember()
        if system_metrics:
            self._start_monitor()
        self._thread = threading.Thread(target=self._write_all, name="mlflow-writer", daemon=True)
        self._thread.start()
        self._put(describe_environment(Path(__file__).parent))
        self._put(_File(None, None, "requirements.lock.txt", lock_file()))

    def _start_monitor(self) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(
            self.run_id,
            sampling_interval=SYSTEM_INTERVAL_S,
            resume_logging=True,
            tracking_uri=server_uri() or tracking_uri(self.root),
        )
        self._monitor.start()

    def _saved(self) -> dict[str, Any]:
        try:
            saved = json.loads((self.run_dir / SAVED).read_text())
        except (OSError, ValueError):
            return {}
        return saved if isinstance(saved, dict) else {}

    def _remember(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        temporary = self.run_dir / f".{SAVED}.{os.getpid()}"
        with temporary.open("w") as file:
            json.dump({"run_id": self.run_id, "children": self._children}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.run_dir / SAVED)

    def _resume(self, run_id: str | None) -> str | None:
        """The earlier MLflow run, running again; None when there was none or its database is gone."""
        known = {run.info.run_id for run in self._client.search_runs([self._experiment_id])} if run_id else set()
        if run_id is None or run_id not in known:
            self._children = {}
            return None
        self._client.update_run(run_id, "RUNNING")
        return run_id

    def _create(self, name: str, tags: dict[str, str]) -> str:
        run = self._client.create_run(self._experiment_id, run_name=name, tags=tags)
        return str(run.info.run_id)

    def _run_of(self, stage: str) -> str:
        if not stage:
            return str(self.run_id)
        if stage not in self._children:
            self._children[stage] = self._create(stage, {"mlflow.parentRunId": str(self.run_id), "stage": stage})
            self._remember()
        return self._children[stage]

    def _put(self, item: _Numbers | _File | dict[str, str]) -> None:
        if self.active:
            self._queue.put(item)

    def _write_all(self) -> None:
        """The writer's thread: everything that came within ``FLUSH_S`` goes out together, until the None."""
        open_for_more = True
        try:
            while open_for_more:
                items = [self._queue.get()]
                until = time.monotonic() + FLUSH_S
                while items[-1] is not None and (left := until - time.monotonic()) > 0:
                    try:
                        items.append(self._queue.get(timeout=left))
                    except queue.Empty:
                        break
                open_for_more = items[-1] is not None
                self._write([item for item in items if item is not None])
        except Exception as error:  # noqa: BLE001 - the boundary, as above
            self._give_up(error)

    def _write(self, items: list[_Numbers | _File | dict[str, str]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics: dict[str, list[Any]] = defaultdict(list)
        for item in items:
            if isinstance(item, _Numbers):
                rows = [Metric(name, value, item.at_ms, item.step) for name, value in item.values.items()]
                metrics[self._run_of(item.stage)] += rows
            elif isinstance(item, _File):
                self._write_file(item)
            else:
                pairs = {key.removeprefix("param:"): value for key, value in item.items() if key.startswith("param:")}
                # A resumed job may have other parameters; MLflow refuses to change one, so only new ones are written.
                known = self._client.get_run(self.run_id).data.params if pairs else {}
                params = [Param(key, value) for key, value in pairs.items() if key not in known]
                tags = [RunTag(key, value) for key, value in item.items() if not key.startswith("param:")]
                self._client.log_batch(self.run_id, params=params[:100], tags=tags)
                for start in range(100, len(params), 100):
                    self._client.log_batch(self.run_id, params=params[start : start + 100])
        for run_id, batch in metrics.items():
            for start in range(0, len(batch), BATCH):
                self._client.log_batch(run_id, metrics=batch[start : start + BATCH])

    def _write_file(self, item: _File) -> None:
        if item.path is not None:
            self._client.log_artifact(self.run_id, str(item.path), item.folder)
        else:
            self._client.log_text(self.run_id, item.text, item.name)

    def _give_up(self, error: Exception) -> None:
        self.problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        _log.warning("tracking stopped, the run goes on without it: %s", self.problem)
