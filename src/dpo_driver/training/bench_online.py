"""The update of GRPO here against TRL's GRPOTrainer: same weights, same rollouts, same advantages, same run.

TRL gets the rollouts through its ``rollout_func``, so neither side generates. Both compute the parent's log-probs, the
loss with KL, its gradient and the step. Called by ``dpo-driver bench train`` and benchmarks/train.py.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dpo_driver.algorithms import load_algorithm
from dpo_driver.policies.encoding import encode_prompt
from dpo_driver.policies.loading import load_tokenizer
from dpo_driver.training.bench import (
    LEARNING_RATE,
    SEED,
    Clock,
    device,
    import_trl,
    make_model,
    preferences,
    quiet,
    trainable_model,
)
from dpo_driver.training.experience import Decided, Rollout, online_step
from dpo_driver.training.logprobs import Scorer
from dpo_driver.training.parent import Parent

GROUP, BETA, EPSILON = 8, 0.01, 0.2
TOGETHER = 2**31  # slots of a pass: the whole group shares its prompt
POINTS = ((512, 64), (2048, 64))  # prompt and completion, in tokens


def bench_grpo(
    points: Sequence[tuple[int, int]] = POINTS,
    *,
    steps: int = 3,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Seconds per update of one group of 8 siblings, peak memory, and the largest difference of the losses.

    Args:
        points: (prompt tokens, completion tokens).
        steps: updates per run; the first is not timed.
        on_row: called with each row.

    Returns:
        ``rows``: per point ``prompt``, ``completion``, ``group``, ``seconds`` {ours, trl}, ``speedup``, ``peak_mb``,
        ``max_loss_diff``, ``max_grad_diff`` (of the norm, relative).
    """
    trl = import_trl()
    rows = []
    with tempfile.TemporaryDirectory() as scratch, quiet():
        model = Path(scratch) / "model"
        parameters = make_model(model)
        for prompt, completion in points:
            rollouts = _rollouts(model, prompt, completion)
            ours, theirs = _run_ours(model, rollouts, steps), _run_trl(model, rollouts, steps)
            row = {
                "prompt": prompt, "completion": completion, "group": GROUP,
                "seconds": {"ours": round(ours.seconds, 4), "trl": round(theirs.seconds, 4)},
                "speedup": round(theirs.seconds / ours.seconds, 2),
                "peak_mb": {"ours": round(ours.peak_mb), "trl": round(theirs.peak_mb)},
                "max_loss_diff": max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True)),
                "max_grad_diff": max(abs(a - b) / a for a, b in zip(ours.norms, theirs.norms, strict=True)),
            }  # fmt: skip
            rows.append(row)
            on_row(row)
    return {"parameters": parameters, "device": device(), "trl": trl.__version__, "rows": rows}


def _rollouts(model: Path, prompt: int, completion: int) -> list[Rollout]:
    """A group of single decisions of random letters, every other one rewarded, with the log-probs that they had."""
    tokenizer = load_tokenizer(model)
    messages = preferences(prompt, completion, 1)[0].messages
    ids = tuple(encode_prompt(tokenizer, messages))
    rng = random.Random(SEED)
    letters = tokenizer.convert_tokens_to_ids(list("bcdfghjkqvwxyz"))
    texts = [(*rng.choices(letters, k=completion - 1), tokenizer.eos_token_id) for _ in range(GROUP)]
    scorer = Scorer(trainable_model(model))
    blank = [
        Rollout(f"r{i}", "g", (Decided(ids, text, (0.0,) * len(text), 1.0, None, "s"),), float(i % 2), (float(i % 2),))
        for i, text in enumerate(texts)
    ]
    step = online_step(blank, load_algorithm("grpo", beta=0.0), scorer=scorer, parent=Parent(scorer.model),
                       tokens_per_pass=TOGETHER)  # fmt: skip
    (batch,) = step.batches
    with scorer.session(), torch.no_grad():
        logps = batch.to(device()).scored(scorer).logps_K.cpu().split([len(text) for text in texts])
    return [
        Rollout(each.id, "g", (Decided(ids, text, tuple(part.tolist()), 1.0, None, "s"),), each.reward, each.returns)
        for each, text, part in zip(blank, texts, logps, strict=True)
    ]


def _run_ours(model: Path, rollouts: Sequence[Rollout], steps: int) -> Clock:
    clock = Clock()
    with clock.running():
        policy = trainable_model(model)
        scorer, parent = Scorer(policy, bf16=device() == "cuda"), Parent(policy)
        algorithm = load_algorithm("grpo", beta=BETA, epsilon=EPSILON)
        weights = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
        with scorer.session():
            for _ in range(steps):
                step = online_step(rollouts, algorithm, scorer=scorer, parent=parent, tokens_per_pass=TOGETHER)
                optimizer.zero_grad()
                total = 0.0
                for batch in step.batches:
                    scored = batch.to(device()).scored(scorer)
                    # TRL takes every generation for sampled from the weights of the moment, so here too.
                    loss, _ = algorithm.loss(replace(scored, old_K=scored.logps_K.detach()))
                    loss.backward()
                    total += float(loss.detach())
                norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                clock.tick({"loss": total, "grad_norm": norm})
    return clock


def _run_trl(model: Path, rollouts: Sequence[Rollout], steps: int) -> Clock:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    clock = Clock()
    decided = [rollout.decisions[0] for rollout in rollouts]

    def replay(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """The rollouts that are there already, instead of generating."""
        return {
            "prompt_ids": [list(each.prompt) for each in decided],
            "completion_ids": [list(each.completion) for each in decided],
            "logprobs": [list(each.logps) for each in decided],
        }

    def reward(completions: list[Any], **_: Any) -> list[float]:
        return [rollout.reward for rollout in rollouts]

    class Ticks(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:
                clock.tick(logs)

    with tempfile.TemporaryDirectory() as output, clock.running():
        config = GRPOConfig(
            output_dir=output, per_device_train_batch_size=GROUP, num_generations=GROUP, max_steps=steps,
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", beta=BETA, epsilon=EPSILON, seed=SEED,
            logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, bf16=device() == "cuda",
            use_cpu=device() == "cpu", max_completion_length=4096, dataloader_pin_memory=False, loss_type="dapo",
            gradient_checkpointing=False, temperature=1.0, mask_truncated_completions=False,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=trainable_model(model), args=config, reward_funcs=reward, rollout_func=replay,
            train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "x"}]}] * GROUP),
            processing_class=load_tokenizer(model), callbacks=[Ticks()],
        )  # fmt: skip
        trainer.train()
        del trainer
    return clock
