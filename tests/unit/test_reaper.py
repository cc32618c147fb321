"""The reaper on real processes: orphans of dead owners die with their children, everyone else lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dpo_driver.browser import reaper
from pretended import BROWSER

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the reaper reads /proc")

# Looks like a training process: starts a browser with its own mark, says who they are, and waits to be killed.
_OWNER = f"""
import subprocess, sys, time
from dpo_driver.browser import reaper
switch = reaper.owner_switch()
command = [sys.executable, "-c", {BROWSER!r}, switch, "--user-data-dir=" + sys.argv[1]]
browser = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
print(browser.pid, browser.stdout.readline().strip(), switch, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until_dead(*pids: int) -> None:
    until = time.monotonic() + 5
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < until, f"still alive: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.01)


@pytest.fixture
def owned() -> Iterator[tuple[subprocess.Popen[str], int, int, str, Path]]:
    """A process that owns a "browser": (owner, browser pid, child pid, mark, profile folder)."""
    profile = Path(tempfile.mkdtemp(prefix="dpo-driver-test-"))
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(profile)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    browser, child, switch = owner.stdout.readline().split()
    yield owner, int(browser), int(child), switch, profile
    reaper.kill_tree(int(browser))
    reaper.kill_tree(owner.pid)
    owner.wait(5)
    owner.stdout.close()
    if profile.exists():
        profile.rmdir()


def test_a_browser_with_a_living_owner_is_left_alone(
    owned: tuple[subprocess.Popen[str], int, int, str, Path],
) -> None:
    owner, browser, child, switch, profile = owned
    (marked,) = reaper.find_marked(switch)
    assert (marked.pid, marked.owner_pid, marked.profile) == (browser, owner.pid, str(profile))
    assert browser not in reaper.sweep()
    assert alive(browser)
    assert alive(child)


def test_an_orphan_dies_with_its_children_even_when_stopped(
    owned: tuple[subprocess.Popen[str], int, int, str, Path],
) -> None:
    owner, browser, child, switch, profile = owned
    os.kill(browser, signal.SIGSTOP)
    owner.kill()
    owner.wait(5)
    assert alive(browser)
    assert set(reaper.sweep()) >= {browser, child}
    wait_until_dead(browser, child)
    assert reaper.find_marked(switch) == []
    assert not profile.exists()


def test_a_pid_given_to_someone_else_does_not_count_as_the_owner() -> None:
    """The mark of a process that had this pid before: the start time tells them apart."""
    mark = f"{reaper.SWITCH}{os.getpid()}:1:feed"
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)", mark]
    orphan = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert orphan.stdout is not None
    try:
        assert orphan.stdout.readline() == "up\n"
        assert orphan.pid in reaper.sweep()
        assert orphan.wait(5) == -signal.SIGKILL
    finally:
        orphan.kill()
        orphan.stdout.close()


def test_every_launch_has_a_mark_of_its_own() -> None:
    first, second = reaper.owner_switch(), reaper.owner_switch()
    assert first != second
    assert first.startswith(f"{reaper.SWITCH}{os.getpid()}:")
    assert reaper.find_marked(first) == []
