"""The real ``dpo-driver label`` in a process of its own, and a client of it without a browser. For tests."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from dpo_driver.preferences.log import Entry, PreferenceLog

START_S = 40.0


@dataclass
class LabelServer:
    """A running ``dpo-driver label``: ``address``, one-time ``links`` by rater, the ``log``."""

    process: subprocess.Popen[str]
    address: str
    links: dict[str, str]
    log: Path

    def labels(self) -> list[Entry]:
        """Labels in the log that were not taken back, read from outside."""
        with PreferenceLog(self.log, mode="read") as log:
            return log.standing("label")

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self.process.kill()
        self.process.wait(10)


Serve = Callable[..., AbstractContextManager[LabelServer]]


@contextmanager
def serving(folder: Path, *arguments: str, **environment: str) -> Iterator[LabelServer]:
    """``dpo-driver label ... --json --no-open`` in a folder, stopped as by Ctrl-C at the end."""
    command = [sys.executable, "-m", "dpo_driver", "label", *arguments, "--no-open", "--json"]
    env = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", **environment}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if ready else ""
        assert line, f"the server did not start: {process.stderr.read() if process.poll() is not None else ''}"
        told = json.loads(line)
        yield LabelServer(process, told["address"], told["links"], folder / told["log"])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


class Caller:
    """A signed-in client without a browser: ``Caller(server, "ann").answer("a")``."""

    def __init__(self, server: LabelServer, rater: str) -> None:
        self.client = httpx.Client(base_url=server.address, headers={"Origin": server.address}, timeout=20)
        assert self.client.get(server.links[rater]).status_code == 200
        found = re.search(r'name="csrf" value="([^"]+)"', self.client.get("/results").text)
        assert found
        self.client.headers["X-CSRF-Token"] = self.csrf = found[1]
        self.number = 0

    def next(self) -> dict[str, Any]:
        """What is to be compared next."""
        return dict(self.client.get("/api/next").json())

    def answer(self, verdict: str, showing: str | None = None, submission: str | None = None) -> dict[str, Any]:
        """Answer a comparison, the next one by default; the receipt."""
        self.number += 1
        body = {
            "showing": showing or self.next()["showing"], "verdict": verdict, "seconds": 1.5,
            "submission": submission or f"{time.time_ns():x}-{self.number:04}",
        }  # fmt: skip
        answer = self.client.post("/api/labels", json=body)
        return {"status": answer.status_code, **answer.json()}
