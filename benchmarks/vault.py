"""What encryption at rest costs: the same records written and read with and without it, side by side.

    .venv/bin/python benchmarks/vault.py                      # about a minute
    .venv/bin/python benchmarks/vault.py --rounds 60 --json

Four pieces of work, each as a run does it: trajectories into the store in batches of 16 (what a rollout commits at a
time) and out again; screenshots as blobs and out again; labels into the preference log one by one; preferences out as
JSON lines and in again. Plain and sealed take turns within every round, the order changes from round to round, and what
counts is the ratio of the two within a round: drift of the machine hits both. Records are those of real prompts on
made-up pages of 60 elements. Numbers are medians, the cost with the interval of its median (binomial, 95 %), in wall
time (with every fsync) and in the processor's. Exit code 1 where trajectories, or all together, cost 10 % or more of
the processor's time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.core.actions import Click
from dpo_driver.core.records import Element, Observation, Preference, Step, StopReason, Task, Trajectory, state_hash
from dpo_driver.core.store import RunStore
from dpo_driver.core.vault import VARIABLE
from dpo_driver.preferences.formats import export_preferences, import_preferences
from dpo_driver.preferences.log import LOG, PreferenceLog

ELEMENTS, STEPS, BATCH = 60, 5, 16
PROFILE = get_profile("chat")
ALLOWED = 0.10  # of time that encryption may cost


def trajectory(seed: int, stage: str) -> Trajectory:
    """Five decisions on a page of sixty elements, with the prompts that a hub model gets."""
    rng = random.Random(seed)
    words = [f"{rng.choice('BCDFGLMNPRST')}{rng.randrange(10**6):06d}" for _ in range(ELEMENTS)]
    roles = [rng.choice(("button", "link", "textbox", "text")) for _ in words]
    elements = tuple(Element(ref=str(n + 1), role=role, name=word, tag="div", box=(10.0, 20.0 * n, 100.0, 18.0))
                     for n, (role, word) in enumerate(zip(roles, words, strict=True)))  # fmt: skip
    goal = f"Click on {words[7]}, then on {words[11]}."
    steps: list[Step] = []
    for number in range(STEPS):
        seen = Observation(goal=goal, url=f"http://site/{number}", title="Site", elements=elements,
                           state_hash=state_hash(goal, f"/{number}", elements))  # fmt: skip
        action = Click(ref=str(rng.randrange(1, ELEMENTS)))
        thought = f"link {words[number]}"
        completion = render_completion(PROFILE, thought, action)
        steps.append(Step(observation=seen, messages=render(PROFILE, seen, steps), thought=thought,
                          completion=completion, action=action))  # fmt: skip
    task = Task(id=f"site.shop/{seed}", env="website", name="shop", seed=seed, goal=goal)
    return Trajectory(id=f"{stage}/{task.id}/0", task=task, agent="bench", steps=tuple(steps), reward=1.0, success=True,
                      stop_reason=StopReason.SUCCESS)  # fmt: skip


def preference(number: int) -> Preference:
    step = trajectory(number, "p").steps[2]
    return Preference(id=f"{number:016x}", messages=step.messages, chosen=step.completion, rejected="action: noop()",
                      level="step", source="environment", evidence={"task_id": str(number)})  # fmt: skip


class Clock:
    """Wall and processor seconds of each piece of work. The processor's do not depend on what else the machine does."""

    def __init__(self) -> None:
        self.times: dict[str, tuple[float, float]] = {}
        self._last = (0.0, 0.0)
        self.lap()

    def lap(self, name: str = "") -> None:
        """What went by since the last call belongs to a piece of work, or to none."""
        now = (time.perf_counter(), time.process_time())
        if name:
            self.times[name] = (now[0] - self._last[0], now[1] - self._last[1])
        self._last = now


class Bench:
    """The records, and the work on a run directory."""

    def __init__(self) -> None:
        self.trajectories = [trajectory(seed, "collect/1") for seed in range(4 * BATCH)]
        self.preferences = [preference(number) for number in range(100)]
        rng = random.Random(0)
        # A JPEG does not compress: random bytes of a screenshot's size stand for it.
        self.pictures = [rng.randbytes(25_000) for _ in range(24)]
        self.label = {"comparison": "0" * 16, "preferred": "first", "source": "human", "rater": "ann",
                      "evidence": {"seconds": 3.2, "swapped": False, "session": "1" * 12}}  # fmt: skip

    def store(self, folder: Path, sealed: bool, clock: Clock) -> None:
        with RunStore(folder, encrypt=sealed) as store:
            clock.lap()
            for first in range(0, len(self.trajectories), BATCH):
                store.add_trajectories("collect/1", self.trajectories[first : first + BATCH])
            clock.lap("trajectories in")
            found = store.trajectories("collect/1")
            clock.lap("trajectories out")
            names = [store.put_blob(picture) for picture in self.pictures]
            clock.lap("blobs in")
            back = [store.get_blob(name) for name in names]
            clock.lap("blobs out")
        assert len(found) == len(self.trajectories) and back == self.pictures

    def log(self, folder: Path, clock: Clock) -> None:
        with PreferenceLog(folder / LOG) as log:
            log.append("label", [self.label])  # finds out what it is sealed with
            clock.lap()
            for _ in range(50):
                log.append("label", [self.label])
            clock.lap("labels in")
            assert len(log.standing("label")) == 51
            clock.lap("labels out")

    def export(self, folder: Path, sealed: bool, clock: Clock) -> None:
        file = folder / "rows.jsonl"
        clock.lap()
        export_preferences(file, self.preferences, sealed=sealed)
        clock.lap("export")
        assert import_preferences(file) == self.preferences
        clock.lap("import")

    def run(self, sealed: bool) -> dict[str, tuple[float, float]]:
        with tempfile.TemporaryDirectory(prefix="vault-") as folder:
            clock = Clock()
            self.store(Path(folder), sealed, clock)
            self.log(Path(folder), clock)
            self.export(Path(folder), sealed, clock)
            return clock.times


def interval(values: list[float]) -> tuple[float, float]:
    """Of the median: the order statistics that hold it in 95 % of samples."""
    ordered, n = sorted(values), len(values)
    low = max(0, int(n / 2 - 0.98 * n**0.5))
    return ordered[low], ordered[n - 1 - low]


def measure(rounds: int, tell: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    bench = Bench()
    for sealed in (False, True):
        bench.run(sealed)  # caches, imports
    times: dict[bool, list[dict[str, tuple[float, float]]]] = {False: [], True: []}
    for number in range(rounds):
        for sealed in (False, True) if number % 2 else (True, False):
            times[sealed].append(bench.run(sealed))
        tell(f"round {number + 1} of {rounds}")
    parts = list(times[False][0])
    sums = {name: [name] for name in parts} | {"trajectories": parts[:2], "all": parts}
    found: dict[str, dict[str, Any]] = {}
    for name, own in sums.items():
        row: dict[str, Any] = {}
        for which, clock in enumerate(("wall", "cpu")):
            plain, under = ([sum(one[part][which] for part in own) for one in times[sealed]]
                            for sealed in (False, True))  # fmt: skip
            ratios = [b / a for a, b in zip(plain, under, strict=True)]
            row[clock] = {
                "plain_s": statistics.median(plain),
                "sealed_s": statistics.median(under),
                "cost": statistics.median(ratios) - 1,
                "interval": [end - 1 for end in interval(ratios)],
                "plain_spread": [min(plain), max(plain)],
                "sealed_spread": [min(under), max(under)],
            }
        found[name] = row
    return found


def show(found: dict[str, dict[str, Any]]) -> None:
    for clock in ("wall", "cpu"):
        heading = f"{clock + ' time':18} {'plain ms':>9} {'sealed ms':>9} {'cost':>7}"
        print(f"{heading}   95 % of its median   plain, all rounds")
        for name, row in found.items():
            one = row[clock]
            (low, high), (least, most) = one["interval"], one["plain_spread"]
            print(f"{name:18} {1000 * one['plain_s']:9.2f} {1000 * one['sealed_s']:9.2f} {one['cost']:+7.1%}   "
                  f"{low:+7.1%} to {high:+7.1%}  {1000 * least:8.2f} to {1000 * most:8.2f}")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    os.environ[VARIABLE] = os.urandom(32).hex()
    found = measure(given.rounds, lambda text: print(text, end="\r", file=sys.stderr, flush=True))
    print(file=sys.stderr)
    if given.json:
        print(json.dumps({"rounds": given.rounds, "work": found}, indent=2))
    else:
        show(found)
    within = all(found[name]["cpu"]["cost"] < ALLOWED for name in ("trajectories", "all"))
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
