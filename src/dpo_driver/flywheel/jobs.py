"""Work that goes on by itself: who does what, how far it is, what came of it. One job per role at a time.

    jobs = Jobs("runs")
    job = jobs.add("support", "dpo", {"data": "rows.jsonl"})
    with jobs.running(job.id) as work:
        work.phase("train", 0.5)
        work.end("done", result={...})

A job is a folder, ``<root>/jobs/<id>/``, with ``job.json`` (whole or absent) and ``log.txt``. Whoever works on it holds
a lock on the folder that the kernel drops with the process: a job whose worker was killed is seen to be waiting again,
and the same command takes it up. Called by learn/ and the command line; must not import torch, agents or environments.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from pydantic import ValidationError

from dpo_driver.core.errors import DataError, DriverError, StoreError
from dpo_driver.core.records import Job

FOLDER, RECORD, LOG, LOCK, CANCEL = "jobs", "job.json", "log.txt", "lock", "cancel"
ENDED = ("done", "refused", "failed", "cancelled")
WAIT_S = 24 * 3600.0  # for the role's other job
POLL_S = 0.5
LOOKED_AT_S = 3.0  # how long a job that only seems to be worked on is tried again
Ending = Literal["done", "refused", "failed", "cancelled"]


class Cancelled(DriverError):
    """Somebody cancelled the job."""


class Jobs:
    """The jobs below one folder of runs.

    Args:
        root: that folder; made when it is needed.

    Raises:
        StoreError: it cannot be read or written, here and in every call.
    """

    def __init__(self, root: str | Path = "runs") -> None:
        self.root = Path(root)
        self.folder = self.root / FOLDER

    def add(self, role: str, kind: str, request: Mapping[str, Any] | None = None) -> Job:
        """A new job, waiting."""
        at = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(at))
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", role or "browser").strip("-")
        number = 0
        while True:
            name = f"{stamp}-{plain}-{kind}" + (f"-{number}" if number else "")
            try:
                (self.folder / name).mkdir(parents=True)
                break
            except FileExistsError:
                number += 1
            except OSError as error:
                raise StoreError(f"no job can be kept: {error}", where=str(self.folder)) from error
        job = Job(id=name, role=role, kind=kind, created=at, request=dict(request or {}))
        self._write(job)
        return job

    def list(self) -> list[Job]:
        """All jobs, the newest first."""
        if not self.folder.is_dir():
            return []
        names = [each.name for each in self.folder.iterdir() if (each / RECORD).is_file()]
        return sorted((self.get(name) for name in names), key=lambda job: (job.created, job.id), reverse=True)

    def get(self, name: str) -> Job:
        """One job. One that nobody works on any more is waiting.

        Raises:
            DataError: there is none of this name.
        """
        try:
            job = Job.model_validate_json((self._of(name) / RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = [job.id for job in self.list()[:5]]
            raise DataError(f"there is no job {name!r}", where=str(self.folder),
                            remedy=f"the last ones: {', '.join(known) or 'none yet'}") from None  # fmt: skip
        except (OSError, ValidationError) as error:
            raise StoreError(f"the job cannot be read: {error}", where=str(self._of(name))) from error
        if job.state == "running" and not self._held(name):
            again = "its worker is gone; the same command goes on from there"
            return job.model_copy(update={"state": "queued", "message": again, "pid": None})
        return job

    def log(self, name: str, after: int = 0) -> tuple[str, int]:
        """What its log says from a byte on, and the byte after it."""
        self.get(name)
        try:
            with (self._of(name) / LOG).open("rb") as file:
                file.seek(after)
                content = file.read()
        except FileNotFoundError:
            return "", after
        return content.decode("utf-8", "replace"), after + len(content)

    def waiting(self, role: str, kind: str, request: Mapping[str, Any]) -> Job | None:
        """The job that was asked for in these words and has not ended."""
        for job in self.list():
            if job.state not in ENDED and (job.role, job.kind, job.request) == (role, kind, dict(request)):
                return job
        return None

    def last(self, role: str) -> Job | None:
        """The newest of a role that came to an end by itself."""
        return next((j for j in self.list() if role in j.role.split(",") and j.state in ("done", "refused")), None)

    def seen(self, role: str) -> int:
        """The number of the last row of the inbox that any job of a role has used up."""
        ended = [job for job in self.list() if role in job.role.split(",") and job.state in ENDED]
        return max((int(job.result.get("seen", {}).get(role, 0)) for job in ended), default=0)

    def cancel(self, name: str) -> Job:
        """End a job: at once where it waits; where it runs its worker is told, and stops at the next safe point."""
        job = self.get(name)
        if job.state in ENDED:
            raise DataError(f"the job is {job.state} already", where=name)
        (self._of(name) / CANCEL).touch()
        if job.state == "running":
            # The number in the record may be another process's by now; whoever holds the lock has the file open.
            if job.pid is not None and _has_open(job.pid, self._of(name) / LOCK):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(job.pid, signal.SIGTERM)
        else:
            job = job.model_copy(update={"state": "cancelled", "ended": time.time(), "message": "cancelled"})
            self._write(job)
        return job

    @contextlib.contextmanager
    def running(self, name: str, wait_s: float = WAIT_S) -> Iterator[Work]:
        """Work on a job. Its roles have no other job meanwhile; SIGTERM stops it as Ctrl-C does.

        Args:
            name: of the job.
            wait_s: how long to wait for another job of the role.

        Raises:
            StoreError: somebody works on it already, or the role's other job takes too long.
            Cancelled: it was cancelled, before or meanwhile.
            KeyboardInterrupt: it was stopped; the job waits.
        """
        with contextlib.ExitStack() as stack:
            job = self.get(name)
            until = time.monotonic() + LOOKED_AT_S
            while not stack.enter_context(_locked(self._of(name) / LOCK)):
                if time.monotonic() < until:  # somebody may just be looking
                    time.sleep(POLL_S / 10)
                    continue
                raise StoreError("somebody works on this job already", where=str(self._of(name)),
                                 remedy=f"see dpo-driver jobs show {name}")  # fmt: skip
            for role in sorted(job.role.split(",")):  # in one order everywhere: nobody waits in a circle
                self._wait_for(stack, job, role, time.monotonic() + wait_s)
            if job.state in ENDED or self.is_cancelled(name):
                raise self._cancelled(name)
            work = Work(self, job.model_copy(update={"started": job.started or time.time(), "ended": None}))
            stack.enter_context(_stoppable())
            try:
                work.change(state="running", pid=os.getpid(), message="", error="")
                yield work
            except KeyboardInterrupt:
                if not self.is_cancelled(name):
                    work.change(state="queued", pid=None, message="stopped; the same command goes on from there")
                    raise
                work.end("cancelled", message="cancelled")
                raise self._cancelled(name) from None
            except Exception as error:
                if work.job.state not in ENDED:
                    kind = "" if isinstance(error, DriverError) else f"{type(error).__name__}: "
                    work.end("failed", error=f"{kind}{error}")
                raise

    def _cancelled(self, name: str) -> Cancelled:
        return Cancelled("the job was cancelled", where=name, remedy="the same command begins another")

    def is_cancelled(self, name: str) -> bool:
        """Whether somebody cancelled it."""
        return (self._of(name) / CANCEL).exists()

    def log_file(self, name: str) -> Path:
        """Where its log is written."""
        return self._of(name) / LOG

    def _wait_for(self, stack: contextlib.ExitStack, job: Job, role: str, until: float) -> None:
        path = self.folder / f".{re.sub(r'[^A-Za-z0-9._-]+', '-', role) or 'browser'}.lock"
        while not stack.enter_context(_locked(path)):
            if self.is_cancelled(job.id):
                raise self._cancelled(job.id)
            if time.monotonic() > until:
                raise StoreError(f"another job of the role {role or 'browser'!r} is at work", where=str(self.folder),
                                 remedy="wait for it, or cancel it: dpo-driver jobs list")  # fmt: skip
            time.sleep(POLL_S)

    def _held(self, name: str) -> bool:
        with _locked(self._of(name) / LOCK, shared=True) as mine:
            return not mine

    def _of(self, name: str) -> Path:
        if "/" in name or name.startswith("."):
            raise DataError(f"{name!r} is no name of a job", where=str(self.folder), remedy="see dpo-driver jobs list")
        return self.folder / name

    def _write(self, job: Job) -> None:
        path = self._of(job.id) / RECORD
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(job.model_dump_json(indent=1))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise StoreError(f"the job cannot be written: {error}", where=str(path)) from error


class Work:
    """A job in the hands of its worker; every change is on disk when the call returns."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self._jobs, self.job = jobs, job

    def change(self, **values: Any) -> None:
        """New values of the record's fields."""
        self.job = self.job.model_copy(update=values)
        self._jobs._write(self.job)

    def phase(self, name: str, progress: float) -> None:
        """What is being done now, and how much of the whole is done.

        Raises:
            KeyboardInterrupt: the job was cancelled.
        """
        if self._jobs.is_cancelled(self.job.id):
            raise KeyboardInterrupt
        self.change(phase=name, progress=progress)
        self.say(name)

    def say(self, text: str) -> None:
        """A line of the log."""
        with self._jobs.log_file(self.job.id).open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} {text}\n")

    def end(self, state: Ending, **values: Any) -> None:
        """The end of it."""
        progress = {"progress": 1.0} if state in ("done", "refused") else {}
        self.change(state=state, ended=time.time(), pid=None, **progress, **values)
        self.say(": ".join(filter(None, (state, str(values.get("error") or values.get("message") or "")))))


@contextlib.contextmanager
def _locked(path: Path, *, shared: bool = False) -> Iterator[bool]:
    """Whether the file's lock is ours, until the block ends; those who only look share it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    try:
        return any(os.path.samefile(file, path) for file in Path(f"/proc/{pid}/fd").iterdir() if file.exists())
    except OSError:  # it is gone, or somebody else's
        return False


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM is Ctrl-C for as long as this lasts; signals reach main threads only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def states(jobs: Sequence[Job]) -> dict[str, int]:
    """How many jobs there are in each state."""
    found: dict[str, int] = {}
    for job in jobs:
        found[job.state] = found.get(job.state, 0) + 1
    return found
