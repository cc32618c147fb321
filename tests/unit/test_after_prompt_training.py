"""An adapter that acts only after the prompt: one meaning in training, online, in generation and on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from awake_adapters import CHAT, awake
from dpo_driver.core import plugins
from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Message, Preference, Sampling, Turn
from dpo_driver.core.schema_training import GrpoConfig, LoraConfig
from dpo_driver.flywheel.stage import LiveStage
from dpo_driver.policies.after_prompt import BeginningPrompts, base_of
from dpo_driver.policies.encoding import encode_prompt, generation_header
from dpo_driver.policies.forward import _Hub, _Lean
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.policies.loading import (
    _fresh_adapter,
    content_hash,
    invocation,
    load_model,
    load_tokenizer,
    save_version,
    weights_hash,
)
from dpo_driver.policies.merge import export_merged
from dpo_driver.rollout.kept import LiveRollouts
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.actor import Actor, published
from dpo_driver.training.batches import step_batch
from dpo_driver.training.checkpoint import read_tensors
from dpo_driver.training.curriculum import Curriculum
from dpo_driver.training.engine import TrainResult, train
from dpo_driver.training.logprobs import Scorer, unshared_scores
from dpo_driver.training.online import OnlineResult, train_online
from dpo_driver.training.rows import encode_rows
from dpo_driver.training.tree import Tree, pack

WORDS = ("Save", "Stop", "Open", "Close", "Send", "Back")

# --- training -------------------------------------------------------------------------------------------------------


def said(i: int) -> tuple[Message, ...]:
    return (Message(role="user", content=f"button {WORDS[i % 6]}[{i % 9 + 1}]\n" * (1 + i % 4) + f"goal: {i}\n"),)


def pairs(count: int) -> list[Preference]:
    return [
        Preference(id=f"p{i}", messages=said(i), chosen=f"thought: {WORDS[i % 6]}", rejected=f"no {i}", level="step",
                   source="t")
        for i in range(count)
    ]  # fmt: skip


def saved(folder: Path, template: str | None = None) -> Path:
    """A tiny model on disk."""
    model, tokenizer = tiny_model()
    tokenizer.chat_template = template or tokenizer.chat_template
    save_version(model, tokenizer, folder)
    return folder


class Stopped(Exception):
    """A run that breaks."""


def fit(base: Path, out: Path, rows: Any = None, **config: Any) -> tuple[TrainResult, Any]:
    torch.manual_seed(0)
    lora = LoraConfig(r=4, alpha=8, dropout=config.pop("dropout", 0.0), after_prompt=True)
    model = load_model(base, device="cpu", trainable="lora", lora=lora)
    on_log = config.pop("on_log", lambda step, metrics: None)
    settings = {"learning_rate": 1e-2, "max_steps": 8, "per_device_train_batch_size": 4, "logging_steps": 1} | config
    rows = pairs(8) if rows is None else rows
    return train("dpo", model, load_tokenizer(base), rows, rows[:2], settings, out, on_log=on_log), model


def test_dpo_starts_at_ln_2_learns_and_computes_each_prompt_once(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", CHAT)
    result, model = fit(base, tmp_path / "out")
    losses = [row["loss"] for row in result.history if "loss" in row]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < 0.3
    # Policy, reference and validation, 4 epochs: every beginning once.
    header = len(invocation(model) or ())
    tokenizer = load_tokenizer(base)
    tokens = sum(len(encode_prompt(tokenizer, said(i))) - header for i in range(8))
    assert header == 11 and f"; {tokens} of " in result.path


def test_a_pair_of_conversations_trains(tmp_path: Path) -> None:
    """Its turns are planted on one tree; the adapter tells them apart."""
    page = (Message(role="user", content="button Save[1]\n" * 40 + "goal: go\n"),)
    more = (*page, Message(role="assistant", content="yes"), Message(role="user", content="and\n"))
    row = Preference(
        id="p", messages=page, chosen="yes", rejected="no", level="trajectory", source="t",
        chosen_more=(Turn(messages=more, completion="sure"),),
    )  # fmt: skip
    base = saved(tmp_path / "base", CHAT)
    result, _ = fit(base, tmp_path / "out", [row] * 2, max_steps=2, per_device_train_batch_size=2)
    assert result.history[1]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    (batch,) = step_batch(encode_rows(load_tokenizer(base), [row], max_length=999).examples, tokens_per_pass=1).batches
    assert len(batch.forest.trees) == 1


def test_resume_is_bit_equal_and_so_is_a_run_that_keeps_nothing(tmp_path: Path) -> None:
    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == 5:
            raise Stopped

    base = saved(tmp_path / "base")
    shared: dict[str, Any] = {"save_steps": 2, "eval_steps": 3, "dropout": 0.2}
    fit(base, tmp_path / "straight", **shared)
    with pytest.raises(Stopped):
        fit(base, tmp_path / "stopped", on_log=stop, **shared)
    result, _ = fit(base, tmp_path / "stopped", **shared)
    assert result.resumed_from == 4
    fit(base, tmp_path / "none", prompt_cache_gb=0, **shared)
    expected = read_tensors(tmp_path / "straight" / "checkpoint-8" / "weights.safetensors")
    for other in ("stopped", "none"):
        found = read_tensors(tmp_path / other / "checkpoint-8" / "weights.safetensors")
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def online(folder: Path, stop_at: int = -1) -> OnlineResult:
    """GRPO on the toy with the pocket model; with ``stop_at`` it breaks when that update is logged."""

    def log(step: int, metrics: dict[str, float]) -> None:
        if step == stop_at and "loss" in metrics:
            raise Stopped

    config = GrpoConfig(
        episodes=48, groups_per_step=3, num_generations=4, temperature=1.0, learning_rate=1e-3, eval_steps=100,
        save_steps=1, max_completion_length=40, max_refills=0, warmup_ratio=0.0, num_iterations=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = load_model("pocket", device="cpu", trainable="lora", lora=LoraConfig(r=4, alpha=8, after_prompt=True))
    awake(model, 0.01)
    make_task = plugins.load("make_task", "toy")
    names = ("press", "login", "wizard")
    with LiveRollouts(plugins.load("environments", "toy"), 4) as live:
        val = [make_task(name, 100_000, "val") for name in names]
        stage = LiveStage(live, lambda family, number: make_task(family, 10_000 + number, "train"), val, config,
                          profile="pocket", seed=0, max_batch=16)  # fmt: skip
        curriculum = Curriculum({name: make_task(name, 0).max_steps for name in names}, config.curriculum, 0)
        return train_online(model, load_tokenizer("pocket"), stage, curriculum, config, folder, on_log=log)


def test_online_ratios_are_1_and_resume_is_bit_equal(tmp_path: Path) -> None:
    straight = online(tmp_path / "straight")
    first = next(row for row in straight.history if "loss" in row)
    assert first["ratio/off"] < 1e-4
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    assert "adapter after the prompt only; " in straight.path
    with pytest.raises(Stopped):
        online(tmp_path / "stopped", stop_at=3)
    resumed = online(tmp_path / "stopped")
    assert resumed.resumed_from == 2
    weights = [
        read_tensors(tmp_path / name / f"checkpoint-{straight.steps}" / "weights.safetensors")
        for name in ("straight", "stopped")
    ]
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())


# --- acting ---------------------------------------------------------------------------------------------------------

PAGES = [said(i) for i in (3, 0, 1, 14, 3, 7)]
DRAWN = [Sampling(temperature=1.0, max_new_tokens=12, seed=seed) for seed in range(len(PAGES))]


def chatting(architecture: str = "qwen3") -> tuple[Any, Any]:
    """A model with an adapter that acts after the header of a chat template."""
    model, tokenizer = tiny_model(architecture)
    tokenizer.chat_template = CHAT
    return awake(_fresh_adapter(model, LoraConfig(r=4, alpha=8), generation_header(tokenizer))).eval(), tokenizer


@pytest.mark.parametrize("precise", [False, True], ids=["lean", "transformers"])
@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_sampled_log_probs_are_those_of_training(architecture: str, precise: bool) -> None:
    """A ratio of 1 on the first update; and what the rollout has computed of the prompts, training does not again."""
    model, tokenizer = chatting(architecture)
    if precise:  # the fast way is for float32 only
        model = model.double()
    prompts = BeginningPrompts(base_of(model), 0, 10**8, turnover=True)
    policy = Actor(model, tokenizer, max_length=512, prompts=prompts).policy(published(model), "v1")
    assert {type(policy._forward), type(prompts._forward)} == {_Hub if precise else _Lean}
    found = policy.generate(PAGES, DRAWN)
    assert len({g.token_ids for g in found}) > 3
    computed = prompts.computed
    assert computed == sum(len(encode_prompt(tokenizer, said(i))) - 11 for i in (3, 0, 1, 14, 7))  # one is there twice
    trees = [Tree.star(encode_prompt(tokenizer, m), [g.token_ids]) for m, g in zip(PAGES, found, strict=True)]
    with Scorer(model, prompts=prompts).session() as scorer, torch.no_grad():
        trained = scorer(pack(trees)).logps_N
    assert (prompts.computed, prompts.asked) == (computed, 2 * computed)
    sampled = torch.tensor([logp for generation in found for logp in generation.logprobs])
    assert (sampled - trained).abs().max() < 1e-4
    with torch.no_grad():
        assert (unshared_scores(base_of(model), pack(trees)).logps_N - trained).abs().max() > 1e-2


def test_what_is_kept_outlives_the_weights() -> None:
    """After an update the beginnings are not computed again, and the new weights act."""
    model, tokenizer = chatting()
    prompts = BeginningPrompts(base_of(model), 0, 10**8, turnover=True)
    actor = Actor(model, tokenizer, max_length=512, prompts=prompts)
    before = actor.policy(published(model), "v1").generate(PAGES, DRAWN)
    computed = prompts.computed
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
    after = actor.policy(published(model), "v2").generate(PAGES, DRAWN)
    assert prompts.computed == computed
    fresh = HFPolicy(model=model, tokenizer=tokenizer, max_length=512).generate(PAGES, DRAWN)
    for new, alone in zip(after, fresh, strict=True):
        assert new.token_ids == alone.token_ids
        assert new.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    assert [g.logprobs for g in before] != [g.logprobs for g in after]


def test_on_disk_it_means_the_same_to_plain_peft(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", CHAT)
    _, model = fit(base, tmp_path / "out", max_steps=3)
    tokenizer = load_tokenizer(base)
    folder = tmp_path / "adapter"
    save_version(awake(model), tokenizer, folder)
    header = list(generation_header(tokenizer))
    assert json.loads((folder / "adapter_config.json").read_text())["alora_invocation_tokens"] == header
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(folder))
    ours = HFPolicy(folder, device="cpu", max_length=512)
    assert ours.version == content_hash(folder)
    plain = HFPolicy(base, device="cpu", max_length=512)
    greedy = [Sampling(max_new_tokens=12)] * len(PAGES)
    found, without = ours.generate(PAGES, greedy), plain.generate(PAGES, greedy)
    assert [g.token_ids for g in found] != [g.token_ids for g in without]
    for messages, generation in zip(PAGES, found, strict=True):
        prompt = torch.tensor([encode_prompt(tokenizer, messages)])
        mask = torch.ones_like(prompt)
        whole = theirs.generate(input_ids=prompt, attention_mask=mask, max_new_tokens=12, do_sample=False)
        assert list(generation.token_ids) == whole[0, prompt.shape[1] :].tolist()
    # It goes on as what it is, cannot be merged, and an ordinary adapter with its weights has another name.
    again = load_model(folder, device="cpu", trainable="lora", lora=LoraConfig(after_prompt=True))
    assert invocation(again) == tuple(header)
    for merge in (lambda: load_model(folder, trainable="full"), lambda: export_merged(folder, tmp_path / "merged")):
        with pytest.raises(ModelError, match="cannot be merged"):
            merge()
    named = weights_hash(again)
    again.peft_config["default"].alora_invocation_tokens = None
    assert weights_hash(again) != named


def test_an_adapter_that_acts_everywhere_does_not_become_one_that_does_not(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    save_version(load_model(base, device="cpu", trainable="lora"), load_tokenizer(base), tmp_path / "everywhere")
    with pytest.raises(ModelError, match="acts on prompts too"):
        load_model(tmp_path / "everywhere", trainable="lora", lora=LoraConfig(after_prompt=True))
