"""``dpo-driver collect --agent ...`` and ``--import ...``: expert play recorded, proven and merged. Called by
cli/loop.py; calls agents, envs and rollout. What is asked for is in cli/record_options.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dpo_driver.cli.options import console, print_json, results
from dpo_driver.cli.record_options import PROFILE, Request, check, keeps_time, kind_of, limits_of, tasks_of
from dpo_driver.core.errors import RolloutFailure

if TYPE_CHECKING:
    from dpo_driver.core.protocols import Agent
    from dpo_driver.core.records import Task, Trajectory
    from dpo_driver.rollout.intents import Intent
    from dpo_driver.rollout.pool import EnvironmentFactory
    from dpo_driver.rollout.recorder import Recordings

    Environments = Callable[..., AbstractAsyncContextManager[EnvironmentFactory]]


@dataclass
class _Tally:
    """What this command did."""

    played: int = 0
    doubles: int = 0
    failed: list[str] = field(default_factory=list)  # the world broke: nothing is known
    parted: dict[str, str] = field(default_factory=dict)


def record(asked: Request) -> None:
    """Record, prove, merge, and print what is covered.

    Raises:
        DriverError: options that do not go together, names that nobody knows, a file that cannot be read.
    """
    from dpo_driver.core.store import RunStore
    from dpo_driver.rollout.imports import read
    from dpo_driver.rollout.recorder import Recordings

    check(asked)
    tasks = tasks_of(asked)
    intents = read(asked.file, asked.form) if asked.file is not None else None
    environments = _environments(asked)
    with RunStore(asked.out) as store:
        recordings = Recordings(store)
        tally = asyncio.run(_recorded(asked, tasks, intents, recordings, environments))
        table, reasons = recordings.coverage(kind_of), dict(recordings.reasons())
    missing = _uncovered(asked, table)
    if asked.as_json:
        print_json({"out": str(asked.out), "played": tally.played, "doubles": tally.doubles, "failed": tally.failed,
                    "coverage": table, "parted": reasons, "uncovered": missing})  # fmt: skip
        return
    _show(asked, table, tally, missing)


# -- playing and proving -----------------------------------------------------------------------------------------------


def _environments(asked: Request) -> Environments:
    from dpo_driver.core import plugins

    environments: Environments = plugins.load("environments", asked.environment, where="--env")
    return partial(environments, headed=True) if asked.agent == "human" else environments


def _agent(asked: Request) -> Agent:
    from dpo_driver.agents.oracle import OracleAgent
    from dpo_driver.agents.solver.agent import SolverAgent
    from dpo_driver.core import plugins

    if asked.agent == "solver":
        return SolverAgent(PROFILE)
    known = asked.environment.partition(":")[0] in plugins.names("experts")
    return OracleAgent(PROFILE, plugins.load("experts", asked.environment) if known else {})


async def _recorded(
    asked: Request, tasks: Sequence[Task], intents: Sequence[Intent] | None, recordings: Recordings,
    environments: Environments,
) -> _Tally:  # fmt: skip
    tally = _Tally()
    who = asked.agent or asked.form
    done = set() if asked.again or asked.file is not None else recordings.played(who)
    left = [task for task in tasks if task.id not in done]
    if len(left) < len(tasks):
        console.print(f"[dim]{len(tasks) - len(left)} of {len(tasks)} played before[/dim]", highlight=False)
    if not left and not recordings.waiting():
        return tally
    async with environments() as make:
        await _proven(recordings, make, asked.workers, tally)  # of a command that was stopped
        if asked.agent == "human":
            for task in left:
                trajectory = await _person(task, make, asked)
                await _kept(trajectory, recordings, make, asked.workers, tally)
        elif intents is not None:
            trajectory = await _acted_out(intents, left[0], make, who)
            if not trajectory.success:
                _say(f"not solved: {_why(trajectory)}")
            await _kept(trajectory, recordings, make, asked.workers, tally)
        else:
            await _scripted(asked, left, recordings, make, tally)
    return tally


async def _scripted(
    asked: Request, tasks: Sequence[Task], recordings: Recordings, make: EnvironmentFactory, tally: _Tally
) -> None:
    """Seed by seed: what is played is proven before the next one, so that stopping loses little."""
    from dpo_driver.rollout.recorder import record

    agent = _agent(asked)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(f"{agent.name} plays", total=len(tasks))

        def ended(trajectory: Trajectory) -> None:
            _take(trajectory, recordings, tally)
            progress.advance(bar)

        for seed in dict.fromkeys(task.seed for task in tasks):
            of_seed = [task for task in tasks if task.seed == seed]
            await record(of_seed, agent, make, workers=asked.workers, on_trajectory=ended)
            await _proven(recordings, make, asked.workers, tally)


async def _person(task: Task, make: EnvironmentFactory, asked: Request) -> Trajectory | None:
    """What a person does, acted out again in a window beside theirs; None if they left or did not solve it."""
    from dpo_driver.core.records import StopReason
    from dpo_driver.rollout.person import watch
    from dpo_driver.rollout.recorder import closed

    environment = await make()
    try:
        played = await watch(environment, task, limits_of(asked.environment), lambda goal: _say(f"{task.id}: {goal}"))
    except RolloutFailure as failure:
        _say(f"  left out: {failure}")
        return None
    finally:
        await closed(environment)
    if played.stop is not StopReason.SUCCESS:
        _say(f"  not solved ({played.stop.value}): not recorded")
        return None
    _say(f"  solved; acting it out again: {len(played.intents)} actions")
    trajectory = await _acted_out(played.intents, task, make, "human")
    if not trajectory.success:
        _say(f"  the public actions did not lead to the same end: {_why(trajectory)}")
    return trajectory


async def _acted_out(intents: Sequence[Intent], task: Task, make: EnvironmentFactory, who: str) -> Trajectory:
    from dpo_driver.rollout.intents import act_out
    from dpo_driver.rollout.recorder import closed

    environment = await make()
    try:
        return await act_out(intents, task, environment, name=who, profile=PROFILE)
    finally:
        await closed(environment)


def _why(trajectory: Trajectory) -> str:
    """Why a play did not get there: what broke, what could not be done, or what was thought last."""
    if trajectory.failure is not None:
        return trajectory.failure
    refused = next((step.observation.last_error for step in trajectory.steps if step.observation.last_error), None)
    last = trajectory.steps[-1].thought if trajectory.steps else trajectory.stop_reason.value
    return f"{refused}; then: {last}" if refused else last


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _take(trajectory: Trajectory, recordings: Recordings, tally: _Tally) -> None:
    tally.played += 1
    if trajectory.failure is not None:
        tally.failed.append(f"{trajectory.task.id}: {trajectory.failure}")
    elif not recordings.add(trajectory):
        tally.doubles += 1


async def _kept(
    trajectory: Trajectory | None, recordings: Recordings, make: EnvironmentFactory, workers: int, tally: _Tally
) -> None:
    if trajectory is not None:
        _take(trajectory, recordings, tally)
        await _proven(recordings, make, workers, tally)


async def _proven(recordings: Recordings, make: EnvironmentFactory, workers: int, tally: _Tally) -> None:
    """Prove all that waits for it."""
    from dpo_driver.rollout.recorder import prove_in

    waiting = recordings.waiting()

    async def work() -> None:
        while waiting:
            trajectory = waiting.pop(0)
            proof = await prove_in(make, trajectory, by_elements=keeps_time(trajectory.task))
            if proof is None:
                tally.failed.append(f"{trajectory.task.id}: the world broke each proof")
                continue
            recordings.settle(trajectory, proof)
            if proof.how is None:
                tally.parted[trajectory.id] = proof.reason or ""

    await asyncio.gather(*(work() for _ in range(min(workers, len(waiting)))))


# -- showing -----------------------------------------------------------------------------------------------------------


def _uncovered(asked: Request, table: dict[str, Any]) -> list[str]:
    """Types of the gauntlet that training may use and nothing proven shows."""
    if asked.environment.partition(":")[0] != "gauntlet":
        return []
    from dpo_driver.envs.gauntlet.puzzles import HELD_OUT, TYPES

    return [name for name in sorted(TYPES) if name not in HELD_OUT and not table.get(name, {}).get("reproduced")]


def _show(asked: Request, table: dict[str, dict[str, Any]], tally: _Tally, missing: Sequence[str]) -> None:
    shown = Table(box=None, header_style="bold")
    shown.add_column("type" if asked.environment.startswith("gauntlet") else "family", no_wrap=True)
    for heading in ("tried", "solved", "reproduced", "by elements", "parted", "actions"):
        shown.add_column(heading, justify="right")
    keys = ("tried", "solved", "reproduced", "by_elements", "parted")
    for name, row in table.items():
        actions = "-" if row["actions"] is None else f"{row['actions']:.1f}"
        style = "yellow" if row["reproduced"] < row["tried"] else None
        shown.add_row(name, *(str(row[key]) for key in keys), actions, style=style)
    total = {key: sum(row[key] for row in table.values()) for key in keys}
    shown.add_row("all", *(str(total[key]) for key in keys), "", style="bold")
    results.print(shown)
    print(f"{tally.played} played now, {tally.doubles} of them were there already; {asked.out}")
    for identity, reason in list(tally.parted.items())[:8]:
        console.print(
            f"kept apart: {identity}: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )
    for line in tally.failed[:8]:
        console.print(f"to be tried again: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if missing:
        console.print(f"nothing proven yet of: {', '.join(missing)}", style="dim", highlight=False, soft_wrap=True)
