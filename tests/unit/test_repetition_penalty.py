"""The repetition penalty: transformers' own, whoever guesses ahead or shares the batch, and again in training."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from test_online import FAMILIES, fit, settings, toy_stage
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from dpo_driver.agents.llm import LOCAL_SAMPLING
from dpo_driver.core.errors import TrainingError
from dpo_driver.core.protocols import Policy
from dpo_driver.core.records import Generation, Message, Sampling, Trajectory
from dpo_driver.core.schema import RunConfig
from dpo_driver.core.schema_training import GrpoConfig
from dpo_driver.flywheel.stage import LiveStage
from dpo_driver.policies.encoding import encode_prompt
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.policies.loading import load_model, load_tokenizer
from dpo_driver.policies.penalty import mask_of, penalised, seen_before
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.attention import tree_attention
from dpo_driver.training.curriculum import Curriculum, Draw
from dpo_driver.training.experience import Decided, _part
from dpo_driver.training.logprobs import tree_scores, unshared_scores
from dpo_driver.training.online import train_online

RNG = random.Random(3)
PENALTY = 1.15


def message(length: int) -> tuple[Message, ...]:
    return (Message(role="user", content="".join(RNG.choice("abcdef [1]") for _ in range(length))),)


PROMPTS = [message(n) for n in (3, 40, 17, 1, 29, 60)]


def drawn(**more: Any) -> list[Sampling]:
    how: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": PENALTY, "max_new_tokens": 14}
    return [Sampling(seed=seed, **(how | more)) for seed in range(len(PROMPTS))]


# --- transformers' own ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.15, 2.5])
def test_scores_are_those_of_transformers(penalty: float) -> None:
    torch.manual_seed(0)
    scores, ids = torch.randn(5, 60) * 4, torch.randint(0, 60, (5, 23))
    wanted = RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)
    seen = torch.stack([mask_of(row.tolist(), 60, scores.device) for row in ids])
    found = penalised(scores, seen, torch.full((5,), penalty))
    assert torch.equal(found, wanted)
    assert torch.equal(found, scores) == (penalty == 1.0)


@pytest.mark.parametrize("architecture", ["qwen3", "gemma"])  # the lean way and transformers' own
def test_greedy_equals_transformers_generate(architecture: str) -> None:
    model, tokenizer = tiny_model(architecture)
    how = Sampling(repetition_penalty=PENALTY, max_new_tokens=14)
    found = HFPolicy(model=model, tokenizer=tokenizer).generate(PROMPTS, [how] * len(PROMPTS))
    plain = HFPolicy(model=model, tokenizer=tokenizer).generate(PROMPTS, [Sampling(max_new_tokens=14)] * len(PROMPTS))
    for messages, generation in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([encode_prompt(tokenizer, messages)])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, do_sample=False, repetition_penalty=PENALTY
        )
        assert list(generation.token_ids) == whole[0, ids.shape[1] :].tolist()
    assert [g.token_ids for g in found] != [g.token_ids for g in plain]


def test_samples_are_drawn_from_transformers_distribution() -> None:
    """Log-probs and nuclei against transformers' processors in the order in which it applies them."""
    model, tokenizer = tiny_model()
    found = HFPolicy(model=model, tokenizer=tokenizer).generate(PROMPTS, drawn())
    processors = [RepetitionPenaltyLogitsProcessor(PENALTY), TemperatureLogitsWarper(0.7), TopPLogitsWarper(0.9)]
    checked = 0
    for messages, generation in zip(PROMPTS, found, strict=True):
        prompt = encode_prompt(tokenizer, messages)
        for i, token in enumerate(generation.token_ids):
            ids = torch.tensor([[*prompt, *generation.token_ids[:i]]])
            with torch.no_grad():
                scores = model(ids).logits[:, -1]
            for processor in processors:
                scores = processor(ids, scores)
            assert generation.kept[i] == tuple((scores[0] > -torch.inf).nonzero()[:, 0].tolist())
            assert generation.logprobs[i] == pytest.approx(scores[0].log_softmax(-1)[token].item(), abs=1e-4)
            checked += 1
    assert checked > 60


# --- whoever guesses ahead or shares the batch ------------------------------------------------------------------------


def test_guesses_change_nothing() -> None:
    """The second time everything was foreseen: few passes, the same tokens from the same distributions."""
    model, tokenizer = tiny_model()
    policy = HFPolicy(model=model, tokenizer=tokenizer)
    widths: list[int] = []
    score = policy._score

    def counted(rows: Any, drafts: list[list[int]], buffers: Any) -> torch.Tensor:
        widths.append(max(map(len, drafts)))
        return score(rows, drafts, buffers)

    policy._score = counted  # type: ignore[method-assign]
    first = policy.generate([PROMPTS[1]], drawn()[1:2])
    passes = len(widths)
    widths.clear()
    again = policy.generate([PROMPTS[1]], drawn()[1:2])
    assert again[0].token_ids == first[0].token_ids
    assert again[0].kept == first[0].kept
    assert again[0].logprobs == pytest.approx(first[0].logprobs, abs=1e-5)
    assert max(widths) == 4 and 2 * len(widths) <= passes


def test_rows_with_and_without_a_penalty_share_a_batch() -> None:
    model, tokenizer = tiny_model()
    mixed = [
        how if i % 2 else how.model_copy(update={"repetition_penalty": 1.0, "top_p": 1.0 - 0.2 * (i % 4)})
        for i, how in enumerate(drawn())
    ]
    together = HFPolicy(model=model, tokenizer=tokenizer).generate(PROMPTS, mixed)
    for messages, how, generation in zip(PROMPTS, mixed, together, strict=True):
        (alone,) = HFPolicy(model=model, tokenizer=tokenizer).generate([messages], [how])
        assert generation.token_ids == alone.token_ids
        assert generation.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_every_end_of_turn_token_stops() -> None:
    """A model's settings may list several; transformers stops at each of them, and none is part of the text."""
    model, tokenizer = tiny_model()
    how = [Sampling(max_new_tokens=14)] * len(PROMPTS)
    plain = HFPolicy(model=model, tokenizer=tokenizer).generate(PROMPTS, how)
    other = next(g.token_ids[5] for g in plain if len(g.token_ids) > 8 and g.token_ids[5] not in g.token_ids[:5])
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, other]
    found = HFPolicy(model=model, tokenizer=tokenizer).generate(PROMPTS, how)
    stopped = 0
    for messages, before, generation in zip(PROMPTS, plain, found, strict=True):
        ids = torch.tensor([encode_prompt(tokenizer, messages)])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, do_sample=False)
        assert list(generation.token_ids) == whole[0, ids.shape[1] :].tolist()
        if other in before.token_ids:
            assert generation.token_ids[-1] == other and generation.finish_reason == "stop"
            assert generation.text == tokenizer.decode(generation.token_ids[:-1])
            stopped += 1
    assert stopped >= 1


# --- the same again in training ---------------------------------------------------------------------------------------


def test_what_was_before_by_hand() -> None:
    one, other = torch.tensor([2, 5]), torch.tensor([0, 99])  # 99 is beyond the scores
    seen = seen_before(
        (one, one, one, other), torch.tensor([1, 4, 1, 3]), torch.tensor([0, 0, 0, 3]), torch.tensor([0, 1, 2, 3]), 6
    )
    assert [row.nonzero()[:, 0].tolist() for row in seen] == [[2, 5], [1, 2, 5], [1, 2, 4, 5], [0]]


@pytest.mark.parametrize("chunk", [1024, 5])
def test_training_gives_the_probabilities_that_were_sampled_from(chunk: int) -> None:
    """As a tree and unshared, in one piece and in chunks that part completions. Without the penalty they are others."""
    model, tokenizer = tiny_model()
    prompts = [PROMPTS[1], *PROMPTS]  # two siblings
    how = [*drawn()[-1:], *drawn()]
    found = HFPolicy(model=model, tokenizer=tokenizer).generate(prompts, how)
    decisions = [
        Decided(tuple(encode_prompt(tokenizer, m)), g.token_ids, g.logprobs, 0.7, g.kept, "", PENALTY)
        for m, g in zip(prompts, found, strict=True)
    ]
    part = _part(range(len(decisions)), decisions)
    sampled = torch.tensor([logp for decided in decisions for logp in decided.logps])
    with tree_attention(model), torch.no_grad():
        tree = tree_scores(model, part.forest, part.sampled, chunk=chunk).logps_N[part.token_K]
    with torch.no_grad():
        plain = unshared_scores(model, part.forest, part.sampled.to("cpu")).logps_N[part.token_K]
        without = unshared_scores(
            model, part.forest, type(part.sampled)(part.sampled.temperature_N, part.sampled.kept)
        ).logps_N[part.token_K]
    assert (tree - sampled).exp().sub(1).abs().max() < 1e-4
    assert (plain - sampled).exp().sub(1).abs().max() < 1e-4
    assert (without - sampled).abs().mean() > 0.01


def test_the_gradient_goes_through_the_penalty() -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5]], requires_grad=True)
    found = penalised(scores, torch.tensor([[True, True, False]]), torch.tensor([2.0]))
    found.sum().backward()
    assert found.tolist() == [[1.0, -2.0, 0.5]]
    assert scores.grad is not None and scores.grad.tolist() == [[0.5, 2.0, 1.0]]


def test_the_first_updates_ratios_are_1(tmp_path: Path) -> None:
    result, _ = fit(tmp_path, episodes=600, max_steps=1, temperature=0.7, top_p=0.9, repetition_penalty=PENALTY)
    first = next(row for row in result.history if "loss" in row)
    assert first["ratio/off"] < 1e-4
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    assert first["clip_ratio"] == 0.0


def test_another_penalty_in_training_is_noticed(tmp_path: Path) -> None:
    config = settings(episodes=600, max_steps=1, repetition_penalty=PENALTY)
    model, tokenizer = load_model("pocket", trainable="full"), load_tokenizer("pocket")

    class Lying:
        def __init__(self, stage: LiveStage) -> None:
            self.validate, self._stage = stage.validate, stage

        def roll_out(self, policy: Policy, draws: Sequence[Draw], siblings: int, name: str) -> list[Trajectory]:
            return [_without(t) for t in self._stage.roll_out(policy, draws, siblings, name)]

    limits = dict.fromkeys(FAMILIES, 6)
    with toy_stage(config) as stage, pytest.raises(TrainingError, match="probability ratios"):
        train_online(model, tokenizer, Lying(stage), Curriculum(limits, config.curriculum, 0), config, tmp_path)


def _without(trajectory: Trajectory) -> Trajectory:
    text = trajectory.model_dump_json()
    assert f'"repetition_penalty":{PENALTY}' in text  # the records say how they were drawn
    return Trajectory.model_validate_json(text.replace(f',"repetition_penalty":{PENALTY}', ""))


# --- records and settings ---------------------------------------------------------------------------------------------


def test_old_records_and_runs_go_on() -> None:
    old = {"text": "x", "sampling": {"temperature": 0.8, "top_p": 1.0, "max_new_tokens": 64, "seed": 1}}
    assert Generation.model_validate(old).sampling.repetition_penalty == 1.0
    before = GrpoConfig().model_dump(mode="json")
    del before["repetition_penalty"]
    text = json.dumps({"grpo": before}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert RunConfig().hash(["grpo"]) == hashlib.sha256(text.encode()).hexdigest()[:16]
    changed = RunConfig.model_validate({"grpo": {"repetition_penalty": PENALTY}})
    assert changed.hash(["grpo"]) != RunConfig().hash(["grpo"])


def test_what_cannot_be_a_penalty_is_refused() -> None:
    for wrong in (0, -1):
        with pytest.raises(ValidationError, match="repetition_penalty"):
            Sampling(repetition_penalty=wrong)
        with pytest.raises(ValidationError, match="repetition_penalty"):
            GrpoConfig(repetition_penalty=wrong)


def test_how_a_local_model_solves() -> None:
    wanted = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.15, "max_new_tokens": 512, "seed": None}
    assert LOCAL_SAMPLING.model_dump() == wanted
