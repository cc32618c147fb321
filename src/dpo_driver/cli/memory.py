"""Rollouts with memory: remember. Called by cli/main.py; calls flywheel."""

from __future__ import annotations

import typer

from dpo_driver.cli.options import AsJson, ConfigPath, Overrides, Round, opened_run, print_json, results

PANEL = "The loop"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel=PANEL)(remember)


def remember(
    config: ConfigPath = None, overrides: Overrides = None, number: Round = None, as_json: AsJson = False
) -> None:
    """Roll the round's start states out once more, with solved tasks like them in the prompt."""
    with opened_run(config, overrides) as context:
        from dpo_driver.flywheel.memory import remember

        found = remember(context, round=number)
    if as_json:
        print_json(found)
    else:
        results.print(found["summary"])
