"""The local policy: the same distribution as the model, whoever shares the batch, and honest log-probs."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from pathlib import Path

import pytest
import torch

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Generation, Message, Sampling
from dpo_driver.policies.encoding import encode_completion, encode_prompt
from dpo_driver.policies.forward import Workspace, _Hub, _Lean
from dpo_driver.policies.hf import Asked, HFPolicy, sample
from dpo_driver.policies.lean import KNOWN
from dpo_driver.policies.loading import content_hash, save_version
from dpo_driver.testing.check_policy import check_policy
from dpo_driver.testing.tiny_models import ARCHITECTURES, tiny_model
from dpo_driver.training.logprobs import unshared_scores
from dpo_driver.training.tree import Tree, pack

RNG = random.Random(1)
DECODED = tuple(name for name in ARCHITECTURES if name != "gemma3_text")  # decoding knows no sliding windows


def message(length: int) -> tuple[Message, ...]:
    return (Message(role="user", content="".join(RNG.choice("abcdef [1]") for _ in range(length))),)


PROMPTS = [message(n) for n in (3, 40, 17, 1, 29, 17, 60)]


def policy(architecture: str = "qwen3", **options: int) -> HFPolicy:
    model, tokenizer = tiny_model(architecture)
    return HFPolicy(model=model, tokenizer=tokenizer, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", DECODED)
def test_greedy_equals_transformers_generate(architecture: str) -> None:
    model, tokenizer = tiny_model(architecture)
    found = HFPolicy(model=model, tokenizer=tokenizer).generate(PROMPTS, [Sampling(max_new_tokens=12)] * len(PROMPTS))
    for messages, generation in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([encode_prompt(tokenizer, messages)])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert list(generation.token_ids) == whole[0, ids.shape[1] :].tolist()
        assert generation.prompt_tokens == ids.shape[1]
        assert generation.logprobs == (0.0,) * len(generation.token_ids)


@pytest.mark.parametrize("architecture", DECODED)
def test_logprobs_are_those_of_the_sampled_distribution(architecture: str) -> None:
    """At temperature 1 they are what training computes for the same tokens: a ratio of 1 on the first update."""
    model, tokenizer = tiny_model(architecture)
    drawn = [Sampling(temperature=1.0, max_new_tokens=12, seed=seed) for seed in range(len(PROMPTS))]
    found = HFPolicy(model=model, tokenizer=tokenizer).generate(PROMPTS, drawn)
    trees = [Tree.star(encode_prompt(tokenizer, m), [g.token_ids]) for m, g in zip(PROMPTS, found, strict=True)]
    with torch.no_grad():
        trained = unshared_scores(model, pack(trees)).logps_N
    sampled = torch.tensor([logp for generation in found for logp in generation.logprobs])
    assert (sampled - trained).abs().max() < 1e-4


def test_temperature_and_top_p_by_hand() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(3, 1)
    how = [Sampling(temperature=0.5), Sampling(temperature=1.0, top_p=0.7), Sampling(temperature=1.0)]
    weights = [math.exp(2 * s) for s in (2, 1, 0, -1)]
    first = [w / sum(weights) for w in weights]
    nucleus = math.exp(2) / (math.exp(2) + math.exp(1))  # .64 alone is less than .7, so the second stays
    ids, logps, kept = sample(scores, how, [first[0] + first[1] * 0.5, nucleus + 0.01, 0.0])
    assert ids.tolist() == [1, 1, 0]
    assert kept == [(0, 1, 2, 3), (0, 1), (0, 1, 2, 3)]
    assert logps[0].item() == pytest.approx(math.log(first[1]), abs=1e-5)
    assert logps[1].item() == pytest.approx(math.log(1 - nucleus), abs=1e-5)
    ids, *_ = sample(scores, how, [0.999999, 0.999999, 0.999999])
    assert ids.tolist() == [3, 1, 3]  # nothing outside the nucleus is ever drawn


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    count = 4000
    rng = random.Random(0)
    ids, *_ = sample(
        probabilities.log().repeat(count, 1), [Sampling(temperature=1.0)] * count, [rng.random() for _ in range(count)]
    )
    counts = Counter(ids.tolist())
    for token, p in enumerate(probabilities.tolist()):
        assert abs(counts[token] / count - p) < 4 * math.sqrt(p * (1 - p) / count)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    drawn = [Sampling(temperature=1.0, top_p=0.9, max_new_tokens=10, seed=seed) for seed in range(len(PROMPTS))]
    together = policy().generate(PROMPTS, drawn)
    alone = [policy().generate([m], [s])[0] for m, s in zip(PROMPTS, drawn, strict=True)]
    small = policy(max_batch=2).generate(PROMPTS[::-1], drawn[::-1])[::-1]
    assert [g.token_ids for g in together] == [g.token_ids for g in alone] == [g.token_ids for g in small]
    assert len({g.token_ids for g in together}) > 1


@pytest.mark.parametrize("most", [2, 64])
@pytest.mark.parametrize("architecture", ["qwen3", "gemma"])
def test_rows_that_join_on_the_way_are_answered_as_alone(architecture: str, most: int) -> None:
    """With room for two they take the places of those that have left, or make the buffers grow."""
    drawn = [Sampling(temperature=seed % 2, max_new_tokens=(30, 3, 12)[seed % 3], seed=seed) for seed in range(7)]
    alone = [policy(architecture).generate([m], [s])[0] for m, s in zip(PROMPTS, drawn, strict=True)]
    served = policy(architecture, max_batch=most)
    ids = [tuple(encode_prompt(served._tokenizer, messages)) for messages in PROMPTS]
    coming = deque([*zip(range(7), ids, drawn, strict=True), (7, (), drawn[0])])
    told: dict[int, list[int]] = {}
    answers: dict[int, Generation] = {}
    calls = 0

    def joining(room: int) -> list[Asked]:
        nonlocal calls
        calls += 1
        return [coming.popleft() for _ in range(min(room, 1 + calls % 2, len(coming)))] if calls % 3 == 1 else []

    def watch(number: int, so_far: list[int]) -> bool:
        told[number] = list(so_far)
        return True

    while coming:
        served.generate_joining(joining, watch, answers.__setitem__)
    assert [answers[i].token_ids for i in range(7)] == [g.token_ids for g in alone]
    assert [answers[i].logprobs for i in range(7)] == [pytest.approx(g.logprobs, abs=1e-5) for g in alone]
    assert all(told[i] == list(answers[i].token_ids) for i in range(7))
    assert answers[7].finish_reason == "error"
    assert list(answers).index(1) < list(answers).index(0)  # told when it ended, not when all had


def test_siblings_share_their_prompt_and_differ_by_seed() -> None:
    shared = policy()
    drawn = [Sampling(temperature=1.5, max_new_tokens=10, seed=seed) for seed in range(8)]
    first = shared.generate([PROMPTS[1]] * 8, drawn)
    assert len({g.token_ids for g in first}) > 4
    computed: list[int] = []
    compute = shared._prompts._compute
    shared._prompts._compute = lambda prompts: computed.append(len(prompts)) or compute(prompts)  # type: ignore[method-assign,func-returns-value]
    assert [g.token_ids for g in shared.generate([PROMPTS[1]] * 8, drawn)] == [g.token_ids for g in first]
    assert computed == []  # remembered from the first call


def test_rows_end_at_the_end_token_and_at_their_own_limit() -> None:
    model, tokenizer = tiny_model()
    end = tokenizer.eos_token_id
    with torch.no_grad():  # half of the mass on the end token
        model.get_output_embeddings().weight[end] *= 3
    free = HFPolicy(model=model, tokenizer=tokenizer)
    drawn = [Sampling(temperature=1.0, max_new_tokens=3 + i, seed=i) for i in range(40)]
    found = free.generate([PROMPTS[i % 7] for i in range(40)], drawn)
    for generation, how in zip(found, drawn, strict=True):
        assert len(generation.token_ids) <= how.max_new_tokens
        assert end not in generation.token_ids[:-1]
        stopped = generation.token_ids[-1] == end
        assert generation.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(generation.token_ids) == how.max_new_tokens
    assert {g.finish_reason for g in found} == {"stop", "length"}


def test_text_encodes_to_the_tokens_that_were_generated() -> None:
    """A model that has learned a text writes exactly the ids that training was given for it."""
    model, tokenizer = tiny_model()
    text = 'thought: button Save\naction: click("[3]")'
    ids = encode_completion(tokenizer, text)
    prompt = encode_prompt(tokenizer, PROMPTS[0])
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    forest = pack([Tree.star(prompt, [ids])])
    for _ in range(40):
        optimizer.zero_grad()
        (-unshared_scores(model, forest).logps_N.mean()).backward()
        optimizer.step()
    (generation,) = HFPolicy(model=model, tokenizer=tokenizer).generate([PROMPTS[0]], [Sampling(max_new_tokens=64)])
    assert list(generation.token_ids) == ids
    assert (generation.text, generation.finish_reason) == (text, "stop")


def test_prompts_that_do_not_fit_are_errors() -> None:
    short = policy(max_length=30)
    fits, full, long = short.generate([message(25), message(30), message(99)], [Sampling(max_new_tokens=50)] * 3)
    assert (fits.finish_reason, len(fits.token_ids)) in {("length", 5), ("stop", len(fits.token_ids))}
    assert fits.prompt_tokens + len(fits.token_ids) <= 30
    for refused in (full, long):
        assert (refused.finish_reason, refused.text, refused.token_ids) == ("error", "", ())


def test_conformance_and_version(tmp_path: Path) -> None:
    model, tokenizer = tiny_model()
    save_version(model, tokenizer, tmp_path / "m")
    loaded = HFPolicy(tmp_path / "m", max_length=256)
    assert loaded.version == content_hash(tmp_path / "m")
    check_policy(loaded, too_long="x" * 300)


def test_beginnings_are_computed_once() -> None:
    """Seeds of a task show the same page with another goal: only the goal is left to compute, with equal numbers."""
    page = "".join(f"button Number{n}[{n}]\n" for n in range(9))
    pages = [(Message(role="user", content=f"{page}goal: Press {n}.\n"),) for n in range(6)] + [PROMPTS[1]]
    drawn = [Sampling(temperature=1.0, max_new_tokens=8, seed=seed) for seed in range(7)]
    shared = policy()
    together = shared.generate(pages, drawn)
    prompts = shared._prompts
    assert prompts.asked > 6 * 90
    assert prompts.computed < 90 + 6 * 20 + 60
    for messages, how, found in zip(pages, drawn, together, strict=True):
        (alone,) = policy().generate([messages], [how])
        assert found.token_ids == alone.token_ids
        assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_old_prompts_make_room() -> None:
    small = policy()
    small._prompts._store._most_bytes = 1
    drawn = [Sampling(temperature=1.0, max_new_tokens=4, seed=seed) for seed in range(7)]
    found = small.generate(PROMPTS, drawn)
    assert len(small._prompts._store._entries) == len(small._prompts._store._by_start) == 1
    assert [g.token_ids for g in found] == [g.token_ids for g in policy().generate(PROMPTS, drawn)]


@pytest.mark.parametrize("architecture", sorted(KNOWN))
def test_both_ways_to_run_a_model_agree(architecture: str) -> None:
    model, _ = tiny_model(architecture)
    ids = torch.arange(24).view(2, 12)
    with torch.inference_mode():
        plain, lean = _Hub(model), _Lean(model)
        (a, layers_a), (b, layers_b) = plain.prompts(ids), lean.prompts(ids)
        assert torch.allclose(a, b, atol=2e-5)
        buffers = [
            Workspace().buffers([[(k[i], v[i]) for i in range(2)] for k, v in layers], 12, 3)
            for layers in (layers_a, layers_b)
        ]
        mask = torch.ones(2, 1, 3, 15, dtype=torch.bool).tril(12)
        mask[0, :, :, :5] = False
        positions = torch.arange(12, 15).expand(2, -1)
        more = [way.more(ids[:, :3], positions, kept, mask) for way, kept in zip((plain, lean), buffers, strict=True)]
        assert torch.allclose(more[0], more[1], atol=2e-5)
        assert torch.allclose(plain.scores(more[0]), lean.scores(more[1]), atol=2e-4)


def test_layers_that_local_decoding_does_not_know() -> None:
    model, tokenizer = tiny_model()
    model.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ModelError, match="sliding_attention"):
        HFPolicy(model=model, tokenizer=tokenizer)
