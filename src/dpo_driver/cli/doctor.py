"""``dpo-driver doctor``: checks this machine line by line, each ok, warning or error with its remedy.

Called by cli/main.py. The checks themselves are in cli/checks.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dpo_driver.cli.options import AsJson, print_json, results

MARKS = {"ok": "[green]ok     [/green]", "warning": "[yellow]warning[/yellow]", "error": "[bold red]error  [/bold red]"}


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel="This machine")(doctor)


def doctor(
    run_dir: Annotated[Path, typer.Option("--run-dir", help="Where runs will be written.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Check this machine. Exit code 2 when something must be mended before a run."""
    from dpo_driver.cli.checks import run_checks

    found = []
    for check in run_checks(run_dir):
        found.append(check)
        if as_json:
            continue
        results.print(f"{MARKS[check.status]} [bold]{check.name:<14}[/bold] {escape(check.detail)}", soft_wrap=True)
        if check.remedy:
            results.print(f"{'':<8}{'':<15}[dim]-> {escape(check.remedy)}[/dim]", soft_wrap=True)
    errors = [check for check in found if check.status == "error"]
    if as_json:
        print_json({"ok": not errors, "checks": [check.as_dict() for check in found]})
    elif not errors:
        results.print("\nready: dpo-driver run configs/pocket.yaml")
    if errors:
        raise typer.Exit(2)
