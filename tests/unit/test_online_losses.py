"""The online objectives and their advantages, against values derived by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dpo_driver.algorithms import ONLINE_ALGORITHMS, load_algorithm
from dpo_driver.algorithms.advantages import anchored, group_relative, group_std, leave_one_out, normalised
from dpo_driver.algorithms.rollouts import Experience, RolloutTotals, ScoredRollouts, clipped, k3
from dpo_driver.core.errors import UnknownNameError

E = 1e-4


def experience(**changes: Any) -> Experience:
    """Two groups: A with rewards 1 and 0, B with 1, 1 and 0. Trajectory 0 has two turns (2 + 1 tokens), others one turn
    of one token. The first turn of 0 and that of 1 were decided in the same state."""
    values: dict[str, Any] = {
        "reward_J": torch.tensor([1.0, 0, 1, 1, 0]),
        "group_J": torch.tensor([0, 0, 1, 1, 1]),
        "trajectory_U": torch.tensor([0, 0, 1, 2, 3, 4]),
        "return_U": torch.tensor([0.5, 1, 0, 1, 1, 0]),
        "anchor_U": torch.tensor([0, 1, 0, 2, 2, 2]),
        "turn_K": torch.tensor([0, 0, 1, 2, 3, 4, 5]),
        "drift_K": torch.tensor([0.1, 0.2, 0.3, -0.4, 0, 0, 0.5]),
    }
    return Experience(**(values | changes))


def scored(**changes: Any) -> ScoredRollouts:
    """Three turns of 2, 1 and 1 tokens; the first two are one trajectory. Ratios: e^0, e^.5, e^-.5, e^.1."""
    values: dict[str, Any] = {
        "logps_K": torch.tensor([-1.0, -1.5, -2.0, -0.4], requires_grad=True),
        "entropy_K": torch.tensor([0.2, 0.4, 0.6, 0.8]),
        "old_K": torch.tensor([-1.0, -2.0, -1.5, -0.5]),
        "reference_K": torch.tensor([-1.0, -1.0, -2.0, -0.9]),
        "advantage_K": torch.tensor([1.0, 1.0, 1.0, -2.0]),
        "turn_K": torch.tensor([0, 0, 1, 2]),
        "lengths_U": torch.tensor([2.0, 1, 1]),
        "trajectory_tokens_U": torch.tensor([3.0, 3, 1]),
        "totals": RolloutTotals(tokens=4, turns=3, trajectories=2),
    }
    return ScoredRollouts(**(values | changes))


def test_group_relative_by_hand() -> None:
    rewards, groups = torch.tensor([1.0, 0, 1, 1, 0]), torch.tensor([0, 0, 1, 1, 1])
    half, third = math.sqrt(0.5), math.sqrt(1 / 3)  # standard deviations with n - 1
    assert group_std(rewards, groups).tolist() == pytest.approx([half, half, third, third, third])
    expected = [0.5 / (half + E), -0.5 / (half + E), *[1 / 3 / (third + E)] * 2, -2 / 3 / (third + E)]
    assert group_relative(rewards, groups, "group").tolist() == pytest.approx(expected)
    assert group_relative(rewards, groups, "none").tolist() == pytest.approx([0.5, -0.5, 1 / 3, 1 / 3, -2 / 3])
    spread = math.sqrt((3 * 0.4**2 + 2 * 0.6**2) / 4)
    assert group_relative(rewards, groups, "batch")[0].item() == pytest.approx(0.5 / (spread + E))


def test_groups_that_agree_teach_nothing() -> None:
    rewards, groups = torch.tensor([1.0, 1, 0.0]), torch.tensor([0, 0, 1])
    for found in (group_relative(rewards, groups, "group"), leave_one_out(rewards, groups)):
        assert found.tolist() == [0, 0, 0]


def test_leave_one_out_by_hand() -> None:
    found = leave_one_out(torch.tensor([1.0, 0, 1, 1, 0]), torch.tensor([0, 0, 1, 1, 1]))
    assert found.tolist() == pytest.approx([1, -1, 0.5, 0.5, -1])


def test_anchored_and_normalised_by_hand() -> None:
    found = anchored(torch.tensor([0.5, 1, 0, 1, 1, 0]), torch.tensor([0, 1, 0, 2, 2, 2]))
    assert found.tolist() == pytest.approx([0.25, 0, -0.25, 1 / 3, 1 / 3, -2 / 3])
    one = 1 / (math.sqrt(2) + E)
    assert normalised(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-one, one])


def test_k3_is_zero_at_home_and_never_negative() -> None:
    found = k3(torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-1.0, -0.5, -2.0]))
    assert found.tolist() == pytest.approx([0.0, math.exp(0.5) - 1.5, math.exp(-1.0)])


def test_k3_is_an_unbiased_estimate_of_the_kl() -> None:
    """The mean over samples of p, taken exactly by weighting with p, is KL(p || q)."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    exact = float((p * (p / q).log()).sum())
    assert float((p * k3(p.log(), q.log())).sum()) == pytest.approx(exact)


def test_the_clip_by_hand() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5])
    surrogate, cut = clipped(ratio, torch.tensor([1.0, -1, 1, -1]), 0.2, 0.3)
    assert surrogate.tolist() == pytest.approx([1.3, -1.5, 0.5, -0.8])
    assert cut.tolist() == [1, 0, 0, 1]


def test_grpo_advantages_by_hand() -> None:
    found = load_algorithm("grpo", scale_rewards="none").advantages(experience())
    assert found.tolist() == pytest.approx([0.5, 0.5, 0.5, -0.5, 1 / 3, 1 / 3, -2 / 3])
    with_credit = load_algorithm("grpo", scale_rewards="none", step_credit=2.0).advantages(experience())
    # Beside the trajectory's: twice the comparison within the same state.
    expected = [0.5 + 0.5, 0.5 + 0.5, 0.5, -0.5 - 0.5, 1, 1, -2]
    assert with_credit.tolist() == pytest.approx(expected)


def test_grpo_loss_by_hand() -> None:
    beta = 0.1
    loss, metrics = load_algorithm("grpo", beta=beta, epsilon=0.2).loss(scored())
    surrogate = [1.0, 1.2, math.exp(-0.5), -2 * math.exp(0.1)]
    kl = [0.0, math.exp(0.5) - 1.5, 0.0, math.exp(-0.5) - 0.5]
    expected = [-s + beta * k for s, k in zip(surrogate, kl, strict=True)]
    assert loss.item() == pytest.approx(sum(expected) / 4)
    assert metrics["kl"].item() == pytest.approx(sum(kl) / 4)
    assert metrics["clip_ratio"].item() == 0.25
    assert metrics["entropy"].item() == pytest.approx(0.5)
    assert metrics["logps"].item() == pytest.approx(-4.9 / 4)
    by_turn, _ = load_algorithm("grpo", beta=beta, loss_type="grpo").loss(scored())
    assert by_turn.item() == pytest.approx(((expected[0] + expected[1]) / 2 + expected[2] + expected[3]) / 3)
    by_trajectory, _ = load_algorithm("grpo", beta=beta, loss_type="trajectory").loss(scored())
    assert by_trajectory.item() == pytest.approx((sum(expected[:3]) / 3 + expected[3]) / 2)


def test_a_clipped_token_has_no_gradient() -> None:
    batch = scored(reference_K=None)
    load_algorithm("grpo", beta=0.0).loss(batch)[0].backward()
    assert batch.logps_K.grad is not None
    # d(-ratio A)/dlogp = -ratio A, over four tokens; the second one is clipped.
    expected = [-1 / 4, 0.0, -math.exp(-0.5) / 4, 2 * math.exp(0.1) / 4]
    assert batch.logps_K.grad.tolist() == pytest.approx(expected)


def test_rloo_by_hand() -> None:
    rloo = load_algorithm("rloo", beta=0.5)
    # Drifts of whole trajectories: .6, -.4, 0, 0, .5, so rewards .7, .2, 1, 1, -.25.
    expected = [0.5, 0.5, 0.5, -0.5, 1 - 0.375, 1 - 0.375, -0.25 - 1]
    assert rloo.advantages(experience()).tolist() == pytest.approx(expected)
    loss, metrics = rloo.loss(scored())
    # Ratios of whole turns: e^.5 (clipped to 1.2), e^-.5, e^.1.
    assert loss.item() == pytest.approx(-(1.2 + math.exp(-0.5) - 2 * math.exp(0.1)) / 3)
    assert metrics["clip_ratio"].item() == pytest.approx(1 / 3)


def test_reinforce_pp_by_hand() -> None:
    # Reward minus half of the drift from the token to the end: trajectory 0 drifts .6, .5, .3.
    raw = torch.tensor([0.7, 0.75, 0.85, 0.2, 1.0, 1.0, -0.25])
    expected = (raw - raw.mean()) / (raw.std() + E)
    assert torch.allclose(load_algorithm("reinforce_pp", beta=0.5).advantages(experience()), expected)
    centred = raw - torch.tensor([0.5, 0.5, 0.5, 0.5, 2 / 3, 2 / 3, 2 / 3])
    expected = (centred - centred.mean()) / (centred.std() + E)
    assert torch.allclose(load_algorithm("reinforce_pp", beta=0.5, baseline=True).advantages(experience()), expected)
    loss, _ = load_algorithm("reinforce_pp").loss(scored())
    assert loss.item() == pytest.approx(-(1.0 + 1.2 + math.exp(-0.5) - 2 * math.exp(0.1)) / 4)


@pytest.mark.parametrize("name", ONLINE_ALGORITHMS)
def test_shares_of_a_cut_step_add_up(name: str) -> None:
    algorithm = load_algorithm(name)
    whole, metrics = algorithm.loss(scored())
    first = scored(**{key: getattr(scored(), key)[:3] for key in TOKENS}, turn_K=torch.tensor([0, 0, 1]),
                   lengths_U=torch.tensor([2.0, 1]), trajectory_tokens_U=torch.tensor([3.0, 3]))  # fmt: skip
    second = scored(**{key: getattr(scored(), key)[3:] for key in TOKENS}, turn_K=torch.tensor([0]),
                    lengths_U=torch.tensor([1.0]), trajectory_tokens_U=torch.tensor([1.0]))  # fmt: skip
    parts = [algorithm.loss(batch) for batch in (first, second)]
    assert sum(loss.item() for loss, _ in parts) == pytest.approx(whole.item())
    for key, value in metrics.items():
        assert sum(found[key].item() for _, found in parts) == pytest.approx(value.item()), key


TOKENS = ("logps_K", "entropy_K", "old_K", "reference_K", "advantage_K")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="loss_type"):
        load_algorithm("grpo", loss_type="dr")
    with pytest.raises(UnknownNameError, match="scale_rewards"):
        load_algorithm("grpo", scale_rewards="all")
