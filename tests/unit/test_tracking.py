"""Tracking on a real MLflow database: what arrives, what a resume continues, and that trouble never stops training."""

from __future__ import annotations

import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import ConfigError
from dpo_driver.core.provenance import describe_environment, git_state, lock_file
from dpo_driver.core.records import EvalReport
from dpo_driver.core.stats import rate
from dpo_driver.tracking import Tracker, open_client, tracking_uri, ui_command
from dpo_driver.tracking.tracker import flatten


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def runs(root: Path, experiment: str) -> dict[str, Any]:
    client = open_client(root)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {run.info.run_name: run for run in found}


def history(root: Path, run: Any, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in open_client(root).get_metric_history(run.info.run_id, name)]


def test_everything_of_a_run_arrives(root: Path) -> None:
    config = RunConfig.model_validate({"project": {"name": "whole", "seed": 3}, "dpo": {"beta": 0.25}})
    page = root / "whole" / "report.html"
    with Tracker(root / "whole", "whole") as tracker:
        tracker.log_config(config)
        for step in range(1, 6):
            tracker.log_metrics("sft", step, {"loss": 2.0 / step, "grad_norm": 1.0})
        tracker.log_metrics("dpo/1", 1, {"loss": math.log(2), "rewards/chosen": 0.1, "rewards/accuracies": 0.75})
        outcomes = [True] * 6 + [False] * 3 + [None]
        report = EvalReport(
            agent="dpo",
            policy_version="x",
            split="test",
            seeds=(1, 10),
            strict=rate(outcomes),
            positive=rate(outcomes),
            tasks={},
        )
        tracker.log_evaluation(report, "dpo/1")
        page.write_text("<p>report")
        tracker.log_artifact(page)
    assert tracker.problem is None
    found = runs(root, "whole")
    job, sft, dpo = found["whole"], found["sft"], found["dpo/1"]
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert sft.data.tags["mlflow.parentRunId"] == job.info.run_id == dpo.data.tags["mlflow.parentRunId"]
    assert job.data.params["dpo.beta"] == "0.25" and job.data.params["project.seed"] == "3"
    assert history(root, sft, "loss") == [(step, 2.0 / step) for step in range(1, 6)]
    assert history(root, sft, "train_loss") == history(root, sft, "loss")
    assert dpo.data.metrics["implicit_reward"] == 0.1 and dpo.data.metrics["accuracy"] == 0.75
    assert dpo.data.metrics["success"] == pytest.approx(6 / 9)
    assert job.data.metrics["success/dpo"] == pytest.approx(6 / 9) and job.data.metrics["excluded/dpo"] == 1
    assert job.data.tags["python"].startswith("3.") and "torch" in job.data.tags
    names = {item.path for item in open_client(root).list_artifacts(job.info.run_id)}
    assert names == {"config.yaml", "report.html", "requirements.lock.txt"}
    artifacts = Path(job.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(root.resolve() / "mlartifacts")
    assert "pydantic==" in (artifacts / "requirements.lock.txt").read_text()


def test_convergence_is_the_relative_change_of_the_smoothed_loss(root: Path) -> None:
    with Tracker(root / "conv", "conv", system_metrics=False) as tracker:
        for step, loss in enumerate((2.0, 1.0, 1.0), start=1):
            tracker.log_metrics("sft", step, {"loss": loss})
    # Smoothed: 2, 1.9, 1.81.
    expected = [(2, 0.1 / 2.0), (3, 0.09 / 1.9)]
    found = history(root, runs(root, "conv")["sft"], "convergence")
    assert [step for step, _ in found] == [2, 3]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected])


def test_a_resumed_run_continues_the_same_mlflow_run(root: Path) -> None:
    for steps in (range(1, 3), range(3, 5)):
        with Tracker(root / "again", "again", system_metrics=False) as tracker:
            tracker.log_config(RunConfig.model_validate({"project": {"seed": steps[0]}}))
            for step in steps:
                tracker.log_metrics("sft", step, {"loss": float(step)})
        assert tracker.problem is None
    found = runs(root, "again")
    assert sorted(found) == ["again", "sft"]
    assert [step for step, _ in history(root, found["sft"], "loss")] == [1, 2, 3, 4]
    assert found["again"].data.params["project.seed"] == "1"


def test_a_run_directory_under_another_root_starts_a_new_run(root: Path, tmp_path: Path) -> None:
    with Tracker(root / "moved", "moved", system_metrics=False) as first:
        first.log_metrics("sft", 1, {"loss": 1.0})
    (tmp_path / "moved").mkdir()
    shutil.copy(root / "moved" / "tracking.json", tmp_path / "moved")
    with Tracker(tmp_path / "moved", "moved", system_metrics=False) as second:
        second.log_metrics("sft", 2, {"loss": 1.0})
    assert second.problem is None and second.run_id != first.run_id
    assert [step for step, _ in history(tmp_path, runs(tmp_path, "moved")["sft"], "loss")] == [2]


def test_values_that_are_not_finite_are_left_out(root: Path) -> None:
    with Tracker(root / "nan", "nan", system_metrics=False) as tracker:
        tracker.log_metrics("sft", 1, {"loss": math.nan, "grad_norm": math.inf, "learning_rate": 0.5})
    assert runs(root, "nan")["sft"].data.metrics == {"learning_rate": 0.5}


def test_an_interrupted_and_a_failed_run_say_so(root: Path) -> None:
    for name, error, status in (("ctrl-c", KeyboardInterrupt, "KILLED"), ("crash", ValueError, "FAILED")):
        with pytest.raises(error), Tracker(root / name, name, system_metrics=False):
            raise error
        assert runs(root, name)[name].info.status == status


def test_a_tracker_that_cannot_open_does_not_stop_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    with Tracker(tmp_path / "run", root=tmp_path / "file") as tracker:
        tracker.log_metrics("sft", 1, {"loss": 1.0})
        tracker.log_artifact(tmp_path / "file")
    assert tracker.problem is not None and not tracker.active
    assert "the run goes on without it" in caplog.text


def test_a_database_that_breaks_midway_does_not_stop_training(tmp_path: Path) -> None:
    with Tracker(tmp_path / "run", system_metrics=False) as tracker:
        assert tracker.active
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            database.execute("DROP TABLE metrics")
        tracker.log_metrics("sft", 1, {"loss": 1.0})
    assert tracker.problem is not None


def test_a_disabled_tracker_touches_nothing(tmp_path: Path) -> None:
    with Tracker(tmp_path / "run", enabled=False) as tracker:
        tracker.log_config(RunConfig())
        tracker.log_metrics("sft", 1, {"loss": 1.0})
    assert tracker.problem is None and list(tmp_path.iterdir()) == []


def test_logging_does_not_wait_for_mlflow(root: Path) -> None:
    with Tracker(root / "fast", "fast") as tracker:
        began = time.perf_counter()
        for step in range(2000):
            tracker.log_metrics("dpo/1", step, {"loss": 0.5, "rewards/chosen": 0.1, "rewards/margins": 0.2})
        waited = time.perf_counter() - began
    assert tracker.problem is None
    assert waited < 2.0  # one millisecond a step at the very most; MLflow itself takes far longer
    assert len(history(root, runs(root, "fast")["dpo/1"], "loss")) == 2000


def test_telemetry_is_off(root: Path) -> None:
    open_client(root)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true" and os.environ["DO_NOT_TRACK"] == "true"


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = (
        "import sys, dpo_driver.tracking, dpo_driver.registry; print('mlflow' in sys.modules, 'torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.split() == ["False", "False"]


def test_the_tracking_uri_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri("runs") == f"sqlite:///{tmp_path.resolve()}/runs/mlflow.db"


def test_flatten() -> None:
    nested = {"a": {"b": 1, "c": [1, 2]}, "d": "text", "e": None}
    assert dict(flatten(nested)) == {"a.b": "1", "a.c": "[1, 2]", "d": "text", "e": "null"}


def test_git_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    (tmp_path / "a").write_text("1")
    for command in (["init", "-qb", "trunk"], ["add", "a"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], check=True, timeout=30, capture_output=True)
    state = git_state(tmp_path)
    assert len(state["git.commit"]) == 40 and state["git.branch"] == "trunk" and state["git.dirty"] == "no"
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["git.dirty"] == "yes"


def test_environment_and_lock_file() -> None:
    facts = describe_environment()
    assert facts["pydantic"] in lock_file() and facts["python"] == sys.version.split()[0]
    lines = lock_file().splitlines()
    assert lines == sorted(lines, key=str.lower) and all("==" in line for line in lines)


def test_the_ui_needs_something_to_show_and_a_free_port(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing has been tracked"):
        ui_command(tmp_path, 5000)
    open_client(root).search_experiments()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is not free") as caught:
            ui_command(root, port)
        assert caught.value.exit_code == 2 and "--port" in str(caught.value)
    command = ui_command(root, port)
    assert command[command.index("--host") + 1] == "127.0.0.1"


@pytest.mark.slow
def test_the_ui_really_serves_on_loopback(root: Path) -> None:
    open_client(root).search_experiments()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from dpo_driver.tracking import open_ui; open_ui({str(root)!r}, {port})"
    server = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert time.monotonic() < deadline and server.poll() is None
                time.sleep(0.3)
    finally:
        server.terminate()
        server.wait(20)
    # The server behind it is gone too: nothing listens any more.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
