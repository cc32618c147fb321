"""The real ``dpo-driver dashboard`` in a process of its own, and small runs for it to show. For tests; no results."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from dpo_driver.core.actions import Click
from dpo_driver.core.records import (
    Element,
    Generation,
    Observation,
    Step,
    StopReason,
    Task,
    Timing,
    Trajectory,
    Usage,
)

START_S = 90.0
PAGE = (
    Element(ref=None, role="heading", name="Sign in", box=(10, 10, 120, 16)),
    Element(ref="1", role="textbox", name="User", value="bob", box=(10, 40, 120, 20)),
    Element(ref="2", role="textbox", name="Password", value="hunter2", secret=True, box=(10, 70, 120, 20)),
    Element(ref="3", role="button", name="Log in", box=(10, 100, 60, 22)),
)


@dataclass
class Dashboard:
    """A running ``dpo-driver dashboard``: ``address``, one-time ``link``."""

    process: subprocess.Popen[str]
    address: str
    link: str

    def client(self) -> httpx.Client:
        """A signed-in client; the link is used up."""
        client = httpx.Client(base_url=self.address, timeout=60)
        assert client.get(self.link).status_code == 200
        return client


@contextmanager
def serving(folder: Path, *arguments: str, **environment: str) -> Iterator[Dashboard]:
    """``dpo-driver dashboard ... --json --no-open`` in a folder, stopped as by Ctrl-C at the end."""
    command = [sys.executable, "-m", "dpo_driver", "dashboard", *arguments, "--no-open", "--json"]
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
        yield Dashboard(process, told["address"], told["link"])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


def episode(
    stage: str,
    task: str,
    seed: int,
    *,
    success: bool | None = True,
    stop: StopReason | None = None,
    tokens: Sequence[tuple[int, int]] = ((0, 0),),
    usage: Usage | None = None,
    screenshot: str | None = None,
) -> Trajectory:
    """An episode with one step for each (tokens read, tokens written), half a second of model and a quarter of browser
    each; ``usage`` in place of the first step's tokens. None for success is a dead browser."""
    stop = stop or {True: StopReason.SUCCESS, False: StopReason.WRONG, None: StopReason.BROWSER_LOST}[success]
    page = Observation(goal=f"Log in, {seed}", url="http://127.0.0.1/login", title="login", elements=PAGE,
                       state_hash="0" * 16, screenshot=screenshot)  # fmt: skip
    steps = tuple(
        Step(
            observation=page,
            generation=Generation(text="x", prompt_tokens=read, token_ids=tuple(range(written)),
                                  logprobs=(0.0,) * written, usage=usage if index == 0 else None),
            completion='thought: button Log in\naction: click("3")',
            thought="button Log in",
            action=Click(ref="3"),
            timing=Timing(policy=0.5, browser=0.25),
        )
        for index, (read, written) in enumerate(tokens)
    )  # fmt: skip
    return Trajectory(
        id=f"{stage}/toy.{task}/{seed}/0",
        task=Task(id=f"toy.{task}/{seed}", env="toy", name=task, seed=seed, goal=page.goal),
        agent="sft",
        steps=steps,
        stop_reason=stop,
        reward=None if success is None else float(success),
        success=success,
        failure="browser_lost: it is gone" if success is None else None,
        seconds=2.0,
    )
