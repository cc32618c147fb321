"""An open run: its configuration, its store, its models, and the rule by which stages resume. Every verb takes one.

A stage is done once: its facts are kept, and the same command skips it the next time. A stage that was stopped is begun
again and finds whatever it had already written. Called by the command line; must not import report or cli.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dpo_driver.core import plugins
from dpo_driver.core.config import SAVED_CONFIG, RunConfig
from dpo_driver.core.errors import ConfigError, ModelError
from dpo_driver.core.memory import keep_freed_memory
from dpo_driver.core.provenance import describe_environment
from dpo_driver.core.store import RunStore

if TYPE_CHECKING:
    from dpo_driver.registry import Registry
    from dpo_driver.tracking import Tracker

MODELS = "models"


@dataclass
class RunContext:
    """What every verb works on. Times in seconds."""

    config: RunConfig
    store: RunStore
    console: Console
    tracker: Tracker

    @property
    def run_dir(self) -> Path:
        return self.config.run_dir

    @cached_property
    def registry(self) -> Registry:
        """Model versions of all runs that lie beside this one."""
        from dpo_driver.registry import Registry

        return Registry(self.run_dir.resolve().parent, model=self.config.project.name)

    def version_name(self, name: str) -> str:
        """What the registry calls one of the run's models: ``pocket/dpo-1``."""
        return f"{self.config.project.name}/{name}"

    def say(self, text: str) -> None:
        """One line for the person who watches."""
        self.console.print(text, highlight=False)

    def stage(self, name: str, title: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run ``work`` unless the stage is done; returns the stage's facts (JSON) either way."""
        status = self.store.stage_status(name)
        if status.state == "done":
            self.say(f"[dim]✓ {title}: done before[/dim]")
            return dict(status.facts)
        self.store.begin_stage(name)
        self.say(f"[bold]▸ {title}[/bold]")
        began = time.monotonic()
        try:
            facts = work()
        except BaseException:
            self.store.add_stage_seconds(name, time.monotonic() - began)
            raise
        seconds = time.monotonic() - began
        self.store.finish_stage(name, seconds, facts)
        self.say(f"[green]✓[/green] {title}: {facts.get('summary', 'done')} [dim]({seconds:.0f} s)[/dim]")
        return facts

    def stage_facts(self, name: str) -> dict[str, Any]:
        """What a finished stage left; ConfigError if it has not run."""
        status = self.store.stage_status(name)
        if status.state != "done":
            raise ConfigError(f"the stage {name!r} has not finished yet", where=str(self.run_dir),
                              remedy="run the stages in order, or all of them: dpo-driver run CONFIG")  # fmt: skip
        return dict(status.facts)

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """A progress bar; call ``advance_to(done, note)``."""
        columns = (SpinnerColumn(), TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(),
                   TimeElapsedColumn(), TextColumn("[dim]{task.fields[note]}"))  # fmt: skip
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total, note="")

            def advance_to(done: int, note: str = "") -> None:
                progress.update(task, completed=done, note=note)

            yield advance_to

    # -- models --------------------------------------------------------------------------------------------------------

    def model_folder(self, name: str) -> Path:
        """Where the run keeps the weights of ``sft``, ``dpo-2``, ..."""
        return self.run_dir / MODELS / name

    def has_model(self, name: str) -> bool:
        return (self.model_folder(name) / "manifest.json").is_file()

    def require_model(self, name: str, remedy: str) -> Path:
        """The folder of a model that an earlier stage made.

        Raises:
            ModelError: that stage has not run; ``remedy`` names its command.
        """
        if not self.has_model(name):
            raise ModelError(f"the run has no model {name!r} yet", where=str(self.model_folder(name)), remedy=remedy)
        return self.model_folder(name)


@contextlib.contextmanager
def open_run(config: RunConfig, *, console: Console | None = None) -> Iterator[RunContext]:
    """Open or create the run directory of a configuration.

    Raises:
        ConfigError: the directory holds a run made with another configuration; the keys that differ are named.
        StoreError: see RunStore; VaultError: the run is sealed, or to be, and there is no key.
    """
    console = console or Console(stderr=True)
    keep_freed_memory()
    with RunStore(config.run_dir, encrypt=config.project.encrypt) as store:
        _same_config(config, store)
        from dpo_driver.tracking import Tracker

        with Tracker(config.run_dir, config.tracking.experiment, enabled=config.tracking.mlflow) as tracker:
            tracker.log_config(config)
            yield RunContext(config=config, store=store, console=console, tracker=tracker)


def _same_config(config: RunConfig, store: RunStore) -> None:
    """A run has one configuration: results under two of them would not be comparable."""
    text = config.resolved_yaml()
    before = store.get_fact("config_hash")
    if before is not None and before != config.hash():
        old, new = yaml.safe_load(store.get_fact("config", "{}")), yaml.safe_load(text)
        raise ConfigError(
            "this run directory holds a run with another configuration",
            where=str(config.run_dir),
            remedy=f"differs in {', '.join(_differences(old, new)[:6]) or 'defaults'}; "
            "give the new run a name of its own: --set project.name=NAME",
        )
    tasks = plugins.load("digest", config.env.source) if config.env.folder else None
    if store.get_fact("tasks_hash", tasks) != tasks:
        raise ConfigError("the task files have changed since this run began", where=str(config.env.folder),
                          remedy="give the new run a name of its own: --set project.name=NAME")  # fmt: skip
    store.set_fact("tasks_hash", tasks)
    store.set_fact("config", text)
    store.set_fact("environment", describe_environment())
    store.set_fact("config_hash", config.hash())
    target = config.run_dir / SAVED_CONFIG
    temporary = target.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            found += _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return [] if old == new else [prefix]
