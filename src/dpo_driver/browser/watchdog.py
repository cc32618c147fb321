"""A small process beside every process that runs browsers: what they leave behind does not outlive them by much.

It waits for its owner to end, however that comes about, then kills the owner's browsers and their driver, stopped ones
too, and removes their temporary files. Meanwhile it ends pages that eat the memory, which no switch of Chromium can
bound, and what is left of a browser whose main process is gone. It touches only what belongs to a launch that it was
told of. Started by browser/browser.py through :class:`Watchdog`, and run as a file of its own, so that it needs neither
our package nor its libraries: standard library and reaper.py only.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

try:
    from dpo_driver.browser import reaper
except ImportError:  # run as a file: without our package on the path
    sys.path.insert(0, str(Path(__file__).parent))
    import reaper  # type: ignore[import-not-found, no-redef]

PAGE_BYTES = 1 << 30  # of memory that one page's process may hold
LOOK_S = 0.2
LOOKS = 5
CLEAN_S = 8.0  # at most, after the owner's end
QUIET_S = 0.5  # nothing of ours for as long: done
DYING_S = 3.0  # a process that is killed closes its files a moment before it counts as dead
FAREWELL = b"end"
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Watchdog:
    """The owner's end: ``dog = Watchdog()``, ``dog.tell(switch)`` at every launch, ``dog.close()``.

    ``folder`` is for the temporary files of driver and browsers; None where there is no /proc to watch by.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if not Path("/proc/self/stat").exists():
            return
        self.folder = reaper.make_folder()
        pid = os.getpid()
        command = [sys.executable, "-I", "-S", __file__, str(pid), str(reaper.started(pid)), str(self.folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
            start_new_session=True,
        )  # fmt: skip

    @contextlib.contextmanager
    def temporary_files(self) -> Iterator[None]:
        """What is started meanwhile keeps its temporary files in our folder: the driver knows no other way."""
        before = os.environ.get("TMPDIR")
        if self.folder is not None:
            os.environ["TMPDIR"] = str(self.folder)
        try:
            yield
        finally:
            if before is not None:
                os.environ["TMPDIR"] = before
            elif self.folder is not None:
                os.environ.pop("TMPDIR", None)

    def tell(self, switch: str) -> None:
        """A browser with this mark is about to be started."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it was killed: the next sweep does its work
                self._process.stdin.write(f"{switch}\n".encode())
                self._process.stdin.flush()

    def close(self) -> None:
        """The browsers have ended; so does the watchdog, which looks whether that is true."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.write(FAREWELL + b"\n")
                process.stdin.close()
            try:
                process.wait(CLEAN_S + 1)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class _Watch:
    """The other end, in the process of its own."""

    def __init__(self, owner: int, owner_started: int, folder: str) -> None:
        self._owner, self._owner_started, self._folder = owner, owner_started, folder
        self._switches: set[str] = set()
        self._sessions: set[int] = set()  # of our browsers
        self._others: Counter[int] = Counter()  # how often a process was seen not to be ours

    def run(self) -> None:
        """Watch until the owner ends or closes its end of standard input, then clean up."""
        waiting = select.poll()
        waiting.register(0, select.POLLIN)
        with contextlib.suppress(OSError, AttributeError):  # an old kernel: standard input tells as well
            waiting.register(os.pidfd_open(self._owner), select.POLLIN)
        heard = b""
        while True:
            ready = {descriptor for descriptor, _ in waiting.poll(LOOK_S * 1000)}
            if 0 in ready:
                chunk = os.read(0, 65_536)
                *lines, heard = (heard + chunk).split(b"\n")
                self._switches.update(line.decode() for line in lines)
                if not chunk:
                    self._wait_for_the_end()
                    break
            if ready - {0} or reaper.started(self._owner) != self._owner_started:
                break
            self._look()
        self._clean()

    def _wait_for_the_end(self) -> None:
        """Standard input is closed: by an owner that said farewell, or by one that is just dying."""
        until = time.monotonic() + DYING_S
        while FAREWELL.decode() not in self._switches and time.monotonic() < until:
            if reaper.started(self._owner) != self._owner_started:
                return
            time.sleep(0.01)

    def _look(self) -> None:
        """End the pages that hold too much memory, and the rest of browsers whose main process is gone."""
        if not self._switches:
            return
        alive: dict[int, list[int]] = {}
        for pid, session in self._members():
            alive.setdefault(session, []).append(pid)
            if _held(pid) > PAGE_BYTES and b"--type=renderer" in _command(pid):
                _kill(pid)
        for members in alive.values():
            if not any(_marked(_command(pid), self._switches) for pid in members):
                for pid in members:
                    _kill(pid)
        self._sessions &= alive.keys()  # the number of a session that has ended may be given to another one

    def _members(self) -> list[tuple[int, int]]:
        """(process, session) of every living process of our browsers. A browser leads a session of its own; its
        children are known by that even when it is dead."""
        present = reaper.pids()
        for gone in self._others.keys() - set(present):
            del self._others[gone]
        found = []
        for pid in present:
            # A look costs a moment, and a process does not turn into a browser later than just after its start.
            if self._others[pid] >= LOOKS:
                continue
            fields = reaper.stat_of(pid)
            if not fields or fields[0] in {"Z", "X"}:
                continue
            session = int(fields[3])
            if session == pid and session not in self._sessions and _marked(_command(pid), self._switches):
                self._sessions.add(session)
            if session in self._sessions:
                found.append((pid, session))
            else:
                self._others[pid] += 1
        return found

    def _clean(self) -> None:
        """Kill what is left of our browsers and, once the owner is dead, their driver, until all is quiet."""
        until = time.monotonic() + CLEAN_S
        quiet_since = time.monotonic()
        while time.monotonic() < until:
            dead = reaper.started(self._owner) != self._owner_started
            self._others.clear()
            victims = {pid for pid, _ in self._members()}
            victims.update(pid for pid in reaper.pids() if _marked(_command(pid), self._switches))
            if dead:
                victims.update(reaper.users_of(self._folder))
            victims -= {os.getpid(), self._owner}
            for pid in victims:
                _kill(pid)
            if victims:
                quiet_since = time.monotonic()
            # An orderly end leaves nothing; after a crash the driver may be about to start another process.
            if time.monotonic() - quiet_since > (QUIET_S if dead else 0.0):
                break
            time.sleep(0.02)
        shutil.rmtree(self._folder, ignore_errors=True)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _marked(command: bytes, switches: set[str]) -> bool:
    return any(word.decode(errors="replace") in switches for word in command.split(b"\0") if word.startswith(b"--dpo"))


def _held(pid: int) -> int:
    """Bytes of memory that a process holds for itself alone."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE_SIZE


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    for polite in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, signal.SIG_IGN)  # it ends when its owner has
    _Watch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).run()
