"""What the commands share: CONFIG, ``--set``, ``--json``, and finding a run. Imported by cli files only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dpo_driver.core.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from dpo_driver.core.config import RunConfig
    from dpo_driver.flywheel.context import RunContext

DEFAULT_CONFIG = Path("configs/pocket.yaml")

# Progress and messages go to stderr, so that stdout holds results only and `--json` can be piped.
console = Console(stderr=True)
results = Console()

ConfigPath = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help="Configuration file or run directory.", show_default=str(DEFAULT_CONFIG)),
]
RunPath = Annotated[
    Path | None,
    typer.Argument(metavar="RUN", help="Run directory or its configuration file.", show_default="the last run"),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set dpo.beta=0.2. May be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Round = Annotated[int | None, typer.Option("--round", min=1, help="Which round.", show_default="the next unfinished")]


def read_config(path: Path | None, overrides: Sequence[str] | None) -> RunConfig:
    """The configuration of a command, with the names in it checked against their tables and aliases resolved.

    Raises:
        ConfigError: see ``core.config.load_config``; also when no file is given and there is no default one.
        UnknownNameError: an environment or task family that no table lists.
    """
    from dpo_driver.core import plugins
    from dpo_driver.core.config import load_config

    if path is None:
        if not DEFAULT_CONFIG.is_file():
            raise ConfigError("no configuration was given", where=str(DEFAULT_CONFIG), remedy="give the path of one")
        path = DEFAULT_CONFIG
    config = load_config(path, overrides or ())
    if config.model.is_pocket or Path(config.model.name).is_dir():
        # Nothing will be downloaded, and the bars of "Loading weights" would tear up ours.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if config.env.name not in plugins.names("tasks"):
        raise UnknownNameError("environment", config.env.name, plugins.names("tasks"), where=f"{path}, env.name")
    fast, known_fast = config.env.rollouts, plugins.names("environments")
    if fast is not None and fast not in known_fast:
        raise UnknownNameError("environment", fast, known_fast, where=f"{path}, env.rollouts")
    make_task = plugins.load("make_task", config.env.source, where=f"{path}, env")
    tasks = []
    for task in config.env.tasks:
        try:
            tasks.append(make_task(task, 0).name)  # an alias such as click-button-v1 becomes the family's own name
        except UnknownNameError:
            known = plugins.load("tasks", config.env.source)
            raise UnknownNameError(f"{config.env.name} task", task, known, where=f"{path}, env.tasks") from None
    twice = sorted({task for task in tasks if tasks.count(task) > 1})
    if twice:
        raise ConfigError(f"listed twice: {', '.join(twice)}", where=f"{path}, env.tasks", remedy="keep one of each")
    return config.model_copy(update={"env": config.env.model_copy(update={"tasks": tuple(tasks)})})


@contextmanager
def opened_run(path: Path | None, overrides: Sequence[str] | None) -> Iterator[RunContext]:
    """The run that a configuration names, open for its verbs."""
    with open_settings(read_config(path, overrides)) as context:
        yield context


@contextmanager
def open_settings(config: RunConfig) -> Iterator[RunContext]:
    """The run of a configuration that was read before, with progress on our console."""
    from dpo_driver.flywheel.context import open_run

    with open_run(config, console=console) as context:
        yield context


def find_run(target: Path | None) -> Path:
    """The run directory meant by RUN: a directory, a configuration's ``run_dir``, or the run written to last.

    Raises:
        ConfigError: there is no such run.
    """
    if target is None:
        found = sorted(Path("runs").glob("*/run.db"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise ConfigError(
                "there is no run yet", where="runs/", remedy="start one: dpo-driver run configs/pocket.yaml"
            )
        return found[-1].parent
    if target.is_dir():
        run_dir = target
    else:
        from dpo_driver.core.config import load_config

        run_dir = load_config(target).run_dir
    if not (run_dir / "run.db").is_file():
        raise ConfigError(
            "there is no run in this folder", where=str(run_dir), remedy="start it: dpo-driver run CONFIG"
        )
    return run_dir


def print_json(value: Any) -> None:
    """A result on stdout, without rich's line breaks."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
