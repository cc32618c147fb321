"""``dpo-driver annotate`` as a user meets it, against a real server: costs, budgets, kills, keys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dpo_driver.core.records import Message, Sampling
from dpo_driver.core.store import RunStore
from dpo_driver.testing.fault_endpoint import FaultEndpoint, refused
from toy_reasoning import QUESTIONS, config, files, good, record, thoughts

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
KEY = "sk-test-9f8e7d6c5b4a3210"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return record(config(tmp_path / "run"))


def run(
    cli: CommandLine, target: Path, server: FaultEndpoint, *more: str, **env: str
) -> subprocess.CompletedProcess[str]:
    given = ("--provider", "local", "--base-url", server.url, "--model", server.models[0])
    return cli("annotate", str(target), *given, *more, **env)


def test_the_command_says_what_it_did_and_what_it_cost(run_dir: Path, cli: CommandLine) -> None:
    with FaultEndpoint(good, key=KEY) as server:
        done = run(cli, run_dir, server, "--json", "--key-env", "MY_KEY", MY_KEY=KEY)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["accepted"], found["calls"], found["written"]) == (QUESTIONS, QUESTIONS, 9)
        assert found["usage"]["cost"] is None  # a server with a key may cost something
        again = run(cli, run_dir, server, "--key-env", "MY_KEY", MY_KEY=KEY)
        assert again.returncode == 0 and len(server.asked) == QUESTIONS
    assert f"{QUESTIONS} of {QUESTIONS} questions (21 steps) have a reasoning" in again.stderr
    assert "0 calls now" in again.stderr and "price unknown" in again.stderr
    assert "evaluate.max_new_tokens" not in again.stderr  # about 50 tokens fit into 64
    assert not holding(run_dir.parent, KEY)


def holding(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_key_that_a_server_says_is_in_no_file(run_dir: Path, cli: CommandLine) -> None:
    def script(messages: Sequence[Message], sampling: Sampling) -> str:
        return f"My key is {KEY}. {good(messages, sampling)}"

    with FaultEndpoint(script, key=KEY) as server:
        done = run(cli, run_dir, server, "--json", "--key-env", "MY_KEY", MY_KEY=KEY)
        assert json.loads(done.stdout)["refused"]["code"] == 3 * QUESTIONS == len(server.asked)
        assert not any(KEY in asked.messages[-1].content for asked in server.asked)
    assert KEY not in done.stdout + done.stderr and not holding(run_dir.parent, KEY)
    assert len(files(run_dir)) == QUESTIONS


def test_a_budget_stops_it_with_nothing_lost(run_dir: Path, cli: CommandLine) -> None:
    with FaultEndpoint(good) as server:
        done = run(cli, run_dir, server, "--budget-tokens", "4000", "--jobs", "3")
        assert done.returncode == 2 and "the budget of 4,000 tokens" in done.stderr
        first = len(server.asked)
        assert 0 < first == len(files(run_dir)) < QUESTIONS
        assert run(cli, run_dir, server, "--budget-tokens", "4000").returncode == 2
        assert len(server.asked) == first  # what was spent before counts
        assert run(cli, run_dir, server).returncode == 0
        assert len(server.asked) == QUESTIONS
        usd = run(cli, run_dir, server, "--budget-usd", "0.5", "--price", "1,2")
        assert usd.returncode == 0 and "in all" in usd.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_middle_it_makes_only_the_calls_that_are_missing(
    run_dir: Path, cli: CommandLine, how: signal.Signals
) -> None:
    release, answered = threading.Event(), 8

    def script(messages: Sequence[Message], sampling: Sampling) -> str:
        with counting:
            taken.append(1)
            number = len(taken)
        if number > answered:
            release.wait(60)
        return good(messages, sampling)

    counting, taken = threading.Lock(), list[int]()
    with FaultEndpoint(script) as server:
        command = [sys.executable, "-m", "dpo_driver", "annotate", str(run_dir), "--provider", "local", "--base-url",
                   server.url, "--model", "scripted", "--jobs", "4"]  # fmt: skip
        process = subprocess.Popen(command, cwd=run_dir.parent, env=os.environ, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while len(taken) < answered + 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(how)
        said = process.communicate(timeout=30)[1]
        assert process.returncode == (-9 if how == signal.SIGKILL else 130), said
        assert len(files(run_dir)) == answered  # a worker asks again only when the answer before is on disk
        release.set()
        before = len(server.asked)
        done = run(cli, run_dir, server)
        assert done.returncode == 0, done.stderr
        assert len(server.asked) - before == QUESTIONS - answered
    assert len(thoughts(run_dir)) == QUESTIONS


def test_a_configuration_records_its_demonstrations_first(tmp_path: Path, cli: CommandLine) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(f"project: {{run_dir: {tmp_path / 'run'}}}\nenv: {{name: toy, tasks: [press]}}\n"
                    "demos: {per_task: 2}\ntracking: {mlflow: false}\n")  # fmt: skip
    with FaultEndpoint(good) as server:
        lacking = run(cli, path, server)
        assert lacking.returncode == 2 and "nobody demonstrates press" in lacking.stderr and not server.asked
        record(config(tmp_path / "run", env={"name": "toy", "tasks": ["press"]}, demos={"per_task": 2}))
        done = run(cli, path, server)
        assert done.returncode == 0 and len(server.asked) == 2, done.stderr


def test_what_cannot_be_annotated_is_named(tmp_path: Path, cli: CommandLine) -> None:
    with RunStore(tmp_path / "empty"):
        pass
    (tmp_path / "folder").mkdir()
    with FaultEndpoint(good) as server:
        for target, what in (
            ("nope", "there is no such run or configuration"),
            ("folder", "not a run directory"),
            ("empty", "there are no successful demonstrations"),
        ):
            done = run(cli, tmp_path / target, server)
            assert done.returncode == 2 and what in done.stderr and "Traceback" not in done.stderr
        assert not server.asked


def test_a_refused_key_ends_it_at_once(run_dir: Path, cli: CommandLine) -> None:
    with FaultEndpoint(good, lambda number, messages: refused(401)) as server:
        done = run(cli, run_dir, server, "--jobs", "1")
        assert done.returncode == 2 and "the endpoint refuses the key" in done.stderr and len(server.asked) == 1
