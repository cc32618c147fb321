"""The objectives, against values derived by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dpo_driver.algorithms import ALGORITHMS, algorithm_class, load_algorithm
from dpo_driver.algorithms.base import Scored, Totals
from dpo_driver.algorithms.pair_losses import PAIR_LOSSES, Ratios, pair_loss
from dpo_driver.core.errors import ConfigError, TrainingError, UnknownNameError


def scored(**changes: Any) -> Scored:
    """Two pairs and one sample. Completions: A (-1, -2), B (-4), C (-3), D (-2, -2, -2), S (-5, -1).

    Pair 1: A over B, weight 1. Pair 2: C over D, weight 3. Reference: A -4, B -4, C -3, D -4, S -9.
    """
    values: dict[str, Any] = {
        "logps_N": torch.tensor([-1.0, -2, -4, -3, -2, -2, -2, -5, -1], requires_grad=True),
        "owner_N": torch.tensor([0, 0, 1, 2, 3, 3, 3, 4, 4]),
        "entropy_N": torch.tensor([0.5, 1.5, 0, 0, 0, 0, 0, 0, 1]),
        "lengths_C": torch.tensor([2.0, 1, 1, 3, 2]),
        "turn_U": torch.tensor([0, 1, 2, 3]),
        "side_U": torch.tensor([0, 1, 2, 3]),
        "chosen_R": torch.tensor([0, 2]),
        "rejected_R": torch.tensor([1, 3]),
        "pair_weight_R": torch.tensor([1.0, 3.0]),
        "sample_M": torch.tensor([4]),
        "sample_weight_M": torch.tensor([2.0]),
        "totals": Totals(pairs=4.0, chosen_tokens=1 * 2 + 3 * 1, samples=2.0, sample_tokens=2 * 2, tokens=9),
        "reference_C": torch.tensor([-4.0, -4, -3, -4, -9]),
    }
    return Scored(**(values | changes))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_sums_of_completions() -> None:
    assert scored().sums_C.tolist() == [-3, -4, -3, -6, -6]


def test_dpo_by_hand() -> None:
    # Log-ratios: A +1, B 0, C 0, D -2; margins 1 and 2; beta .5.
    loss, metrics = load_algorithm("dpo", beta=0.5).loss(scored())
    expected = (-log_sigmoid(0.5) * 1 - log_sigmoid(1.0) * 3) / 4
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert metrics["rewards/chosen"].item() == pytest.approx((0.5 * 1 + 0.0 * 3) / 4)
    assert metrics["rewards/rejected"].item() == pytest.approx((0.0 * 1 - 1.0 * 3) / 4)
    assert metrics["rewards/margins"].item() == pytest.approx((0.5 * 1 + 1.0 * 3) / 4)
    assert metrics["rewards/accuracies"].item() == 1.0
    assert metrics["logps/chosen"].item() == pytest.approx((-3 * 1 - 3 * 3) / 4)
    assert metrics["logps/rejected"].item() == pytest.approx((-4 * 1 - 6 * 3) / 4)


def test_dpo_gradient_by_hand() -> None:
    batch = scored()
    load_algorithm("dpo", beta=0.5).loss(batch)[0].backward()
    # d/dm of -log sigmoid(beta m) is -beta sigmoid(-beta m), times weight / total; minus for the rejected side.
    first, second = (0.5 / (1 + math.exp(0.5 * m)) * w / 4 for m, w in ((1, 1), (2, 3)))
    expected = [-first, -first, first, -second, second, second, second, 0, 0]
    assert batch.logps_N.grad is not None
    assert batch.logps_N.grad.tolist() == pytest.approx(expected, abs=1e-7)


def ratios(*pairs: tuple[float, float], lengths: tuple[tuple[int, int], ...] | None = None) -> Ratios:
    sides = [torch.tensor(side, dtype=torch.float32) for side in zip(*pairs, strict=True)]
    counts = [torch.tensor(side, dtype=torch.float32) for side in zip(*(lengths or [(1, 1)] * len(pairs)), strict=True)]
    return Ratios(sides[0], sides[1], counts[0], counts[1])


def test_label_smoothing_by_hand() -> None:
    found = pair_loss("sigmoid")(ratios((1, 0), (-2, 1)), beta=0.2, label_smoothing=0.1)
    expected = [-0.9 * log_sigmoid(0.2) - 0.1 * log_sigmoid(-0.2), -0.9 * log_sigmoid(-0.6) - 0.1 * log_sigmoid(0.6)]
    assert found.tolist() == pytest.approx(expected)
    assert pair_loss("sigmoid")(Ratios.untrained(), beta=3.0, label_smoothing=0.3).item() == pytest.approx(math.log(2))


def test_length_normalised_loss_by_hand() -> None:
    # Per token: 3 / 2 - (-2 / 4) = 2 and 1 - 1 / 2 = .5.
    found = pair_loss("sigmoid_norm")(ratios((3, -2), (1, 1), lengths=((2, 4), (1, 2))), beta=1.5)
    assert found.tolist() == pytest.approx([-log_sigmoid(3.0), -log_sigmoid(0.75)])


def test_ipo_by_hand() -> None:
    # The same margins per token; the aim is 1 / (2 x .25) = 2.
    found = pair_loss("ipo")(ratios((3, -2), (1, 1), lengths=((2, 4), (1, 2))), beta=0.25)
    assert found.tolist() == pytest.approx([0.0, 2.25])


def test_hinge_by_hand() -> None:
    found = pair_loss("hinge")(ratios((3, -2), (0, 1)), beta=0.1)
    assert found.tolist() == pytest.approx([0.5, 1.1])
    assert pair_loss("hinge")(ratios((9, -2)), beta=0.1).item() == 0.0


@pytest.mark.parametrize(
    ("name", "untrained"), [("sigmoid", math.log(2)), ("sigmoid_norm", math.log(2)), ("hinge", 1.0), ("ipo", 25.0)]
)
def test_every_pair_loss_knows_where_it_starts(name: str, untrained: float) -> None:
    dpo = load_algorithm("dpo", loss_type=name, beta=0.1)
    dpo.check_start({"preference_loss": untrained}, 1e-4)
    with pytest.raises(TrainingError, match="the untrained model is"):
        dpo.check_start({"preference_loss": untrained * 1.01}, 1e-4)
    assert name in PAIR_LOSSES


@pytest.mark.parametrize("name", ["ipo", "hinge"])
def test_losses_without_label_smoothing_say_so(name: str) -> None:
    with pytest.raises(ConfigError, match="takes labels as they are"):
        load_algorithm("dpo", loss_type=name, label_smoothing=0.1)


def test_a_trajectorys_log_ratio_is_the_sum_over_its_turns() -> None:
    """Side 0: completions A and C; side 1: B and D. Log-ratios +1 + 0 and 0 - 2, lengths 3 and 4."""
    batch = scored(
        turn_U=torch.tensor([0, 2, 1, 3]), side_U=torch.tensor([0, 0, 1, 1]), chosen_R=torch.tensor([0]),
        rejected_R=torch.tensor([1]), pair_weight_R=torch.tensor([2.0]),
        totals=Totals(pairs=2.0, chosen_tokens=2 * 3),
    )  # fmt: skip
    loss, metrics = load_algorithm("dpo", beta=0.5, rpo_alpha=1.0).loss(batch)
    assert metrics["rewards/margins"].item() == pytest.approx(0.5 * 3)
    assert metrics["logps/chosen"].item() == -6.0
    assert loss.item() == pytest.approx(-log_sigmoid(1.5) + 6 * 2 / 6)
    loss, _ = load_algorithm("dpo", beta=0.5, loss_type="sigmoid_norm").loss(batch)
    assert loss.item() == pytest.approx(-log_sigmoid(0.5 * (1 / 3 + 2 / 4)))


def test_entropy_is_the_mean_over_the_steps_tokens() -> None:
    for name in ("dpo", "sft", "nll"):
        assert load_algorithm(name).loss(scored())[1]["entropy"].item() == pytest.approx(3 / 9)


def test_dpo_with_imitation_and_replay_by_hand() -> None:
    plain, _ = load_algorithm("dpo", beta=0.5).loss(scored())
    loss, metrics = load_algorithm("dpo", beta=0.5, rpo_alpha=0.2, replay_coefficient=0.7).loss(scored())
    nll, replay = (3 * 1 + 3 * 3) / 5, 6 * 2 / 4
    assert metrics["nll"].item() == pytest.approx(nll)
    assert metrics["nll/replay"].item() == pytest.approx(replay)
    assert loss.item() == pytest.approx(plain.item() + 0.2 * nll + 0.7 * replay)


def test_sft_by_hand() -> None:
    loss, metrics = load_algorithm("sft").loss(scored())
    assert loss.item() == pytest.approx(6 * 2 / 4)
    assert metrics["nll"].item() == pytest.approx(3.0)


def test_nll_control_ignores_the_rejected_side() -> None:
    batch = scored()
    loss, _ = load_algorithm("nll", replay_coefficient=0.5).loss(batch)
    assert loss.item() == pytest.approx(12 / 5 + 0.5 * 3)
    loss.backward()
    assert batch.logps_N.grad is not None
    assert batch.logps_N.grad[[2, 4, 5, 6]].tolist() == [0, 0, 0, 0]


def test_shares_of_a_cut_step_add_up() -> None:
    """The same step in two batches: loss and metrics are sums of the parts."""
    whole_loss, whole = load_algorithm("dpo", rpo_alpha=0.3, replay_coefficient=0.4).loss(scored())
    none, empty = torch.tensor([], dtype=torch.long), torch.tensor([])
    first = scored(
        chosen_R=torch.tensor([0]), rejected_R=torch.tensor([1]), pair_weight_R=torch.tensor([1.0]),
        entropy_N=torch.tensor([0.5, 1.5, 0, 0, 0, 0, 0, 0, 0]),
    )  # fmt: skip
    second = scored(
        chosen_R=torch.tensor([2]), rejected_R=torch.tensor([3]), pair_weight_R=torch.tensor([3.0]),
        entropy_N=torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1.0]), sample_M=none, sample_weight_M=empty,
    )  # fmt: skip
    parts = [load_algorithm("dpo", rpo_alpha=0.3, replay_coefficient=0.4).loss(batch) for batch in (first, second)]
    assert sum(loss.item() for loss, _ in parts) == pytest.approx(whole_loss.item())
    for name, value in whole.items():
        assert sum(metrics[name].item() for _, metrics in parts) == pytest.approx(value.item()), name


def test_dpo_refuses_a_start_other_than_ln2() -> None:
    dpo = load_algorithm("dpo")
    dpo.check_start({"preference_loss": math.log(2) + 5e-5}, 1e-4)
    with pytest.raises(TrainingError, match="not ln 2"):
        dpo.check_start({"preference_loss": 0.70}, 1e-4)
    with pytest.raises(TrainingError, match="not ln 2"):
        dpo.check_start({"preference_loss": math.nan}, 1e-4)


def test_dpo_needs_a_reference() -> None:
    with pytest.raises(TrainingError, match="reference"):
        load_algorithm("dpo").loss(scored(reference_C=None))


def test_names_and_options_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="did you mean dpo"):
        load_algorithm("dpoo")
    with pytest.raises(ConfigError, match="no option 'betta'"):
        load_algorithm("dpo", betta=1)
    with pytest.raises(UnknownNameError, match="loss_type"):
        load_algorithm("dpo", loss_type="sigmoidal")


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_gives_a_finite_loss_and_detached_metrics(name: str) -> None:
    assert algorithm_class(name).learns_from in ("pairs", "samples")
    loss, metrics = load_algorithm(name).loss(scored())
    assert torch.isfinite(loss)
    assert loss.requires_grad
    assert not any(value.requires_grad for value in metrics.values())
    load_algorithm(name).check_start({"preference_loss": math.log(2)}, 1e-4)
