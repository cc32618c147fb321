"""The search: its arithmetic by hand, and what it finds, refuses, spends and resumes on the browserless environment."""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.errors import DriverError, RolloutFailure
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Observation, StopReason, Task
from dpo_driver.envs.toy import make_task
from dpo_driver.rollout.episode import run_episode
from dpo_driver.rollout.pool import rollout
from dpo_driver.rollout.search import search, search_sync
from dpo_driver.rollout.search_account import Searched, SearchSettings, Solution, outcome_of
from dpo_driver.rollout.search_line import SeenBefore
from dpo_driver.rollout.search_tree import UNREADABLE, Tree, blended, ucb1
from searching import Counted, Fickle, Fragile, Shelf, habit, line, move, step

BUDGET = 30  # browser actions on a start state

# -- the tree, by hand -----------------------------------------------------------------------------------------------


def test_ucb1_by_hand() -> None:
    assert ucb1(0.5, 4, 16, 1.4) == pytest.approx(0.5 + 1.4 * math.sqrt(2.772588722 / 4), abs=1e-9)
    assert ucb1(0.5, 4, 16, 1.4) == pytest.approx(1.6655764, abs=1e-6)
    assert ucb1(0.5, 4, 16, 0.0) == 0.5
    assert ucb1(0.0, 0, 16, 1.4) == math.inf
    assert ucb1(1.0, 1, 1, 1.4) == 1.0  # ln 1 is 0


def test_blend_by_hand() -> None:
    assert blended(1.0, 0.5, 0.7) == pytest.approx(0.85)
    assert blended(0.0, 0.5, 0.7) == pytest.approx(0.15)
    assert blended(1.0, None, 0.7) == 1.0
    assert blended(0.0, 0.9, 1.0) == 0.0


def test_a_lines_value_goes_to_every_decision_of_it() -> None:
    tree = Tree()
    for name, path, value in (("l0", line("a1", "b1"), 0.0), ("l1", line("a1", "b2"), 1.0), ("l2", line("a2"), 0.5)):
        assert tree.first_new(path) == {"l0": 0, "l1": 1, "l2": 0}[name]
        assert tree.add(name, path, value) is None
    root, one, two = tree.root, tree.root.children['click("1")'], tree.root.children['click("2")']
    assert (root.visits, root.q) == (3, 0.5)
    assert (one.visits, one.q) == (2, 0.5)
    assert (two.visits, two.q) == (1, 0.5)
    assert [(child.visits, child.q) for child in one.children.values()] == [(1, 0.0), (1, 1.0)]
    assert one.children['click("2")'].decisions == ['click("1")', 'click("2")']
    assert [each.observation.state_hash for each in one.history] == ["a"]


def test_selection_asks_then_tries_the_commonest_then_follows_ucb1() -> None:
    tree = Tree(exploration=1.4)
    tree.add("l0", line("a1", "b1"), 0.0)
    assert tree.select() is tree.root and not tree.root.asked
    assert tree.offer(tree.root, [move("1"), move("3"), move("2"), move("2"), Move(None, parse_error="?")]) == 2
    assert [child.offered for child in tree.root.children.values()] == [1, 1, 2]
    assert [each.decisions for each in tree.root.untried()] == [['click("2")'], ['click("3")']]
    tree.add("l1", line("a2", "c1"), 1.0)
    tree.add("l2", line("a3"), 0.0)  # the episode was over: closed
    assert tree.root.untried() == []
    # Q 0 against Q 1, one visit each, the third is closed: ucb1 is 1.4 * sqrt(ln 3) against 1 + that
    assert tree.select() is tree.root.children['click("2")']
    for number in range(3, 9):
        tree.add(f"l{number}", line("a2", f"c{number}"), 1.0)
    # click 2: 1 + 1.4 * sqrt(ln 9 / 7) = 1.784; click 1: 1.4 * sqrt(ln 9) = 2.075
    assert ucb1(1.0, 7, 9, 1.4) < ucb1(0.0, 1, 9, 1.4)
    assert tree.select() is tree.root.children['click("1")']


def test_what_is_exhausted_is_closed_and_can_be_asked_again() -> None:
    tree = Tree()
    tree.add("l0", line("a1", "b1"), 0.0)
    tree.offer(tree.root, [move("1")])
    below = tree.select()
    assert below is tree.root.children['click("1")']
    tree.offer(below, [move("1")])
    assert tree.select() is None and tree.root.closed
    tree.reopen()
    assert tree.select() is tree.root
    assert tree.offer(tree.root, [move("2")]) == 1
    assert [each.decisions for each in tree.root.untried()] == [['click("2")']]


def test_a_refused_branch_is_forgotten_up_to_the_start() -> None:
    tree = Tree()
    tree.add("l0", line("a1", "b1"), 0.0)
    tree.add("l1", line("a1", "b2"), 1.0)
    tree.add("l2", line("a2", "d1"), 1.0)
    elsewhere = line("a1", "x1")
    parted = tree.add("l3", elsewhere, 1.0)
    assert parted is tree.root.children['click("1")']
    assert tree.refuse(parted) == ["l0", "l1"]
    assert (tree.root.visits, tree.root.q) == (1, 1.0)
    assert parted.refused and parted.closed and not parted.children
    assert tree.add("l4", line("a1", "b1"), 1.0) is parted  # nor is it let in again
    assert tree.add("l5", [*line("a2"), step("d", "1"), step("e", "1")], 1.0) is not None  # went on where it ended
    again = Tree()
    again.add("l2", line("a2", "d1"), 1.0)
    again.refuse_decisions(['click("1")'])
    assert again.offer(again.root, [move("1")]) == 0 and again.root.untried() == []


def test_a_failed_action_is_another_page_because_the_prompt_says_so() -> None:
    tree = Tree()
    tree.add("l0", line("a1", "b1"), 0.0)
    failed = step("b", "2")
    failed = failed.model_copy(update={"observation": failed.observation.model_copy(update={"last_error": "no 1"})})
    assert tree.add("l1", [step("a", "1"), failed], 0.0) is tree.root.children['click("1")']


def test_unreadable_text_is_a_decision_of_a_line_but_no_candidate() -> None:
    tree = Tree()
    tree.add("l0", [step("a", "1", unreadable=True), step("a", "1")], 0.0)
    assert list(tree.root.children) == [UNREADABLE]
    assert tree.offer(tree.root, [Move(None, parse_error="?")]) == 0


def test_the_critic_that_is_used_when_none_is_given() -> None:
    critic, task = SeenBefore(), make_task("press", 1)
    page = Observation(goal="g", state_hash="b")
    assert critic(page, task) is None
    critic.learn("l0", line("a1", "b1"), 0.0)
    critic.learn("l1", line("a2", "b1"), 1.0)
    critic.learn("l2", line("a3", "c1"), 1.0)
    assert critic(page, task) == 0.5
    critic.forget(["l0"])
    assert critic(page, task) == 1.0
    paid = [step("a", "1", reward=0.25), step("b", "1"), step("c", "1", reward=0.75)]
    critic.earn(paid)
    assert critic(page, task) == 0.25
    assert critic(Observation(goal="g", state_hash="a"), task) == 1.0  # nothing had been earned there


# -- searching -------------------------------------------------------------------------------------------------------


async def searched(
    tasks: list[Task], agent: object, kind: type[Counted], shelf: Shelf, **how: object
) -> list[Searched]:
    settings = how.pop("settings", SearchSettings())
    return await search(
        tasks, agent, environments=kind.make, stage="s", on_line=shelf.add, settings=settings, **how
    )  # type: ignore[arg-type]  # fmt: skip


async def test_search_finds_what_the_policy_alone_rarely_does_at_equal_actions() -> None:
    tasks = [make_task("wizard", seed) for seed in range(10)]
    kind, agent = Counted.fresh(), habit(0.8)
    settings = SearchSettings(iterations=40, max_actions=BUDGET, until_solved=True)
    accounts = await searched(tasks, agent, kind, Shelf(), settings=settings)
    assert kind.actions == sum(each.actions for each in accounts)
    assert all(each.actions < BUDGET + tasks[0].max_steps for each in accounts)
    found = {each.task for each in accounts if each.solved_after is not None and each.solved_after <= BUDGET}
    # The policy alone gets as many actions on each start state as well.
    alone, spent = set(), dict.fromkeys((task.id for task in tasks), 0)

    def played(trajectory: object) -> None:
        spent[trajectory.task.id] += len(trajectory.steps)  # type: ignore[attr-defined]
        if trajectory.success and spent[trajectory.task.id] <= BUDGET:  # type: ignore[attr-defined]
            alone.add(trajectory.task.id)  # type: ignore[attr-defined]

    await rollout(tasks, agent, environments=kind.make, stage="p", on_trajectory=played, workers=1, group_size=BUDGET)
    assert min(spent.values()) >= BUDGET
    assert len(found) >= 7 and len(alone) <= 3


async def test_lines_are_ordinary_trajectories_that_share_their_beginnings() -> None:
    shelf, task = Shelf(), make_task("wizard", 5)
    (account,) = await searched([task], habit(0.5), Counted.fresh(), shelf)
    assert account.ended in ("iterations", "exhausted") and account.played == len(shelf.trajectories) <= 15
    assert [each.trajectory for each in account.lines] == [f"s/toy.wizard/5/{n}" for n in range(account.played)]
    ways = set()
    for each in account.lines:
        trajectory = shelf.trajectories[each.trajectory]
        assert trajectory.agent == "search" and trajectory.context_policy.startswith("pocket")
        assert (
            trajectory.task.params == {} and trajectory.start_hash == shelf.trajectories["s/toy.wizard/5/0"].start_hash
        )
        for one in trajectory.steps:
            assert one.generation is not None and one.generation.token_ids and one.messages
            assert len(one.generation.token_ids) == len(one.generation.logprobs)
            assert one.generation.text == one.completion
        ways.add(tuple(str(one.action) for one in trajectory.steps))
        alone = await run_episode(Counted(), Replayed(trajectory), task)  # type: ignore[arg-type]
        assert [s.observation for s in alone.steps] == [s.observation for s in trajectory.steps]
        assert (alone.reward, alone.success) == (trajectory.reward, trajectory.success)
    assert len(ways) == len(account.lines)  # nothing was played twice
    assert any(each.new > 0 for each in account.lines)


class Replayed:
    """Says again what a trajectory said."""

    name = policy_version = context_policy = "replayed"

    def __init__(self, trajectory: object) -> None:
        self._steps = trajectory.steps  # type: ignore[attr-defined]

    async def act(self, task: Task, observation: Observation, history: list[object]) -> Move:
        return Move(self._steps[len(history)].action)


async def test_the_tree_of_a_search_gives_the_q_values_of_its_account() -> None:
    shelf, settings = Shelf(), SearchSettings(iterations=12)
    (account,) = await searched([make_task("login", 3)], RandomAgent(4), Counted.fresh(), shelf, settings=settings)
    for each in account.lines:
        trajectory = shelf.trajectories[each.trajectory]
        assert each.outcome == outcome_of(trajectory)
        assert each.value == pytest.approx(blended(each.outcome, each.critic, 0.7))
    assert any(each.critic is not None for each in account.lines)
    assert {each.outcome for each in account.lines} <= {0.0, 0.5, 1.0}


async def test_a_critic_of_ones_own_has_the_rest_of_the_value() -> None:
    shelf, seen = Shelf(), []

    def critic(page: Observation, task: Task) -> float | None:
        seen.append((page.state_hash, task.id))
        return 0.5

    settings = SearchSettings(iterations=5, blend=0.6)
    task = make_task("login", 3)
    (account,) = await searched([task], RandomAgent(4), Counted.fresh(), shelf, settings=settings, critic=critic)
    assert len(seen) == sum(each.critic is not None for each in account.lines) > 0
    for each in account.lines:
        over = each.new + 1 == len(shelf.trajectories[each.trajectory].steps)
        assert each.critic is None if over else each.value == pytest.approx(0.6 * each.outcome + 0.2)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (SearchSettings(iterations=4), "iterations"),
        (SearchSettings(iterations=99, max_actions=9), "actions"),
        (SearchSettings(iterations=99, max_seconds=1e-9), "seconds"),
        (SearchSettings(iterations=99, until_solved=True), "solved"),
    ],
)
async def test_budgets_end_a_search(settings: SearchSettings, why: str) -> None:
    kind, task = Counted.fresh(), make_task("wizard", 5)
    (account,) = await searched([task], habit(0.4), kind, Shelf(), settings=settings)
    assert account.ended == why
    assert account.actions == kind.actions
    assert {
        "iterations": account.played == 4,
        "actions": 9 <= account.actions < 9 + task.max_steps,
        "seconds": account.played == 1 and account.seconds > 0,
        "solved": account.solved_after == account.actions,
    }[why]


async def test_an_agent_that_always_does_the_same_leaves_nothing_to_try() -> None:
    (account,) = await searched([make_task("press", 2)], habit(1.0), Counted.fresh(), Shelf())
    assert (account.ended, account.played, account.candidates) == ("exhausted", 1, 0)


# -- what is refused -------------------------------------------------------------------------------------------------


async def test_a_branch_that_leads_elsewhere_is_refused_and_counted() -> None:
    kind, shelf = Fickle.fresh(), Shelf()
    task = make_task("wizard", 5)
    (account,) = await searched([task], habit(0.34), kind, shelf, settings=SearchSettings(iterations=15))
    assert len(account.refused) == 1 and len(account.refused[0]) == 1  # the way to the second page
    assert account.failed == 0 and account.forgotten >= 1
    counted = {each.trajectory for each in account.lines}
    assert counted < set(shelf.trajectories)
    for identity in counted:  # no line of the branch is left
        assert len(shelf.trajectories[identity].steps) == 1 and not shelf.trajectories[identity].success
    mismatches = [each for each in shelf.trajectories.values() if each.stop_reason is StopReason.START_MISMATCH]
    for each in mismatches:
        assert each.reward is None and "after 1 replayed actions" in str(each.failure)


async def test_a_start_that_is_not_the_same_ends_the_search() -> None:
    class Elsewhere(Counted):
        async def reset(self, task: Task) -> Observation:
            type(self).opened += 1
            return (await super().reset(task)).model_copy(update={"state_hash": f"{type(self).opened:016x}"})

    shelf = Shelf()
    (account,) = await searched([make_task("wizard", 5)], habit(0.3), Elsewhere.fresh(), shelf)
    assert (account.ended, account.played) == ("start_differs", 2)
    assert shelf.trajectories["s/toy.wizard/5/1"].failure is not None


async def test_what_breaks_the_world_is_tried_thrice_and_then_left_alone() -> None:
    kind, shelf, task = Fragile.fresh(), Shelf(), make_task("wizard", 5)
    kind.breaking = "2"
    settings = SearchSettings(iterations=20)
    (account,) = await searched([task], habit(0.5), kind, shelf, settings=settings)
    assert account.failed >= 1 and ['click("2")'] in account.refused
    broken = [each for each in shelf.trajectories.values() if each.failure]
    assert len(broken) == account.failed and all(each.attempts == 3 and each.reward is None for each in broken)
    assert kind.opened == kind.closed >= 3 * account.failed
    assert account.lines and all(
        "2" not in str(each) for each in account.refused if len(each) == 1 and each != ['click("2")']
    )


async def test_a_world_in_which_nothing_works_is_told() -> None:
    async def none() -> Counted:
        raise RolloutFailure(StopReason.BROWSER_LOST, "no browser")

    tasks = [make_task("press", seed) for seed in range(30)]
    with pytest.raises(DriverError, match="12 lines in a row failed"):
        await search(tasks, habit(0.5), environments=none, stage="s", on_line=Shelf().add, workers=1)  # type: ignore[arg-type]


# -- solutions and going on ------------------------------------------------------------------------------------------


async def solution_of(task: Task, agent: object) -> Solution:
    trajectory = await run_episode(Counted(), agent, task)  # type: ignore[arg-type]
    assert trajectory.success
    return Solution.of(trajectory)


def expert() -> OracleAgent:
    """Presses what the goal names next."""

    def wizard(page: object) -> tuple[str, object]:
        from dpo_driver.core.actions import Click

        words = page.goal.split('"')[1::2]  # type: ignore[attr-defined]
        button = next(e for word in words for e in page.observation.elements if e.name == word)  # type: ignore[attr-defined]
        return button.label, Click(ref=button.ref)

    return OracleAgent("pocket", {"wizard": wizard})  # type: ignore[dict-item]


async def test_a_known_solution_is_replayed_first_in_the_agents_words() -> None:
    task, shelf = make_task("wizard", 5), Shelf()
    solution = await solution_of(task, expert())
    assert len(solution.actions) == len(solution.states) == 3
    settings = SearchSettings(iterations=3)
    (account,) = await searched(
        [task], habit(1.0), Counted.fresh(), shelf, settings=settings, solutions={task.id: solution}
    )
    first = shelf.trajectories["s/toy.wizard/5/0"]
    assert first.success and account.solved_after == 3 and account.stale == 0
    assert first.steps[1].messages and first.steps[1].completion == (
        f"thought: {solution.thoughts[1]}\naction: "
        + solution.actions[1].replace('"', "").replace("(", "([").replace(")", "])")
    )
    assert account.lines[0].value == 1.0


async def test_a_solution_that_no_longer_holds_is_left_out() -> None:
    task, shelf = make_task("wizard", 5), Shelf()
    wrong = await solution_of(make_task("wizard", 6), expert())
    (account,) = await searched([task], habit(0.4), Counted.fresh(), shelf, solutions={task.id: wrong})
    assert account.stale == 1 and shelf.trajectories["s/toy.wizard/5/0"].failure is not None
    assert account.lines and account.ended in ("iterations", "exhausted")


def ways(shelf: Shelf) -> dict[str, list[str]]:
    return {name: [str(s.action) for s in t.steps] for name, t in sorted(shelf.trajectories.items())}


@asynccontextmanager
async def toys(kind: type[Counted]) -> AsyncIterator[object]:
    yield kind.make


def test_ctrl_c_stops_cleanly_and_the_search_goes_on_as_if_it_had_not() -> None:
    tasks = [make_task("wizard", seed) for seed in (5, 8, 9)]
    settings = SearchSettings(iterations=9)

    def run(shelf: Shelf, kind: type[Counted]) -> list[Searched]:
        return search_sync(tasks, habit(0.5), environments=lambda: toys(kind), stage="s", on_line=shelf.add,
                           settings=settings, earlier=shelf.earlier, workers=2)  # type: ignore[arg-type]  # fmt: skip

    whole = Shelf()
    accounts = run(whole, Counted.fresh())
    kind, halfway = Counted.fresh(), Shelf(7, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(halfway, kind)
    assert 7 <= len(halfway.trajectories) < len(whole.trajectories)
    assert kind.opened == kind.closed == 2
    again = run(halfway, Counted.fresh())
    assert ways(halfway) == ways(whole)
    assert [each.lines for each in again] == [each.lines for each in accounts]


async def test_several_searches_at_once_do_not_disturb_each_other() -> None:
    tasks = [make_task("wizard", seed) for seed in range(6)]
    one, four = Shelf(), Shelf()
    await searched(tasks, habit(0.5), Counted.fresh(), one, workers=1)
    kind = Counted.fresh()
    await searched(tasks, habit(0.5), kind, four, workers=4)
    assert ways(one) == ways(four)
    assert kind.opened == kind.closed == 4
