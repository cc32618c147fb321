"""TRL's own GRPOTrainer on our pages: the model calls click, fill, ... as tools in a real browser.

    pip install 'dpo-driver[train,data]' 'trl>=1.10'
    python examples/trl_grpo.py --model Qwen/Qwen3-0.6B --task miniwob.click-button --steps 100 --out runs/trl

What is saved is a PEFT adapter: `model: {name: runs/trl}` in a configuration of ours goes on from there.
"""

from __future__ import annotations

import argparse

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from dpo_driver.rollout.trl import USUAL_ACTIONS, environment_factory, episode_rows, reward_from_environment

FIRST_SEED = 10_000  # of our block for training; what we test on begins at 900,000

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="Qwen/Qwen3-0.6B", help="a model whose chat template knows tools")
parser.add_argument("--task", default="miniwob.click-button")
parser.add_argument("--actions", nargs="+", default=USUAL_ACTIONS, help="what the model may do")
parser.add_argument("--seeds", type=int, default=64, help="how many different pages")
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--generations", type=int, default=8, help="rollouts from each page")
parser.add_argument("--tokens", type=int, default=2048, help="of all that a rollout writes and is told")
parser.add_argument("--out", default="runs/trl")
options = parser.parse_args()

with environment_factory(options.task, actions=options.actions, profile="pocket") as environments:
    trainer = GRPOTrainer(
        model=options.model,
        args=GRPOConfig(
            output_dir=f"{options.out}/trainer",
            max_steps=options.steps,
            per_device_train_batch_size=options.generations,
            num_generations=options.generations,
            max_completion_length=options.tokens,
            max_tool_calling_iterations=10,
            chat_template_kwargs={"enable_thinking": False},  # as the prompts of our own runs are written
            learning_rate=1e-5,
            logging_steps=1,
            save_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            report_to="none",
        ),
        train_dataset=Dataset.from_list(episode_rows(options.task, range(FIRST_SEED, FIRST_SEED + options.seeds))),
        reward_funcs=reward_from_environment,
        environment_factory=environments,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(options.out)
