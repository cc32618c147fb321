"""A DPO step and a GRPO update of this engine against TRL, and generation against transformers, as JSON.

``python benchmarks/train.py`` ends within ten minutes on a CPU; ``--full`` adds prompts of 16,384 tokens.
"""

from __future__ import annotations

import argparse
import json
from functools import partial

from dpo_driver.policies.bench import bench_generate
from dpo_driver.policies.encoding import encode_prompt
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.policies.loading import load_tokenizer
from dpo_driver.rollout.bench_prompts import prompts_of_rollouts
from dpo_driver.training.bench import bench_train
from dpo_driver.training.bench_online import bench_grpo

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="prompts of 16,384 tokens too, however long it takes")
    given = parser.parse_args()
    prompts = prompts_of_rollouts(HFPolicy("pocket"), partial(encode_prompt, load_tokenizer("pocket")), 192)
    figures = {
        "generate": bench_generate(prompts),
        "grpo": bench_grpo(),
        "dpo": bench_train(full=given.full),
    }
    print(json.dumps(figures, indent=1))
