"""Jobs: one per role at a time, whole records, and workers that are killed, stopped and cancelled for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpo_driver.cli.main import app
from dpo_driver.core.errors import DataError, StoreError
from dpo_driver.flywheel.jobs import Cancelled, Jobs, states

WORKER = """
import sys, time
from dpo_driver.flywheel.jobs import Cancelled, Jobs
jobs = Jobs(sys.argv[1])
try:
    with jobs.running(sys.argv[2]) as work:
        work.phase("half of it", 0.5)
        print("at work", flush=True)
        time.sleep(600)
except Cancelled:
    sys.exit(5)
except KeyboardInterrupt:
    sys.exit(6)
"""


def worker(jobs: Jobs, name: str) -> subprocess.Popen[str]:
    """A process that is at work on a job."""
    command = [sys.executable, "-c", WORKER, str(jobs.root), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


def until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_from_begin_to_end(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    assert jobs.list() == []
    job = jobs.add("support", "dpo", {"data": "rows.jsonl"})
    assert (job.state, job.progress, job.request) == ("queued", 0.0, {"data": "rows.jsonl"})
    with jobs.running(job.id) as work:
        work.phase("train", 0.25)
        now = jobs.get(job.id)
        assert (now.state, now.phase, now.progress, now.pid) == ("running", "train", 0.25, os.getpid())
        work.say("a line")
        work.end("refused", message="no gain", result={"n": 3})
    done = jobs.get(job.id)
    assert (done.state, done.message, done.result, done.pid, done.progress) == ("refused", "no gain", {"n": 3}, None, 1)
    assert done.started is not None and done.ended is not None and done.created <= done.started <= done.ended
    text, place = jobs.log(job.id)
    assert [line.split(" ", 2)[2] for line in text.splitlines()] == ["train", "a line", "refused: no gain"]
    assert jobs.log(job.id, place) == ("", place)
    assert jobs.last("support") == done and jobs.last("other") is None
    with pytest.raises(Cancelled), jobs.running(job.id):
        pass


def test_names_are_unique_and_the_newest_comes_first(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    made = [jobs.add("a b/c", "turn") for _ in range(3)]
    assert len({job.id for job in made}) == 3 and all("a-b-c-turn" in job.id for job in made)
    assert [job.id for job in jobs.list()] == [job.id for job in reversed(made)]
    assert jobs.waiting("a b/c", "turn", {}) == made[-1] and jobs.waiting("a b/c", "turn", {"x": 1}) is None
    assert states(jobs.list()) == {"queued": 3}


@pytest.mark.parametrize("name", ["nothing", "../nothing", ".hidden"])
def test_a_job_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"there is no job|is no name of a job"):
        Jobs(tmp_path).get(name)


def test_an_error_is_kept_and_raised(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.add("", "turn")
    with pytest.raises(ZeroDivisionError), jobs.running(job.id):
        1 / 0  # noqa: B018
    assert jobs.get(job.id).state == "failed" and "division by zero" in jobs.get(job.id).error
    other = jobs.add("", "turn")
    with pytest.raises(DataError), jobs.running(other.id):
        raise DataError("no rows", where="there")
    assert "no rows" in jobs.get(other.id).error


def test_a_killed_worker_leaves_a_job_that_waits(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.add("support", "dpo")
    process = worker(jobs, job.id)
    assert jobs.get(job.id).state == "running"
    process.kill()
    process.wait()
    found = jobs.get(job.id)
    assert found.state == "queued" and "the same command goes on" in found.message and found.pid is None
    assert jobs.waiting("support", "dpo", {}) is not None
    with jobs.running(job.id) as work:  # neither lock outlived it
        work.end("done")


def test_looking_disturbs_nobody_and_a_foreign_process_is_not_signalled(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.add("support", "dpo")
    process = worker(jobs, job.id)
    process.kill()
    process.wait()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            jobs.get(job.id)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for each in lookers:
        each.start()
    try:
        for _ in range(20):
            with pytest.raises(KeyboardInterrupt), jobs.running(job.id, wait_s=0):
                raise KeyboardInterrupt
    finally:
        stop.set()
        for each in lookers:
            each.join()
    # The record names a process that is not the worker, as after a restart of the machine.
    bystander = subprocess.Popen(["sleep", "600"])
    holder = worker(jobs, job.id)
    try:
        record = jobs.folder / job.id / "job.json"
        record.write_text(jobs.get(job.id).model_copy(update={"pid": bystander.pid}).model_dump_json())
        jobs.cancel(job.id)
        time.sleep(0.3)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        holder.kill()
        holder.wait()


def test_a_stopped_worker_leaves_a_job_that_waits(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.add("support", "dpo")
    process = worker(jobs, job.id)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 6
    assert jobs.get(job.id).state == "queued" and "stopped" in jobs.get(job.id).message


def test_one_job_of_a_role_at_a_time(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    first, second, other, both = (jobs.add(role, "dpo") for role in ("a", "a", "b", "a,b"))
    process = worker(jobs, first.id)
    try:
        with pytest.raises(StoreError, match="somebody works on this job already"), jobs.running(first.id):
            pass
        for waits in (second, both):
            with pytest.raises(StoreError, match="another job of the role 'a'"), jobs.running(waits.id, wait_s=0):
                pass
        with jobs.running(other.id, wait_s=0) as work:
            work.end("done")
    finally:
        process.kill()
        process.wait()
    with jobs.running(both.id, wait_s=30) as work:
        work.end("done")
    assert jobs.last("a") == jobs.last("b") == jobs.get(both.id)


def test_cancelling_what_runs_and_what_waits(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    running, waiting = jobs.add("a", "dpo"), jobs.add("a", "dpo")
    process = worker(jobs, running.id)
    queued = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), waiting.id], stdout=subprocess.PIPE)
    assert jobs.cancel(waiting.id).state == "cancelled"
    assert queued.wait(60) == 5  # also while it waits for the role's other job
    jobs.cancel(running.id)
    assert process.wait(60) == 5
    assert jobs.get(running.id).state == "cancelled" and jobs.get(running.id).ended is not None
    with pytest.raises(DataError, match="cancelled already"):
        jobs.cancel(running.id)


def test_the_commands(tmp_path: Path) -> None:
    jobs, run = Jobs(tmp_path / "runs"), CliRunner()
    root = ["--root", str(tmp_path / "runs")]
    assert "no jobs" in run.invoke(app, ["jobs", "list", *root]).stderr
    job = jobs.add("support", "dpo")
    listed = json.loads(run.invoke(app, ["jobs", "list", "--json", *root]).stdout)
    assert [one["id"] for one in listed] == [job.id]
    shown = run.invoke(app, ["jobs", "show", job.id, *root])
    assert shown.exit_code == 0 and "queued" in shown.stdout
    cancelled = run.invoke(app, ["jobs", "cancel", job.id, "--json", *root])
    assert json.loads(cancelled.stdout)["state"] == "cancelled"
    with jobs.running((second := jobs.add("support", "dpo")).id) as work:
        work.say("one line of it")
        work.end("done")
    followed = run.invoke(app, ["jobs", "show", second.id, "--follow", *root])
    assert "one line of it" in followed.stdout and followed.stdout.strip().endswith("done")
