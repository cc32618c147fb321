"""Models: models list, models merge. Called by cli/main.py; calls registry and policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, console, print_json, results

models_app = typer.Typer(help="Registered model versions.", no_args_is_help=True)
Root = Annotated[Path, typer.Option("--root", help="Folder that holds the runs.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(models_app, name="models", rich_help_panel="Results")


@models_app.command("list")
def list_models(
    root: Root = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Versions in the order they were registered, with parent, algorithm, success and aliases."""
    from dpo_driver.registry import Registry

    registry = Registry(root)
    versions = registry.list()
    holders: dict[str, list[str]] = {}
    for alias, name in registry.aliases().items():
        holders.setdefault(name, []).append(alias.rpartition("@")[2])
    if as_json:
        print_json(
            [{**version.model_dump(mode="json"), "aliases": holders.get(version.name, [])} for version in versions]
        )
        return
    if not versions:
        console.print("nothing is registered yet: dpo-driver run configs/pocket.yaml")
        return
    names: dict[str, str] = {}
    for version in versions:  # two versions may hold the same weights: a parent is the first of them
        names.setdefault(version.content_hash, version.name)
    table = Table("model", "aliases", "algorithm", "parent", "success", "folder", box=None, header_style="bold")
    for version in versions:
        success = version.metrics.get("success")
        table.add_row(
            version.name,
            ", ".join(holders.get(version.name, [])),
            version.algorithm,
            names.get(version.parent or "", version.parent or version.base_model),
            "" if success is None else f"{success:.1%}",
            _short(version.path),
        )
    results.print(table)


@models_app.command("merge")
def merge_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An adapter's folder, or a registered version.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; it must not exist.")],
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32, bfloat16, float16, or auto: the base model's own.")
    ] = "auto",
    device: Annotated[str, typer.Option("--device", help="Where to compute it.")] = "cpu",
    root: Root = Path("runs"),
) -> None:
    """Merge an adapter into its base model: a plain safetensors folder that any program loads."""
    from dpo_driver.policies.merge import export_merged
    from dpo_driver.registry import Registry

    source = model if Path(model).is_dir() else Registry(root).load(model).path
    digest = export_merged(source, out, dtype=dtype, device=device)
    console.print(f"the merged model is in {out} [dim]({digest})[/dim]", highlight=False)


def _short(path: str) -> str:
    """Relative to the working directory when it lies below."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
