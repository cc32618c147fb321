"""How many real episodes a second this machine makes. Called by ``dpo-driver bench env`` and benchmarks/env.py.

Nothing is cut short: the oracle reads each observation and acts through trusted input, and every episode is the same
``run_episode`` that training uses. Browser start and the first page load are left out of the time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from dpo_driver.core.plugins import load
from dpo_driver.core.protocols import Agent, Environment
from dpo_driver.core.records import StopReason
from dpo_driver.rollout.episode import run_episode

WARM_UP_EPISODES = 3
SEEDS_PER_WORKER = 1_000_000


@dataclass
class _Tally:
    episodes: int = 0
    correct: int = 0
    steps: int = 0
    stops: Counter[str] = field(default_factory=Counter)


def bench_env(task: str = "click-button", seconds: float = 15.0, workers: int = 4) -> dict[str, Any]:
    """Run the oracle on one task family for a while.

    Args:
        task: a family that the oracle knows.
        seconds: how long to measure.
        workers: concurrent contexts in one browser.

    Returns:
        ``episodes_per_second``, ``steps_per_second``, ``correct`` and ``total`` episodes, ``stop_reasons``, ``seconds``
        measured, ``workers`` and ``task``.

    Raises:
        UnknownNameError: no such family.
        BrowserMissingError: no Chromium.
    """
    load("make_task", "miniwob")(task, 0)
    return asyncio.run(_bench(task, seconds, max(1, workers)))


async def _bench(task: str, seconds: float, workers: int) -> dict[str, Any]:
    agent: Agent = load("agent", "oracle")()
    tally, warm_up = _Tally(), _Tally()
    async with load("environments", "miniwob")() as make:
        environments: list[Environment] = [await make() for _ in range(workers)]

        async def work(worker: int, counts: _Tally, until: float, at_most: int) -> None:
            first = worker * SEEDS_PER_WORKER + (WARM_UP_EPISODES if counts is tally else 0)
            for seed in range(first, first + at_most):
                if time.monotonic() >= until:
                    return
                await _episode(environments[worker], agent, task, seed, counts)

        never = float("inf")
        await asyncio.gather(*(work(worker, warm_up, never, WARM_UP_EPISODES) for worker in range(workers)))
        began = time.monotonic()
        await asyncio.gather(*(work(worker, tally, began + seconds, SEEDS_PER_WORKER) for worker in range(workers)))
        measured = time.monotonic() - began
        for environment in environments:
            await environment.close()
    return {
        "task": task,
        "workers": workers,
        "episodes_per_second": round(tally.episodes / measured, 2),
        "steps_per_second": round(tally.steps / measured, 2),
        "correct": tally.correct,
        "total": tally.episodes,
        "stop_reasons": dict(tally.stops),
        "seconds": round(measured, 2),
    }


async def _episode(environment: Environment, agent: Agent, task: str, seed: int, counts: _Tally) -> None:
    trajectory = await run_episode(environment, agent, load("make_task", "miniwob")(task, seed, "test"))
    counts.episodes += 1
    counts.steps += len(trajectory.steps)
    counts.correct += trajectory.stop_reason is StopReason.SUCCESS
    counts.stops[trajectory.stop_reason.value] += 1
