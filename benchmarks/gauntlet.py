"""What a run of the gauntlet costs: ``python benchmarks/gauntlet.py --seeds 4 --jobs 2`` prints one JSON object.

Whole runs with the deterministic solver, as ``dpo-driver solve`` plays them. Beside the clock it counts processor
seconds of the process tree by what they were spent on (our process, the server, Playwright's driver, the browser): on a
machine that does other things as well they say how many runs an hour a core can make.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from typing import Any

import psutil

from dpo_driver.agents.solver.agent import SolverAgent
from dpo_driver.core.records import Trajectory
from dpo_driver.envs.gauntlet.environment import GauntletEnvironment
from dpo_driver.envs.gauntlet.tasks import make_task, types_of
from dpo_driver.rollout.solve import BoundedAgent, Caps, Run, metrics, solve_runs

FIRST_SEED = 910_000


def kind_of(process: psutil.Process) -> str:
    """What a process of the tree is for."""
    command = " ".join(process.cmdline())
    if process.pid == psutil.Process().pid:
        return "own"
    if "dpo_driver.envs.gauntlet" in command:
        return "server"
    return "driver" if "playwright" in command and "--type=" not in command and "chrom" not in command else "browser"


def spent() -> Counter[str]:
    """Processor seconds until now by kind, those of processes that have ended with their parents'."""
    seconds: Counter[str] = Counter()
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
            seconds[kind_of(process)] += times.user + times.system
            if process.pid != me.pid:
                seconds[kind_of(process)] += times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
    return seconds


async def measure(family: str, seeds: int, jobs: int) -> dict[str, Any]:
    """Play the runs; figures of the whole."""
    runs: list[Trajectory] = []
    agent = BoundedAgent(SolverAgent("chat"), Caps(seconds=600))
    async with GauntletEnvironment.source() as make:
        before, began = spent(), time.monotonic()
        await solve_runs(
            [make_task(family, FIRST_SEED + i, "test") for i in range(seeds)],
            agent, environments=make, on_run=runs.append, jobs=jobs,
        )  # fmt: skip
        wall, after = time.monotonic() - began, spent()
    summary = metrics([Run.of(run, types_of(run.task)) for run in runs], wall)["summary"]
    used = {kind: round((after[kind] - before[kind]) / seeds, 2) for kind in sorted(after)}
    steps = [step for run in runs for step in run.steps]
    return {
        "family": family,
        "jobs": jobs,
        "summary": summary,
        "cpu_seconds_per_run": used | {"all": round(sum(used.values()), 2)},
        "wall_seconds_per_run": round(wall / seeds, 2),
        "agent_ms_per_action": round(1000 * sum(step.timing.policy for step in steps) / len(steps), 2),
        "page_ms_per_action": round(1000 * sum(step.timing.browser for step in steps) / len(steps), 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", default="run", help="run, run-5, run-d3-b, ...")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(measure(given.family, given.seeds, given.jobs)), indent=2))
