"""Episodes a second on this machine, as JSON: ``python benchmarks/env.py [task,...] [seconds] [workers,...]``.

``dpo-driver bench env`` does the same and more (peers, profile).
"""

from __future__ import annotations

import json
import sys

from dpo_driver.rollout.bench import bench_env

if __name__ == "__main__":
    given = sys.argv[1:]
    tasks = given[0].split(",") if given else ["click-button"]
    seconds = float(given[1]) if len(given) > 1 else 15.0
    workers = [int(count) for count in given[2].split(",")] if len(given) > 2 else [4]
    print(json.dumps(bench_env(tasks, seconds, workers), indent=2))
