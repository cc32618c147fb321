"""``dpo-driver prefs teach``: a model at an endpoint judges comparisons. Called by cli/main.py; calls flywheel,
policies and what puts comparisons up for people (label)."""

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
from dpo_driver.cli.options import AsJson, console, find_run, print_json
from dpo_driver.cli.prefs import LogFile, opened_log, prefs_app
from dpo_driver.core.errors import ConfigError, DriverError

if TYPE_CHECKING:
    from dpo_driver.core.records import Comparison
    from dpo_driver.flywheel.teach import Account, Teaching
    from dpo_driver.preferences.log import PreferenceLog

MOST = 200  # comparisons, unless somebody says otherwise


def register(app: typer.Typer) -> None:
    """Add this command to ``prefs``."""
    prefs_app.command("teach")(teach)


def teach(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Run directory: what stands in its log, and decisions of its rollouts."),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option("--texts", metavar="FILE", help='Rows instead: "prompt", "response_a", "response_b", "role".'),
    ] = None,
    log: LogFile = None,
    rubric: Annotated[
        str | None,
        typer.Option("--rubric", metavar="NAME", help="browser, text, or a YAML file.", show_default="by comparison"),
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Comparisons at most; those in the log first.")] = MOST,
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
    """Have a model say which of two answers is better, each pair asked in both orders. Goes on where it was stopped.

    Its labels go into a preference log: the run's, or the one that --log names.
    """
    from dpo_driver.flywheel.teach import Teaching, alone
    from dpo_driver.preferences.teacher import load_rubric

    by = load_rubric(rubric) if rubric is not None else None
    path = _log_of(run, log)
    made = _put_up(run, texts)
    connect = endpoint(provider, model, base_url, key_env, price, budget_tokens, budget_usd, jobs)
    with connect() as (policy, meter), alone(path), opened_log(path, "write") as opened:
        chosen, left = _chosen(opened, made, texts, most)
        work = Teaching(opened, chosen, policy.version, by)
        meter.total = work.account.usage  # what was spent before counts too
        with _bar(work) as show:
            asyncio.run(work.run(policy, jobs, show))
    account = work.account
    if as_json:
        print_json({"log": str(path), "left_out": left, **account.as_json()})
    else:
        console.print(_sentence(account, left, path), highlight=False, soft_wrap=True)
    if account.problem is not None:
        raise account.problem
    if account.unanswered:
        raise DriverError(f"{account.unanswered} comparisons have no answer: {account.lost}", where=str(path),
                          remedy="the same command asks them again")  # fmt: skip


def _log_of(run: Path | None, log: Path | None) -> Path:
    """Where labels go."""
    from dpo_driver.preferences.collect import DEFAULT_LOG
    from dpo_driver.preferences.log import LOG

    if log is not None:
        return log
    return DEFAULT_LOG if run is None else find_run(run) / LOG


def _put_up(run: Path | None, texts: Path | None) -> list[Comparison]:
    """Comparisons out of a file, or of a run's rollouts.

    Raises:
        ConfigError: both are named.
    """
    from dpo_driver.core.store import RunStore
    from dpo_driver.label.candidates import comparisons_of
    from dpo_driver.label.texts import comparisons_in

    if run is not None and texts is not None:
        raise ConfigError("RUN and --texts are two things to judge", remedy="give one; --log says where labels go")
    if texts is not None:
        return comparisons_in(texts)
    if run is None:
        return []
    with RunStore(find_run(run), mode="read") as store:
        stages = [stage for stage in store.trajectory_stages() if stage.startswith("collect/")]
        return comparisons_of(one for stage in stages for one in store.iterate(stage))


def _chosen(log: PreferenceLog, made: list[Comparison], texts: Path | None, most: int) -> tuple[list[Comparison], int]:
    """What is judged now, and how many others there are. A file's rows are judged alone, whatever else is in the log;
    of a run, what is in its log comes first: somebody put it up, and people may have judged it too. What is held out
    gives no pair, so nothing is paid for it."""
    from dpo_driver.core.records import Comparison
    from dpo_driver.preferences.decisions import TRAINABLE
    from dpo_driver.preferences.human import read_entry

    standing = [] if texts is not None else [read_entry(Comparison, entry) for entry in log.standing("comparison")]
    usable = [one for one in [*standing, *made] if one.task is None or one.task.split in TRAINABLE]
    every = list({one.id: one for one in usable}.values())
    return every[:most], len(every) - len(every[:most])


@contextmanager
def _bar(work: Teaching) -> Iterator[Callable[[Account], None]]:
    """Progress on stderr: comparisons, and what they cost."""
    columns = (SpinnerColumn(), TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TextColumn("[dim]{task.fields[note]}"))  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        shown = progress.add_task("judging", total=work.account.comparisons, note="")

        def show(account: Account) -> None:
            progress.update(shown, completed=account.done, note=f"{cost(account.usage)}, {account.disagreed} undecided")

        yield show


def _sentence(account: Account, left: int, path: Path) -> str:
    """The account in words."""
    said = account.preferred
    parts = [
        f"{account.labelled} of {account.comparisons} comparisons judged by {account.model}: {said['first']} for the "
        f"first answer, {said['second']} for the second, {said['tie']} ties ({account.disagreed} because the two "
        f"orders disagree), {said['both_bad']} both bad"
    ]
    one_sided = account.shown_first + account.shown_second
    if one_sided:
        parts.append(f"{account.shown_first / one_sided:.0%} of {one_sided} verdicts for what was shown first")
    for count, what in ((account.unreadable, "could not be read"), (account.too_long, "do not fit the model"),
                        (account.unanswered, "are open"), (left, "others were not asked about: --most")):  # fmt: skip
        if count:
            parts.append(f"{count} {what}")
    parts.append(f"{account.calls} calls now; in all {cost(account.usage)}")
    return f"{'; '.join(parts)}; labels in {path}"
