"""Search in real pages: branches are reached by replay, every page on the way is the one that was recorded."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.config import PairConfig
from dpo_driver.core.records import StopReason, Trajectory
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.preferences import build_pairs
from dpo_driver.preferences.search import SearchedLines
from dpo_driver.rollout.reenact import Scene, reenact
from dpo_driver.rollout.search import search
from dpo_driver.rollout.search_account import SearchSettings, Solution
from dpo_driver.rollout.search_tree import decision_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


async def watch_nothing(_scene: Scene) -> None:
    pass


async def test_a_family_is_searched_on_real_pages() -> None:
    tasks = [make_task("click-checkboxes", seed) for seed in (2, 3)]
    lines: dict[str, Trajectory] = {}
    async with MiniwobEnvironment.source() as factory:
        accounts = await search(
            tasks, RandomAgent(1), environments=factory, stage="s", workers=2, settings=SearchSettings(iterations=14),
            on_line=lambda trajectory, _account: lines.__setitem__(trajectory.id, trajectory),
        )  # fmt: skip
        assert [(each.failed, each.refused, each.stale) for each in accounts] == [(0, [], 0)] * 2
        assert all(each.played == len(each.lines) > 8 for each in accounts)
        for account in accounts:
            own = [lines[each.trajectory] for each in account.lines]
            pages: dict[tuple[str, ...], str] = {}
            for one in own:
                way: tuple[str, ...] = ()
                for step in one.steps:  # equal decisions, equal pages: in every line, also below branches
                    assert pages.setdefault(way, step.observation.state_hash) == step.observation.state_hash
                    way = (*way, decision_of(step.action))
            assert len({tuple(decision_of(step.action) for step in one.steps) for one in own}) == len(own)
            # Branches below the start: replayed actions that led back to a page.
            assert any(each.new > 0 for each in account.lines)
        values = SearchedLines.of(lines.values(), [each.as_json() for each in accounts])
        rows, stats = build_pairs(list(lines.values()), PairConfig(), sources=("search",), searched=values)
        assert rows and stats.by_source == {"search": len(rows)} and "state_differs" not in stats.refused
        assert all(row.margin >= 0.2 - 1e-9 and row.evidence["same_prompt"] for row in rows)
        best = max(lines.values(), key=lambda one: (one.reward or 0.0, one.id))
        environment = await factory()
        again = await reenact(environment, best, watch_nothing)
        assert again.parted is None and all(found.state == "same" for found in again.lines)
        await environment.close()


async def test_a_solution_found_on_real_pages_is_replayed_first() -> None:
    task, lines = make_task("click-option", 4), list[Trajectory]()
    how = {"stage": "s", "workers": 1, "on_line": lambda trajectory, _account: lines.append(trajectory)}
    async with MiniwobEnvironment.source() as factory:
        (found,) = await search([task], RandomAgent(0), environments=factory,
                                settings=SearchSettings(iterations=60, until_solved=True), **how)  # type: ignore[arg-type]  # fmt: skip
        assert found.solved and found.ended == "solved"
        solution = Solution.of(lines[-1])
        lines.clear()
        (again,) = await search([task], RandomAgent(5), environments=factory, solutions={task.id: solution},
                                settings=SearchSettings(iterations=60, until_solved=True), **how)  # type: ignore[arg-type]  # fmt: skip
    assert (again.played, again.stale, again.solved_after) == (1, 0, len(solution.actions))
    assert lines[0].stop_reason is StopReason.SUCCESS
    assert tuple(step.observation.state_hash for step in lines[0].steps) == solution.states
    assert all(before.observation != after.observation for before, after in pairwise(lines[0].steps))
