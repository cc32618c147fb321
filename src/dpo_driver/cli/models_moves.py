"""Models: promote, demote, rollback, history, gc. Called by cli/models.py; calls registry."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, console, print_json, results
from dpo_driver.core.errors import ModelError

Root = Annotated[Path, typer.Option("--root", help="Folder that holds the runs.")]
Model = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="Such as pocket; needed where several have a champion.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to ``models``."""
    for work in (promote, demote, rollback, history, gc):
        app.command()(work)


def promote(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A registered version.")],
    why: Annotated[str, typer.Option("--why", help="The reason; it is kept.")] = "",
    root: Root = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Make a version the champion by hand. `dpo-driver promote` does it by measurement."""
    from dpo_driver.registry import Registry
    from dpo_driver.registry.moves import promote_by_hand

    version = promote_by_hand(Registry(root), reference, why)
    if as_json:
        print_json(version.model_dump(mode="json"))
    else:
        console.print(f"{version.name} is the champion", highlight=False)


def demote(
    model: Model = None,
    why: Annotated[str, typer.Option("--why", help="The reason; it is kept.")] = "",
    root: Root = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """The champion steps down; the one before it takes its place, or nobody."""
    from dpo_driver.registry import Registry
    from dpo_driver.registry.moves import demote

    move = demote(Registry(root), model, why)
    if as_json:
        print_json(asdict(move))
    else:
        console.print(f"{move.before} steps down; champion: {move.after or 'nobody'}", highlight=False)


def rollback(
    model: Model = None,
    why: Annotated[str, typer.Option("--why", help="The reason; it is kept.")] = "",
    root: Root = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """The champion and the one before it change places."""
    from dpo_driver.registry import Registry
    from dpo_driver.registry.moves import roll_back

    move = roll_back(Registry(root), model, why)
    if as_json:
        print_json(asdict(move))
    else:
        console.print(f"champion: {move.after}, before: {move.before}", highlight=False)


def history(model: Model = None, root: Root = Path("runs"), as_json: AsJson = False) -> None:
    """Who was set, promoted, refused, demoted, rolled back or removed; when, by whom, and why."""
    from dpo_driver.registry import Registry

    registry = Registry(root)
    if model is not None and model not in registry.models():
        raise ModelError(f"no registered model {model!r}", where=str(registry.root),
                         remedy=f"known: {', '.join(registry.models()) or 'none yet'}")  # fmt: skip
    moves = [move for name in ((model,) if model else registry.models()) for move in registry.history(name)]
    if as_json:
        print_json([asdict(move) for move in moves])
        return
    table = Table("at", "what", "from", "to", "who", "why", box=None, header_style="bold")
    for move in sorted(moves, key=lambda move: move.at):
        table.add_row(move.at, move.kind, move.before, move.after, move.who, move.why)
    results.print(table)


def gc(
    keep: Annotated[int, typer.Option("--keep", min=0, help="Newest versions of each model that stay.")] = 3,
    older_than: Annotated[float, typer.Option("--older-than", min=0, metavar="DAYS", help="Younger ones stay.")] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    root: Root = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Free the weights and checkpoints that no alias, no descendant of one and no unfinished run needs."""
    from dpo_driver.registry import Registry
    from dpo_driver.registry.leftovers import leftovers, remove

    registry = Registry(root)
    found = leftovers(registry, keep=keep, older_than_days=older_than)
    total = sum(item.bytes for item in found)
    if not as_json:
        for item in found:
            console.print(f"{item.bytes / 1e6:9.1f} MB  {item.folder}", highlight=False, soft_wrap=True)
    if found and not dry_run and (yes or typer.confirm(f"Remove {total / 1e6:.1f} MB?", err=True)):
        removed = remove(registry, found)
    else:
        removed = 0
    if as_json:
        folders = [{"folder": str(item.folder), "bytes": item.bytes} for item in found]
        print_json({"found": folders, "bytes": total, "removed": removed})
    else:
        console.print(f"{removed / 1e6:.1f} of {total / 1e6:.1f} MB removed", highlight=False)
