"""The verbs' own rules, on the browserless environment: resume, where rollouts go, what is excluded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import ConfigError, UnknownNameError
from dpo_driver.core.records import StopReason, Trajectory
from dpo_driver.flywheel.collect import LEAST_SHARE, make_tasks, next_round, roll_out, seeds_per_task
from dpo_driver.flywheel.context import RunContext, open_run
from dpo_driver.flywheel.evaluate import evaluate, outcomes, report_on
from dpo_driver.report.data import report_json

FAMILIES = ("press", "login", "wizard")


def config(folder: Path, **sections: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "project": {"run_dir": folder},
            "env": {"name": "toy", "tasks": FAMILIES},
            "collect": {"episodes_per_task": 40, "group_size": 4},
            "tracking": {"mlflow": False},
            **sections,
        }
    )


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[RunContext]:
    with open_run(config(tmp_path / "run"), console=Console(file=io.StringIO())) as context:
        yield context


def fake(ctx: RunContext, stage: str, name: str, seed: int, success: bool | None) -> Trajectory:
    task = make_tasks(ctx, "val", {name: 1}, seed)[0]
    reason = StopReason.BROWSER_LOST if success is None else StopReason.SUCCESS if success else StopReason.WRONG
    return Trajectory(
        id=f"{stage}/{task.id}/0",
        task=task,
        agent="sft",
        stop_reason=reason,
        success=success,
        reward=None if success is None else float(success),
        failure=None if success is not None else "killed",
    )


def test_a_rollout_goes_on_where_it_stopped(ctx: RunContext) -> None:
    tasks = make_tasks(ctx, "train", dict.fromkeys(FAMILIES, 5))
    roll_out(ctx, "collect/1", "first", tasks[:6], RandomAgent(), group_size=2)
    again = roll_out(ctx, "collect/1", "second", tasks, RandomAgent(), group_size=2)
    assert (again.total, again.skipped, again.finished) == (30, 12, 18)
    assert ctx.store.count("collect/1") == 30


def test_a_finished_stage_is_not_done_again(ctx: RunContext) -> None:
    calls: list[int] = []

    def work() -> dict[str, int]:
        calls.append(1)
        return {"answer": 42}

    assert ctx.stage("s", "title", work) == ctx.stage("s", "title", work) == {"answer": 42}
    assert calls == [1]


def test_a_stage_that_fails_is_begun_again(ctx: RunContext) -> None:
    def broken() -> dict[str, int]:
        raise RuntimeError("cut off")

    with pytest.raises(RuntimeError):
        ctx.stage("s", "title", broken)
    assert ctx.store.stage_status("s").state == "running"
    assert ctx.stage("s", "title", lambda: {"answer": 1}) == {"answer": 1}


def test_rollouts_go_where_success_is_uncertain(ctx: RunContext) -> None:
    stage = "evaluate/val/sft"
    shares = {"press": 10, "login": 5, "wizard": 0}  # successes of 10
    rows = [fake(ctx, stage, name, seed, seed < won) for name, won in shares.items() for seed in range(10)]
    ctx.store.add_trajectories(stage, rows)
    counts = seeds_per_task(ctx, 1)
    # 40 / 4 = 10 starts a family, 30 in all, weighted max(.1, 4p(1-p)) with p = (won + .5) / 11: .17, 1, .17
    assert LEAST_SHARE == 0.1
    assert counts == {"press": 4, "login": 22, "wizard": 4}


def test_without_a_measurement_every_family_gets_the_same(ctx: RunContext) -> None:
    assert seeds_per_task(ctx, 1) == dict.fromkeys(FAMILIES, 10)


def test_failures_are_excluded_not_counted_as_losses(ctx: RunContext) -> None:
    rows = [fake(ctx, "e", "press", seed, outcome) for seed, outcome in enumerate([True, True, False, None, None])]
    report = report_on(rows, "sft", "v", "val", 1.0)
    assert (report.strict.n, report.strict.excluded) == (3, 2)
    assert report.strict.success == pytest.approx(2 / 3)
    assert report.stop_reasons == {"success": 2, "wrong": 1, "browser_lost": 2}


def test_evaluation_uses_the_test_block_only_once(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", evaluate={"agents": ["random"], "reference_episodes": 12})
    with open_run(settings, console=Console(file=io.StringIO())) as context:
        first = evaluate(context)["random"]
        assert first.strict.n == 12
        assert first.seeds == (900_000, 900_003)
        assert evaluate(context)["random"] == first  # read back, not measured again
        assert len(outcomes(context, "evaluate/test/random")) == 12


def test_held_out_families_are_measured_apart(tmp_path: Path) -> None:
    settings = config(
        tmp_path / "run",
        env={"name": "toy", "tasks": ["press"]},
        evaluate={
            "agents": ["random"],
            "reference_episodes": 9,
            "held_out": {"forms": ["login"], "long": ["wizard"]},
            "held_out_per_task": 7,
        },
    )
    with open_run(settings, console=Console(file=io.StringIO())) as context:
        tested = evaluate(context)["random"]
        assert set(tested.tasks) == {"press"} and tested.strict.n == 9
        assert {name for name, _ in outcomes(context, "evaluate/test/random")} == {"press"}
        figures = report_json(context.run_dir)["held_out"]
        assert {group: list(found["by_task"]) for group, found in figures.items()} == {
            "forms": ["login"],
            "long": ["wizard"],
        }
        played = outcomes(context, "evaluate/held-out/random")
        assert {seed for _, seed in played} == set(range(900_000, 900_007))
        for group, name in (("forms", "login"), ("long", "wizard")):
            rate = figures[group]["by_task"][name]["random"]
            assert (rate["n"], rate["excluded"]) == (7, 0) and figures[group]["agents"]["random"] == rate
            assert rate["success"] == sum(bool(won) for key, won in played.items() if key[0] == name) / 7
            assert figures[group]["gain"] is None


def test_the_gain_on_held_out_families_is_paired_and_no_part_of_the_gate(tmp_path: Path) -> None:
    held_out = {"forms": ["login"], "long": ["wizard"]}
    settings = config(
        tmp_path / "run",
        env={"name": "toy", "tasks": ["press"]},
        evaluate={"agents": ["random"], "reference_episodes": 3, "held_out": held_out, "held_out_per_task": 10},
    )
    with open_run(settings, console=Console(file=io.StringIO())) as context:
        for agent, won in (("sft", {"login": 2, "wizard": 9}), ("dpo", {"login": 8, "wizard": 6})):
            stage = f"evaluate/held-out/{agent}"
            rows = {name: [fake(context, stage, name, seed, seed < won[name]) for seed in range(10)] for name in won}
            context.store.add_trajectories(stage, [row for name in rows for row in rows[name]])
            reports = {title: report_on(rows[names[0]], agent, "v", "test", 1.0) for title, names in held_out.items()}
            context.store.set_fact(f"eval_held_out/{agent}", {k: r.model_dump(mode="json") for k, r in reports.items()})
        evaluate(context)
        figures = report_json(context.run_dir)
        gains = {title: figures["held_out"][title]["gain"] for title in held_out}
        assert gains["forms"]["mean"] == pytest.approx(0.6) and gains["forms"]["low"] > 0 and gains["forms"]["n"] == 10
        assert gains["long"]["mean"] == pytest.approx(-0.3) and gains["long"]["high"] <= 0
        assert context.store.get_fact("gain") is None and figures["gain"] is None


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ({"a": ["press"]}, "press cannot be in"),
        ({"a": ["x"], "b": ["x", "y"]}, "lists twice: x"),
        ({"a": []}, "held_out"),
    ],
)
def test_what_is_held_out_is_not_trained_on(tmp_path: Path, held_out: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(tmp_path, evaluate={"held_out": held_out})


def test_a_run_that_holds_nothing_out_keeps_its_hash(tmp_path: Path) -> None:
    plain, other = config(tmp_path), config(tmp_path, evaluate={"held_out_per_task": 3})
    apart = config(tmp_path, env={"name": "toy", "tasks": ["press"]}, evaluate={"held_out": {"a": ["login"]}})
    assert plain.hash() == other.hash() != apart.hash()


def test_an_unknown_agent_is_named(ctx: RunContext) -> None:
    with pytest.raises(UnknownNameError, match="did you mean oracle"):
        evaluate(ctx, agents=["orcale"])


def test_the_next_round_is_the_first_unfinished(tmp_path: Path) -> None:
    with open_run(config(tmp_path / "run", rounds=3), console=Console(file=io.StringIO())) as context:
        context.stage("pair/1", "pair", dict)
        assert next_round(context, "pair", None) == 2
        assert next_round(context, "pair", 1) == 1


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    with open_run(config(tmp_path / "run"), console=Console(file=io.StringIO())):
        pass
    changed = config(tmp_path / "run", dpo={"beta": 0.3})
    with pytest.raises(ConfigError, match=r"dpo\.beta"), open_run(changed, console=Console(file=io.StringIO())):
        pass
