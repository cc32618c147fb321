"""The gate decides by the whole interval and the exact test, never by the mean."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from dpo_driver.agents.prompt import get_profile
from dpo_driver.core.config import RunConfig
from dpo_driver.core.records import Decision, ModelVersion, PairedDifference
from dpo_driver.flywheel.champion import own_champion, rival
from dpo_driver.flywheel.collect import make_tasks
from dpo_driver.flywheel.context import RunContext, open_run
from dpo_driver.flywheel.promote import against_rival, decide, move_aliases
from dpo_driver.policies.loading import save_version
from dpo_driver.registry import Registry
from dpo_driver.testing.tiny_models import tiny_model


@pytest.mark.parametrize(
    ("mean", "low", "high", "p", "promoted", "word"),
    [
        (0.17, 0.13, 0.21, 1e-9, True, ", wholly above"),
        (0.05, -0.01, 0.11, 0.09, False, "not wholly above"),
        (-0.10, -0.15, -0.05, 1e-6, False, "not wholly above"),
        (0.60, 0.05, 1.00, 0.25, False, "exact test"),  # 3 wins of 5: the bootstrap alone would have let it through
    ],
)
def test_the_gate(mean: float, low: float, high: float, p: float, promoted: bool, word: str) -> None:
    gain = PairedDifference(mean=mean, low=low, high=high, n=1080, wins=3, losses=0, p_mcnemar=p)
    decision = decide(gain, "pocket/dpo-1", "pocket/sft", 0.0)
    assert decision.promoted is promoted
    assert word in decision.reasons[0]


def test_a_required_gain_moves_the_gate() -> None:
    gain = PairedDifference(mean=0.06, low=0.03, high=0.09, n=1080, p_mcnemar=0.001)
    assert decide(gain, "a", "b", 0.02).promoted
    assert not decide(gain, "a", "b", 0.05).promoted


def test_nothing_measured_is_refused() -> None:
    nothing = PairedDifference(mean=None, low=None, high=None, n=0)
    assert not decide(nothing, "a", "b", 0.0).promoted


# -- who is champion already -----------------------------------------------------------------------------------------


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[RunContext]:
    """A run with two models, and one of another run beside it; the gate's tasks are the toy pages."""
    config = RunConfig.model_validate({
        "project": {"name": "p", "run_dir": tmp_path / "mine"}, "env": {"name": "toy", "tasks": ["press", "login"]},
        "tracking": {"mlflow": False},
    })  # fmt: skip
    with open_run(config, console=Console(file=io.StringIO())) as opened:
        for folder, name in (("mine/models/sft", "sft"), ("mine/models/dpo-1", "dpo-1"), ("other/dpo-1", "dpo-1")):
            save_version(*tiny_model("qwen3", seed=len(folder)), tmp_path / folder)
            profile = "chat" if folder.startswith("other") else "pocket"
            opened.registry.register(ModelVersion(name=f"p/{name}", version=0, path=str(tmp_path / folder), parent=None,
                                                  base_model="tiny", algorithm="dpo", content_hash="",
                                                  prompt_profile=profile))  # fmt: skip
        yield opened


def proven() -> Decision:
    gain = PairedDifference(mean=0.2, low=0.1, high=0.3, n=100, wins=20, losses=0, p_mcnemar=1e-6)
    return decide(gain, "p/dpo-1", "p/sft", 0.0)


def test_a_project_without_a_champion_begins_with_the_parent(ctx: RunContext) -> None:
    assert own_champion(ctx) is None and rival(ctx, "sft", "dpo-1") is None
    refused = proven().model_copy(update={"promoted": False})
    assert move_aliases(ctx, refused, "sft", "dpo-1")["summary"].startswith("refused")
    assert own_champion(ctx) == "sft" and rival(ctx, "sft", "dpo-1") is None
    assert rival(ctx, "dpo-1") is not None  # a gate that compared with something else does not pass it over


@pytest.mark.parametrize("better", [True, False])
def test_another_runs_champion_is_measured_and_stays_unless_it_is_beaten(ctx: RunContext, better: bool) -> None:
    ctx.registry.set_alias("champion", "p:3")
    assert own_champion(ctx) is None
    held = rival(ctx, "sft", "dpo-1")
    assert held is not None and held.path.endswith("other/dpo-1")
    tasks = make_tasks(ctx, "test", {"press": 6, "login": 6})
    # The other run's model is random: it really fails where it acts. What the candidate did is given.
    ours = {(task.name, task.seed): better for task in tasks}
    decision = against_rival(ctx, proven(), held, ours, "evaluate/champion", tasks)
    assert decision.champion == "p:3" and decision.gain is not None and decision.gain.n == 12
    assert decision.promoted is better
    assert decision.reasons[0].startswith("over the champion p:3") and "over its parent p/sft" in decision.reasons[1]
    (stage,) = [one for one in ctx.store.trajectory_stages() if one.startswith("evaluate/champion/")]
    played = ctx.store.trajectories(stage)
    assert len(played) == 12
    assert ctx.config.model.prompt_profile == "pocket"  # but the rival gets the prompts that it knows
    assert {one.context_policy for one in played} == {get_profile("chat").id}


def test_a_refused_candidate_costs_no_measurement_and_leaves_another_runs_champion(ctx: RunContext) -> None:
    ctx.registry.set_alias("champion", "p:3")
    held = rival(ctx, "sft", "dpo-1")
    assert held is not None
    refused = proven().model_copy(update={"promoted": False})
    decision = against_rival(ctx, refused, held, {}, "evaluate/champion", [])
    assert decision.champion == "p:3" and not decision.promoted and not ctx.store.trajectory_stages()
    for _ in range(2):  # a stage that was killed here does it again, and is told once
        move_aliases(ctx, decision, "sft", "dpo-1")
    told = [move for move in ctx.registry.history("p") if move.kind == "refuse"]
    assert len(told) == 1 and "over its parent p/sft" in told[0].why
    assert ctx.registry.decision(ctx.registry.get("p:2")) == decision  # p:3 bears the same name
    assert ctx.registry.decision(ctx.registry.get("p:3")) is None
    assert Registry(ctx.run_dir.parent).aliases()["p@champion"] == "p/dpo-1"
    assert ctx.registry.get("champion").version == 3
