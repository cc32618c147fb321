"""Sweeps that really run, on the browserless environment: what is shared is what would have been computed, a stopped
sweep goes on, a broken point loses no other."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from rich.console import Console

from dpo_driver.core.records import Sampling
from dpo_driver.core.store import RunStore, StageStatus
from dpo_driver.flywheel import loop
from dpo_driver.flywheel.collect import make_tasks, model_agent, roll_out
from dpo_driver.flywheel.context import RunContext, open_run
from dpo_driver.flywheel.pair import pair
from dpo_driver.flywheel.sweep import sweep
from dpo_driver.flywheel.sweep_plan import SHARED, Plan, Point, States
from dpo_driver.flywheel.sweep_share import NO_RESULT, share, stages
from dpo_driver.preferences import successes_as_samples
from dpo_driver.registry import Registry
from dpo_driver.report.sweep_data import collect_sweep
from sample_sweep import demonstrate, small_plan

pytestmark = pytest.mark.timeout(300)
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPT = Path(__file__).resolve().parents[1] / "sample_sweep.py"
SHARED_UNDER_BETA = {"demos", "sft", "evaluate/val/sft", "collect/1", "pair/1", "evaluate/test/sft"}


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def run(plan: Plan) -> tuple[States, str]:
    """The states of a sweep and what it said."""
    console = quiet()
    states = sweep(plan, console)
    assert isinstance(console.file, io.StringIO)
    return states, console.file.getvalue()


def reading(point: Point) -> RunStore:
    return RunStore(point.config.run_dir, mode="read")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, str]:
    """A finished sweep over two values of beta."""
    plan = small_plan(tmp_path_factory.mktemp("sweep"), "dpo.beta=.1,.3")
    demonstrate(plan.points[0].config)
    states, said = run(plan)
    assert {state.state for state in states.values()} == {"done"}, states
    return plan, said


def test_the_second_point_begins_where_the_first_key_matters(swept: tuple[Plan, str]) -> None:
    plan, said = swept
    assert "6 stages would come out the same and were copied: 6 of dpo.beta=0.1" in said
    with reading(plan.points[0]) as one, reading(plan.points[1]) as two:
        copied = {stage.stage for stage in two.stages() if two.get_fact(SHARED.format(stage.stage))}
        assert copied == SHARED_UNDER_BETA
        for stage in copied:
            assert two.trajectories(stage) == one.trajectories(stage)
            assert two.metrics(stage) == one.metrics(stage)
            assert two.stage_status(stage) == one.stage_status(stage)
        assert two.preferences(1) == one.preferences(1)
        for fact in ("collect_span/1", "pair_stats/1"):
            assert two.get_fact(fact) == one.get_fact(fact) is not None


def test_what_was_shared_is_what_the_point_would_have_computed_itself(swept: tuple[Plan, str], tmp_path: Path) -> None:
    """The second point once more in an empty folder: every stage and both models come out bit-equal."""
    plan, _ = swept
    alone = small_plan(tmp_path, "dpo.beta=.3")
    demonstrate(alone.points[0].config)
    run(alone)

    def essence(point: Point) -> dict[str, Any]:
        with reading(point) as store:
            return {
                "versions": {name: store.stage_status(name).facts["version"] for name in ("sft", "dpo/1", "control/1")},
                "texts": {
                    stage: [
                        [(step.completion, step.messages) for step in one.steps] for one in store.trajectories(stage)
                    ]
                    for stage in store.trajectory_stages()
                },
                "pairs": store.preferences(1),
                "metrics": {stage: store.metrics(stage).get("loss") for stage in ("sft", "dpo/1")},
            }

    shared, computed = essence(plan.points[1]), essence(alone.points[0])
    assert shared == computed
    assert essence(plan.points[0])["versions"]["dpo/1"] != computed["versions"]["dpo/1"]  # beta does something


def test_every_point_has_its_models_registered_with_their_parents(swept: tuple[Plan, str]) -> None:
    plan, _ = swept
    for point in plan.points:
        name = point.config.project.name
        registry = Registry(plan.folder, model=name)
        line = registry.lineage(f"{name}/dpo-1")
        assert [version.name for version in line] == [f"{name}/dpo-1", f"{name}/sft", f"{name}/base"]
        assert all(Path(version.path).is_relative_to(point.config.run_dir.resolve()) for version in line[:2])
        assert registry.get("champion").name == f"{name}/sft"  # three test pages prove nothing
    one, two = (_versions(plan, point) for point in plan.points)
    assert one["sft"] == two["sft"] and one["dpo-1"] != two["dpo-1"]


def _versions(plan: Plan, point: Point) -> dict[str, str]:
    registered = Registry(plan.folder, model=point.config.project.name).list()
    return {version.name.partition("/")[2]: version.content_hash for version in registered}


def test_a_finished_sweep_runs_nothing_again_and_a_longer_one_only_what_is_new(swept: tuple[Plan, str]) -> None:
    plan, _ = swept
    _, said = run(plan)
    assert said.count("done before") == 2 and "●" not in said
    root = plan.folder.parent
    longer = small_plan(root, "dpo.beta=.1,.3,.9")
    _, said = run(longer)
    assert said.count(": done before") == 2 + len(SHARED_UNDER_BETA)
    report = collect_sweep(longer, run(longer)[0])
    assert [len(row.done) for row in report.rows] == [1, 1, 1]
    assert report.rows[2].points[0].shared_seconds > 0
    assert report.seconds + report.saved_seconds == pytest.approx(sum(point.seconds for point in report.points))


@pytest.mark.slow
def test_kill_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """SIGKILL in the second point, in the middle of what it does by itself."""
    command = [sys.executable, str(SCRIPT), str(tmp_path), "dpo.beta=.1,.3"]
    log = tmp_path / "first.log"
    with log.open("w") as file:
        first = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        try:
            deadline = time.monotonic() + 200
            while log.read_text().count("✓ round 1: DPO") < 2:
                assert first.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait(10)
    plan = small_plan(tmp_path, "dpo.beta=.1,.3")
    states, said = run(plan)
    assert {state.state for state in states.values()} == {"done"}
    assert "✓ [1 of 2] dpo.beta=0.1: done before" in said
    assert "✓ round 1: DPO: done before" in said
    assert "would come out the same" not in said  # that was copied before the kill
    with reading(plan.points[0]) as one, reading(plan.points[1]) as two:
        assert two.trajectories("collect/1") == one.trajectories("collect/1")
        assert two.stage_status("promote").done


def test_a_broken_point_is_reported_and_tried_again_and_loses_no_other(tmp_path: Path) -> None:
    # At temperature 0 siblings do not differ, so there is nothing to compare.
    plan = small_plan(tmp_path, "collect.temperature=0,1.5")
    demonstrate(plan.points[0].config)
    for _ in range(2):
        states, said = run(plan)
        assert states["collect.temperature=1.5"].state == "done"
        broken = states["collect.temperature=0"]
        assert broken.state == "failed" and broken.reason.startswith("round 1 has no preference pairs")
        assert "✗ [1 of 2] collect.temperature=0: round 1 has no preference pairs" in said
    report = collect_sweep(plan, states)
    assert [point.slug for point in report.failed] == ["collect.temperature=0"]
    assert report.rows[1].success is not None and report.rows[0].success is None


@pytest.mark.parametrize("source", ["step", "outcome"])
def test_pairs_come_from_the_sources_that_the_configuration_names(
    swept: tuple[Plan, str], tmp_path: Path, source: str
) -> None:
    with reading(swept[0].points[0]) as store:
        rollouts, both = store.trajectories("collect/1"), store.get_fact("pair_stats/1")
    assert both["by_level"].keys() <= {"step", "outcome"}
    config = small_plan(tmp_path, f"pair.sources=[{source}]").points[0].config
    with open_run(config, console=quiet()) as ctx:
        ctx.store.add_trajectories("collect/1", rollouts)
        stats = pair(ctx, 1)
        assert set(stats.by_level) == {source}
        assert 0 < stats.pairs == len(ctx.store.preferences(1)) <= both["pairs"]


def test_the_command_reports_broken_points_and_fails_at_the_end(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "project: {name: c}\nenv: {name: toy, tasks: [press]}\ntracking: {mlflow: false}\n"
    )
    done = cli("sweep", "c.yaml", "--over", "dpo.beta=.1,.2", timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("nobody demonstrates press") == 2
    rows = json.loads((tmp_path / "runs" / "c-sweep" / "sweep.json").read_text())["rows"]
    assert [point["state"] for row in rows for point in row["points"]] == ["failed", "failed"]


def test_without_a_thought_experts_and_models_write_actions_alone(tmp_path: Path) -> None:
    point = small_plan(tmp_path, "model.thought=false").points[0]
    demonstrate(point.config)
    with open_run(point.config, console=quiet()) as ctx:
        agent = model_agent(ctx, "base", Sampling(temperature=0.0, max_new_tokens=8))
        roll_out(ctx, "tried", "tried", make_tasks(ctx, "val", {"wizard": 1}), agent)
        shown, tried = ctx.store.trajectories("demos"), ctx.store.trajectories("tried")
    assert {one.context_policy for one in (*shown, *tried)} == {"pocket-no-thought-v1(e80,c60,h6)"}
    steps = [step for one in shown for step in one.steps]
    assert len(steps) == 12 and all(step.thought == "" for step in steps)
    assert all(re.fullmatch(r"action: click\(\[\d+\]\)", step.completion) for step in steps)
    earlier, past = shown[0].steps[0], shown[0].steps[1].messages[0].content
    assert f"past: {earlier.completion.removeprefix('action: ')}\n" in past
    rows = successes_as_samples(shown)
    assert [row.completion for row in rows] == [step.completion for step in steps]


# -- by the rule, not by chance --------------------------------------------------------------------------------------


class Watched:
    """A configuration that notes which of its keys are read. A method that reads a whole section counts for all keys of
    it, a property for the keys that it reads; the configuration's own hash is an identity, not a setting."""

    def __init__(self, real: BaseModel, seen: set[str], prefix: str = "") -> None:
        self._real, self._seen, self._prefix = real, seen, prefix

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        self._seen.update(leaves(self._real, self._prefix))
        return iter(self._real)

    def __getattr__(self, name: str) -> Any:
        kind, real = type(self._real), self._real
        if name in kind.model_fields:
            value = getattr(real, name)
            if isinstance(value, BaseModel):
                return Watched(value, self._seen, f"{self._prefix}{name}.")
            self._seen.add(self._prefix + name)
            return value
        if isinstance(getattr(kind, name, None), property):
            return getattr(kind, name).fget(self)
        if name not in ("hash", "resolved_yaml"):
            self._seen.update(leaves(real, self._prefix))
        return getattr(real, name)


def leaves(model: BaseModel, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name in type(model).model_fields:
        value = getattr(model, name)
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {prefix + name}
    return found


class WatchedRun(RunContext):
    """What was read since the stage before is counted for a stage."""

    def stage(self, name: str, title: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        facts = super().stage(name, title, work)
        reads[name] |= seen
        seen.clear()
        return facts


seen: set[str] = set()
reads: dict[str, set[str]] = defaultdict(set)


def test_no_stage_reads_a_key_that_its_entry_in_the_table_leaves_out(tmp_path: Path) -> None:
    """The whole loop with a configuration that notes what is read of it. If this fails after a change of the flywheel:
    the table in flywheel/sweep_share.py must say that the stage reads the key, or a sweep would share it wrongly."""
    agents = "evaluate.agents=[random, base, sft, memory, sft_best, control, dpo, grpo]"
    sources = "pair.sources=[step, outcome, memory]"
    online = "grpo={episodes: 8, groups_per_step: 2, num_generations: 4, max_completion_length: 32, max_steps: 1}"
    replay = "dpo.replay_coefficient=1.0"  # which reads more
    config = small_plan(tmp_path, "dpo.beta=.1", overrides=(agents, sources, replay, online)).points[0].config
    demonstrate(config)
    with open_run(config, console=quiet()) as ctx:
        watched: Any = Watched(config, seen)
        loop.run(WatchedRun(watched, ctx.store, ctx.console, ctx.tracker))
    table = {stage.name: stage for stage in stages(config)}
    done = {name for name in reads if name.partition("/")[0] not in ("replay", "promote")}  # those are never shared
    assert done == table.keys() - {"evaluate/test/oracle"}  # the toy families have no listed expert
    assert {"dpo.beta", "pair.val_fraction", "project.seed"} <= reads["dpo/1"]
    assert {"collect.temperature", "seeds.train", "project.seed"} <= reads["collect/1"]
    nowhere = {f"{section}.{key}" for section, left_out in NO_RESULT.items() for key in left_out}
    # They decide whether a stage is done, not what it does.
    whether = {"rounds", "evaluate.agents", "grpo.episodes", "pair.sources"}
    for name in done:
        allowed = nowhere | whether
        for section, left_out in table[name].reads.items():
            allowed |= {
                key for key in leaves(config) if key.split(".")[0] == section and key.split(".")[1] not in left_out
            }
        assert reads[name] - allowed == set(), f"{name} reads what its entry in sweep_share.stages leaves out"


def stage_of(run_dir: Path, name: str) -> StageStatus:
    with RunStore(run_dir, mode="read") as store:
        return store.stage_status(name)


def donate(plan: Plan, point: Point, *names: str) -> None:
    """Stages of a point, done by itself: rollouts without content that a hand made."""
    with open_run(point.config, console=quiet()) as ctx:
        share(ctx)  # gives the run its identity; there is nothing to copy yet
        for name in names:
            ctx.store.begin_stage(name)
            ctx.store.finish_stage(name, 1.0, {"by": point.slug})


def test_a_stage_is_copied_only_on_top_of_the_donors_own(tmp_path: Path) -> None:
    """Equal keys are not enough: both points made their own demonstrations, so what the one built on its own is no
    stage of the other."""
    plan = small_plan(tmp_path, "dpo.beta=.1,.3")
    one, two = plan.points
    donate(plan, one, "pair/1")  # whose upstream stages are not done: never copied
    donate(plan, two, "demos")
    with open_run(one.config, console=quiet()) as ctx:
        assert share(ctx) == {"demos": two.slug}
        assert ctx.store.get_fact(SHARED.format("demos"))["from"] == two.slug
    with open_run(two.config, console=quiet()) as ctx:
        assert share(ctx) == {}
    third = small_plan(tmp_path, "dpo.beta=.1,.3,.5").points[2]
    with open_run(third.config, console=quiet()) as ctx:
        assert share(ctx) == {"demos": one.slug}
        origin = ctx.store.get_fact(SHARED.format("demos"))["origin"]
    with RunStore(two.config.run_dir) as store:
        assert origin == store.get_fact("sweep/run"), "a copy of a copy names where it was made"


def test_a_stage_that_the_point_began_itself_is_not_overwritten(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "dpo.beta=.1,.3")
    one, two = plan.points
    donate(plan, two)
    with open_run(two.config, console=quiet()) as ctx:
        ctx.store.begin_stage("demos")
    donate(plan, one, "demos")
    with open_run(two.config, console=quiet()) as ctx:
        assert share(ctx) == {}
    assert stage_of(two.config.run_dir, "demos").state == "running"


def test_a_copy_that_was_cut_off_is_finished_or_taken_back(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "dpo.beta=.1,.3")
    one, two = plan.points
    donate(plan, two)
    with open_run(two.config, console=quiet()) as ctx:  # what a kill leaves
        ctx.store.set_fact(SHARED.format("demos"), {"from": one.slug, "origin": "gone"})
        ctx.store.begin_stage("demos")
        assert share(ctx) == {}
        assert ctx.store.get_fact(SHARED.format("demos")) is None, "it will be done here after all"
        ctx.store.set_fact(SHARED.format("demos"), {"from": one.slug, "origin": "gone"})
    donate(plan, one, "demos")
    with open_run(two.config, console=quiet()) as ctx:
        assert share(ctx) == {"demos": one.slug}
        assert ctx.store.stage_status("demos").facts == {"by": one.slug}


def test_other_packages_share_nothing_another_commit_does(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "dpo.beta=.1,.3")
    one, two = plan.points
    donate(plan, one, "demos")
    for changed, copied in (({"torch": "0.0"}, {}), ({"git.commit": "another"}, {"demos": one.slug})):
        with RunStore(one.config.run_dir) as store:
            before = store.get_fact("environment")
            store.set_fact("environment", {**before, **changed})
        with open_run(two.config, console=quiet()) as ctx:
            assert share(ctx) == copied
        with RunStore(one.config.run_dir) as store:
            store.set_fact("environment", before)
