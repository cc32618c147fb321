"""Every command and every block of docs/self-learning.md, run as it stands, on the browserless environment."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpo_driver.flywheel.jobs import ENDED, Jobs
from dpo_driver.flywheel.learn.settings import load_learn

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "self-learning.md").read_text(encoding="utf-8")
AGENT = """
project: {name: learner}
env: {name: toy, tasks: [press, login], workers: 8}
collect: {episodes_per_task: 8, group_size: 4}
dpo: {max_steps: 1, per_device_train_batch_size: 2}
evaluate: {episodes_per_task: 4, choose_per_task: 2}
tracking: {mlflow: false}
"""
SETTINGS = "agent: configs/pocket-learn.yaml\nstart: base\ngate_per_task: 4\nfinal_per_task: 4\n"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_settings_of_the_page_are_settings(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    file = tmp_path / "learn.yaml"
    file.write_text(block)
    found = load_learn(file)
    assert found.window == "22:00-06:00" and found.budget.money == 20 and found.human_share == 0.8


def test_the_shipped_settings_are_settings() -> None:
    assert load_learn(ROOT / "configs" / "learn.yaml").agent == Path("configs/pocket-learn.yaml")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_page_runs(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pocket-learn.yaml").write_text(AGENT)
    (tmp_path / "configs" / "learn.yaml").write_text(SETTINGS)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("dpo-driver ")]
    assert len(lines) == 7
    name = ""
    for line in lines:
        words = [sys.executable, "-m", "dpo_driver", *shlex.split(line, comments=True)[1:]]
        if words[3:] == ["learn"]:  # goes on until it is stopped
            process = subprocess.Popen(words, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            assert "looking for what is new" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            process.stderr.close()
            continue
        if "cancel" in words:
            name = Jobs(tmp_path / "runs").add("support", "dpo").id
        words = [name if word == "JOB" else word for word in words]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if "--turns" in words:
            name = Jobs(tmp_path / "runs").list()[0].id
            assert "after turn" in done.stdout and "strict success" in done.stdout
        if "--once" in words:
            assert json.loads(done.stdout) == {"due": {"browser": "0 of 500 new outcomes"}}
    assert Jobs(tmp_path / "runs").get(name).state == "cancelled"
    for code in blocks("python"):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True,
                              timeout=300, check=False)  # fmt: skip
        assert done.returncode == 0, f"{code}\n{done.stderr}"
    started = next(job for job in Jobs(tmp_path / "runs").list() if job.kind == "dpo" and job.state != "cancelled")
    deadline = time.monotonic() + 300
    while (job := Jobs(tmp_path / "runs").get(started.id)).state not in ENDED:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert job.state == "failed" and "none can be held out" in job.error  # one pair is no data, and it says so
