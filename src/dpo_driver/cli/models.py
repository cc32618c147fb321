"""Models: list, show, diff, card, merge, push. Called by cli/main.py; calls registry and policies. Who is champion and
what may go: models_moves.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, console, print_json, results

models_app = typer.Typer(help="Registered model versions.", no_args_is_help=True)
Root = Annotated[Path, typer.Option("--root", help="Folder that holds the runs.")]


Reference = Annotated[
    str, typer.Argument(metavar="REF", help="champion, pocket@champion, pocket:3, pocket/dpo-1 or a content hash.")
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    from dpo_driver.cli import models_moves

    models_moves.register(models_app)
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
    held = registry.holders()
    aliases = [[alias.rpartition("@")[2] for alias in held if held[alias] == version] for version in versions]
    if as_json:
        print_json(
            [{**one.model_dump(mode="json"), "aliases": names} for one, names in zip(versions, aliases, strict=True)]
        )
        return
    if not versions:
        console.print("nothing is registered yet: dpo-driver run configs/pocket.yaml")
        return
    names: dict[str, str] = {}
    for version in versions:  # two versions may hold the same weights: a parent is the first of them
        names.setdefault(version.content_hash, version.name)
    table = Table("model", "aliases", "algorithm", "parent", "success", "folder", box=None, header_style="bold")
    for version, own in zip(versions, aliases, strict=True):
        success = version.metrics.get("success")
        table.add_row(
            version.name,
            ", ".join(own),
            version.algorithm,
            names.get(version.parent or "", version.parent or version.base_model),
            "" if success is None else f"{success:.1%}",
            _short(version.path),
        )
    results.print(table)


@models_app.command("show")
def show_model(reference: Reference, root: Root = Path("runs"), as_json: AsJson = False) -> None:
    """Everything on record about a version: where it comes from, its files, what the gate said."""
    from dpo_driver.registry import Registry
    from dpo_driver.registry.versions import address

    registry = Registry(root)
    version = registry.get(reference)
    aliases = [alias.rpartition("@")[2] for alias, holder in registry.holders().items() if holder == version]
    decision = registry.decision(version)
    found = {
        **version.model_dump(mode="json"),
        "aliases": aliases,
        "lineage": [known.name for known in registry.lineage(address(version))],
        "decision": decision.model_dump(mode="json") if decision else None,
        "files": registry.files(version),
        "removed": registry.removed(version),
    }
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False, box=None)
    for key in ("name", "aliases", "algorithm", "base_model", "lineage", "prompt_profile", "config_hash", "data_hash",
                "git", "content_hash", "created", "removed", "path"):  # fmt: skip
        value = found[key]
        table.add_row(f"[bold]{key}[/bold]", " <- ".join(value) if isinstance(value, list) else str(value))
    for name, value in sorted(version.metrics.items()):
        table.add_row(name, f"{value:.4g}")
    if decision is not None:
        table.add_row("[bold]decision[/bold]", f"{'promoted' if decision.promoted else 'refused'}: "
                      + "; ".join(decision.reasons))  # fmt: skip
    for name, digest in registry.files(version).items():
        table.add_row(f"[dim]{name}[/dim]", f"[dim]{digest[:16]}[/dim]")
    results.print(table)


@models_app.command("verify")
def verify_models(
    reference: Annotated[str | None, typer.Argument(metavar="REF", help="One version; all when not given.")] = None,
    root: Root = Path("runs"),
) -> None:
    """Compare files with the hashes that they were registered with; leaves with 2 at the first that differs."""
    from dpo_driver.registry import Registry

    registry = Registry(root)
    versions = (registry.get(reference),) if reference else registry.list()
    checked = [version for version in versions if reference or not registry.removed(version)]
    for version in checked:
        registry.verify(version)
    console.print(f"{len(checked)} of {len(versions)} versions have the files that were registered")


@models_app.command("diff")
def diff_models(first: Reference, second: Reference, root: Root = Path("runs"), as_json: AsJson = False) -> None:
    """What two versions differ in: settings, data, figures, files, weights."""
    from dataclasses import asdict

    from dpo_driver.registry import Registry
    from dpo_driver.registry.differences import differences

    found = differences(Registry(root), first, second)
    if as_json:
        print_json(asdict(found))
        return
    table = Table("", first, second, box=None, header_style="bold")
    for group in (found.fields, found.settings, found.metrics):
        for key, (a, b) in group.items():
            table.add_row(key, str(a), str(b))
    results.print(table)
    if found.weights is not None:
        weights = found.weights
        others = f"{len(weights.only_first)} and {len(weights.only_second)} on one side only"
        results.print(f"{weights.changed} of {weights.tensors} tensors differ, by {weights.relative:.2%}; {others}")
    results.print(f"files that differ: {', '.join(found.files) or 'none'}")


@models_app.command("card")
def model_card_of(reference: Reference, root: Root = Path("runs")) -> None:
    """Print a model card in the hub's format, from what is on record."""
    from dpo_driver.registry import Registry
    from dpo_driver.registry.card import model_card

    registry = Registry(root)
    print(model_card(registry, registry.get(reference)))


@models_app.command("push")
def push_model(
    reference: Reference,
    destination: Annotated[str, typer.Argument(metavar="DEST", help="A folder, or hf://owner/name.")],
    root: Root = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Push a version with its card to a folder laid out as the hub's cache, or to the hub. Earlier pushes stay."""
    from dpo_driver.registry import Registry
    from dpo_driver.registry.hub import push

    where = push(Registry(root), reference, destination)
    if as_json:
        print_json({"pushed": where})
    else:
        console.print(f"pushed to {where}", highlight=False, soft_wrap=True)


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
