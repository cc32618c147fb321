"""How long the dashboard takes to answer, over a run of many episodes. Prints one JSON object.

    .venv/bin/python benchmarks/dashboard.py --episodes 10000

Makes a run with that many made-up episodes and logged steps, starts ``dpo-driver dashboard`` as its own process,
signs in, and asks for each list again and again over one connection; the first answer of each is told apart, as it
opens files and fills caches. Times are a client's, with the network of this machine in them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from dpo_driver.core.records import Element, Observation, Step, StopReason, Task, Trajectory
from dpo_driver.core.store import RunStore

TASKS = 20


def episodes(count: int) -> list[Trajectory]:
    """Made-up episodes of a few families, seven in ten solved."""
    elements = tuple(
        Element(ref=str(n), role="button", name=f"Button {n}", box=(10, 20 * n, 80, 18)) for n in range(1, 16)
    )
    page = Observation(goal="Press it", url="http://127.0.0.1/x", title="x", elements=elements, state_hash="0" * 16)
    steps = (Step(observation=page, completion='action: click("3")'),) * 3
    found = []
    for number in range(count):
        family, won = f"family-{number % TASKS:02}", number % 10 < 7
        task = Task(id=f"made.{family}/{number}", env="made", name=family, seed=number)
        found.append(
            Trajectory(
                id=f"collect/1/{task.id}/0", task=task, agent="sft", steps=steps, reward=float(won), success=won,
                stop_reason=StopReason.SUCCESS if won else StopReason.WRONG,
            )
        )  # fmt: skip
    return found


def measured(client: httpx.Client, path: str, times: int) -> dict[str, float]:
    """Milliseconds of one question: the first time, then median and 95th percentile."""
    spent = []
    for _ in range(times + 1):
        began = time.perf_counter()
        client.get(path).raise_for_status()
        spent.append(1000 * (time.perf_counter() - began))
    rest = sorted(spent[1:])
    return {"first_ms": round(spent[0], 1), "median_ms": round(statistics.median(rest), 1),
            "p95_ms": round(rest[int(0.95 * len(rest))], 1)}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with RunStore(Path(folder) / "big") as store:
            store.begin_stage("collect/1")
            store.add_trajectories("collect/1", episodes(asked.episodes))
            for step in range(1, asked.steps + 1):
                store.log_metric("dpo/1", step, {"loss": 1 / step, "rewards/margins": step / asked.steps})
        command = [sys.executable, "-m", "dpo_driver", "dashboard", folder, "--no-open", "--json"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            told = json.loads(server.stdout.readline())
            with httpx.Client(base_url=told["address"], timeout=60) as client:
                client.get(told["link"]).raise_for_status()
                key = json.dumps(["collect/1", f"family-{TASKS - 1:02}", 0, ""])
                paths = {
                    "overview": "overview", "newest": "live?run=big", "curves": "curves?run=big",
                    "episodes, first page": "episodes?run=big", "episodes, last pages": f"episodes?run=big&after={key}",
                    "episodes, misses": "episodes?run=big&outcome=miss",
                    "episodes, found by text": "episodes?run=big&text=/1234/",
                    "episodes, nothing found": "episodes?run=big&text=nowhere",
                    "one episode": "episode?run=big&id=collect/1/made.family-14/1234/0",
                    "failures": "failures?run=big",
                }  # fmt: skip
                lists = {name: measured(client, f"/api/{path}", asked.times) for name, path in paths.items()}
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "load": round(os.getloadavg()[0], 1)}
    print(json.dumps({"episodes": asked.episodes, "times": asked.times, **machine, "lists": lists}, indent=1))


if __name__ == "__main__":
    main()
