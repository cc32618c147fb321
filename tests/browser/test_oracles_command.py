"""``dpo-driver oracles`` plays real pages and counts what it says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from dpo_driver.agents.oracle import ORACLES
from dpo_driver.envs.miniwob.tasks import TASKS

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def test_the_figures_add_up(cli: CommandLine) -> None:
    done = cli("oracles", "--task", "click-test", "--task", "browsergym/miniwob.read-table", "--seeds", "3", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert set(figures["tasks"]) == {"click-test", "read-table"}
    for name, steps in (("click-test", 1), ("read-table", 2)):
        row = figures["tasks"][name]
        counts = {key: row[key] for key in ("n", "strict", "positive", "excluded", "mean_steps")}
        assert counts == {"n": 3, "strict": 3, "positive": 3, "excluded": 0, "mean_steps": steps}
        assert 0 < row["seconds"] < 60
    assert (figures["perfect"], figures["oracles"], figures["episodes"]) == (2, 2, 6)
    assert figures["episodes_per_second"] == pytest.approx(6 / figures["seconds"], rel=0.05)


def test_the_table_names_the_task_and_the_totals(cli: CommandLine) -> None:
    done = cli("oracles", "--task", "click-test", "--seeds", "2", "--workers", "1")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("click-test")]
    assert [row[:5] for row in rows] == [["click-test", "2", "2", "2", "1.00"]]
    assert "1 of 1 families at 100 % strict; 2 episodes" in done.stdout


def test_an_unknown_task_is_refused_with_close_names(cli: CommandLine) -> None:
    done = cli("oracles", "--task", "clik-buton", "--seeds", "1")
    assert done.returncode == 2
    assert "click-button" in done.stderr
    assert done.stdout == ""


def test_a_task_without_an_oracle_is_refused(cli: CommandLine) -> None:
    without = sorted(set(TASKS) - set(ORACLES))
    for name in without[:1]:
        done = cli("oracles", "--task", name)
        assert done.returncode == 2
        assert f"unknown oracle '{name}'" in done.stderr
    assert len(without) <= 5
