"""Prefix trees are exact: same log-probs and same gradients as computing every completion with its own prompt."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.loading import _fresh_adapter
from dpo_driver.testing.tiny_models import ARCHITECTURES, tiny_model
from dpo_driver.training.attention import BACKENDS, tree_attention, why_not
from dpo_driver.training.attention.flex import spans
from dpo_driver.training.attention.sdpa import prefix_tree_sdpa
from dpo_driver.training.logprobs import Distribution, Scorer, tree_scores, unshared_scores
from dpo_driver.training.tree import Forest, Segment, Tree, pack, plant

RNG = random.Random(0)


def ids(count: int) -> tuple[int, ...]:
    return tuple(RNG.randrange(400) for _ in range(count))


def mixed_trees() -> list[Tree]:
    """A pair, a single completion, four siblings, and a deep tree with unscored turns; all of different lengths."""
    deep = Tree(
        (
            Segment(ids(11)),
            Segment(ids(4), 0, True),
            Segment(ids(3), 1),
            Segment(ids(5), 2, True),
            Segment(ids(2), 1, True),
            Segment(ids(1), 0, True),
        )
    )
    return [
        Tree.star(ids(20), [ids(5), ids(9)]),
        Tree.star(ids(7), [ids(3)]),
        Tree.star(ids(1), [ids(2), ids(2), ids(6), ids(1)]),
        deep,
    ]


def gradients(model: Any, logps: Tensor) -> Tensor:
    """Of a loss in which every token has its own weight."""
    model.zero_grad(set_to_none=True)
    (logps * torch.linspace(-1, 2, len(logps))).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("adapter", ["full", "lora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probs_and_gradients_equal_the_unshared_computation(architecture: str, adapter: str) -> None:
    model, _ = tiny_model(architecture)
    if adapter == "lora":
        model = _fresh_adapter(model, LoraConfig(r=4, alpha=8))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at birth, which would hide every error in lora_A's gradient
                torch.nn.init.normal_(parameter, std=0.1)
    forest = pack(mixed_trees())
    with tree_attention(model):
        shared = tree_scores(model, forest, chunk=7).logps_N
        shared_gradient = gradients(model, shared)
    plain = unshared_scores(model, forest).logps_N
    plain_gradient = gradients(model, plain)
    assert torch.allclose(shared, plain, atol=1e-5, rtol=0)
    assert (shared_gradient - plain_gradient).abs().max() <= 1e-5 * plain_gradient.abs().max()
    assert torch.cosine_similarity(shared_gradient.double(), plain_gradient.double(), dim=0) >= 0.99999
    assert plain_gradient.abs().max() > 1e-3


def test_gradient_checkpointing_changes_nothing() -> None:
    model, _ = tiny_model()
    forest = pack(mixed_trees())
    with tree_attention(model):
        expected = gradients(model, tree_scores(model, forest).logps_N)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        found = gradients(model, tree_scores(model, forest).logps_N)
    assert torch.allclose(found, expected, atol=1e-6)


def test_unshared_equals_one_row_at_a_time() -> None:
    """The oracle of the other tests, against the plainest use of the model there is."""
    model, _ = tiny_model()
    trees = mixed_trees()
    found = unshared_scores(model, pack(trees)).logps_N
    expected = []
    with torch.no_grad():
        for tree in trees:
            for i, segment in enumerate(tree.segments):
                if segment.scored:
                    path = torch.tensor(tree.path(i))
                    logps = model(path[None]).logits[0, :-1].log_softmax(-1).gather(1, path[1:, None])[:, 0]
                    expected.append(logps[-len(segment.ids) :])
    assert torch.allclose(found, torch.cat(expected), atol=1e-5)


def test_trees_do_not_see_each_other() -> None:
    model, _ = tiny_model()
    trees = mixed_trees()
    with tree_attention(model), torch.no_grad():
        together = tree_scores(model, pack(trees)).logps_N
        apart = torch.cat([tree_scores(model, pack([tree])).logps_N for tree in trees])
    assert torch.allclose(together, apart, atol=1e-5)


def test_layout_of_a_small_forest_by_hand() -> None:
    forest = pack([Tree.star((1, 2, 3), [(4, 5), (6,)]), Tree.star((7,), [(8, 9)])])
    assert forest.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert forest.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 2]]
    assert forest.target.tolist() == [4, 5, 6, 8, 9]
    assert forest.owner.tolist() == [0, 0, 1, 2, 2]
    assert forest.lengths.tolist() == [2, 1, 2]
    assert (forest.prompt_length, forest.branch_length) == (3, 3)
    # Rows: 4, 5, 6. Columns: the prompt 1 2 3, then 4 5 6.
    assert forest.branch_mask[0, 0].int().tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 1]]
    assert forest.branch_mask[1, 0, :2].int().tolist() == [[1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 1, 0]]
    found = forest.predictors
    assert found.rows.tolist() == [2, 3, 6, 7]  # 3, 4; 7, 8
    assert found.pick.tolist() == [0, 1, 0, 2, 3]
    assert found.rows[found.pick].tolist() == [2, 3, 2, 6, 7]
    assert (found.slots.tolist(), found.back.tolist(), found.length) == ([0, 1, 2, 3], [0, 1, 2, 3], 2)
    assert found.mask[0, 0].int().tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    assert found.mask[1, 0].int().tolist() == [[1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0]]
    assert forest.tokens == 9
    assert forest.unshared_tokens == 5 + 4 + 3


def test_predictors_of_uneven_trees_by_hand() -> None:
    turns = Tree((Segment((1, 2)), Segment((3,), 0, True), Segment((4, 5), 1), Segment((6, 7), 2, True)))
    forest = pack([Tree.star((8,), [(9,)]), turns])
    found = forest.predictors
    assert found.rows.tolist() == [0, 3, 6, 7]  # 8; 2, 5, 6
    assert found.pick.tolist() == [0, 1, 2, 3]
    assert found.slots.tolist() == [0, 0, 0, 1, 2, 3]
    assert found.real.tolist() == [True, False, False, True, True, True]
    assert found.back.tolist() == [0, 3, 4, 5]
    # Columns: two of the prompt, five of the branches. Padding looks at the prompt.
    assert found.mask[0, 0].int().tolist() == [[1, 0, 0, 0, 0, 0, 0]] * 3
    assert found.mask[1, 0].int().tolist() == [
        [1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0],
    ]  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_the_last_layer_computes_only_what_predicts(checkpointing: bool) -> None:
    model, _ = tiny_model(layers=3)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    forest = pack([Tree.star(ids(50), [ids(4), ids(3)]), Tree.star(ids(20), [ids(2)])])
    seen: list[list[int]] = [[], [], []]
    for layer, tokens in zip(model.model.layers, seen, strict=True):
        layer.mlp.register_forward_pre_hook(lambda _, args, tokens=tokens: tokens.append(args[0].shape[1]))
    with tree_attention(model):
        tree_scores(model, forest).logps_N.sum().backward()
    assert forest.tokens == 79
    times = 2 if checkpointing else 1
    assert seen == [[79] * times, [79] * times, [(1 + 3 + 2) + (1 + 1)] * times]
    model.eval()(torch.tensor([ids(9)]))  # as ever outside
    assert seen[-1][-1] == 9


def test_prompt_sharing_is_counted() -> None:
    tree = Tree.star(ids(1000), [ids(32)] * 4)
    assert tree.unshared_tokens / tree.tokens == 4128 / 1128


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ((Segment((1,)), Segment((), 0)), "empty"),
        ((Segment((1,)), Segment((2,), 2), Segment((3,), 0)), "parents come first"),
        ((Segment((1,)), Segment((2,))), "only segment 0 is a root"),
        ((Segment((1,), scored=True),), "cannot be scored"),
    ],
)
def test_impossible_trees_are_refused(segments: tuple[Segment, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tree(segments)


def test_an_empty_forest_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one tree"):
        pack([])


def test_attention_without_a_forest_says_so() -> None:
    model, _ = tiny_model()
    with tree_attention(model), pytest.raises(RuntimeError, match="needs a forest"):
        model(torch.tensor([[1, 2, 3]]))
    model(torch.tensor([[1, 2, 3]]))  # outside, the model is as it was


def test_models_that_cannot_share_are_computed_plainly_and_say_why() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=448, n_embd=32, n_layer=1, n_head=2, n_positions=64)).eval()
    assert "gpt2" in (why_not(model) or "")
    scorer = Scorer(model)
    forest: Forest = pack(mixed_trees())
    with scorer.session(), torch.no_grad():
        assert torch.equal(scorer(forest).logps_N, unshared_scores(model, forest).logps_N)
    assert scorer.path.startswith("unshared: gpt2")
    linear, _ = tiny_model()
    linear.config.layer_types = ["full_attention", "linear_attention"]
    assert why_not(linear) == "it has linear_attention layers"


def test_a_tree_longer_than_a_sliding_window_is_computed_plainly() -> None:
    """Gemma's windows: within them the tree, beyond them the model's own masks, and the log says how often."""
    model, _ = tiny_model("gemma3_text")
    model.config.sliding_window = 16
    for layer in model.model.layers:
        if layer.self_attn.sliding_window is not None:
            layer.self_attn.sliding_window = 16
    short, long = pack([Tree.star(ids(5), [ids(4), ids(3)])]), pack([Tree.star(ids(20), [ids(4), ids(3)])])
    scorer = Scorer(model)
    with torch.no_grad():
        plain = [unshared_scores(model, forest).logps_N for forest in (short, long)]
        with scorer.session():
            found = [scorer(forest).logps_N for forest in (short, long)]
            wrong = tree_scores(model, long).logps_N
    assert torch.allclose(found[0], plain[0], atol=1e-5)
    assert torch.equal(found[1], plain[1])
    assert (wrong - plain[1]).abs().max() > 1e-3  # the window is felt
    assert scorer.path == "prefix tree, two-part SDPA; 1 of 2 forests unshared: longer than the window of 16"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flex_attention_gives_the_same_numbers(architecture: str) -> None:
    """The forward pass; the backward pass needs CUDA (tests/gpu)."""
    model, _ = tiny_model(architecture)
    forest = pack(mixed_trees())
    scorer = Scorer(model, attention="flex")
    with torch.no_grad():
        plain = unshared_scores(model, forest)
        with scorer.session():
            found = scorer(forest)
    assert torch.allclose(found.logps_N, plain.logps_N, atol=1e-5)
    assert torch.allclose(found.entropy_N, plain.entropy_N, atol=1e-5)
    assert scorer.path == "prefix tree, FlexAttention"


def test_spans_by_hand() -> None:
    tree = Tree(
        (Segment((1, 2)), Segment((3,), 0, True), Segment((4,), 1), Segment((5, 6), 2, True), Segment((7,), 0, True))
    )
    enter, leave = spans(pack([tree, Tree.star((8,), [(9,)])]))
    assert enter.tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 6]
    assert leave.tolist() == [5, 5, 4, 4, 4, 4, 5, 7, 7]


def test_models_that_cap_scores_need_flex() -> None:
    model, _ = tiny_model("gemma2")
    assert "caps attention scores" in (why_not(model) or "")
    assert why_not(model, BACKENDS["flex"]) is None
    forest = pack([Tree.star(ids(9), [ids(4), ids(3)])])
    scorer = Scorer(model, attention="flex")
    with torch.no_grad(), scorer.session():
        found = scorer(forest).logps_N
    with torch.no_grad():
        plain = unshared_scores(model, forest).logps_N
    assert torch.allclose(found, plain, atol=1e-5)


def test_temperature_and_masks_are_applied_again() -> None:
    """Against a softmax by hand over the tokens that could be drawn."""
    model, _ = tiny_model()
    tree = Tree.star(ids(6), [(3, 4)])
    kept = (torch.tensor([3, 7, 9]), None)
    with tree_attention(model), torch.no_grad():
        found = tree_scores(model, pack([tree]), Distribution(torch.tensor([0.5, 2.0]), kept))
    with torch.no_grad():
        logits = model(torch.tensor([tree.path(1)])).logits[0, 5:7]
    first = (logits[0, [3, 7, 9]] / 0.5).softmax(-1)
    second = (logits[1] / 2.0).softmax(-1)
    assert found.logps_N.tolist() == pytest.approx([first[0].log().item(), second[4].log().item()], abs=1e-5)
    entropies = [-(p * p.log()).sum().item() for p in (first, second)]
    assert found.entropy_N.tolist() == pytest.approx(entropies, abs=1e-4)


# --- planting ---------------------------------------------------------------------------------------------------------


def test_long_common_prompts_share_a_tree() -> None:
    system, other = ids(300), ids(280)
    turn = (*system, *ids(20))
    branches = [(turn, (1, 2)), ((*system, 5, 6), (3,)), (other, (4,)), (turn, (7,)), ((*turn, 1, 2, 8, 9), (1,))]
    trees, numbers = plant(branches)
    assert len(trees) == 2
    assert sum(tree.tokens for tree in trees) == 300 + 20 + 2 + 2 + 1 + 280 + 1 + 1 + 2 + 1
    scored = [tree.path(i) for tree in trees for i, segment in enumerate(tree.segments) if segment.scored]
    assert scored == [[*branches[n][0], *branches[n][1]] for n in numbers]
    assert sorted(numbers) == [0, 1, 2, 3, 4]


def test_short_common_prompts_do_not() -> None:
    system = ids(40)
    trees, _ = plant([((*system, 1), (2,)), ((*system, 3), (4,))])
    assert len(trees) == 2  # attention among branches would cost more than 40 tokens are worth


@pytest.mark.parametrize("architecture", ["qwen3", "gemma"])
def test_planted_trees_are_exact(architecture: str) -> None:
    """Turns of one conversation and a common system prompt, against each branch by itself."""
    model, _ = tiny_model(architecture)
    system = ids(270)
    branches = []
    for prompt in ((*system, *ids(9)), (*system, *ids(30))):
        for _ in range(3):
            completion = ids(5)
            branches.append((prompt, completion))
            prompt = (*prompt, *completion, *ids(7))
    trees, numbers = plant(branches)
    assert len(trees) == 1
    apart = pack([Tree.star(*[branches[n][0]], [branches[n][1]]) for n in numbers])
    assert pack(trees).tokens < apart.tokens / 4
    with tree_attention(model):
        found, expected = tree_scores(model, pack(trees)).logps_N, unshared_scores_plainly(model, apart)
        assert torch.allclose(found, expected, atol=1e-5)
        gradient = gradients(model, found)
    assert torch.cosine_similarity(gradient, gradients(model, unshared_scores_plainly(model, apart)), dim=0) > 0.99999


def unshared_scores_plainly(model: Any, forest: Forest) -> Tensor:
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        return unshared_scores(model, forest).logps_N
    finally:
        model.set_attn_implementation(before)


def test_attention_by_hand() -> None:
    """One head, equal scores: each token gets the mean of the values that it may see."""
    forest = pack([Tree.star((1, 2), [(3,)])])
    query = torch.zeros(1, 1, 3, 8)
    value = torch.arange(3.0)[None, None, :, None].expand(1, 1, 3, 8).contiguous()
    out, _ = prefix_tree_sdpa(torch.nn.Module(), query, query, value, None, forest=forest)
    assert torch.allclose(out[0, :, 0, 0], torch.tensor([0.0, 0.5, 1.0]))
