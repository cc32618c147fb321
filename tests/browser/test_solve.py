"""`dpo-driver solve` on the real site: what it solves, writes, keeps, and goes on from, and the four ways to play."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo_driver.agents.solver.agent import SolverAgent
from dpo_driver.agents.solver.detector import TYPES, rank
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Trajectory
from dpo_driver.envs.gauntlet.environment import GauntletEnvironment
from dpo_driver.envs.gauntlet.serve import GauntletServer
from dpo_driver.envs.gauntlet.tasks import make_task, types_of
from dpo_driver.rollout.pool import rollout_sync
from dpo_driver.testing.fault_endpoint import FaultEndpoint

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
HARDEST = tuple(f"{suffix}" for suffix in ("-d2", "-d3", "-b", "-d3-b"))


def play(families: list[str], seeds: list[int]) -> list[Trajectory]:
    found: list[Trajectory] = []
    tasks = [make_task(family, seed, "test") for family in families for seed in seeds]
    rollout_sync(
        tasks, SolverAgent("chat"), environments=GauntletEnvironment.source, stage="test",
        on_trajectory=found.append, workers=2,
    )  # fmt: skip
    return found


def lost(runs: list[Trajectory]) -> dict[str, Any]:
    """What was not solved, with the thoughts that led nowhere."""
    return {run.id: (run.failure, [step.thought for step in run.steps]) for run in runs if not run.success}


def misread(runs: list[Trajectory]) -> dict[str, str]:
    """Steps whose type is not the one that the detector puts first at the first look that tells it anything."""
    wrong = {}
    for run in runs:
        ranked = (rank(PuzzlePage(step.observation, ())) for step in run.steps)
        first = next((signals[0].name for signals in ranked if signals), "unknown")
        if first != types_of(run.task)[0]:
            wrong[run.id] = first
    return wrong


def test_every_type_is_recognised_and_solved() -> None:
    runs = play([f"step-{name}" for name in TYPES], [910_001])
    assert len(runs) == 34
    assert not lost(runs)
    assert not misread(runs)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", HARDEST)
def test_every_type_is_recognised_and_solved_however_it_looks(how: str) -> None:
    runs = play([f"step-{name}{how}" for name in TYPES], [910_002, 910_003, 910_004])
    assert len(runs) == 102
    assert not lost(runs)
    assert not misread(runs)


def test_runs_are_solved_kept_and_not_played_again(cli: CommandLine, tmp_path: Path) -> None:
    command = ("solve", "--steps", "3", "--seeds", "2", "--jobs", "2", "--json", "--out", "kept")
    first = cli(*command, timeout=300)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert found == json.loads((tmp_path / "kept" / "metrics.json").read_text())
    summary = found["summary"]
    assert (summary["total_challenges"], summary["solved"], summary["success_rate"]) == (6, 6, 1.0)
    assert summary["total_tokens"] == {"input": 0, "output": 0}
    assert summary["runs"]["n"] == 2
    assert [row["id"] for row in found["challenges"]] == [f"{s}/{k}" for s in (900_000, 900_001) for k in (1, 2, 3)]
    assert all(row["success"] and row["steps"] >= 2 and row["elapsed_seconds"] > 0 for row in found["challenges"])
    assert sum(row["n"] for row in found["by_type"].values()) == 6
    assert set(found["by_seed"]) == {"900000", "900001"}

    again = cli(*command)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["challenges"] == found["challenges"]
    assert "solved in" not in again.stderr, "a run was played again"

    more = cli("solve", "--steps", "3", "--seeds", "3", "--json", "--out", "kept", timeout=300)
    assert more.stderr.count("solved in") == 1
    assert json.loads(more.stdout)["summary"]["total_challenges"] == 9

    other = cli("solve", "--steps", "3", "--difficulty", "2", "--out", "kept")
    assert other.returncode == 2
    assert "other options (difficulty)" in other.stderr


def test_one_run_goes_to_runs_solve(cli: CommandLine, tmp_path: Path) -> None:
    done = cli("solve", "--steps", "1", "--seed", "5", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 challenges solved (100.0%)" in done.stdout
    (row,) = json.loads((tmp_path / "runs" / "solve" / "metrics.json").read_text())["challenges"]
    assert (row["id"], row["success"], row["error"]) == ("5/1", True, None)
    assert row["type"] in TYPES


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dpo_driver", "solve", "--steps", "1", "--seeds", "500", "--out", "kept"]
    going = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"}, stderr=subprocess.PIPE, text=True
    )
    assert going.stderr is not None
    said = [going.stderr.readline() for _ in range(2)]
    assert all("1/1 solved" in line for line in said), said
    going.send_signal(signal.SIGINT)
    rest = going.communicate(timeout=60)[1]
    assert going.returncode == 130, rest
    assert "the same command goes on from here" in rest
    found = json.loads((tmp_path / "kept" / "metrics.json").read_text())
    assert 2 <= found["summary"]["total_challenges"] < 20
    assert found["summary"]["success_rate"] == 1.0


def test_a_site_of_somebody_else_is_played_by_what_it_shows(cli: CommandLine) -> None:
    with GauntletServer(steps=2, seed=3, types=("click-reveal", "math")) as server:
        done = cli("solve", "--steps", "2", "--base-url", server.base_url, "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["success"] for row in found["challenges"]] == [True, True]
    assert {row["type"] for row in found["challenges"]} == {"click-reveal", "math"}, "as the solver recognised them"


def test_a_model_behind_an_endpoint_plays_and_its_tokens_are_counted(cli: CommandLine) -> None:
    with FaultEndpoint(lambda _messages, _sampling: "thought: rest\naction: noop()") as server:
        how = ("--mode", "api", "--provider", "local", "--endpoint", server.url, "--json")
        done = cli("solve", *how, "--steps", "1", "--max-actions", "3", timeout=300)
        spent = cli("solve", *how, "--steps", "1", "--budget-tokens", "1000", "--seeds", "3", timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (row,) = found["challenges"]
    assert (row["success"], row["steps"], row["error"]) == (False, 3, "gave out after 3 actions")
    assert row["tokens"]["input"] > 500
    assert found["summary"]["total_tokens"] == row["tokens"]
    assert found["summary"]["cost"] == 0
    assert spent.returncode == 2
    assert "budget of 1,000 tokens" in spent.stderr
    figures = json.loads(spent.stdout)
    assert figures["summary"]["total_challenges"] == 1, "no run was begun that the budget did not allow"


def test_the_hybrid_asks_no_model_while_the_solver_gets_on(cli: CommandLine) -> None:
    with FaultEndpoint(lambda _messages, _sampling: "thought: rest\naction: noop()") as server:
        how = ("--mode", "hybrid", "--provider", "local", "--endpoint", server.url, "--json")
        done = cli("solve", *how, "--steps", "2", timeout=300)
        assert [asked for asked in server.asked if asked.messages] == []
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["solved"] == 2


def test_the_pocket_model_plays_here(cli: CommandLine) -> None:
    done = cli("solve", "--mode", "local", "--steps", "1", "--max-actions", "2", "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)["summary"]
    assert summary["total_steps"] <= 2
    assert summary["total_tokens"]["input"] > 200
    assert summary["total_tokens"]["output"] > 0
    assert summary["cost"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mode", "guess"), "unknown mode 'guess'"),
        (("--mode", "deterministic", "--model", "gpt-4o"), "--model says nothing here"),
        (("--mode", "local", "--provider", "google"), "--provider says nothing here"),
        (("--mode", "api", "--adapter", "x"), "--adapter says nothing here"),
        (("--viewport", "big"), "'big' is no size"),
        (("--skin", "c"), "skin 'c' is none of a, b"),
        (("--mode", "api", "--provider", "openai"), "there is no key for openai"),
        (("--base-url", "http://127.0.0.1:9"), "the site does not answer"),
    ],
)
def test_what_cannot_be_played_is_refused(cli: CommandLine, options: tuple[str, ...], said: str) -> None:
    done = cli("solve", *options, OPENAI_API_KEY="")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
