"""What `dpo-driver solve` counts: challenges of a run, summaries of many, and the bounds that end one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.agents.prompt import parse_completion
from dpo_driver.core.actions import Action, Click, Noop, ReportInfeasible
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Element, Generation, Observation, Step, StopReason, Task, Timing, Trajectory, Usage
from dpo_driver.policies.budget import BudgetError
from dpo_driver.policies.scripted import ScriptedPolicy
from dpo_driver.rollout.solve import BoundedAgent, Caps, Run, Sight, Spent, by_type, challenges, metrics

TYPES = ("click-reveal", "math", "slider", "audio")


def on(number: int | None, count: int = 4) -> Observation:
    text = "Welcome" if number is None else f"Step {number} of {count}"
    return Observation(goal="g", elements=(Element(ref=None, role="heading", name=text),))


def step(
    number: int | None, seconds: float = 0.5, action: Action | None = None, generation: Generation | None = None
) -> Step:
    timing = Timing(policy=seconds / 5, browser=4 * seconds / 5)
    action = action or Click(ref="1")
    return Step(observation=on(number), action=action, thought="t", timing=timing, generation=generation)


def run_of(
    *steps: Step, seed: int = 7, stop: StopReason = StopReason.SUCCESS, failure: str | None = None, seconds: float = 9.0
) -> Trajectory:
    success = None if failure is not None else stop is StopReason.SUCCESS
    return Trajectory(
        id=f"solve/gauntlet.run/{seed}/0",
        task=Task(id=f"gauntlet.run/{seed}", env="gauntlet", name="run", seed=seed),
        agent="solver",
        steps=steps,
        stop_reason=stop,
        success=success,
        reward=None if failure is not None else 1.0,
        failure=failure,
        seconds=seconds,
    )


WHOLE = run_of(step(None), step(1), step(1), step(2, 1.0), step(3), step(None), step(3), step(4, 2.0))
STOPPED = run_of(
    step(1), step(2), step(2, action=ReportInfeasible(reason="unknown: no")), seed=8, stop=StopReason.INFEASIBLE
)
BROKEN = run_of(step(1), step(2), seed=9, stop=StopReason.PAGE_HUNG, failure="page_hung: it hung")


def test_a_complete_run_has_a_solved_row_for_each_step() -> None:
    rows = challenges(WHOLE, TYPES)
    assert [row["id"] for row in rows] == ["7/1", "7/2", "7/3", "7/4"]
    assert [row["type"] for row in rows] == list(TYPES)
    assert [row["steps"] for row in rows] == [3, 1, 3, 1], "the start page counts for step 1, a second tab for its own"
    assert [row["elapsed_seconds"] for row in rows] == [1.5, 1.0, 1.5, 2.0]
    assert all(row["success"] is True and row["error"] is None for row in rows)
    assert set(rows[0]) == {"id", "type", "success", "steps", "elapsed_seconds", "tokens", "error"}


def test_a_run_that_stopped_says_where_and_why() -> None:
    rows = challenges(STOPPED, TYPES)
    assert [row["success"] for row in rows] == [True, False, False, False]
    assert [row["error"] for row in rows] == [None, "unknown: no", "not reached", "not reached"]
    assert [row["steps"] for row in rows] == [1, 2, 0, 0]


def test_what_the_world_broke_is_no_failure_of_the_agent() -> None:
    rows = challenges(BROKEN, TYPES)
    assert [row["success"] for row in rows] == [True, None, None, None]
    assert rows[1]["error"] == "page_hung: it hung"


def test_without_types_the_page_says_how_many_there_are_and_the_solver_which() -> None:
    rows = challenges(STOPPED)
    assert len(rows) == 4
    assert {row["type"] for row in rows} == {"unknown"}
    assert len(challenges(STOPPED, count=2)) == 2


def test_a_run_that_never_began_is_not_solved() -> None:
    rows = challenges(run_of(step(None), step(None), stop=StopReason.MAX_STEPS), TYPES)
    assert [row["success"] for row in rows] == [False] * 4
    assert rows[0]["error"] == "gave out after 2 actions on this step"
    assert rows[0]["steps"] == 2
    whole = run_of(*[step(1)] * 10, stop=StopReason.MAX_STEPS)
    assert challenges(whole, TYPES)[0]["error"] == "gave out after 10 actions"


def test_the_summary_of_one_run() -> None:
    found = metrics([Run.of(WHOLE, TYPES)])
    summary = found["summary"]
    assert summary["total_challenges"] == summary["solved"] == 4
    assert summary["success_rate"] == 1.0
    assert summary["total_elapsed_seconds"] == 9.0
    assert summary["avg_seconds_per_challenge"] == 2.25
    assert summary["total_steps"] == 8
    assert summary["total_tokens"] == {"input": 0, "output": 0}
    assert summary["cost"] == 0
    assert "by_type" not in found
    assert json.loads(json.dumps(found)) == found


def test_many_runs_are_told_apart_by_type_and_by_seed() -> None:
    found = metrics([Run.of(trajectory, TYPES) for trajectory in (STOPPED, BROKEN, WHOLE)], wall_seconds=11.0)
    summary = found["summary"]
    assert (summary["total_challenges"], summary["solved"], summary["excluded"]) == (9, 6, 3)
    assert summary["runs"] == {"success": 0.5, "low": pytest.approx(0.0945, abs=1e-3),
                               "high": pytest.approx(0.9055, abs=1e-3), "n": 2, "excluded": 1}  # fmt: skip
    assert summary["wall_seconds"] == 11.0
    assert summary["median_seconds_per_run"] == 9.0
    math = found["by_type"]["math"]
    assert (math["n"], math["solved"], math["success"], math["excluded"]) == (2, 1, 0.5, 1)
    assert (math["low"], math["high"]) == (pytest.approx(0.0945, abs=1e-3), pytest.approx(0.9055, abs=1e-3))
    assert math["mean_steps"] == 1.33
    assert math["errors"] == ["page_hung: it hung", "unknown: no"]
    assert found["by_type"]["audio"]["n"] == 1, "what was not reached was not tried"
    assert list(found["by_seed"]) == [7, 8, 9]
    assert found["by_seed"][8] == {
        "solved": 1, "total": 4, "success": False, "seconds": 9.0, "steps": 3, "error": "unknown: no"
    }  # fmt: skip
    assert found["by_seed"][9]["success"] is None


def test_types_that_nobody_tried_are_not_listed() -> None:
    assert list(by_type(challenges(STOPPED, TYPES))) == ["click-reveal", "math"]


def paid(cost: float | None) -> Generation:
    return Generation(text="x", usage=Usage(input_tokens=100, output_tokens=10, cost=cost))


def test_tokens_and_money_are_added_up() -> None:
    run = run_of(step(1, generation=paid(0.5)), step(2, generation=paid(0.25)), step(3), step(4))
    found = metrics([Run.of(run, TYPES)])
    assert found["summary"]["total_tokens"] == {"input": 200, "output": 20}
    assert found["summary"]["cost"] == 0.75
    assert [row["tokens"]["input"] for row in found["challenges"]] == [100, 100, 0, 0]
    local = Generation(text="x", prompt_tokens=30, token_ids=(1, 2), logprobs=(0.0, 0.0))
    assert Spent.by([step(1, generation=local)]) == Spent(30, 2, 0.0)
    assert Spent.by([step(1, generation=paid(None)), step(1, generation=paid(1.0))]) == Spent(200, 20, None)


# -- bounds ------------------------------------------------------------------------------------------------------------

TASK = WHOLE.task


def bounded(caps: Caps, seen: list[Sight] | None = None) -> BoundedAgent:
    policy = ScriptedPolicy(lambda _messages, _sampling: "thought: t\naction: noop()")
    return BoundedAgent(PolicyAgent(policy, "pocket"), caps, watch=None if seen is None else seen.append)


async def test_tokens_end_a_run_when_they_are_spent_and_the_next_does_not_begin() -> None:
    seen: list[Sight] = []
    agent = bounded(Caps(tokens=5), seen)
    first = await agent.act(TASK, on(1), [])
    assert first.action == Noop()
    assert agent.spent.output == 4
    second = await agent.act(TASK, on(2), [step(1)])
    assert second.action == ReportInfeasible(reason="the budget of 5 tokens is spent")
    assert parse_completion(second.completion)[1] == second.action
    assert [(sight.step, sight.actions, sight.last) for sight in seen] == [(1, 0, ""), (2, 1, "t")]
    other = TASK.model_copy(update={"id": "gauntlet.run/8"})
    waiting = asyncio.create_task(agent.act(other, on(1), []))
    await asyncio.sleep(0)
    assert not waiting.done(), "the run that is going has its end first"
    agent.ended(TASK)
    with pytest.raises(BudgetError, match="the budget of 5 tokens is spent"):
        await waiting


async def test_a_policy_that_refuses_to_overspend_ends_the_run() -> None:
    class Broke:
        name = policy_version = context_policy = "broke"

        async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
            raise BudgetError("the budget of $1 does not allow another call")

    agent = BoundedAgent(Broke())
    move = await agent.act(TASK, on(1), [])
    assert move.action == ReportInfeasible(reason="the budget of $1 does not allow another call")
    agent.ended(TASK)
    with pytest.raises(BudgetError):
        await agent.act(TASK, on(1), [])


async def test_time_ends_a_run_and_no_other() -> None:
    agent = bounded(Caps(seconds=0.0))
    await agent.act(TASK, on(1), [])
    late = await agent.act(TASK, on(1), [step(1)])
    assert late.action == ReportInfeasible(reason="the time of 0 s is up")
    assert agent.exhausted is None
    patient = bounded(Caps(seconds=60))
    assert (await patient.act(TASK, on(1), [step(1)])).action == Noop()


async def test_money_ends_a_run_only_where_its_price_is_known() -> None:
    agent = bounded(Caps(usd=1.0))
    agent.spent = Spent(10, 10, 1.5)
    spent = ReportInfeasible(reason="the budget of 1 dollars is spent")
    assert (await agent.act(TASK, on(1), [step(1)])).action == spent
    agent = bounded(Caps(usd=1.0))
    agent.spent = Spent(10, 10, None)
    assert (await agent.act(TASK, on(1), [])).action == Noop()
