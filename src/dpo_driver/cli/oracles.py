"""``dpo-driver oracles``: what the scripted experts reach on real pages. Called by cli/main.py; calls rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, console, print_json, results

if TYPE_CHECKING:
    from dpo_driver.rollout.pool import RolloutProgress


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel="This machine")(oracles)


def oracles(
    task: Annotated[list[str] | None, typer.Option("--task", help="Task family; may be repeated. All if none.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100_000, help="Episodes of each family.")] = 50,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256)] = 4,
    as_json: AsJson = False,
) -> None:
    """Play the scripted expert of each task family on real pages and print what it reaches."""
    from dpo_driver.rollout.ceiling import known_oracles, measure_oracles

    known_oracles(task or ())  # an unknown name is told before anything starts
    with console.status("starting the browser") as status:

        def tell(progress: RolloutProgress) -> None:
            status.update(f"{progress.finished}/{progress.total} episodes, {progress.per_second:.1f} a second")

        figures = measure_oracles(task or (), seeds, workers, tell)
    if as_json:
        print_json(figures)
    else:
        results.print(_table(figures))
        results.print(
            f"{figures['perfect']} of {figures['oracles']} families at 100 % strict; {figures['episodes']} episodes, "
            f"{figures['episodes_per_second']:.1f} a second"
        )


def _table(figures: dict[str, Any]) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("task", no_wrap=True)
    for heading in ("n", "strict", "positive", "steps", "s/episode", "excluded"):
        table.add_column(heading, justify="right")
    for name, row in figures["tasks"].items():
        mean = ["-" if row[key] is None else f"{row[key]:.2f}" for key in ("mean_steps", "seconds")]
        short = row["strict"] < row["n"] or not row["n"]
        counts = [str(row[key]) for key in ("n", "strict", "positive")]
        table.add_row(name, *counts, *mean, str(row["excluded"]), style="yellow" if short else None)
    return table
