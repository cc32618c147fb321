"""kill -9 of everything: ten seconds later nothing of ours is left, and a Chromium of somebody else runs on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from dpo_driver.browser import reaper
from dpo_driver.browser.chromium import find_chromium, runs_as_root

pytestmark = [pytest.mark.faults, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

WITHIN_S = 10.0
OWNER = """
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.pool import rollout_sync

tasks = [make_task(name, seed) for seed in range(20_000) for name in ("enter-text", "click-test-2", "use-autocomplete")]
rollout_sync(tasks, OracleAgent(), environments=MiniwobEnvironment.source, stage="c", workers=3,
             on_trajectory=lambda trajectory: print(trajectory.id, flush=True))
"""


@dataclass
class Household:
    """A rollout in a process of its own and all that belongs to it."""

    owner: subprocess.Popen[str]
    everyone: list[psutil.Process]
    folder: Path

    def of(self, part: str) -> list[psutil.Process]:
        return [process for process in alive(self.everyone) if part in " ".join(process.cmdline())]


def alive(processes: list[psutil.Process]) -> Iterator[psutil.Process]:
    """Those that still run, by pid and start time."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                yield process


@pytest.fixture
def household() -> Iterator[Household]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    for _ in range(30):  # in the middle of the work
        assert owner.stdout.readline()
    everyone = psutil.Process(owner.pid).children(recursive=True)
    folders = list(Path(tempfile.gettempdir()).glob(f"{reaper.FOLDER}{owner.pid}-*"))
    assert len(folders) == 1
    yield Household(owner, everyone, folders[0])
    with contextlib.suppress(ProcessLookupError):
        owner.kill()
    owner.wait(5)
    owner.stdout.close()
    for process in alive(everyone):
        process.kill()


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[psutil.Process]:
    """Somebody else's Chromium, with its own profile and no mark."""
    command = [str(find_chromium()), "--headless", "--disable-gpu", "--remote-debugging-port=0",
               f"--user-data-dir={tmp_path}/theirs", "about:blank"]  # fmt: skip
    command += ["--no-sandbox"] if runs_as_root() else []
    with (tmp_path / "log").open("w") as log:
        browser = subprocess.Popen(command, stderr=log, start_new_session=True)
    until = time.monotonic() + 20
    while "DevTools listening" not in (tmp_path / "log").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    yield psutil.Process(browser.pid)
    os.killpg(browser.pid, signal.SIGKILL)
    browser.wait(5)


def nothing_left(household: Household) -> float:
    """Wait until nothing is left, at most ten seconds; how long it took."""
    began = time.monotonic()
    while True:
        left = [process for process in household.everyone if process.is_running()]  # a zombie counts
        marked = [marked.pid for marked in reaper.find_marked() if marked.owner_pid == household.owner.pid]
        users = reaper.users_of(household.folder)
        seconds = time.monotonic() - began
        if not left and not marked and not users and not household.folder.exists():
            return seconds
        assert seconds < WITHIN_S, f"left: {left}, marked: {marked}, {users}, folder: {household.folder.exists()}"
        time.sleep(0.05)


def kill(processes: list[psutil.Process], number: int = signal.SIGKILL) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def kill_owner(household: Household) -> None:
    household.owner.kill()


def kill_owner_and_driver(household: Household) -> None:
    kill(household.of("run-driver"))
    household.owner.kill()


def stop_browser_then_kill_owner_and_driver(household: Household) -> None:
    browser = [*household.of("--dpo-driver-owner"), *household.of("--type=")]
    assert len(browser) > 4
    kill(browser, signal.SIGSTOP)
    kill_owner_and_driver(household)


def kill_browser_but_its_stopped_children(household: Household) -> None:
    """What is left then carries no mark: the children of a browser whose main process is gone."""
    kill(household.of("--type="), signal.SIGSTOP)
    kill(household.of("--dpo-driver-owner"))
    kill_owner_and_driver(household)


@pytest.mark.parametrize(
    "strike",
    [kill_owner, kill_owner_and_driver, stop_browser_then_kill_owner_and_driver, kill_browser_but_its_stopped_children],
)
def test_ten_seconds_after_kill_9_nothing_is_left(
    household: Household, foreign: psutil.Process, strike: Callable[[Household], None]
) -> None:
    theirs = [foreign, *foreign.children(recursive=True)]
    assert household.of("run-driver")
    assert household.of("--type=renderer")
    assert household.of("watchdog.py")
    assert list(household.folder.glob("playwright_chromiumdev_profile-*")), "their temporary files lie elsewhere"
    strike(household)
    household.owner.wait(5)
    seconds = nothing_left(household)
    print(f"LEFT {strike.__name__}: nothing after {seconds:.2f} s")
    assert list(alive(theirs)) == theirs, "somebody else's browser was touched"


def test_what_even_the_watchdog_could_not_remove_the_next_start_sweeps(
    household: Household, foreign: psutil.Process
) -> None:
    theirs = [foreign, *foreign.children(recursive=True)]
    watchdog = household.of("watchdog.py")
    kill([*household.of("--type="), *household.of("--dpo-driver-owner")], signal.SIGSTOP)
    kill([*watchdog, *household.of("run-driver")])
    household.owner.kill()
    household.owner.wait(5)
    assert household.folder.is_dir()
    assert household.of("--dpo-driver-owner")
    reaper.sweep()
    nothing_left(household)
    assert list(alive(theirs)) == theirs


def test_a_watchdog_that_is_killed_stops_nothing(household: Household) -> None:
    kill(household.of("watchdog.py"))
    assert household.owner.stdout is not None
    done = [household.owner.stdout.readline() for _ in range(200)]
    assert all(done)
    household.owner.send_signal(signal.SIGINT)
    household.owner.communicate(timeout=20)
    assert list(alive(household.everyone)) == []
    reaper.sweep()  # the folder was the watchdog's to remove
    assert not household.folder.exists()
