"""The flywheel on two types of the gauntlet, as a user runs it: real pages, real training, held-out families apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpo_driver.core.store import RunStore
from dpo_driver.report.page import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

TRAINED, HELD_OUT = ("step-click-reveal", "step-shadow-dom"), ("step-animated-button", "step-click-reveal-b")
CONFIG = """
project: {name: small}
env: {name: gauntlet, tasks: [step-click-reveal, step-shadow-dom], workers: 2}
demos: {per_task: 2}
sft: {learning_rate: 1.0e-3, max_steps: 24, per_device_train_batch_size: 4, early_stopping_patience: 0}
rounds: 1
collect: {episodes_per_task: 12, group_size: 6, temperature: 1.3}
pair: {max_parse_error_share: 1.0, val_fraction: 0.0}
dpo: {max_steps: 3, eval_steps: 3}
evaluate:
  agents: [base, sft, control, dpo]
  episodes_per_task: 3
  reference_episodes: 4
  choose_per_task: 1
  held_out: {types: [step-animated-button], skin b: [step-click-reveal-b]}
  held_out_per_task: 2
tracking: {mlflow: false}
report: {replays: 1}
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("gauntlet-training")
    (folder / "small.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "dpo_driver", "run", "small.yaml"]
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=840, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "small"


def test_the_solver_demonstrates_and_the_model_learns_from_it(run_folder: Path) -> None:
    with RunStore(run_folder, mode="read") as store:
        demos = store.trajectories("demos")
        loss = [value for _, value in store.metrics("sft")["loss"]]
        rollouts = store.trajectories("collect/1")
    assert len(demos) == 4 and all(demo.success for demo in demos)
    assert {demo.agent for demo in demos} == {"oracle"} and {demo.task.name for demo in demos} == set(TRAINED)
    assert loss[-1] < 0.5 * loss[0]
    assert len(rollouts) in (18, 24, 30)  # four starts with six siblings, shared out and rounded
    assert all(len(rollout.steps) <= rollout.task.max_steps == 10 for rollout in rollouts)


def test_every_type_has_its_figures_and_what_was_held_out_stands_apart(run_folder: Path) -> None:
    command = [sys.executable, "-m", "dpo_driver", "report", str(run_folder), "--json"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    figures = json.loads(asked.stdout)
    assert set(figures["by_task"]) == set(TRAINED)
    for family in TRAINED:
        for agent, episodes in (("base", 2), ("sft", 3), ("control", 3), ("dpo", 3)):
            rate = figures["by_task"][family][agent]
            assert rate["n"] + rate["excluded"] == episodes
            assert 0 <= rate["low"] <= rate["success"] <= rate["high"] <= 1
    held_out = figures["held_out"]
    assert [list(group["by_task"]) for group in held_out.values()] == [[family] for family in HELD_OUT]
    for group in held_out.values():
        assert set(group["agents"]) == {"base", "sft", "control", "dpo"}
        assert all(rate["n"] + rate["excluded"] == 2 for rate in group["agents"].values())
        assert group["gain"]["n"] <= 2
    assert figures["gain"]["n"] <= 6 and figures["decision"]["gain"]["n"] == figures["gain"]["n"]


def test_nothing_of_what_was_held_out_was_trained_on(run_folder: Path) -> None:
    with RunStore(run_folder, mode="read") as store:
        seen = {name for stage in ("demos", "collect/1") for name, _ in store.outcomes(stage)}
        chosen = {name for name, _ in store.outcomes("evaluate/val/sft")}
        pairs = store.preferences(1)
    assert seen == chosen == set(TRAINED)
    assert pairs and {row.task_name for row in pairs} <= set(TRAINED)
    html = write_report(run_folder).read_text()
    assert '<section id="held-out"' in html and html.count("step-animated-button") > 1
