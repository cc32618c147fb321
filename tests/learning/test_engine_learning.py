"""Must-learn tests: training changes what the model does, not only its loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpo_driver.core.records import Message, Preference, Sampling, TrainingSample
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.engine import train

pytestmark = pytest.mark.learning
NAMES = ("Save", "Stop", "Open", "Send", "Back", "Next")


def prompt(i: int) -> tuple[Message, ...]:
    return (Message(role="user", content=f"goal: {NAMES[i % 6]}\n"),)


def rate(policy: HFPolicy, wanted: str, draws: int = 60) -> float:
    """Share of sampled answers that are ``wanted`` or, for "{name}", name what the prompt asks for."""
    answers = policy.generate(
        [prompt(i) for i in range(draws)],
        [Sampling(temperature=1.0, max_new_tokens=8, seed=i) for i in range(draws)],
    )
    hits = [answer.text == wanted.format(name=NAMES[i % 6]) for i, answer in enumerate(answers)]
    return sum(hits) / draws


def test_sft_then_dpo_learn(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(width=64)
    model.requires_grad_(True)
    # Half of the demonstrations press, half wait: the parent is of two minds.
    rows = [
        TrainingSample(id=f"{i}{text}", messages=prompt(i), completion=text.format(name=NAMES[i]), source="t")
        for i in range(6)
        for text in ("{name}", "no")
    ]
    sft_config = {"max_steps": 150, "learning_rate": 5e-3, "per_device_train_batch_size": 12}
    sft = train("sft", model, tokenizer, rows, [], sft_config, tmp_path / "sft")
    parent = HFPolicy(model=model, tokenizer=tokenizer)
    before = rate(parent, "{name}")
    assert sft.metrics["loss"] < sft.history[0]["loss"] / 2
    assert 0.25 < before < 0.75
    assert before + rate(parent, "no") > 0.9

    pairs = [
        Preference(id=f"p{i}", messages=prompt(i), chosen=NAMES[i], rejected="no", level="step", source="t")
        for i in range(6)
    ]
    config = {
        "max_steps": 40,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 6,
        "beta": 0.3,
        "rpo_alpha": 0.1,
    }
    model.requires_grad_(True)
    first = train("dpo", model, tokenizer, pairs, [], config, tmp_path / "dpo")
    after = rate(HFPolicy(model=model, tokenizer=tokenizer), "{name}")
    assert first.metrics["rewards/accuracies"] == 1.0
    assert after > 0.9
    assert after > before + 0.2
