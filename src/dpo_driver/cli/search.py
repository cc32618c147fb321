"""Search over page states: search. Called by cli/main.py; calls flywheel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, ConfigPath, Overrides, Round, opened_run, print_json, results

PANEL = "The loop"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel=PANEL)(search)


def search(
    config: ConfigPath = None,
    overrides: Overrides = None,
    number: Round = None,
    solutions: Annotated[
        Path | None,
        typer.Option("--solutions", metavar="FILE", help="solutions.jsonl of another run, to be replayed first."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search training start states by UCB1 over real pages, for what the model does not find by itself."""
    with opened_run(config, overrides) as context:
        from dpo_driver.flywheel.search import search

        found = search(context, round=number, solutions=solutions)
    if as_json:
        print_json(found)
        return
    table = Table("family", "solved", "95 %", "n", box=None, header_style="bold")
    for name, rate in {**found["families"], "all": found["solved"]}.items():
        if rate["n"]:
            interval = f"{rate['low']:.0%} to {rate['high']:.0%}"
            table.add_row(name, f"{rate['success']:.0%}", interval, str(rate["n"]))
    results.print(table)
    results.print(f"{found['lines']} lines, {found['actions']} actions, {found['browser_seconds']:g} s in the browser; "
                  f"{found['refused']} branches refused, {found['failed']} lines failed")  # fmt: skip
