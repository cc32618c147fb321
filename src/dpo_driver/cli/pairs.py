"""Preference pairs: pair, prefs export, prefs import. Called by cli/main.py; calls flywheel and preferences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dpo_driver.cli.options import (
    AsJson,
    ConfigPath,
    Overrides,
    Round,
    RunPath,
    console,
    find_run,
    opened_run,
    print_json,
    results,
)
from dpo_driver.core.errors import DataError

if TYPE_CHECKING:
    from dpo_driver.core.records import Preference, TrainingSample
    from dpo_driver.core.store import RunStore
    from dpo_driver.preferences.build import PairStats

PANEL = "The loop"

prefs_app = typer.Typer(help="Preference files and datasets: TRL's columns out, several formats in.",
                        no_args_is_help=True)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(rich_help_panel=PANEL)(pair)
    app.add_typer(prefs_app, name="prefs", rich_help_panel=PANEL)


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

            written = export_preferences(export, context.store.preferences(number))
            console.print(f"{written} pairs written to {export}")
    if as_json:
        print_json(found.model_dump(mode="json"))
    elif stats:
        _show(found)


@prefs_app.command("export")
def export_file(
    file: Annotated[
        Path, typer.Argument(metavar="PATH", help="To write: .jsonl, .parquet, or a folder of Hugging Face's datasets.")
    ],
    run: RunPath = None,
    number: Round = None,
    demonstrations: Annotated[
        bool, typer.Option("--demos", help="The run's demonstrations instead: prompt and completion, for SFT.")
    ] = False,
) -> None:
    """Write a run's preferences in TRL's columns: prompt, chosen, rejected."""
    from dpo_driver.core.store import RunStore
    from dpo_driver.preferences.formats import export_preferences, export_samples

    with RunStore(find_run(run), mode="read") as store:
        if demonstrations:
            written = export_samples(file, _demonstrations(store))
        else:
            written = export_preferences(file, store.preferences(number))
    console.print(f"{written} {'demonstrated steps' if demonstrations else 'preferences'} written to {file}")


@prefs_app.command("import")
def import_file(
    file: Annotated[
        Path, typer.Argument(metavar="PATH", help="To read: JSONL, JSON, Parquet, or a folder of datasets.")
    ],
    config: ConfigPath = None,
    overrides: Overrides = None,
    number: Annotated[int, typer.Option("--round", min=1, help="Round that will train on them.")] = 1,
    layout: Annotated[
        str, typer.Option("--format", metavar="NAME", help="trl, dpo-driver, gauntlet, or auto to look at the file.")
    ] = "auto",
) -> None:
    """Give a round of a run the preferences of a file or dataset, in place of those that it had.

    With a broken row nothing changes.
    """
    from dpo_driver.preferences.readers import read_preferences

    rows = _told_apart(read_preferences(file, layout))
    with opened_run(config, overrides) as context:
        context.store.add_preferences(number, rows)
    console.print(f"{len(rows)} preferences added to round {number}")


def _demonstrations(store: RunStore) -> list[TrainingSample]:
    """What SFT of this run learns from."""
    from dpo_driver.cli.play import run_config
    from dpo_driver.flywheel.train import as_rows

    rows = as_rows(store, run_config(store.run_dir))
    if not rows:
        raise DataError("this run has no demonstrations", remedy="make them: dpo-driver sft CONFIG")
    return rows


def _told_apart(rows: list[Preference]) -> list[Preference]:
    """Equal rows under ids of their own: the store keeps one row an id, and a row that comes twice counts twice."""
    seen: Counter[str] = Counter()
    apart = []
    for row in rows:
        seen[row.id] += 1
        apart.append(row if seen[row.id] == 1 else row.model_copy(update={"id": f"{row.id}/{seen[row.id]}"}))
    return apart


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
