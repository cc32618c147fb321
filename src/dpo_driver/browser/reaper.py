"""No browser outlives its owner: every one we start carries a mark on its command line, and orphans are swept.

The mark is ``--dpo-driver-owner=PID:STARTTIME:NONCE``: the process that started it, that process's start time (a pid
alone may have been given to someone else since), and a word of its own for each launch. When a parent and its driver
are killed with -9 while the browser is stopped, nobody else ends the browser. Temporary files of driver and browser lie
in one folder whose name says the same. Two things clean up: browser/watchdog.py, a small process beside the owner,
within moments; and :func:`sweep` at the next launch, whatever the watchdog could not. Called by browser/browser.py and
by the watchdog, which runs this file by itself: standard library only. Reads /proc, so it does something on Linux only;
elsewhere it finds nothing and kills nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

SWITCH = "--dpo-driver-owner="
FOLDER = "dpo-driver-"  # and then PID-STARTTIME-NAMESPACE-
_PROFILE = "--user-data-dir="
_PROC = Path("/proc")
_FOLDER_NAME = re.compile(rf"{FOLDER}(?P<pid>\d+)-(?P<started>\d+)-(?P<space>[0-9a-f]+)-\w+")


@dataclass(frozen=True)
class Marked:
    """A process that carries our mark: the browser itself or the shell script that started it."""

    pid: int
    owner_pid: int
    owner_started: int
    nonce: str
    profile: str | None  # its temporary user data folder


def owner_switch() -> str:
    """A fresh mark for one launch by this process."""
    pid = os.getpid()
    return f"{SWITCH}{pid}:{started(pid) or 0}:{secrets.token_hex(8)}"


def find_marked(switch: str | None = None) -> list[Marked]:
    """Live processes of this user that carry our mark; only those of one launch if ``switch`` is given."""
    found = []
    for pid in pids():
        arguments = arguments_of(pid)
        mark = next((word for word in arguments if word.startswith(SWITCH)), None)
        if mark is None or (switch is not None and mark != switch):
            continue
        owner, _, rest = mark.removeprefix(SWITCH).partition(":")
        started, _, nonce = rest.partition(":")
        if owner.isdigit() and started.isdigit():
            profile = next((word.removeprefix(_PROFILE) for word in arguments if word.startswith(_PROFILE)), None)
            found.append(Marked(pid, int(owner), int(started), nonce, profile))
    return found


def sweep() -> list[int]:
    """Kill the browsers of ours whose owner is dead, and remove their temporary files. Returns the pids killed."""
    killed: list[int] = []
    for orphan in find_marked():
        if started(orphan.owner_pid) == orphan.owner_started:
            continue
        killed += kill_tree(orphan.pid)
        if orphan.profile and Path(orphan.profile).parent == Path(tempfile.gettempdir()):
            shutil.rmtree(orphan.profile, ignore_errors=True)
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        name = _FOLDER_NAME.fullmatch(folder.name)
        # Another container may share the folder for temporary files; its processes are not to be seen from here.
        if name and name["space"] == _pid_space() and started(int(name["pid"])) != int(name["started"]):
            shutil.rmtree(folder, ignore_errors=True)
    return killed


def make_folder() -> Path:
    """A fresh folder for the temporary files of this process's driver and browsers, swept once the process is dead."""
    pid = os.getpid()
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER}{pid}-{started(pid) or 0}-{_pid_space()}-"))


def users_of(folder: Path | str) -> list[int]:
    """Processes that were started with this folder for their temporary files: driver and browser, never their owner."""
    found = []
    wanted = f"TMPDIR={folder}".encode()
    for pid in pids():
        try:
            if wanted in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def kill_tree(pid: int) -> list[int]:
    """SIGKILL a process, its descendants, and its process group when it leads one. Returns the pids signalled."""
    children: dict[int, list[int]] = {}
    for other in pids():
        children.setdefault(parent_of(other), []).append(other)
    tree, queue = [], [pid]
    while queue:
        current = queue.pop()
        tree.append(current)
        queue += children.get(current, [])
    try:
        if os.getpgid(pid) == pid != os.getpgid(0):
            os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it ended meanwhile
    for member in tree:
        try:
            os.kill(member, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    return tree


def _pid_space() -> str:
    """Which process numbers we see: the kernel's name for it in hex, "0" where there is none."""
    try:
        return f"{(_PROC / 'self' / 'ns' / 'pid').stat().st_ino:x}"
    except OSError:
        return "0"


def pids() -> list[int]:
    """All process ids there are to see."""
    try:
        return [int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdigit()]
    except OSError:
        return []


def arguments_of(pid: int) -> list[str]:
    """Command line of a process of this user; empty for others, zombies and kernel threads."""
    try:
        if (_PROC / str(pid)).stat().st_uid != os.getuid():
            return []
        return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def stat_of(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the command's name, from field 3 (state) on; empty if there is no such process."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def parent_of(pid: int) -> int:
    fields = stat_of(pid)
    return int(fields[1]) if fields else 0


def started(pid: int) -> int | None:
    """Start time in clock ticks after boot; None for a process that is gone or a zombie."""
    fields = stat_of(pid)
    return int(fields[19]) if fields and fields[0] not in {"Z", "X"} else None
