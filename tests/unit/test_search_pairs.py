"""What a search leaves: pairs with Q margins and their evidence, solutions, facts, and what a run makes of them."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from dpo_driver.core.config import PairConfig, RunConfig
from dpo_driver.core.errors import ConfigError, DataError, UnknownNameError
from dpo_driver.core.records import Preference, StopReason, Task, Trajectory
from dpo_driver.core.schema import SearchConfig
from dpo_driver.flywheel.context import RunContext, open_run
from dpo_driver.flywheel.pair import pair
from dpo_driver.flywheel.search import SOLUTIONS, Solutions, account_key, search, searched_lines, settings_of
from dpo_driver.preferences import build_pairs
from dpo_driver.preferences.decisions import REASONS
from dpo_driver.preferences.search import SearchedLines
from dpo_driver.rollout.search_account import Searched, SearchSettings
from dpo_driver.rollout.search_tree import Tree, decision_of
from searching import line, step

LOOSE = PairConfig(max_per_state=100, max_per_task=10_000, max_parse_error_share=1.0, val_fraction=0.0)
TASK = Task(id="toy.wizard/5", env="toy", name="wizard", seed=5)


def played(number: int, *path: str, won: bool = False, unreadable: bool = False) -> Trajectory:
    steps = line(*path)
    if unreadable:
        steps[-1] = step(path[-1][:-1], "", unreadable=True)
    return Trajectory(
        id=f"search/1/{TASK.id}/{number}",
        task=TASK,
        agent="search",
        policy_version="p",
        steps=tuple(steps),
        stop_reason=StopReason.SUCCESS if won else StopReason.WRONG,
        reward=float(won),
        success=won,
    )


def pairs_of(
    *lines: tuple[Trajectory, float | None], min_margin: float = 0.2, sources: tuple[str, ...] = ("search",)
) -> tuple[list[Preference], dict[str, int]]:
    values = {one.id: value for one, value in lines if value is not None}
    searched = SearchedLines(frozenset(one.id for one, _ in lines), values, min_margin)
    rows, stats = build_pairs([one for one, _ in lines], LOOSE, sources=sources, searched=searched)
    assert set(stats.refused) <= set(REASONS)
    return rows, stats.refused


# -- pairs, by hand --------------------------------------------------------------------------------------------------


def test_margins_are_differences_of_q_and_the_evidence_says_from_where() -> None:
    rows, refused = pairs_of(
        (played(0, "a1", "b1"), 0.0),
        (played(1, "a1", "b2", won=True), 1.0),
        (played(2, "a1", "b3"), 0.85),
        (played(3, "a2", "c1"), 0.15),
    )
    # Start: click 1 has (0 + 1 + .85) / 3 = .6167 and click 2 .15. Then 2 and 3 against 1; 2 against 3 is below .2.
    margins = {(row.state_hash, row.evidence["chosen"]["action"], row.evidence["rejected"]["action"]): row.margin
               for row in rows}  # fmt: skip
    one, two, three = 'click("1")', 'click("2")', 'click("3")'
    assert margins == pytest.approx({("a", one, two): 1.85 / 3 - 0.15, ("b", two, one): 1.0, ("b", three, one): 0.85})
    assert refused["q_too_close"] == 1
    start = next(row for row in rows if row.state_hash == "a")
    assert (start.source, start.level, start.task_name, start.seed) == ("search", "step", "wizard", 5)
    chosen, rejected = start.evidence["chosen"], start.evidence["rejected"]
    assert (chosen["q"], chosen["visits"]) == (pytest.approx(1.85 / 3), 3)
    assert (rejected["q"], rejected["visits"]) == (0.15, 1)
    assert chosen["trajectories"] == [f"search/1/{TASK.id}/{n}" for n in (0, 1, 2)]
    assert chosen["trajectory"] == f"search/1/{TASK.id}/1" and chosen["step"] == 0  # the best line through it
    assert start.evidence["path"] == [] and start.evidence["same_prompt"] is True
    below = next(row for row in rows if row.state_hash == "b")
    assert below.evidence["path"] == [one]
    assert [m.content for m in below.messages] == ["b"] and below.chosen.endswith(two)


def test_the_margin_can_be_set() -> None:
    lines = ((played(0, "a1"), 0.0), (played(1, "a2", won=True), 0.4))
    assert len(pairs_of(*lines, min_margin=0.4)[0]) == 1
    assert pairs_of(*lines, min_margin=0.41) == ([], {"q_too_close": 1})


def test_what_is_no_pair_is_counted() -> None:
    assert pairs_of((played(0, "a1"), 0.5), (played(1, "a2"), 0.5))[1] == {"equal_value": 1}
    same_page = ((played(0, "a1", "b1"), 0.0), (played(1, "a2", "b2", won=True), 1.0))
    assert pairs_of(*same_page)[1]["same_effect"] == 1
    assert pairs_of((played(0, "a1"), 0.0), (played(1, "a2", won=True), None)) == ([], {"no_value": 1})
    assert pairs_of((played(0, "a1", unreadable=True), 0.9), (played(1, "a2"), 0.1))[1] == {"chosen_unreadable": 1}
    (row,) = pairs_of((played(0, "a1", unreadable=True), 0.1), (played(1, "a2", won=True), 0.9))[0]
    assert row.rejected == "?" and row.evidence["rejected"]["action"] == "unreadable"


def test_no_other_source_takes_a_line_for_a_sample_of_the_policy() -> None:
    lines = ((played(0, "a1"), 0.0), (played(1, "a2", won=True), 1.0))
    assert pairs_of(*lines, sources=("step", "outcome"))[0] == []
    both, _ = pairs_of(*lines, sources=("step", "outcome", "search"))
    assert [row.source for row in both] == ["search"]
    with pytest.raises(UnknownNameError, match="did you mean search"):
        build_pairs([], LOOSE, sources=("serach",))


# -- in a run --------------------------------------------------------------------------------------------------------


def config(folder: Path, **sections: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "project": {"run_dir": folder},
            "env": {"name": "toy", "tasks": ("login", "wizard"), "workers": 2},
            "search": {"agent": "random", "per_task": 4, "iterations": 12},
            "pair": {"sources": ["search"], "val_fraction": 0.0},
            "tracking": {"mlflow": False},
            **sections,
        }
    )


def opened(folder: Path, **sections: object) -> object:
    return open_run(config(folder, **sections), console=Console(file=io.StringIO()))


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[RunContext]:
    with opened(tmp_path / "run") as context:  # type: ignore[attr-defined]
        yield context


def test_defaults_are_those_of_the_search_and_leave_old_runs_their_hash(tmp_path: Path) -> None:
    assert settings_of(SearchConfig()) == SearchSettings()
    section = SearchConfig()
    assert (section.iterations, section.candidates, section.exploration) == (15, 5, 1.4)
    assert (section.blend, section.min_margin) == (0.7, 0.2)
    plain, said = RunConfig(), RunConfig.model_validate({"search": {"iterations": 15}})
    assert plain.hash() == said.hash() != RunConfig.model_validate({"search": {"iterations": 16}}).hash()
    assert "search" in RunConfig.model_validate({"pair": {"sources": ["search", "step"]}}).pair.sources
    with pytest.raises(ValueError, match=r"rounds \* search\.per_task"):
        RunConfig.model_validate({"pair": {"sources": ["search"]}, "search": {"per_task": 100_000}})


def test_a_searched_round_becomes_pairs_and_solutions(ctx: RunContext) -> None:
    facts = search(ctx)
    lines, _ = searched_lines(ctx, 1)
    assert facts["lines"] == len(lines) == ctx.store.count("search/1") > 8 * 5
    assert (facts["refused"], facts["failed"], facts["solved"]["n"]) == (0, 0, 8)
    assert facts["families"].keys() == {"login", "wizard"} and facts["families"]["wizard"]["n"] == 4
    assert facts["actions"] == sum(len(one.steps) for one in lines)
    assert sum(facts["ended"].values()) == 8
    stats = pair(ctx)
    rows = ctx.store.preferences(1)
    assert stats.pairs == len(rows) > 0 and stats.by_source == {"search": len(rows)}
    trees = {task: tree_of(ctx, task) for task in {one.task.id for one in lines}}
    for row in rows:
        node = trees[row.evidence["task_id"]].root
        for name in row.evidence["path"]:
            node = node.children[name]
        assert node.page is not None and node.page.state_hash == row.state_hash
        sides = [row.evidence["chosen"], row.evidence["rejected"]]
        for side, text in zip(sides, (row.chosen, row.rejected), strict=True):
            child = node.children[side["action"]]
            assert (side["q"], side["visits"]) == (pytest.approx(child.q), child.visits)
            quoted = ctx.store.trajectory(side["trajectory"]).steps[side["step"]]
            assert (quoted.completion, quoted.messages) == (text, row.messages)
            assert side["trajectories"] == sorted(child.values, key=lambda name: (len(name), name))
        assert row.margin == pytest.approx(sides[0]["q"] - sides[1]["q"]) and row.margin >= 0.2 - 1e-9
    solved = {one.task.id for one in lines if one.success}
    assert len(solved) == facts["solved"]["success"] * 8 >= 3
    known = Solutions(ctx.run_dir / SOLUTIONS).by_task
    assert known.keys() == solved
    for task, solution in known.items():
        shortest = min(len(one.steps) for one in lines if one.success and one.task.id == task)
        assert len(solution.actions) == shortest
        first = ctx.store.trajectory(solution.trajectory)
        assert [decision_of(one.action) for one in first.steps] == list(solution.actions)
    assert search(ctx, 1) == facts  # done before
    assert search(ctx, 2)["lines"] > 0
    starts = [{one.task.seed for one in ctx.store.trajectories(f"search/{n}")} for n in (1, 2)]
    assert starts == [set(range(10_000, 10_004)), set(range(10_004, 10_008))]


def tree_of(ctx: RunContext, task: str) -> Tree:
    """The tree, from disk."""
    account, tree = Searched.from_json(ctx.store.get_fact(account_key("search/1", task))), Tree()
    for each in account.lines:
        assert tree.add(each.trajectory, ctx.store.trajectory(each.trajectory).steps, each.value) is None
    return tree


def test_an_interrupted_search_goes_on_from_disk(tmp_path: Path) -> None:
    with opened(tmp_path / "whole") as context:  # type: ignore[attr-defined]
        search(context, critic=Interrupting(-1))
        pair(context)
        expected, rows = context.store.trajectory_ids(), context.store.preferences(1)
    with opened(tmp_path / "cut") as context:  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            search(context, critic=Interrupting(20))
        assert context.store.stage_status("search/1").state == "running"
        kept = context.store.count("search/1")
        assert 5 <= kept < len(expected)
        with pytest.raises(DataError, match="nothing was searched in round 2"):
            pair(context, 2)
    with opened(tmp_path / "cut") as context:  # type: ignore[attr-defined]
        search(context, 1, critic=Interrupting(-1))
        pair(context)
        assert context.store.trajectory_ids() == expected
        assert context.store.preferences(1) == rows


class Interrupting:
    """Says nothing, and at the n-th page presses Ctrl-C; never with -1."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, page: object, task: object) -> None:
        self._left -= 1
        if self._left == 0:
            signal.raise_signal(signal.SIGINT)


def test_solutions_of_another_run_are_replayed_first(ctx: RunContext, tmp_path: Path) -> None:
    search(ctx)
    file = ctx.run_dir / SOLUTIONS
    known = Solutions(file).by_task
    with opened(tmp_path / "next", search={"agent": "random", "per_task": 4, "iterations": 1}) as again:  # type: ignore[attr-defined]
        facts = search(again, solutions=file)
        assert facts["stale"] == 0 and facts["lines"] == 8
        won = {one.task.id for one in again.store.trajectories("search/1") if one.success}
        assert won >= known.keys()
        for one in again.store.trajectories("search/1"):
            if one.task.id in known:
                assert tuple(decision_of(step.action) for step in one.steps) == known[one.task.id].actions
                assert all(step.messages and step.completion for step in one.steps)


def test_a_broken_file_of_solutions_is_named_by_line(ctx: RunContext, tmp_path: Path) -> None:
    good = {
        "task": "toy.wizard/1",
        "name": "wizard",
        "seed": 1,
        "actions": ["noop()"],
        "thoughts": [""],
        "states": ["x"],
    }
    file = tmp_path / "solutions.jsonl"
    file.write_text(
        "\n".join(json.dumps(row) for row in (good, {**good, "states": []}, {"task": "y"})), encoding="utf-8"
    )
    with pytest.raises(DataError, match="2 broken rows") as caught:
        search(ctx, solutions=file)
    assert "lines 2, 3" in str(caught.value) and "differ in number" in str(caught.value)


@pytest.mark.parametrize(
    ("section", "error", "what"),
    [
        ({"agent": "randem"}, UnknownNameError, "did you mean random"),
        ({"agent": "random", "per_task": 90_001}, ConfigError, "beyond seeds.train"),
    ],
)
def test_what_cannot_be_searched_is_told(
    tmp_path: Path, section: dict[str, object], error: type[Exception], what: str
) -> None:
    sections = {"search": section, "pair": {"sources": ["step"]}}
    with opened(tmp_path / "run", **sections) as context, pytest.raises(error, match=what):  # type: ignore[attr-defined]
        search(context)
