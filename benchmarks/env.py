"""Episodes a second on this machine: ``python benchmarks/env.py [task] [seconds] [workers]`` prints one JSON object."""

from __future__ import annotations

import json
import sys

from dpo_driver.rollout.bench import bench_env

if __name__ == "__main__":
    given = sys.argv[1:]
    task = given[0] if given else "click-button"
    seconds = float(given[1]) if len(given) > 1 else 15.0
    workers = int(given[2]) if len(given) > 2 else 4
    print(json.dumps(bench_env(task, seconds, workers), indent=2))
