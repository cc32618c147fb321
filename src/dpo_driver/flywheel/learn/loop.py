"""Goes on: looks what is due, takes a turn as a job, and again. Stopped anywhere, the same call goes on from disk.

    learn(load_learn("configs/learn.yaml"), agent, root, turns=3)

Called by the command line.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import ConfigError, DataError
from dpo_driver.core.records import Job
from dpo_driver.flywheel.context import open_run
from dpo_driver.flywheel.jobs import Jobs, Work
from dpo_driver.flywheel.learn import texts, turn
from dpo_driver.flywheel.learn.budget import BudgetSpent, spent
from dpo_driver.flywheel.learn.due import due
from dpo_driver.flywheel.learn.reading import Filter, content_filter
from dpo_driver.flywheel.learn.settings import LearnSettings, inside

TURN, TEXTS = "turn", "texts"


def learn(settings: LearnSettings, agent: RunConfig | None, root: Path, turns: int, console: Console) -> dict[str, Any]:
    """Until the browser agent has taken so many turns in all, and each text role one with what it has now.

    Args:
        settings: see settings.py.
        agent: configuration of the browser agent's run; None: text roles only.
        root: folder of the runs, its inbox and its jobs.
        turns: of the browser agent, those counted that an earlier call took.
        console: for progress.

    Returns:
        ``turns``: what came of each; ``success``: see ``turn.account``; ``roles``; ``cost``.

    Raises:
        ConfigError: there is neither an agent nor a role. Cancelled: a job was cancelled. KeyboardInterrupt: stopped.
    """
    if agent is None and not settings.roles:
        raise ConfigError("there is nobody who could learn", remedy="name a configuration with agent, or text roles")
    keep, found = content_filter(settings.filter), dict[str, Any]()
    if agent is not None:
        found |= _agent_turns(settings, agent, root, turns, keep, console)
    if settings.roles:
        found["roles"] = _text_turn(settings, sorted(settings.roles), root, keep, console).result.get("roles", {})
    return found


def keep_learning(
    settings: LearnSettings, agent: RunConfig | None, root: Path, console: Console, *, once: bool = False,
    told: Callable[[dict[str, Any]], None] = lambda found: None,
) -> None:  # fmt: skip
    """Look again and again, and take the turns that are due inside the window, until stopped; or look once.

    Args:
        settings, agent, root, console: as in :func:`learn`.
        once: look, take what is due, and return.
        told: given what came of every look at which something was due, and of the only one.
    """
    keep = content_filter(settings.filter)
    while True:
        asked = ([""] if agent is not None else []) + sorted(settings.roles)
        looked = {role: due(root, role, settings.due) for role in asked}
        wanted = [role for role in asked if looked[role].due]
        open_now = inside(settings.window, datetime.datetime.now())
        found: dict[str, Any] = {"due": {role or "browser": one.reason for role, one in looked.items()}}
        if wanted and open_now:
            if "" in wanted and agent is not None:
                found |= _agent_turns(settings, agent, root, None, keep, console)
            if names := [role for role in wanted if role]:
                found["roles"] = _text_turn(settings, names, root, keep, console).result.get("roles", {})
        elif wanted:
            found["waits_for"] = settings.window
        if once or (wanted and open_now):
            told(found)
        if once:
            return
        time.sleep(settings.look_every)


def _agent_turns(
    settings: LearnSettings, agent: RunConfig, root: Path, turns: int | None, keep: Filter | None, console: Console
) -> dict[str, Any]:
    """Turns up to a number, or one more; a turn that was interrupted is finished first."""
    jobs = Jobs(root)
    done = 0
    results: list[dict[str, Any]] = []
    run = str(agent.run_dir)
    taken = {job.request["turn"]: job for job in reversed(jobs.list())
             if job.kind == TURN and job.request.get("run") == run and job.state in ("done", "refused")
             and "decision" in job.result}  # fmt: skip
    while done + 1 in taken:
        done += 1
        results.append(taken[done].result)
    last = done + 1 if turns is None else turns
    for number in range(done + 1, last + 1):
        request = {"run": run, "turn": number}
        job = jobs.waiting("", TURN, request) or jobs.add("", TURN, request)
        with jobs.running(job.id) as work, open_run(agent, console=_logging(console, work)) as ctx:
            try:
                result = turn.take_turn(ctx, number, settings, work, keep, jobs.seen(""))
            except BudgetSpent as error:
                work.end("refused", message=str(error), result={"spent": spent(ctx.store).told(settings.budget.prices)})
                raise DataError(str(error), where=str(ctx.run_dir), remedy="budget: is a section of the file") from None
            result["cost"] = spent(ctx.store).told(settings.budget.prices)
            promoted = result["decision"]["promoted"]
            work.end("done" if promoted else "refused", message=result["decision"]["reasons"][0], result=result)
        results.append(result)
    found: dict[str, Any] = {"turns": results}
    if settings.final_per_task and turns is not None:
        with open_run(agent, console=console) as ctx:
            found["success"] = turn.account(ctx, last, settings)
            found["cost"] = spent(ctx.store).told(settings.budget.prices)
    return found


def _text_turn(settings: LearnSettings, roles: list[str], root: Path, keep: Filter | None, console: Console) -> Job:
    """Several roles in one job."""
    jobs, names = Jobs(root), ",".join(roles)
    job = jobs.waiting(names, TEXTS, {}) or jobs.add(names, TEXTS)
    with jobs.running(job.id) as work:
        try:
            result = texts.take_turns(root, roles, settings, work, keep, _logging(console, work))
        except BudgetSpent as error:
            work.end("refused", message=str(error))
            raise DataError(str(error), where=str(root), remedy="budget: is a section of the file") from None
        decided = [one["decision"]["promoted"] for one in result["roles"].values() if "decision" in one]
        message = f"{sum(decided)} of {len(roles)} roles have a new champion"
        work.end("done" if any(decided) else "refused", message=message, result=result)
        return work.job


class _Logging(Console):
    """A console whose lines also go into a job's log."""

    def __init__(self, shown: Console, work: Work) -> None:
        super().__init__(file=shown.file, force_terminal=shown.is_terminal, width=shown.width)
        self._work = work

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*objects, **options)
        for line in objects:
            if isinstance(line, str) and line:
                self._work.say(Text.from_markup(line).plain)


def _logging(console: Console, work: Work) -> Console:
    return _Logging(console, work)
