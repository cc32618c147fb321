"""The source ablation in small, on the browserless environment: one SFT model, equal numbers of pairs, one table; a log
of judgements adds a row and runs nothing again."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dpo_driver.core.config import RunConfig, load_config
from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Message, Sampling
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.context import open_run
from dpo_driver.flywheel.memory import FILE
from dpo_driver.flywheel.pair import pair
from dpo_driver.flywheel.sweep import sweep
from dpo_driver.flywheel.sweep_plan import Plan, Point, States, read_sweep_file
from dpo_driver.flywheel.sweep_share import keys, origin
from dpo_driver.flywheel.teach import Teaching
from dpo_driver.label.candidates import comparisons_of
from dpo_driver.policies.endpoint import EndpointPolicy
from dpo_driver.preferences.log import PreferenceLog
from dpo_driver.report.data import report_json
from dpo_driver.report.sweep_data import collect_sweep
from dpo_driver.testing.fault_endpoint import FaultEndpoint
from sample_sweep import demonstrate, small_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
PAIRS = 4
SOURCES = ("outcome", "heuristic", "memory")
LIGHT = (
    f"pair.exactly={PAIRS}", "pair.max_per_state=8", "pair.val_fraction=0", "sft.max_steps=1", "dpo.max_steps=1",
    "env.max_steps=4", "collect.episodes_per_task=16", "collect.max_new_tokens=24", "evaluate.max_new_tokens=24",
    "evaluate.choose_per_task=1",
)  # fmt: skip
AGENTS = "evaluate.agents=[sft,memory,dpo]"
_ANSWERS = re.compile(r"=== answer A (\w+) ===\n(.*)\n=== answer B \1 ===\n(.*)\n=== end \1 ===", re.DOTALL)


def planned(folder: Path, *sources: str, more: tuple[str, ...] = ()) -> Plan:
    listed = ",".join(f"[{name}]" for name in sources)
    return small_plan(folder, f"pair.sources={listed}", overrides=(*LIGHT, AGENTS, *more))


def run(plan: Plan) -> States:
    return sweep(plan, Console(file=io.StringIO(), width=200))


def reading(point: Point) -> RunStore:
    return RunStore(point.config.run_dir, mode="read")


def by_source(plan: Plan) -> dict[str, Point]:
    return {point.values["pair.sources"][0]: point for point in plan.points}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    plan = planned(tmp_path_factory.mktemp("sources"), *SOURCES)
    demonstrate(plan.points[0].config)
    states = run(plan)
    assert {state.state for state in states.values()} == {"done"}, states
    return plan


def test_every_source_trains_the_same_model_on_equally_many_pairs(swept: Plan) -> None:
    parents, rollouts, begun = set(), set(), set()
    for name, point in by_source(swept).items():
        with reading(point) as store:
            rows = store.preferences(1)
            assert len(rows) == PAIRS and {row.source for row in rows} == {"environment" if name == "outcome" else name}
            parents.add((origin(store, "sft"), store.stage_status("sft").facts["version"]))
            rollouts.add(origin(store, "collect/1"))
            begun.add(frozenset({stage.stage.partition("/")[0] for stage in store.stages()} & {"search", "remember"}))
            assert store.stage_status("dpo/1").facts["rows"]["train"] == PAIRS
    assert len(parents) == len(rollouts) == 1  # trained and rolled out once, by the first point
    assert begun == {frozenset(), frozenset({"remember"})}


def test_the_table_compares_them_with_intervals(swept: Plan) -> None:
    report = collect_sweep(swept, run(swept))
    assert len(report.rows) == len(SOURCES) and report.base == {"pair.sources": ["outcome"]}
    for row in report.rows:
        assert row.success is not None and 0 <= row.success.low <= row.success.high <= 1
        assert row.gain is not None and row.gain.n == 3


def test_memory_has_a_line_of_its_own_paired_with_the_same_model_without(swept: Plan) -> None:
    figures = report_json(swept.points[0].config.run_dir)
    assert figures["memory"]["n"] == figures["sft"]["n"] == 3
    assert figures["gain_memory"]["n"] == 3
    assert figures["gain_memory"]["mean"] == pytest.approx(figures["memory"]["success"] - figures["sft"]["success"])
    point = by_source(swept)["memory"]
    with reading(point) as store:
        played = store.trajectories("evaluate/test/memory")
        assert {one.context_policy for one in played} == {"pocket-memory-v1(e80,c60,h6,x2)"}
        prompts = [one.steps[0].messages[0].content for one in played]
        shown = {one.task.goal for stage in ("demos", "collect/1") for one in store.trajectories(stage) if one.success}
        told = [line.removeprefix("solved: ") for text in prompts for line in text.splitlines() if "solved: " in line]
        assert told and set(told) <= shown and not set(told) & {one.task.goal for one in played}
        # With and without memory, from the same starts; the pairs belong to the prompt without.
        assert store.start_hashes("remember/1") == store.start_hashes("collect/1")
        assert len(store.trajectories("remember/1")) == len(store.trajectories("collect/1")) == 16
        assert all("solved: " not in row.messages[0].content for row in store.preferences(1))
        facts = store.stage_status("remember/1").facts
        assert facts["gain"]["n"] == 16 and "16 training rollouts" in facts["summary"]
    assert (point.config.run_dir / FILE).is_file()


def test_a_log_of_judgements_adds_a_row_and_runs_nothing_again(swept: Plan) -> None:
    log_path = swept.points[0].config.run_dir / "taught.db"

    def whim(messages: Sequence[Message], sampling: Sampling) -> str:
        found = _ANSWERS.search(messages[-1].content)
        assert found is not None
        return f"verdict: {'A' if found[2] < found[3] else 'B'}"

    with reading(swept.points[0]) as store, PreferenceLog(log_path) as log, FaultEndpoint(whim) as server:
        work = Teaching(log, comparisons_of(store.trajectories("collect/1")), "local:scripted")
        asyncio.run(work.run(EndpointPolicy(server.provider())))
        assert work.account.labelled >= PAIRS and work.account.disagreed == 0
    longer = planned(swept.folder.parent, *SOURCES, "teacher", more=(f"pair.log={log_path}",))
    console = Console(file=io.StringIO(), width=200)
    states = sweep(longer, console)
    assert {state.state for state in states.values()} == {"done"}, states
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert said.count("] pair.sources=") == 4 and said.count("●") == 1
    with reading(by_source(longer)["teacher"]) as store:
        rows = store.preferences(1)
        assert {row.source for row in rows} == {"teacher"} and len(rows) == PAIRS
        assert rows[0].evidence["raters"] == ["local:scripted"] and rows[0].evidence["chosen"]["trajectory"]
        taught = origin(store, "sft")
    with reading(swept.points[0]) as store:
        assert taught == origin(store, "sft")
    report = collect_sweep(longer, states)
    assert [row.values["pair.sources"] for row in report.rows] == [[name] for name in (*SOURCES, "teacher")]
    assert report.rows[-1].against_base is not None and report.rows[-1].against_base.n == 3


def test_a_source_with_too_few_pairs_is_not_compared(swept: Plan, tmp_path: Path) -> None:
    config = swept.points[0].config
    more = config.pair.model_copy(update={"exactly": 1000})
    project = config.project.model_copy(update={"run_dir": tmp_path / "run"})
    with reading(swept.points[0]) as store:
        rollouts = store.trajectories("collect/1")
    wanting = config.model_copy(update={"pair": more, "project": project})
    with open_run(wanting, console=Console(file=io.StringIO())) as ctx:
        ctx.store.add_trajectories("collect/1", rollouts)
        with pytest.raises(DataError, match=r"outcome gave \d+ pairs, but pair.exactly asks for 1000"):
            pair(ctx, 1)


def test_the_shipped_ablation_shares_everything_up_to_the_pairs() -> None:
    file = read_sweep_file(ROOT / "configs" / "ablations" / "source.yaml")
    assert file is not None
    configs: list[RunConfig] = [
        load_config(file.base, [*file.overrides, f"pair.sources={text}"]) for text in file.axes[0].texts
    ]
    assert [config.pair.sources for config in configs] == [
        ("outcome",),
        ("step",),
        ("search",),
        ("heuristic",),
        ("memory",),
    ]
    shared: list[dict[str, Any]] = [
        {name: key for name, key in keys(config).items() if name in ("demos", "sft", "evaluate/val/sft", "collect/1",
                                                                     "evaluate/test/sft", "evaluate/test/memory")}
        for config in configs
    ]  # fmt: skip
    assert all(one == shared[0] for one in shared) and len(shared[0]) == 6
    assert len({keys(config)["pair/1"] for config in configs}) == 5
    assert {config.pair.exactly for config in configs} == {150}


def test_a_log_that_no_source_reads_changes_no_run(tmp_path: Path) -> None:
    def config(**pairs: object) -> RunConfig:
        return RunConfig.model_validate({"pair": pairs})

    assert config(log="a.db").hash() == config().hash()
    assert config(log="a.db", sources=["teacher"]).hash() != config(log="b.db", sources=["teacher"]).hash()
