"""An adapter that acts only after the prompt: log-probs and gradients are PEFT's own, prompts are computed once."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from awake_adapters import CHAT, awake
from dpo_driver.core.errors import ModelError, TrainingError
from dpo_driver.core.schema import RunConfig
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.after_prompt import BeginningPrompts, base_of, begin_of
from dpo_driver.policies.encoding import generation_header
from dpo_driver.policies.loading import _fresh_adapter, invocation, load_model, load_tokenizer
from dpo_driver.policies.pocket import build_tokenizer
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.after_prompt import graft
from dpo_driver.training.attention.after_prompt import graft_mask, graft_predictors
from dpo_driver.training.logprobs import Scorer, unshared_scores
from dpo_driver.training.processes import learner
from dpo_driver.training.tree import Forest, Segment, Tree, pack, plant

RNG = random.Random(5)
HEADER = (7, 8, 9)


def ids(count: int) -> tuple[int, ...]:
    return tuple(RNG.randrange(10, 400) for _ in range(count))


def tiny_adapter(architecture: str = "qwen3", **lora: Any) -> Any:
    model, _ = tiny_model(architecture)
    torch.manual_seed(2)
    return awake(_fresh_adapter(model, LoraConfig(r=4, alpha=8, **lora), HEADER)).eval()


def prompts_of_all_kinds() -> list[tuple[int, ...]]:
    """Prompts: long and short, with nothing before the header, and with an earlier header that is not the last."""
    return [ids(n) + HEADER for n in (20, 7, 0)] + [ids(9) + HEADER + ids(4) + HEADER]


def forest_of(prompts: list[tuple[int, ...]]) -> Forest:
    counts = (2, 1, 4, 3)
    return pack([Tree.star(p, [ids(2 + 3 * i) for i in range(n)]) for p, n in zip(prompts, counts, strict=True)])


def by_peft(model: Any, forest: Forest, *, left: bool) -> Tensor:
    """Log-probs of all completions by PEFT's own forward on a padded batch; its offsets count from a row's end."""
    rows = [
        (tree.path(segment.parent), list(segment.ids)) for tree in forest.trees for segment in tree.segments if
        segment.scored
    ]  # fmt: skip
    longest = max(len(prompt) + len(completion) for prompt, completion in rows)
    pads = [longest - len(prompt) - len(completion) for prompt, completion in rows]
    offsets = [
        len(HEADER) + len(completion) + (0 if left else pad) for (_, completion), pad in zip(rows, pads, strict=True)
    ]
    whole = [prompt + completion for prompt, completion in rows]
    padded = [[0] * n + row if left else row + [0] * n for row, n in zip(whole, pads, strict=True)]
    mask = [[0] * n + [1] * len(row) if left else [1] * len(row) + [0] * n for row, n in zip(whole, pads, strict=True)]
    mask_QL = torch.tensor(mask)
    logits_QLV = model(
        input_ids=torch.tensor(padded), attention_mask=mask_QL,
        position_ids=(mask_QL.cumsum(-1) - 1).clamp(min=0), alora_offsets=offsets,
    ).logits  # fmt: skip
    found = []
    for row, ((prompt, completion), pad) in enumerate(zip(rows, pads, strict=True)):
        first = (pad if left else 0) + len(prompt) - 1
        logps_LV = logits_QLV[row, first : first + len(completion)].log_softmax(-1)
        found.append(logps_LV.gather(1, torch.tensor(completion)[:, None])[:, 0])
    return torch.cat(found)


def gradients(model: Any, logps: Tensor) -> Tensor:
    model.zero_grad(set_to_none=True)
    (logps * torch.linspace(-1, 2, len(logps))).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


# --- where it begins ------------------------------------------------------------------------------------------------


def test_the_header_is_what_the_template_begins_an_answer_with() -> None:
    tokenizer = build_tokenizer()
    (newline,) = tokenizer("\n")["input_ids"]
    assert generation_header(tokenizer) == (newline,)  # the pocket template begins with nothing: the goal's line break
    tokenizer.chat_template = CHAT
    assert generation_header(tokenizer) == tuple(tokenizer("<assistant>")["input_ids"])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}[/INST]{% endfor %}"
    with pytest.raises(ModelError, match="tokens of its own"):
        generation_header(tokenizer)


def test_the_last_invocation_counts_as_in_peft() -> None:
    assert begin_of((1, 7, 8, 9, 2, 7, 8, 9), HEADER) == 5
    assert begin_of((1, 7, 8, 9, 2), HEADER) == 1  # what follows it is the adapter's too
    assert begin_of(HEADER, HEADER) == 0
    with pytest.raises(ModelError, match="lacks those at which the adapter begins"):
        begin_of((7, 8, 1), HEADER)


def test_the_option_goes_with_adapters_only() -> None:
    lora = {"after_prompt": True}
    with pytest.raises(ValueError, match="it goes with training: lora"):
        RunConfig.model_validate({"model": {"training": "full", "lora": lora}})
    config = RunConfig.model_validate({"model": {"training": "lora", "lora": lora}})
    model = load_model("pocket", device="cpu", trainable="lora", lora=config.model.lora)
    assert invocation(model) == generation_header(load_tokenizer("pocket"))
    assert invocation(load_model("pocket", device="cpu", trainable="lora")) is None


# --- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [True, False], ids=["left", "right"])
@pytest.mark.parametrize("architecture", ["qwen3", "llama", "qwen2", "mistral", "gemma"])
def test_log_probs_and_gradients_equal_pefts_own(architecture: str, left: bool) -> None:
    model = tiny_adapter(architecture)
    forest = forest_of(prompts_of_all_kinds())
    expected = by_peft(model, forest, left=left)
    expected_gradient = gradients(model, expected)
    scorer = Scorer(model)
    assert scorer.path.startswith("prefix tree, adapter after the prompt only")
    with scorer.session():
        found = scorer(forest).logps_N
        gradient = gradients(model, found)
        again = scorer(forest).logps_N
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)
    assert (gradient - expected_gradient).abs().max() <= 1e-5 * expected_gradient.abs().max()
    assert torch.cosine_similarity(gradient.double(), expected_gradient.double(), dim=0) >= 0.99999
    assert torch.equal(again, found)  # from what was kept
    assert scorer.path.endswith("; 43 of 86 prompt tokens computed")  # 20, 7, none, and 9 with 3 and 4
    # Outside of the session the model is as it was, and the adapter matters: everywhere it would be another model.
    assert torch.equal(by_peft(model, forest, left=left), expected)
    ordinary = awake(_fresh_adapter(tiny_model(architecture)[0], LoraConfig(r=4, alpha=8)))
    assert (unshared_scores(ordinary, forest).logps_N - expected).abs().max() > 1e-3


def test_models_that_cannot_take_a_tree_are_computed_by_pefts_offsets() -> None:
    model = tiny_adapter("gemma3_text")
    forest = forest_of(prompts_of_all_kinds())
    scorer = Scorer(model)
    assert scorer.path == "unshared: its layers look back 1024 tokens only"
    with scorer.session():
        found = scorer(forest).logps_N
        assert torch.allclose(found, by_peft(model, forest, left=False), atol=1e-5, rtol=0)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with pytest.raises(TrainingError, match="gradient checkpointing"):
            scorer(forest)


def test_gradient_checkpointing_and_dropout() -> None:
    model = tiny_adapter()
    forest = forest_of(prompts_of_all_kinds())
    scorer = Scorer(model)
    with scorer.session():
        expected = gradients(model, scorer(forest).logps_N)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        assert torch.allclose(gradients(model, scorer(forest).logps_N), expected, atol=1e-6)
    dropping = tiny_adapter(dropout=0.5).train()
    scorer = Scorer(dropping)
    with scorer.session(), torch.no_grad():
        one, other = scorer(forest).logps_N, scorer(forest).logps_N
    assert (one - other).abs().max() > 1e-3
    assert "43 of 86" in scorer.path  # the base drops nothing out, so what is kept stays right


def test_where_a_token_may_look_by_hand() -> None:
    tree = Tree.star((1, 2, 7, 8, 9), [(4, 5), (6,)])
    begun, rests, pick = graft(pack([tree, Tree.star(HEADER, [(3,)])]), HEADER)
    assert begun == [(1, 2), ()]
    assert rests.input_ids.tolist() == [[7, 8, 9, 4, 5, 6, 7, 8, 9, 3]]
    assert rests.position_ids.tolist() == [[2, 3, 4, 5, 6, 5, 0, 1, 2, 3]]
    assert rests.predictors.rows.tolist() == [2, 3, 8]
    assert pick.tolist() == [0, 1, 0, 2]
    assert rests.predictors.rows[pick].tolist() == [2, 3, 2, 8]
    mask = graft_mask(rests, torch.tensor([2, 0]))
    # Rows: 7 8 9, then 4 5 6. Columns: 1 2, then 7 8 9, then 4 5 6.
    assert mask[0, 0].int().tolist() == [
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 0, 0, 1],
    ]
    assert mask[1, 0, :4].int().tolist() == [
        [0, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
    ]
    # Of these, the rows of 9 and 4; and of 9, behind which comes padding that looks anywhere.
    found = graft_predictors(rests, mask)
    assert found.mask[0].equal(mask[0, :, [2, 3]])
    assert found.mask[1, 0, 0].equal(mask[1, 0, 2])
    assert found.mask[1, 0, 1].any()


def test_turns_of_a_conversation_are_each_their_own_prompt() -> None:
    """They are planted on one tree, where the second prompt goes on from the first answer. To the adapter that answer
    is its own text when it is scored, and the base's when it is part of the next prompt."""
    first, answer = ids(300) + HEADER, ids(6)
    second = first + answer + ids(20) + HEADER
    branches = [(first, answer), (second, ids(5)), (first, ids(4)), (second, ids(3))]
    trees, numbers = plant(branches)
    assert len(trees) == 1
    model, forest = tiny_adapter(), pack(trees)
    apart = pack([Tree.star(branches[number][0], [branches[number][1]]) for number in numbers])
    scorer = Scorer(model)
    with scorer.session(), torch.no_grad():
        found = scorer(forest).logps_N
    assert torch.allclose(found, by_peft(model, apart, left=False), atol=1e-5, rtol=0)
    assert forest.target.tolist() == apart.target.tolist()


def test_a_prompt_without_the_header_is_refused() -> None:
    model = tiny_adapter()
    with Scorer(model).session() as scorer, pytest.raises(ModelError, match="lacks those at which"):
        scorer(pack([Tree((Segment((1, 2, 3)), Segment((4,), 0, True)))]))


def test_what_is_kept_has_a_limit_and_its_bits_do_not_depend_on_company() -> None:
    model = tiny_adapter()
    prompts = [ids(n) for n in (10, 11, 12)]
    size = BeginningPrompts(base_of(model), 0, 0, turnover=False)([prompts[2]])[0].bytes
    for turnover, computed in ((False, 33 + 12), (True, 33 + 10)):
        kept = BeginningPrompts(base_of(model), 0, 2 * size, turnover=turnover)
        together = kept(prompts)
        assert (kept.computed, kept.asked) == (33, 33)
        kept([prompts[1]])  # in both
        kept([prompts[2 if computed == 45 else 0]])
        assert kept.computed == computed
        for ids_P, prefix in zip(prompts, together, strict=True):
            (alone,) = BeginningPrompts(base_of(model), 0, 0, turnover=False)([ids_P])
            for (keys, values), (k, v) in zip(prefix.layers, alone.layers, strict=True):
                assert torch.equal(keys, k) and torch.equal(values, v)


def test_sharded_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base that computes the prompts would keep them whole in every process."""
    for name, value in {"RANK": "0", "MASTER_ADDR": "localhost", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match="cannot be trained with sharded weights"), learner(tiny_adapter()):
        pass
