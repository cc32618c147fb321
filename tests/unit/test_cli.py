"""The command line as a user meets it: exit codes and messages for what goes wrong before any work starts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).resolve().parents[2]
SMALL = "env: {tasks: [click-button]}\nevaluate: {episodes_per_task: 2}\n"


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2, one message on stderr with all parts, nothing on stdout, no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for part in parts:
        assert part in done.stderr


def test_help_lists_every_command_of_the_issue(cli: CommandLine) -> None:
    shown = cli("--help").stdout
    for command in (
        "run",
        "sft",
        "train",
        "collect",
        "pair",
        "evaluate",
        "promote",
        "report",
        "doctor",
        "ui",
        "bench",
        "pretrain",
        "models",
    ):
        assert f"│ {command} " in shown


def test_version(cli: CommandLine) -> None:
    import dpo_driver

    assert cli("version").stdout.strip() == cli("--version").stdout.strip() == dpo_driver.__version__


@pytest.mark.parametrize("command", ["run", "sft", "collect", "pair", "evaluate", "promote"])
def test_missing_configuration(cli: CommandLine, command: str) -> None:
    refused(cli(command, "nope.yaml"), "there is no such configuration", "nope.yaml")


def test_no_configuration_at_all(cli: CommandLine) -> None:
    refused(cli("run"), "no configuration was given", "configs/pocket.yaml")


def test_malformed_configuration(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("sft:\n  max_steps: [1\n")
    refused(cli("run", "x.yaml"), "malformed YAML", "x.yaml:3")


def test_unknown_key_in_file_and_override(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("sft:\n  learnin_rate: 1\n")
    refused(cli("run", "x.yaml"), "unknown key sft.learnin_rate", "x.yaml:2", "did you mean sft.learning_rate?")
    (tmp_path / "x.yaml").write_text(SMALL)
    refused(cli("train", "dpo", "x.yaml", "--set", "dpo.betta=1"), "--set dpo.betta=1", "did you mean dpo.beta?")


def test_unknown_task_and_environment(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("env: {tasks: [click-buton]}\n")
    refused(cli("collect", "x.yaml"), "unknown miniwob task 'click-buton'", "x.yaml, env.tasks", "click-button")
    (tmp_path / "x.yaml").write_text("env: {name: miniwobb}\n")
    refused(cli("run", "x.yaml"), "unknown environment 'miniwobb'", "x.yaml, env.name", "did you mean miniwob?")
    (tmp_path / "x.yaml").write_text("env: {rollouts: miniwob-batcht}\n")
    refused(
        cli("run", "x.yaml"), "unknown environment 'miniwob-batcht'", "env.rollouts", "mean miniwob-batched or miniwob?"
    )
    assert not (tmp_path / "runs").exists(), "a refused configuration leaves nothing behind"


def test_missing_model_folder(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SMALL + "model: ./no/such/model\n")
    refused(cli("run", "x.yaml", timeout=110), "no/such/model")


def test_pickled_weights_are_refused(cli: CommandLine, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src/dpo_driver/models/pocket", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    (tmp_path / "x.yaml").write_text(SMALL + "model: ./model\n")
    refused(cli("run", "x.yaml", timeout=110), "pickle", "pytorch_model.bin")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with an earlier result on it and no room for more."""
    place = tmp_path / "full"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        (place / "earlier.txt").write_text("kept")
        with contextlib.suppress(OSError), (place / "ballast").open("wb") as ballast:
            while True:
                ballast.write(bytes(4096))
                ballast.flush()
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_named_and_loses_nothing(cli: CommandLine, tmp_path: Path, full_disk: Path) -> None:
    (tmp_path / "x.yaml").write_text(SMALL)
    done = cli("collect", "x.yaml", "--set", f"project.run_dir={full_disk / 'run'}", timeout=110)
    refused(done, "no space left", str(full_disk))
    assert (full_disk / "earlier.txt").read_text() == "kept"


def test_no_chromium(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SMALL)
    done = cli("run", "x.yaml", DPO_DRIVER_CHROMIUM=str(tmp_path / "nowhere"))
    refused(done, "this machine is not ready: chromium", "DPO_DRIVER_CHROMIUM")
    assert not (tmp_path / "runs").exists()


def test_ui_says_when_the_port_is_taken(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = cli("ui", "--port", str(taken.getsockname()[1]), timeout=60)
    refused(done, "is not free", "choose another")


def test_report_without_a_run(cli: CommandLine, tmp_path: Path) -> None:
    refused(cli("report"), "there is no run yet", "dpo-driver run")
    refused(cli("report", "--json"), "there is no run yet")
    refused(cli("report", str(tmp_path)), "there is no run in this folder")


def test_run_directory_that_is_a_file(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SMALL)
    (tmp_path / "taken").write_text("mine")
    refused(cli("run", "x.yaml", "--set", "project.run_dir=taken"), "taken")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["run", "--no-such-option"], ["bench", "env", "--seconds", "many"]]
)
def test_usage_errors_exit_with_two(cli: CommandLine, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_unknown_task_of_a_benchmark(cli: CommandLine) -> None:
    refused(cli("bench", "env", "--task", "click-buton", "--seconds", "1"), "click-buton", "click-button")


PROGRAM = """
import sys
from dpo_driver.cli import main as command_line
from dpo_driver.cli.options import console

@command_line.app.command()
def boom() -> None:
    {body}

sys.argv = ["dpo-driver", "boom"]
command_line.main()
"""


def run_program(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real ``main`` with one more command, whose body is ours."""
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise OSError(28, 'No space left on device', 'runs/x/run.db')", "the disk is full (runs/x/run.db)"),
        ("import sqlite3; raise sqlite3.OperationalError('database or disk is full')", "the disk is full"),
        ("raise PermissionError(13, 'Permission denied', 'runs/x')", "not allowed"),
        ("raise OSError(98, 'Address already in use')", "the port is taken"),
        ("sys.modules['trl'] = None; import trl", "trl is not installed"),
        ("open('/dev/full', 'w').write('x' * 100000)", "the disk is full"),
    ],
)
def test_what_the_machine_refuses_is_said_in_words(body: str, message: str) -> None:
    refused(run_program(body), message)


def test_our_own_bugs_keep_their_traceback() -> None:
    done = run_program("raise KeyError('x')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_debug_shows_the_traceback_of_a_driver_error() -> None:
    body = (
        "from dpo_driver.core.errors import DataError; raise DataError('broken', where='a.jsonl:3', remedy='mend it')"
    )
    refused(run_program(body), "broken (a.jsonl:3)", "-> mend it")
    assert "Traceback" in run_program(body, DPO_DRIVER_DEBUG="1").stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wait", ["import time; time.sleep(60)", "import asyncio; asyncio.run(asyncio.sleep(60))"])
def test_a_signal_stops_with_a_word_and_130(number: signal.Signals, wait: str) -> None:
    body = f"print('here', flush=True); {wait}"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        time.sleep(0.3)  # into the sleep
        process.send_signal(number)
        _, told = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopped; the same command goes on from here" in told
    assert "Traceback" not in told


def test_doctor_json_goes_on_after_an_error(cli: CommandLine, tmp_path: Path) -> None:
    """With a Chromium that is no Chromium, doctor says so, checks the rest and exits with 2."""
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    done = cli("doctor", "--json", timeout=110, DPO_DRIVER_CHROMIUM=str(broken))
    assert done.returncode == 2, done.stderr
    told = json.loads(done.stdout)
    status = {check["name"]: check["status"] for check in told["checks"]}
    assert told["ok"] is False
    assert status["chromium"] == "error"
    assert status["python"] == status["sqlite"] == status["run directory"] == "ok"
    assert all(check["remedy"] for check in told["checks"] if check["status"] != "ok")


def test_a_task_and_its_alias_are_the_same_task(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("env: {tasks: [click-button, click-button-v1]}\n")
    refused(cli("collect", "x.yaml"), "listed twice: click-button", "x.yaml, env.tasks")
