"""Sweep: one run for every combination of some keys' values, each a run directory of its own that resumes by itself.

Points run one after another; what they would do alike is done once (sweep_share.py). A point that breaks is recorded
with its reason and the others go on; Ctrl-C stops the sweep, and the same call goes on. Called by cli/sweep.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from dpo_driver.core.errors import ConfigError, DriverError, StoreError
from dpo_driver.core.store import DATABASE, RunStore
from dpo_driver.flywheel import loop
from dpo_driver.flywheel.context import RunContext, open_run
from dpo_driver.flywheel.sweep_plan import Plan, Point, State, States
from dpo_driver.flywheel.sweep_share import share

FINISHED = "sweep/finished"  # a fact of a point's run
LOCK = "sweep.lock"


def sweep(
    plan: Plan,
    console: Console,
    *,
    on_point: Callable[[States], None] = lambda _states: None,
    finish: Callable[[RunContext], None] = lambda _ctx: None,
) -> States:
    """Run all points of a plan that are not finished.

    Args:
        plan: see :func:`sweep_plan.make_plan`.
        console: progress.
        on_point: told the states at the beginning and after every point.
        finish: called with each point's run at its end, such as to write its report.

    Raises:
        ConfigError: the folder holds a point, or a run, of another configuration; nothing has run then.
        StoreError: another process sweeps into the same folder.
    """
    check_folder(plan)
    with _locked(plan.folder):
        states: States = {point.slug: State("done" if is_finished(point) else "waiting") for point in plan.points}
        on_point(dict(states))
        for number, point in enumerate(plan.points, 1):
            title = f"[{number} of {len(plan.points)}] {point.slug}"
            if states[point.slug].state == "done":
                console.print(f"✓ {title}: done before", style="dim", markup=False, highlight=False)
                continue
            console.print(f"\n● {title}", style="bold", markup=False, highlight=False)
            states[point.slug] = _run(point, console, finish)
            if states[point.slug].state == "failed":
                text = f"✗ {title}: {states[point.slug].reason}"
                console.print(text, style="red", markup=False, highlight=False)
            on_point(dict(states))
    return states


def _run(point: Point, console: Console, finish: Callable[[RunContext], None]) -> State:
    try:
        with open_run(point.config, console=console) as ctx:
            copied = share(ctx)
            if copied:
                donors = ", ".join(f"{n} of {name}" for name, n in Counter(copied.values()).items())
                ctx.say(f"[dim]{len(copied)} stages would come out the same and were copied: {donors}[/dim]")
                ctx.tracker.log_tags({f"shared.{stage}": donor for stage, donor in copied.items()})
            loop.run(ctx)
            finish(ctx)
            ctx.store.set_fact(FINISHED, True)
    except Exception as error:  # the boundary between points: what broke one is recorded, the others go on
        if os.environ.get("DPO_DRIVER_DEBUG"):
            raise
        return State("failed", str(error) if isinstance(error, DriverError) else f"{type(error).__name__}: {error}")
    return State("done")


def check_folder(plan: Plan) -> None:
    """Refuse a folder in which a point could not go on. Raises ConfigError."""
    remedy = "give the sweep a folder of its own: --set project.name=NAME"
    if (plan.folder / DATABASE).is_file():
        raise ConfigError("the sweep's folder is the directory of a run", where=str(plan.folder), remedy=remedy)
    for point in plan.points:
        if (point.config.run_dir / DATABASE).is_file():
            with RunStore(point.config.run_dir, mode="read") as store:
                before = store.get_fact("config_hash")
            if before not in (None, point.config.hash()):
                raise ConfigError("an earlier sweep with another configuration has this point",
                                  where=str(point.config.run_dir), remedy=remedy)  # fmt: skip


def is_finished(point: Point) -> bool:
    """The point's run has reached its end."""
    if not (point.config.run_dir / DATABASE).is_file():
        return False
    with RunStore(point.config.run_dir, mode="read") as store:
        return store.get_fact(FINISHED) is True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time sweeps into a folder: the second one's points would all fail as being in use."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait for it to finish, stop it, or give this sweep a name of its own"
            raise StoreError("another process sweeps into this folder", where=str(folder), remedy=remedy) from None
        yield
