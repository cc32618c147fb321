"""The watchdog on real processes: what an owner leaves behind ends with it, whatever anybody else runs goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dpo_driver.browser import reaper
from dpo_driver.browser.watchdog import Watchdog
from pretended import BROWSER

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the watchdog reads /proc")

# Looks like a training process: a driver that knows the folder only, and a browser with a mark that is told of.
_OWNER = f"""
import subprocess, sys, time
from dpo_driver.browser import reaper
from dpo_driver.browser.watchdog import Watchdog
dog, switch = Watchdog(), reaper.owner_switch()
dog.tell(switch)
with dog.temporary_files():
    driver = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
command = [sys.executable, "-c", {BROWSER!r}, switch]
browser = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
(dog.folder / "left").write_text("over")
print(driver.pid, browser.pid, browser.stdout.readline().strip(), dog._process.pid, dog.folder, flush=True)
time.sleep(60)
"""


def gone(*pids: int, within: float = 10.0) -> bool:
    """Whether none of the processes is there any more, not even as a zombie."""
    until = time.monotonic() + within
    while any(map(psutil.pid_exists, pids)):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize("orphaned", [False, True], ids=["whole", "without its main process"])
def test_nothing_outlives_an_owner_that_is_killed(stopped: bool, orphaned: bool) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", BROWSER], stdout=subprocess.PIPE, start_new_session=True)
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    *pids, folder = owner.stdout.readline().split()
    driver, browser, child, watchdog = map(int, pids)
    try:
        assert (Path(folder) / "left").exists()
        time.sleep(0.5)  # several looks at a healthy household
        assert all(map(psutil.pid_exists, (driver, browser, child, watchdog)))
        if stopped:
            for pid in (driver, browser, child):
                os.kill(pid, signal.SIGSTOP)
        if orphaned:
            os.kill(browser, signal.SIGKILL)  # its child is left, which carries no mark
            assert gone(child, within=3), "the rest of a dead browser is not left to itself"
            assert psutil.pid_exists(watchdog)
        owner.kill()
        owner.wait(5)
        left = (driver, browser, child, watchdog)
        assert gone(*left), [psutil.Process(pid) for pid in left if psutil.pid_exists(pid)]
        assert not Path(folder).exists()
        assert stranger.poll() is None
    finally:
        owner.kill()
        reaper.kill_tree(stranger.pid)
        stranger.wait(5)
        owner.stdout.close()
        if stranger.stdout is not None:
            stranger.stdout.close()


def test_an_orderly_end_takes_the_folder_and_the_watchdog_along() -> None:
    before = os.environ.get("TMPDIR")
    dog = Watchdog()
    assert dog.folder is not None
    with dog.temporary_files():
        assert os.environ["TMPDIR"] == str(dog.folder)
    assert os.environ.get("TMPDIR") == before
    children = psutil.Process().children()  # other tests may have left zombies, which have no arguments
    (watchdog,) = [child for child in children if "watchdog.py" in " ".join(reaper.arguments_of(child.pid))]
    began = time.monotonic()
    dog.close()
    assert time.monotonic() - began < 5
    assert not dog.folder.exists()
    assert not watchdog.is_running()
    dog.close()  # twice is once


def test_folders_of_dead_owners_are_swept_and_no_others() -> None:
    mine = reaper.make_folder()
    pid, started, space = mine.name.removeprefix(reaper.FOLDER).split("-")[:3]
    assert (int(pid), int(started)) == (os.getpid(), reaper.started(os.getpid()))
    dead = mine.with_name(f"{reaper.FOLDER}{pid}-1-{space}-dead")  # whoever had this pid before
    elsewhere = mine.with_name(f"{reaper.FOLDER}{pid}-1-{int(space, 16) + 1:x}-else")  # seen from another container
    foreign = mine.with_name(f"{reaper.FOLDER}notes")
    made = (dead, elsewhere, foreign)
    try:
        for folder in made:
            folder.mkdir()
        reaper.sweep()
        assert [folder.exists() for folder in (mine, *made)] == [True, False, True, True]
    finally:
        for folder in (mine, *made):
            if folder.exists():
                folder.rmdir()
