"""Do equal seeds and actions give equal observations? ``python benchmarks/repeat.py`` plays all episodes twice.

Once with 4 pages at once and once with 16, so that neighbours and load would be seen to matter. An episode is equal if
its goal, every observation's hash, every error and the reward are.
"""

from __future__ import annotations

import argparse
import json

from dpo_driver.agents.oracle import ORACLES, OracleAgent
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.certify import certify

FIRST_SEED = 960_000

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tasks", default=",".join(ORACLES), help="families, with commas between them")
    given = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + given.seeds)
    found = certify(
        [make_task(name, seed, "val") for name in given.tasks.split(",") for seed in seeds],
        [OracleAgent()],
        reference=MiniwobEnvironment.source,
        candidate=MiniwobEnvironment.source,
    )
    differing = {name: vars(each) for name, each in found.tasks.items() if not each.holds}
    equal = len(found.tasks) - len(differing)
    print(json.dumps({"families": len(found.tasks), "equal": equal, "differing": differing}))
