"""The main job in small, as a user runs it: real Chromium, real training, stopped in the middle, resumed, reported."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dpo_driver.core.store import RunStore

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

CONFIG = """
project: {name: small}
env: {tasks: [click-checkboxes, click-tab-2], rollouts: miniwob-batched, workers: 4}
demos: {per_task: 3}
sft: {num_train_epochs: 2, eval_steps: 2}
sft_best: {epochs: [1, 3]}
rounds: 1
collect: {episodes_per_task: 24, group_size: 8, temperature: 1.5}
pair: {max_parse_error_share: 1.0}
dpo: {max_steps: 3, eval_steps: 3}
evaluate: {episodes_per_task: 3, reference_episodes: 6, choose_per_task: 2,
           agents: [random, oracle, sft, sft_best, control, dpo]}
"""
STAGE_DONE = "evaluate sft (val)"

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that was stopped by Ctrl-C after its first stages and then started again."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "small.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "dpo_driver", "run", "small.yaml"]
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    log = folder / "first.log"
    with log.open("w") as file:
        first = subprocess.Popen(command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 240
            while f"✓ {STAGE_DONE}" not in log.read_text():
                assert first.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            first.send_signal(signal.SIGINT)
            try:
                code = first.wait(60)
            except subprocess.TimeoutExpired:
                pytest.fail(f"Ctrl-C did not stop it:\n{log.read_text()}")
            assert code == 130, log.read_text()
        finally:
            first.kill()
    assert "stopped; the same command goes on from here" in log.read_text()
    second = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    (folder / "second.log").write_text(second.stdout + second.stderr)
    assert second.returncode == 0, second.stdout + second.stderr
    return folder


def ask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dpo_driver", *arguments]
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_what_was_finished_before_is_not_done_again(run_folder: Path) -> None:
    told = (run_folder / "second.log").read_text()
    assert f"✓ {STAGE_DONE}: done before" in told
    assert "▸ promote or refuse" in told
    assert "Traceback" not in told


def test_the_figures_are_complete_and_consistent(run_folder: Path) -> None:
    figures = json.loads(ask(run_folder, "report", "--json").stdout)
    for agent in ("random", "oracle", "sft", "sft_best", "control", "dpo"):
        rate = figures[agent]
        assert rate["n"] + rate["excluded"] == 6
        assert 0 <= rate["low"] <= rate["success"] <= rate["high"] <= 1
    assert figures["oracle"]["success"] == 1.0
    assert figures["gain"]["n"] <= 6
    assert figures["gain"]["mean"] == pytest.approx(figures["dpo"]["success"] - figures["sft"]["success"])
    assert figures["gain_over_control"]["low"] <= figures["gain_over_control"]["high"]
    assert set(figures["tasks"]) == {"click-checkboxes", "click-tab-2"}
    assert figures["seconds"]["sft"] > 0


def test_sft_at_its_best_did_best_on_validation_seeds(run_folder: Path) -> None:
    with RunStore(run_folder / "runs/small") as store:
        facts = [store.stage_status(f"evaluate/val/{name}").facts for name in ("sft", "sft-best-1", "sft-best-2")]
        chosen = store.stage_status(f"evaluate/val/{store.get_fact('chosen/sft_best')}").facts
    assert chosen["report"]["strict"]["success"] == max(each["report"]["strict"]["success"] for each in facts)


def test_the_report_is_one_file(run_folder: Path) -> None:
    page = (run_folder / "runs/small/report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert not re.findall(r"(?:src|href)=[\"']https?:", page), "a report opens offline"


def test_pairs_come_from_the_run_and_go_out_for_trl(run_folder: Path) -> None:
    stats = json.loads(ask(run_folder, "pair", "small.yaml", "--json").stdout)
    assert stats["trajectories"] >= 48
    assert stats["pairs"] == sum(stats["by_task"].values()) >= 1
    done = ask(run_folder, "prefs", "export", "pairs.jsonl")
    rows = [json.loads(line) for line in (run_folder / "pairs.jsonl").read_text().splitlines()]
    assert f"{len(rows)} preferences written" in done.stderr
    assert len(rows) == stats["pairs"]
    assert all(row["chosen"] != row["rejected"] for row in rows)


def test_models_are_registered_with_their_parents(run_folder: Path) -> None:
    versions = {version["name"]: version for version in json.loads(ask(run_folder, "models", "list", "--json").stdout)}
    assert {one["prompt_profile"] for name, one in versions.items() if not name.endswith("/base")} == {"pocket"}
    assert versions["small/dpo-1"]["parent"] == versions["small/sft"]["content_hash"]
    assert versions["small/sft"]["parent"] == versions["small/base"]["content_hash"]


def test_the_gate_says_why(run_folder: Path) -> None:
    decision = json.loads(ask(run_folder, "promote", "small.yaml", "--json").stdout)
    gain = decision["gain"]
    assert decision["promoted"] == (gain["low"] > 0)
    assert decision["reasons"]


def test_another_configuration_is_refused_and_nothing_is_lost(run_folder: Path) -> None:
    before = ask(run_folder, "report", "--json").stdout
    done = ask(run_folder, "run", "small.yaml", "--set", "dpo.beta=0.7")
    assert done.returncode == 2
    assert "dpo.beta" in done.stderr
    assert ask(run_folder, "report", "--json").stdout == before


def test_broken_preference_files_add_nothing(run_folder: Path) -> None:
    (run_folder / "broken.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "a"}\n{"prompt": \n')
    done = ask(run_folder, "prefs", "import", "broken.jsonl", "small.yaml", "--round", "7")
    assert done.returncode == 2
    assert "broken.jsonl" in done.stderr
    assert "chosen and rejected are equal" in done.stderr
    (run_folder / "empty.jsonl").write_text("")
    assert ask(run_folder, "prefs", "import", "empty.jsonl", "small.yaml", "--round", "7").returncode == 2
    done = ask(run_folder, "prefs", "export", "seven.jsonl", "runs/small", "--round", "7")
    assert "0 preferences written" in done.stderr
