"""One DPO step of this engine against TRL, as JSON: ``python benchmarks/train.py``; see training/bench.py."""

from __future__ import annotations

import json

from dpo_driver.training.bench import bench_train

if __name__ == "__main__":
    print(json.dumps(bench_train(), indent=1))
