"""Numbers that go to a tracking server instead of the local database: a real MLflow server, over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dpo_driver.browser.wire import free_port
from dpo_driver.tracking import Tracker
from dpo_driver.tracking.client import SERVER


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination",
               str(tmp_path / "artifacts")]  # fmt: skip
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
    try:
        while True:
            assert process.poll() is None and time.monotonic() < deadline
            try:
                if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_numbers_arrive_at_the_server_and_not_here(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVER, server)
    run = tmp_path / "runs" / "pocket"
    with Tracker(run, "there") as tracker:
        tracker.log_metrics("dpo/1", 3, {"loss": 0.5})
    from mlflow import MlflowClient

    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("there")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert [each.data.metrics["loss"] for each in found if "loss" in each.data.metrics] == [0.5]
    assert not (tmp_path / "runs" / "mlflow.db").exists()
    assert json.loads((run / "tracking.json").read_text())["run_id"] in {each.info.run_id for each in found}
