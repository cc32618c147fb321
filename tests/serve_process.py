"""A real `dpo-driver serve` in a process of its own, for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from openai import OpenAI

START_S, WAIT_S = 100.0, 60.0
TOKEN = "a-token-for-tests"


@dataclass
class ServeProcess:
    """``with serving(root, "--model", "base=pocket") as server: server.client().models.list()``."""

    process: subprocess.Popen[str]
    base_url: str
    lines: list[str] = field(default_factory=list)  # of its log

    def client(self, **more: object) -> OpenAI:
        values = {"base_url": self.base_url, "api_key": TOKEN, "max_retries": 0, "timeout": WAIT_S, **more}
        return OpenAI(**values)  # type: ignore[arg-type]

    def http(self, token: str = TOKEN) -> httpx.Client:
        return httpx.Client(base_url=self.base_url.removesuffix("/v1"), timeout=WAIT_S,
                            headers={"Authorization": f"Bearer {token}"})  # fmt: skip

    def until(self, seen: Callable[[], bool], what: str) -> None:
        """Wait for something that the server does by itself."""
        deadline = time.monotonic() + WAIT_S
        while not seen():
            assert time.monotonic() < deadline, f"{what}\n" + "\n".join(self.lines[-20:])
            time.sleep(0.05)

    def logged(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(root: Path, *arguments: str, token: str = TOKEN) -> Iterator[ServeProcess]:
    command = [sys.executable, "-m", "dpo_driver", "serve", *arguments, "--root", str(root), "--port", "0",
               "--device", "cpu", "--json"]  # fmt: skip
    env = {**os.environ, "DPO_DRIVER_SERVE_TOKEN": token, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None and process.stderr is not None
    server = ServeProcess(process, "")
    errors = process.stderr

    def listen() -> None:
        for line in errors:
            server.lines.append(line.rstrip())

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    clock = threading.Timer(START_S, process.kill)
    clock.start()
    try:
        first = process.stdout.readline()
        clock.cancel()
        assert first, "\n".join(server.lines)
        server.base_url = json.loads(first)["base_url"]
        yield server
    finally:
        clock.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        listener.join(5)
        process.stdout.close()
        process.stderr.close()
