"""Runs that outlive their machine: snapshots that are whole, and a real run that is killed and goes on elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpo_driver.cloud.azure.keep import Store
from dpo_driver.core.store import RunStore

RUN = """
project: {name: kept, run_dir: %s}
env: {name: toy, tasks: [press, login, wizard], workers: 8}
rounds: 1
collect: {episodes_per_task: 24, group_size: 4}
dpo: {max_steps: 40}
evaluate: {episodes_per_task: 2, choose_per_task: 2, agents: [random]}
tracking: {mlflow: false}
"""
STAGES = """
import sys
from dpo_driver.core.config import load_config
from dpo_driver.flywheel import collect, pair, train
from dpo_driver.flywheel.context import open_run
with open_run(load_config(sys.argv[1])) as ctx:
    ctx.store.set_fact("parent/1", "base")
    collect.collect(ctx, 1)
    pair.pair(ctx, 1)
    train.dpo(ctx, 1)
"""


def fill(folder: Path, rows: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(folder / "run.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
        database.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(rows)])
        database.commit()


def count(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "run.db")) as database:
        return int(database.execute("SELECT count(*) FROM t").fetchone()[0])


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    store, first, second = tmp_path / "store", tmp_path / "a", tmp_path / "b"
    fill(first / "run", 3)
    (first / "run" / "models").mkdir()
    (first / "run" / "models" / "x.bin").write_bytes(b"x" * 1000)
    kept = Store(store, first)
    open_writer = sqlite3.connect(first / "run" / "run.db")  # a run that goes on while it is copied
    assert kept.save() == 2 and kept.save() == 0
    open_writer.close()
    assert Store(store, second).restore() == 2
    assert count(second / "run") == 3 and (second / "run" / "models" / "x.bin").read_bytes() == b"x" * 1000
    assert Store(tmp_path / "empty", second).restore() == 0


def test_a_snapshot_that_is_not_whole_is_passed_over(tmp_path: Path) -> None:
    store, first, second = tmp_path / "store", tmp_path / "a", tmp_path / "b"
    kept = Store(store, first)
    first.mkdir()
    (first / "one.txt").write_text("old")
    kept.save()
    (first / "one.txt").write_text("new and longer")
    kept.save()
    lists = sorted((store / "lists").iterdir())
    lists[-1].write_bytes(lists[-1].read_bytes()[:-4])  # the machine was taken away while it wrote
    assert Store(store, second).restore() == 1 and (second / "one.txt").read_text() == "old"
    for number in range(6):
        (first / "one.txt").write_text("x" * number)
        kept.save()
    assert len(list((store / "lists").iterdir())) <= 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_goes_on_on_another_disk(tmp_path: Path) -> None:
    runs, store = tmp_path / "runs", tmp_path / "store"
    config = tmp_path / "config.yaml"
    config.write_text(RUN % (runs / "kept"))
    command = [sys.executable, "-m", "dpo_driver.cloud.azure.keep", "--store", str(store), "--runs", str(runs),
               "--every", "0.5", "--", sys.executable, "-c", STAGES, str(config)]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + 200
        while "✓ round 1: pair" not in log.read_text() or log.read_text().rindex("kept;") < log.read_text().index(
            "✓ round 1: pair"
        ):
            assert time.monotonic() < deadline and process.poll() is None, log.read_text()
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (tmp_path / "gone").mkdir()
    runs.rename(tmp_path / "gone" / "runs")  # the disk goes with the machine
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert "collect: done before" in again.stderr and "pair: done before" in again.stderr
    with RunStore(runs / "kept") as found:
        assert found.stage_status("dpo/1").done


def test_sigterm_takes_a_last_snapshot(tmp_path: Path) -> None:
    runs, store = tmp_path / "runs", tmp_path / "store"
    write = f"import pathlib, time\np = pathlib.Path({str(runs)!r}) / 'last.txt'\np.write_text('here')\nprint('up', flush=True)\ntime.sleep(600)"  # noqa: E501
    command = [sys.executable, "-m", "dpo_driver.cloud.azure.keep", "--store", str(store), "--runs", str(runs),
               "--every", "3600", "--", sys.executable, "-c", write]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "restored 0 files\n" and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    process.stdout.close()
    assert Store(store, tmp_path / "b").restore() == 1 and (tmp_path / "b" / "last.txt").read_text() == "here"
