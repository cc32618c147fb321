"""Work that goes on by itself: jobs list, show, cancel. Called by cli/main.py; calls flywheel/jobs.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, console, print_json, results

jobs_app = typer.Typer(help="Trainings that go on by themselves.", no_args_is_help=True)
Root = Annotated[Path, typer.Option("--root", help="Folder of the runs.")]
Name = Annotated[str, typer.Argument(metavar="JOB", help="As in `jobs list`.")]
POLL_S = 0.5


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(jobs_app, name="jobs", rich_help_panel="The loop")


@jobs_app.command("list")
def list_jobs(root: Root = Path("runs"), as_json: AsJson = False) -> None:
    """All jobs, the newest first."""
    from dpo_driver.flywheel.jobs import Jobs

    found = Jobs(root).list()
    if as_json:
        print_json([job.model_dump(mode="json") for job in found])
        return
    if not found:
        console.print(f"no jobs in {root} yet: dpo-driver learn --turns 1")
        return
    table = Table("job", "role", "state", "", "what", box=None)
    for job in found:
        what = job.error or job.message or job.phase
        table.add_row(job.id, job.role or "browser", job.state, f"{job.progress:.0%}", what)
    results.print(table)


@jobs_app.command("show")
def show(
    name: Name,
    root: Root = Path("runs"),
    log: Annotated[bool, typer.Option("--log", help="Its log instead.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="The log, as it grows, until the job ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """One job: how far it is, what came of it."""
    from dpo_driver.flywheel.jobs import ENDED, Jobs

    jobs = Jobs(root)
    job = jobs.get(name)
    if log or follow:
        text, place = jobs.log(name)
        print(text, end="", flush=True)
        while follow and jobs.get(name).state not in ENDED:
            time.sleep(POLL_S)
            text, place = jobs.log(name, place)
            print(text, end="", flush=True)
        print(jobs.log(name, place)[0], end="")
        return
    if as_json:
        print_json(job.model_dump(mode="json"))
        return
    table = Table(show_header=False, box=None)
    for key, value in job.model_dump(mode="json", exclude={"schema_version", "result", "request"}).items():
        if value not in (None, "", 0.0) or key == "progress":
            stamp = key in ("created", "started", "ended")
            table.add_row(key, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value)) if stamp else str(value))
    for key, value in {**job.request, **job.result}.items():
        table.add_row(key, str(value)[:300])
    results.print(table)


@jobs_app.command("cancel")
def cancel(name: Name, root: Root = Path("runs"), as_json: AsJson = False) -> None:
    """End a job: at once where it waits, at the next safe point where it runs."""
    from dpo_driver.flywheel.jobs import Jobs

    job = Jobs(root).cancel(name)
    if as_json:
        print_json(job.model_dump(mode="json"))
        return
    console.print(f"{name}: {'cancelled' if job.state == 'cancelled' else 'told to stop'}")
