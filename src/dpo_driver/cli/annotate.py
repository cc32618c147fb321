"""``dpo-driver annotate``: reasoning for demonstrations from an endpoint. Called by cli/main.py; calls flywheel and
policies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dpo_driver.cli.endpoint_options import (
    BaseUrl,
    BudgetDollars,
    BudgetTokens,
    Jobs,
    KeyVariable,
    ModelName,
    PriceOfTokens,
    ProviderName,
    cost,
    endpoint,
)
from dpo_driver.cli.options import AsJson, console, opened_run, print_json
from dpo_driver.core.errors import ConfigError, DriverError

if TYPE_CHECKING:
    from dpo_driver.core.config import RunConfig
    from dpo_driver.core.store import RunStore
    from dpo_driver.flywheel.annotate import Account, Annotation
    from dpo_driver.policies.budget import Meter
    from dpo_driver.policies.endpoint import EndpointPolicy

PANEL = "The loop"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel=PANEL)(annotate)


def annotate(
    target: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Run directory, folder with demonstrations, or a configuration: then they "
                       "are recorded first."),
    ],
    provider: ProviderName = "google",
    model: ModelName = None,
    base_url: BaseUrl = None,
    key_env: KeyVariable = None,
    price: PriceOfTokens = None,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetDollars = None,
    jobs: Jobs = 8,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Give demonstrations richer thoughts: a few sentences a step, asked of a model. Goes on where it was stopped."""
    connect = endpoint(provider, model, base_url, key_env, price, budget_tokens, budget_usd, jobs)
    with opened(target) as (store, config), connect() as (policy, meter):
        account, written = _run(store, config, policy, meter, jobs)
    if as_json:
        print_json({**account.as_json(), "written": written})
    else:
        console.print(_sentence(account, written), highlight=False, soft_wrap=True)
    if account.problem is not None:
        raise account.problem
    if account.unanswered:
        raise DriverError(f"{account.unanswered} questions have no answer: {account.lost}", where=str(target),
                          remedy="the same command asks them again")  # fmt: skip


def _run(
    store: RunStore, config: RunConfig | None, policy: EndpointPolicy, meter: Meter, jobs: int
) -> tuple[Account, int]:
    from dpo_driver.agents.prompt import get_profile
    from dpo_driver.agents.reasoning import thinking
    from dpo_driver.flywheel.annotate import Annotation

    work = Annotation(store, policy.version)
    meter.total = work.account.usage  # what was spent before counts too
    with _bar(work) as show:
        asyncio.run(work.run(policy, jobs, show))
    written = work.write(None if config is None else thinking(get_profile(config.model.prompt_profile)))
    warning = None if config is None else work.too_long_for(config)
    if warning is not None:
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)
    return work.account, written


@contextmanager
def opened(target: Path) -> Iterator[tuple[RunStore, RunConfig | None]]:
    """A folder as it is, or the run of a configuration with its demonstrations recorded.

    Raises:
        ConfigError: there is neither.
    """
    from dpo_driver.cli.play import run_config
    from dpo_driver.core.store import RunStore

    if target.is_dir():
        with RunStore(target, mode="write") as store:
            yield store, run_config(target)
        return
    if not target.is_file():
        raise ConfigError("there is no such run or configuration", where=str(target),
                          remedy="name a run directory, or a configuration to record demonstrations with")  # fmt: skip
    with opened_run(target, None) as context:
        from dpo_driver.flywheel.train import demonstrate

        demonstrate(context)
        yield context.store, context.config


@contextmanager
def _bar(work: Annotation) -> Iterator[Callable[[Account], None]]:
    """Progress on stderr: questions, and what they cost."""
    columns = (SpinnerColumn(), TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TextColumn("[dim]{task.fields[note]}"))  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        shown = progress.add_task("reasoning", total=work.account.questions, note="")

        def show(account: Account) -> None:
            done = account.accepted + account.template
            progress.update(shown, completed=done, note=f"{cost(account.usage)}, {account.template} kept as they were")

        yield show


def _sentence(account: Account, written: int) -> str:
    """The account in words."""
    parts = [
        f"{account.accepted} of {account.questions} questions ({account.steps} steps) have a reasoning",
        f"{account.template} keep the expert's thought",
    ]
    if account.refused:
        parts[-1] += f" (refused: {', '.join(f'{n} {kind}' for kind, n in account.refused.most_common())})"
    if account.unanswered:
        parts.append(f"{account.unanswered} are open")
    parts.append(f"{written} of {account.trajectories} demonstrations written")
    parts.append(f"{account.calls} calls now; in all {cost(account.usage)}")
    return "; ".join(parts)
