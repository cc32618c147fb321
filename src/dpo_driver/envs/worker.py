"""A process of its own that answers requests: one JSON object a line, a deadline for each, killed when it misses one.

For environments whose packages conflict with ours (envs/browsergym.py) and for programs that cannot have ours in their
process (envs/browsergym_tasks.py). Synchronous; an event loop calls it in a thread. Everything that the process starts
carries a mark on its command line where the process passes it on, so that no browser is left behind. Must not import
playwright, browsergym, or anything outside the standard library but the reaper and the errors: it is also used in
environments that have none of our packages.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from dpo_driver.browser import reaper
from dpo_driver.core.errors import RolloutFailure

MARK = "DPO_DRIVER_OWNER_SWITCH"  # the process puts its value on the command line of the browsers it starts
CLOSE_S = 10.0
LAST_WORDS = 5  # lines of standard error that go into a failure's text

Answer = dict[str, Any]


class WorkerProcess:
    """``WorkerProcess([python, script]).call("reset", 60, task="miniwob.click-test", seed=1)``.

    Args:
        command: what to start. It reads requests on standard input and writes answers on standard output.
        environment: variables beside our own.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._mark = reaper.owner_switch()
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {}), MARK: self._mark},
            start_new_session=True,  # Ctrl-C is for us; the process ends when its standard input does
        )
        self._buffer = b""
        self._asked = 0
        self._said: deque[str] = deque(maxlen=LAST_WORDS)
        threading.Thread(target=self._listen, name="worker-errors", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def call(self, operation: str, deadline_s: float, **request: Any) -> Answer:
        """One request and its answer.

        Raises:
            RolloutFailure: BROWSER_LOST when the process is gone, PAGE_HUNG when the deadline passed (both end the
                process), or the failure that the process told of.
            LookupError: the process does not know the task; its arguments are the reason and the known names.
        """
        self._asked += 1
        line = json.dumps({"id": self._asked, "op": operation, **request}) + "\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
            answer = json.loads(self._read_line(operation, time.monotonic() + deadline_s, deadline_s))
        except (OSError, ValueError) as error:
            raise self._lost(f"{type(error).__name__}: {error}") from error
        if answer["ok"]:
            return dict(answer)
        if answer["kind"] == "unknown_task":
            raise LookupError(answer["error"], answer["known"])
        raise RolloutFailure(answer["kind"], answer["error"])

    def close(self) -> None:
        """End the process: it gets a moment to close its browser, then it is killed with all that it started."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(BrokenPipeError):  # it was dead already
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # killed below
            self._process.wait(CLOSE_S)
        self._end()

    def kill(self) -> None:
        """SIGKILL the process and every browser that carries its mark. Safe to call again, and from another thread."""
        if self._process.poll() is None:
            reaper.kill_tree(self._process.pid)
            self._process.wait(CLOSE_S)
        for marked in reaper.find_marked(self._mark):
            reaper.kill_tree(marked.pid)

    def _read_line(self, operation: str, until: float, deadline_s: float) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = until - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self._end()
                    raise RolloutFailure(
                        "page_hung", f"{operation} took longer than {deadline_s:g} s in another process"
                    )
                chunk = os.read(self._process.stdout.fileno(), 1 << 20)
                if not chunk:
                    raise self._lost("it ended")
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _end(self) -> None:
        """Kill, and give back the pipe: only whoever reads from it may close it."""
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _lost(self, why: str) -> RolloutFailure:
        self._end()
        words = "; ".join(self._said)
        return RolloutFailure("browser_lost", f"the process of the environment was lost: {why} {words[-300:]}".strip())

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                if text := line.decode(errors="replace").strip():
                    self._said.append(text)
