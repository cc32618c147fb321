"""Azure ML: cloud azure submit, status, register, deploy. Called by cli/main.py; calls cloud/azure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dpo_driver.cli.options import AsJson, console, print_json, read_config, results

cloud_app = typer.Typer(help="Other people's machines.", no_args_is_help=True)
azure_app = typer.Typer(help="Azure Machine Learning.", no_args_is_help=True)
cloud_app.add_typer(azure_app, name="azure")
DEFAULT = Path("configs/azure.yaml")

SettingsPath = Annotated[
    Path | None, typer.Argument(metavar="SETTINGS", help="What Azure is asked for.", show_default=str(DEFAULT))
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the files that are sent.")]
OUT = Path("runs/azure")
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write the files and check them; nothing is sent.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(cloud_app, name="cloud", rich_help_panel="Elsewhere")


def _settings(path: Path | None, overrides: list[str] | None) -> Any:
    from dpo_driver.cloud.azure.settings import load_azure

    return load_azure(path or (DEFAULT if DEFAULT.is_file() else None), overrides or [])


@azure_app.command("submit")
def submit(
    settings: SettingsPath = None,
    overrides: Overrides = None,
    out: Out = OUT,
    project: Annotated[Path, typer.Option("--project", help="Checkout whose code is sent.")] = Path("."),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train there: a job on low-priority machines that goes on after an eviction."""
    from dpo_driver.cloud.azure.files import job_files

    asked = _settings(settings, overrides)
    files = job_files(asked, read_config(asked.run, None), out, project)
    if dry_run:
        _tell(_checked(files), as_json)
        return
    from dpo_driver.cloud.azure.client import Azure

    _tell(Azure(asked.workspace).submit(files), as_json)


@azure_app.command("status")
def status(
    job: Annotated[str, typer.Argument(help="Name of the job, as `submit` told.")],
    settings: Annotated[Path | None, typer.Option("--settings", show_default=str(DEFAULT))] = None,
    as_json: AsJson = False,
) -> None:
    """How a job goes."""
    from dpo_driver.cloud.azure.client import Azure

    _tell(Azure(_settings(settings, None).workspace).status(job), as_json)


@azure_app.command("register")
def register_model(
    model: Annotated[str, typer.Argument(help="A registered version, such as pocket@champion.")] = "champion",
    settings: Annotated[Path | None, typer.Option("--settings", show_default=str(DEFAULT))] = None,
    root: Annotated[Path, typer.Option("--root", help="Folder that holds the runs.")] = Path("runs"),
    out: Out = OUT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """A version as a model of the workspace, its files checked first, its lineage in tags."""
    from dpo_driver.cloud.azure.files import model_file
    from dpo_driver.registry import Registry

    files = [model_file(Registry(root).load(model), out)]
    if dry_run:
        _tell(_checked(files), as_json)
        return
    from dpo_driver.cloud.azure.client import Azure

    _tell(Azure(_settings(settings, None).workspace).register(files), as_json)


@azure_app.command("deploy")
def deploy(
    model: Annotated[str, typer.Argument(help="Of the workspace: NAME:VERSION; or a catalogue id with --serverless.")],
    settings: Annotated[Path | None, typer.Option("--settings", show_default=str(DEFAULT))] = None,
    overrides: Overrides = None,
    slot: Annotated[str, typer.Option("--slot", help="Name of the deployment.")] = "blue",
    base: Annotated[str, typer.Option("--base", help="Model that an adapter sits on: hub id.")] = "",
    traffic: Annotated[
        list[str] | None, typer.Option("--traffic", metavar="SLOT=PERCENT", help="May be repeated.")
    ] = None,
    serverless: Annotated[bool, typer.Option("--serverless", help="Billed by token; catalogue models only.")] = False,
    out: Out = OUT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Serve there: a managed online endpoint, with shares of the traffic for each deployment."""
    from dpo_driver.cloud.azure.files import deployment_files, environment_files, serverless_file

    asked, shares = _settings(settings, overrides), _shares(traffic or [])
    if serverless:
        files = [serverless_file(asked.endpoint.name, model, out)]
    else:
        files = deployment_files(asked, out, model=model, base=base, slot=slot, traffic=shares)
        files += environment_files(asked, out)
    if dry_run:
        _tell(_checked(files), as_json)
        return
    from dpo_driver.cloud.azure.client import Azure

    _tell(Azure(asked.workspace).deploy(files, shares), as_json)


def _shares(given: list[str]) -> dict[str, int]:
    from dpo_driver.core.errors import ConfigError

    found = {}
    for each in given:
        name, equals, percent = each.partition("=")
        if not name or not equals or not percent.isdigit() or name in found:
            raise ConfigError(f"{each!r} is no share", where="--traffic", remedy="write --traffic blue=90")
        found[name] = int(percent)
    return found


def _checked(files: list[Path]) -> dict[str, Any]:
    from dpo_driver.cloud.azure.check import checked

    found, version = checked(files)
    return {"dry_run": True, "files": [str(path) for path in files], "checked": sorted(found),
            "checked_by": f"azure-ai-ml {version}"}  # fmt: skip


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        shown = "\n  ".join(["", *map(str, value)]) if isinstance(value, list) else value
        results.print(f"{key}: {shown}", highlight=False, soft_wrap=True)
    if found.get("dry_run"):
        console.print("nothing was sent")
