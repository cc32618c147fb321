"""The faces of a finished run: report, ui. Called by cli/main.py; calls report and tracking."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from dpo_driver.cli.options import AsJson, RunPath, console, find_run, print_json, results

PANEL = "Results"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(rich_help_panel=PANEL)(report)
    app.command(rich_help_panel=PANEL)(ui)


def report(
    run: RunPath = None,
    as_json: AsJson = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the web browser.")] = False,
) -> None:
    """Write the report: one HTML file that opens offline. With --json, the figures only."""
    run_dir = find_run(run)
    if as_json:
        from dpo_driver.report.data import report_json

        print_json(report_json(run_dir))
        return
    page = publish(run_dir)
    if show:
        webbrowser.open(page.resolve().as_uri())


def publish(run_dir: Path) -> Path:
    """Write the page, print the figures, say where the page is."""
    from dpo_driver.core.store import RunStore
    from dpo_driver.report.data import collect_report
    from dpo_driver.report.page import write_report
    from dpo_driver.report.text import print_summary

    page = write_report(run_dir)
    with RunStore(run_dir, mode="read") as store:
        print_summary(collect_report(store, run_dir, replays=0), results)
    console.print(f"report: {page}")
    return page


def ui(
    root: Annotated[Path, typer.Option("--root", help="Folder that holds the runs.")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", min=1, max=65_535)] = 5000,
) -> None:
    """Open MLflow's pages on loopback."""
    from dpo_driver.tracking import open_ui

    raise typer.Exit(open_ui(root, port))
