"""Runs of the gauntlet, solved and measured: many seeds at once, bounded in time, actions and tokens. Called by
``dpo-driver solve`` and benchmarks.

A challenge is one step of a run. What is counted comes from trajectories alone (:func:`challenges`), so that kept runs
give the same figures again. Environments and agents are handed in; must not import the gauntlet or command lines.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from dpo_driver.agents.solver.detector import UNKNOWN, first_look
from dpo_driver.agents.solver.page import of_this_step, step_number, step_of
from dpo_driver.core.actions import ReportInfeasible, format_action
from dpo_driver.core.protocols import Agent, Move
from dpo_driver.core.records import Generation, Observation, Step, StopReason, Task, Trajectory
from dpo_driver.core.stats import rate
from dpo_driver.policies.budget import BudgetError
from dpo_driver.rollout.pool import EnvironmentFactory, RolloutProgress, rollout

STAGE = "solve"
GRACE_S = 60.0  # beyond a run's own time, after which it is given up from outside
NOT_REACHED = "not reached"


@dataclass(frozen=True)
class Caps:
    """What ends a run, or all of them. ``seconds`` is for one run; tokens and dollars are for all runs together."""

    seconds: float = 300.0
    tokens: int | None = None
    usd: float | None = None


@dataclass(frozen=True)
class Sight:
    """Where a run stands, for whoever watches: before each of its actions."""

    task: Task
    step: int | None
    actions: int
    seconds: float
    last: str  # the thought of the action before


@dataclass
class Spent:
    """Tokens and dollars. ``cost`` is None when a model was asked whose price is not known."""

    input: int = 0
    output: int = 0
    cost: float | None = 0.0

    def add(self, generation: Generation | None) -> None:
        """What one decision took; nothing where no model was asked."""
        if generation is None:
            return
        usage = generation.usage
        if usage is None:  # a model on this machine
            self.input += generation.prompt_tokens
            self.output += len(generation.token_ids)
            return
        self.input += usage.input_tokens
        self.output += usage.output_tokens
        if self.cost is not None:
            self.cost = None if usage.cost is None else self.cost + usage.cost

    @classmethod
    def by(cls, steps: Iterable[Step]) -> Spent:
        spent = cls()
        for step in steps:
            spent.add(step.generation)
        return spent


@dataclass
class BoundedAgent:
    """An agent that stops its run when the time or the budget is spent. One object serves all runs of one command.

    Args:
        inner: decides.
        caps: the bounds.
        watch: is told before each decision.
        spent: by all runs together, earlier ones of the same command included.
    """

    inner: Agent
    caps: Caps = Caps()
    watch: Callable[[Sight], None] | None = None
    spent: Spent = field(default_factory=Spent)
    exhausted: str | None = None  # the budget that is spent, in words
    _began: dict[str, float] = field(default_factory=dict)  # of the runs that are going
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def policy_version(self) -> str:
        return self.inner.policy_version

    @property
    def context_policy(self) -> str:
        return self.inner.context_policy

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """The inner agent's move, or ``report_infeasible`` with the bound that was met.

        Raises:
            BudgetError: the budget is spent and this run has not begun; those that are going have their end first.
        """
        if not history:
            await self._begin(task)
        seconds = time.monotonic() - self._began.setdefault(task.id, time.monotonic())
        if self.watch is not None:
            last = history[-1].thought if history else ""
            self.watch(Sight(task, step_number(observation), len(history), seconds, last))
        if (bound := self._met(seconds)) is not None:
            return _given_up(bound)
        try:
            move = await self.inner.act(task, observation, history)
        except BudgetError as error:  # the next call could overspend it
            self.exhausted = error.what
            return _given_up(error.what)
        self.spent.add(move.generation)
        return move

    async def _begin(self, task: Task) -> None:
        """A run's first decision, also of one that is tried again."""
        self._began.pop(task.id, None)
        if self._met(0.0) is not None and self.exhausted is not None:
            while self._began:
                self._ended.clear()
                await self._ended.wait()
            raise BudgetError(self.exhausted, remedy="give a larger one; with --out the same command goes on")
        self._began[task.id] = time.monotonic()

    def ended(self, task: Task) -> None:
        """A run is over."""
        self._began.pop(task.id, None)
        self._ended.set()

    def _met(self, seconds: float) -> str | None:
        """The bound that was met, in words; None while there is none."""
        caps, spent = self.caps, self.spent
        if caps.tokens is not None and spent.input + spent.output >= caps.tokens:
            self.exhausted = self.exhausted or f"the budget of {caps.tokens} tokens is spent"
        if caps.usd is not None and spent.cost is not None and spent.cost >= caps.usd:
            self.exhausted = self.exhausted or f"the budget of {caps.usd:g} dollars is spent"
        if self.exhausted is None and seconds > caps.seconds:
            return f"the time of {caps.seconds:g} s is up"
        return self.exhausted


def _given_up(reason: str) -> Move:
    action = ReportInfeasible(reason=reason)
    return Move(action=action, thought=reason, completion=f"action: {format_action(action)}")


async def solve_runs(
    tasks: Sequence[Task],
    agent: BoundedAgent,
    *,
    environments: EnvironmentFactory,
    on_run: Callable[[Trajectory], None],
    jobs: int = 1,
) -> RolloutProgress:
    """Play every run once and hand it over the moment it ends; a run that the world broke is tried again.

    Args:
        tasks: runs, one a seed.
        agent: keeps to its bounds; from outside a run gets a little more time.
        environments: gives a fresh environment.
        jobs: runs at once.

    Raises:
        BudgetError: the budget is spent. What was played has been handed over.
    """

    def ended(run: Trajectory) -> None:
        agent.ended(run.task)
        on_run(run)

    return await rollout(
        tasks, agent, environments=environments, stage=STAGE, on_trajectory=ended, workers=jobs,
        deadline_s=agent.caps.seconds + GRACE_S,
    )  # fmt: skip


# -- what came of it ---------------------------------------------------------------------------------------------------


def challenges(run: Trajectory, types: Sequence[str] = (), count: int | None = None) -> list[dict[str, Any]]:
    """One row for each step of a run: ``{"id": "7/3", "type": ..., "success": ..., "steps": ..., ...}``.

    ``success`` is None where the world broke, and for what could then not be reached. ``steps`` are actions.

    Args:
        types: of the steps, in order, as the site says them; without, as the solver recognises them.
        count: steps of the run; default: as many as there are types, else as the page says.
    """
    played = _by_step(run.steps)
    first = min(played, default=1)
    total = count or len(types) or max((int(c) for c in _counts(run)), default=max(played, default=1))
    numbers = range(first, first + total)
    reached = max(played, default=first)
    rows = []
    for place, number in enumerate(numbers):
        steps = played.get(number, [])
        solved = number < reached or (number == reached and run.success is True)
        broken = run.failure is not None and number >= reached
        error = None if solved else (why(run) if number == reached else NOT_REACHED)
        spent = Spent.by(steps)
        rows.append(
            {
                "id": f"{run.task.seed}/{number}",
                "type": types[place] if place < len(types) else recognised(steps),
                "success": None if broken else solved,
                "steps": len(steps),
                "elapsed_seconds": round(sum(s.timing.policy + s.timing.browser for s in steps), 3),
                "tokens": {"input": spent.input, "output": spent.output},
                "error": error,
            }
        )
    return rows


def _by_step(steps: Sequence[Step]) -> dict[int, list[Step]]:
    """A run's decisions by the step that they were made on. A page that names no step belongs to the one before; what
    comes before all steps, to the first."""
    played: dict[int, list[Step]] = defaultdict(list)
    waiting: list[Step] = []
    number: int | None = None
    for step in steps:
        number = step_number(step.observation) or number
        if number is None:
            waiting.append(step)
        else:
            played[number] += [*waiting, step]
            waiting = []
    if waiting:
        played[1] = waiting
    return dict(played)


def _counts(run: Trajectory) -> Iterable[int]:
    for step in run.steps:
        found = step_of(step.observation)
        if found and found[1]:
            yield found[1]


def recognised(steps: Sequence[Step]) -> str:
    """The type that the solver recognises at first sight."""
    for step in steps:
        ranked = first_look(step.observation)
        if ranked:
            return ranked[0].name
    return UNKNOWN


def why(run: Trajectory) -> str:
    """Why a run ended where it did, in a few words."""
    if run.failure is not None:
        return run.failure
    last = run.steps[-1].action if run.steps else None
    if run.stop_reason is StopReason.INFEASIBLE and isinstance(last, ReportInfeasible):
        return last.reason
    if run.stop_reason is StopReason.MAX_STEPS:
        here = "" if len(run.steps) >= run.task.max_steps else " on this step"
        count = len(run.steps) if not here else len(of_this_step(run.steps[-1].observation, run.steps))
        return f"gave out after {count} actions{here}"
    return run.stop_reason.value


@dataclass(frozen=True)
class Run:
    """One finished run and its challenges."""

    seed: int
    rows: Sequence[Mapping[str, Any]]
    seconds: float
    cost: float | None = 0.0  # dollars; None: not known
    failure: str | None = None

    @property
    def solved(self) -> int:
        return sum(row["success"] is True for row in self.rows)

    @property
    def success(self) -> bool | None:
        """Whether all of its challenges were solved; None where the world broke."""
        return None if self.failure is not None else self.solved == len(self.rows)

    @classmethod
    def of(cls, trajectory: Trajectory, types: Sequence[str] = (), count: int | None = None) -> Run:
        rows = challenges(trajectory, types, count)
        cost = Spent.by(trajectory.steps).cost
        return cls(trajectory.task.seed, rows, trajectory.seconds, cost, trajectory.failure)


def metrics(runs: Sequence[Run], wall_seconds: float | None = None) -> dict[str, Any]:
    """metrics.json: the summary, one row a challenge, and for several runs also how it went by type and by seed."""
    runs = sorted(runs, key=lambda run: run.seed)
    rows = [row for run in runs for row in run.rows]
    judged = [row for row in rows if row["success"] is not None]
    solved = sum(row["success"] for row in judged)
    tokens = {kind: sum(row["tokens"][kind] for row in rows) for kind in ("input", "output")}
    costs = [run.cost for run in runs]
    elapsed = sum(run.seconds for run in runs)
    tried = [row for row in rows if row["steps"]]
    summary = {
        "total_challenges": len(judged),
        "solved": solved,
        "success_rate": solved / len(judged) if judged else None,
        "total_elapsed_seconds": round(elapsed, 3),
        "avg_seconds_per_challenge": round(elapsed / len(tried), 3) if tried else None,
        "total_steps": sum(row["steps"] for row in rows),
        "total_tokens": tokens,
        "cost": None if None in costs else round(sum(cost or 0.0 for cost in costs), 6),
        "excluded": len(rows) - len(judged),
        "runs": rate([run.success for run in runs]).model_dump(),
        "median_seconds_per_run": round(median(run.seconds for run in runs), 3) if runs else None,
        "wall_seconds": round(elapsed if wall_seconds is None else wall_seconds, 3),
    }
    found: dict[str, Any] = {"summary": summary, "challenges": rows}
    if len(runs) > 1:
        found["by_type"] = by_type(rows)
        found["by_seed"] = {run.seed: _seed_row(run) for run in runs}
    return found


def by_type(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """How often each type was solved of the times it was tried, with Wilson's interval, and what it took on average."""
    kinds: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["steps"]:
            kinds[row["type"]].append(row)
    table = {}
    for name, tried in sorted(kinds.items()):
        found = rate([row["success"] for row in tried])
        table[name] = {
            **found.model_dump(),
            "solved": sum(row["success"] is True for row in tried),
            "mean_steps": round(fmean(row["steps"] for row in tried), 2),
            "mean_seconds": round(fmean(row["elapsed_seconds"] for row in tried), 3),
            "errors": sorted({row["error"] for row in tried if row["error"]}),
        }
    return table


def _seed_row(run: Run) -> dict[str, Any]:
    errors = [row["error"] for row in run.rows if row["error"] not in (None, NOT_REACHED)]
    return {
        "solved": run.solved,
        "total": len(run.rows),
        "success": run.success,
        "seconds": round(run.seconds, 3),
        "steps": sum(row["steps"] for row in run.rows),
        "error": errors[0] if errors else None,
    }
