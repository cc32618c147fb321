"""Preference pairs of a run's rounds: pair. Called by cli/main.py; calls flywheel and preferences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dpo_driver.cli.options import (
    AsJson,
    ConfigPath,
    Overrides,
    Round,
    console,
    opened_run,
    print_json,
    results,
)

if TYPE_CHECKING:
    from dpo_driver.preferences.build import PairStats

PANEL = "The loop"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(rich_help_panel=PANEL)(pair)


def pair(
    config: ConfigPath = None,
    overrides: Overrides = None,
    number: Round = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Say how many, from where, and why others were refused.")
    ] = False,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="PATH", help="Also write all pairs for TRL: see prefs export.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn success against failure into preference pairs from the same state."""
    with opened_run(config, overrides) as context:
        from dpo_driver.flywheel.pair import pair

        found = pair(context, round=number)
        if export is not None:
            from dpo_driver.preferences.formats import export_preferences

            sealed = context.store.vault is not None
            written = export_preferences(export, context.store.preferences(number), sealed=sealed)
            console.print(f"{written} pairs written to {export}")
    if as_json:
        print_json(found.model_dump(mode="json"))
    elif stats:
        _show(found)


def _show(found: PairStats) -> None:
    from dpo_driver.preferences.decisions import REASONS

    results.print(
        f"{found.pairs} pairs ({_listed(found.by_split)}) from {found.used} of {found.trajectories} trajectories; "
        f"{found.mixed_groups} of {found.groups} groups hold success and failure, "
        f"{found.forked_states} states saw more than one decision"
    )
    if found.mean_margin is not None:
        results.print(f"by level: {_listed(found.by_level)}; mean margin {found.mean_margin:.2f}; "
                      f"{found.unreadable_rejected} teach against unreadable text")  # fmt: skip
    for title, counts in (("pairs by task", found.by_task), ("refused", found.refused)):
        table = Table(title=title, title_justify="left", box=None, show_header=False)
        for name, count in sorted(counts.items(), key=lambda item: -item[1]):
            table.add_row(str(count), name, REASONS.get(name, "") if counts is found.refused else "")
        if counts:
            results.print(table)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
