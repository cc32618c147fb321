"""Ten thousand episodes in one browser: does anything grow? ``python benchmarks/soak.py`` prints one JSON object.

Workers with an environment each cycle over the oracle's families, in blocks of a few seeds, as long stages do. Measured
on the way: memory of the process tree (ours, driver, browser, watchdog; proportional set size), open files, temporary
files. Pages collect their garbage before each measurement: what matters is what is kept. Exit code 1 if the end holds
more than 1.05 times of what it held after 1,000 episodes, if open files or temporary folders have grown, or if more
than one episode in a thousand was not solved.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import psutil

from dpo_driver.agents.oracle import ORACLES, OracleAgent
from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.records import StopReason, Task
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment, Premises
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.episode import run_episode

BLOCK = 5  # episodes of one family in a row
EVERY = 50  # episodes from one measurement to the next
FIRST_SEED = 2_000_000  # outside of all blocks that are trained or tested on
# The best play loses some of these (docs/environments.md says why), which says nothing about the browser.
NOT_ALWAYS_WON = {
    "circle-center",
    "click-pie-nodelay",
    "email-inbox-forward-nl-turk",
    "email-inbox-nl-turk",
    "find-midpoint",
    "tic-tac-toe",
}
MEMORY_RATIO = 1.05
LOST_SHARE = 0.001
MORE_FILES = 8  # a page that happens to load has a few files open


@dataclass(frozen=True)
class Sample:
    """One measurement. ``memory_mb`` is the sum of the proportional set sizes, so shared pages count once."""

    episodes: int
    seconds: float
    memory_mb: float
    own_mb: float
    browser_mb: float
    open_files: int
    processes: int
    temporary_files: int
    temporary_folders: int


def measure(premises: Premises, episodes: int, began: float) -> Sample:
    """What the process tree holds now."""
    own = psutil.Process()
    memory: Counter[str] = Counter()
    files = processes = 0
    for process in (own, *own.children(recursive=True)):
        try:
            kind = "own" if process.pid == own.pid else "browser" if "chrom" in process.name() else "driver"
            memory[kind] += process.memory_full_info().pss
            files += process.num_fds()
            processes += 1
        except psutil.NoSuchProcess:
            continue  # a page's process that has just ended
    folder = premises.browser.temporary_folder
    below = list(folder.rglob("*")) if folder is not None else []
    held = [round(size / 1e6, 1) for size in (memory.total(), memory["own"], memory["browser"])]
    folders = sum(path.is_dir() for path in below)
    seconds = round(time.monotonic() - began, 1)
    return Sample(episodes, seconds, *held, files, processes, len(below) - folders, folders)


def tasks(families: list[str], episodes: int) -> Iterator[Task]:
    """Blocks of seeds, family after family, over and over."""
    seed = FIRST_SEED
    while True:
        for family in families:
            for number in range(BLOCK):
                yield make_task(family, seed + number, "train")
                episodes -= 1
                if episodes == 0:
                    return
        seed += BLOCK


async def soak(episodes: int, workers: int, families: list[str]) -> tuple[list[Sample], Counter[str], int]:
    """Roll out; the samples, how the episodes ended, and how often the browser was started."""
    agent, left, stops, samples = OracleAgent(), tasks(families, episodes), Counter[str](), list[Sample]()
    began = time.monotonic()
    async with MiniwobEnvironment.source() as premises:
        environments: list[MiniwobEnvironment | None] = [None] * workers

        async def sample() -> None:
            for environment in environments:
                with suppress(RolloutFailure):
                    if environment is not None and environment.session is not None:
                        await environment.session.cdp("HeapProfiler.collectGarbage")
            samples.append(measure(premises, stops.total(), began))
            print(json.dumps(asdict(samples[-1])), file=sys.stderr)

        async def work(number: int) -> None:
            environment = environments[number] = await premises()
            try:
                for task in left:
                    trajectory = await run_episode(environment, agent, task)
                    stops[trajectory.stop_reason.value] += 1
                    if not trajectory.success:
                        print(f"{trajectory.id}: {trajectory.stop_reason.value}", file=sys.stderr)
                    if trajectory.failure is not None:
                        print(f"{trajectory.id}: {trajectory.failure}", file=sys.stderr)
                        await environment.close()
                        environment = environments[number] = await premises()
                    if stops.total() % EVERY == 0:
                        await sample()
            finally:
                await environment.close()

        await asyncio.gather(*(work(number) for number in range(workers)))
        return samples, stops, premises.browser.launches


def judge(samples: list[Sample], stops: Counter[str], base: int) -> dict[str, Any]:
    """The figures: around ``base`` episodes against the end, each the mean over as many episodes as ``base``."""
    first = [sample for sample in samples if abs(sample.episodes - base) <= base / 2]
    last = [sample for sample in samples if samples[-1].episodes - base < sample.episodes]

    def means(name: str) -> tuple[float, float]:
        return mean(getattr(sample, name) for sample in first), mean(getattr(sample, name) for sample in last)

    memory, files, folders = means("memory_mb"), means("open_files"), means("temporary_folders")
    lost = stops.total() - stops[StopReason.SUCCESS.value]
    problems = []
    if memory[1] > MEMORY_RATIO * memory[0]:
        problems.append(f"memory grew {memory[1] / memory[0]:.3f} times")
    if files[1] > files[0] + MORE_FILES:
        problems.append(f"open files grew from {files[0]:.0f} to {files[1]:.0f}")
    if folders[1] > folders[0] + 1:
        problems.append(f"temporary folders grew from {folders[0]:.0f} to {folders[1]:.0f}")
    if lost > LOST_SHARE * stops.total():
        problems.append(f"{lost} episodes were not solved")
    return {
        "episodes": stops.total(),
        "seconds": samples[-1].seconds,
        "episodes_per_second": round(stops.total() / samples[-1].seconds, 1),
        "base": base,
        "memory_mb": [round(value, 1) for value in memory],
        "memory_ratio": round(memory[1] / memory[0], 4),
        "open_files": [round(value, 1) for value in files],
        "temporary_folders": [round(value, 1) for value in folders],
        "stop_reasons": dict(stops),
        "problems": problems,
    }


def main() -> int:
    """Parse, run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument(
        "--base", type=int, default=1_000, help="episodes after which memory is compared with the end's"
    )
    parser.add_argument("--workers", type=int, default=4)
    sure = [name for name in ORACLES if name not in NOT_ALWAYS_WON]
    parser.add_argument("--tasks", default=",".join(sure), help="families, with commas between them")
    parser.add_argument("--out", type=Path, help="write the JSON there as well")
    given = parser.parse_args()
    if given.episodes < 2 * given.base or given.base < EVERY:
        parser.error(f"--episodes must be at least twice --base, and --base at least {EVERY}")
    samples, stops, launches = asyncio.run(soak(given.episodes, given.workers, given.tasks.split(",")))
    figures = judge(samples, stops, given.base)
    figures |= {"workers": given.workers, "launches": launches, "curve": [asdict(sample) for sample in samples],
                "peak_own_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, 1)}  # fmt: skip
    written = json.dumps(figures, indent=2)
    if given.out is not None:
        given.out.write_text(written + "\n", encoding="utf-8")
    print(written)
    return 1 if figures["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
