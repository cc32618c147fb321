"""``dpo-driver prefs audit``: is the log whole, does every pair trace to its evidence, and does the evidence hold.

Called by cli/prefs.py, which registers it; calls preferences and, for ``--replay``, rollout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, console, find_run, print_json, results
from dpo_driver.core.errors import ConfigError

if TYPE_CHECKING:
    from dpo_driver.core.config import RunConfig
    from dpo_driver.core.records import Preference
    from dpo_driver.core.store import RunStore
    from dpo_driver.preferences.audit import Audit
    from dpo_driver.preferences.log import Head, PreferenceLog
    from dpo_driver.preferences.poison import Caught
    from dpo_driver.rollout.reverify import Replayed

WRONG = 1  # the exit code when something is wrong
SHOWN = 5  # findings of each reason in the terminal
LEAST_HASH = 12  # digits of a hash that --head must give


def register(app: typer.Typer) -> None:
    """Add this command to ``prefs``."""
    app.command("audit")(audit)


def audit(
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="RUN", help="A run and its log.", show_default="the last run, or runs/preferences.db"
        ),
    ] = None,
    log: Annotated[Path | None, typer.Option("--log", metavar="FILE", help="A preference log by itself.")] = None,
    heads: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="N:HASH", help="A head that was noted down earlier. May be repeated."),
    ] = None,
    replay: Annotated[
        int, typer.Option("--replay", metavar="N", min=0, help="Also play so many pairs again, in a real browser.")
    ] = 0,
    drill: Annotated[
        bool, typer.Option("--drill", help="Also say how much poisoning the audit would notice, on copies.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check that pairs trace to evidence that agrees with them, and that the preference log is whole.

    Exit code 0: nothing is wrong. 1: something is. 2: there is nothing to check, or no key.
    """
    from dpo_driver.preferences.audit import audit as check
    from dpo_driver.preferences.poison import drill as turn_round

    noted = [_head(written) for written in heads or ()]
    if log is not None and (run is not None or replay):
        raise ConfigError("a log by itself has no run and nothing to play",
                          remedy="leave out --run and --replay, or --log")  # fmt: skip
    with _opened(run, log) as books:
        found = check(books.store, books.log, noted=noted, judgements=books.judgements)
        caught = turn_round(books.store, books.log) if drill else None
        played = _replay(books.store, replay) if replay and books.store is not None else None
    whole = found.whole and not any(one.state == "differs" for one in played or ())
    if as_json:
        print_json({
            "run": None if books.store is None else str(books.store.run_dir), **found.model_dump(mode="json"),
            "replay": None if played is None else [one.model_dump(mode="json") for one in played],
            "drill": None if caught is None else [line.model_dump(mode="json") for line in caught],
            "whole": whole,
        })  # fmt: skip
    else:
        _show(found)
        if played is not None:
            _show_replay(played)
        if caught is not None:
            _show_drill(caught)
        _say("nothing is wrong" if whole else "something is wrong", "green" if whole else "red")
    if not whole:
        raise typer.Exit(WRONG)


def _head(written: str) -> Head:
    """``12:9f3a...`` as it was noted down; the hash may be cut to its first 12 digits.

    Raises:
        ConfigError: it is no head.
    """
    from dpo_driver.preferences.log import Head

    count, _, digest = written.partition(":")
    if not count.isdigit() or len(digest) < LEAST_HASH or set(digest) - set("0123456789abcdef"):
        raise ConfigError(f"{written!r} is no head of a log", where="--head",
                          remedy="write it as `prefs audit` prints it: COUNT:HASH")  # fmt: skip
    return Head(int(count), digest)


@dataclass
class _Books:
    store: RunStore | None
    log: PreferenceLog | None
    judgements: PreferenceLog | None = None


@contextmanager
def _opened(run: Path | None, log: Path | None) -> Iterator[_Books]:
    """What is to be checked, open for reading.

    Raises:
        ConfigError: there is no such run. StoreError: there is no such log.
    """
    from dpo_driver.core.store import RunStore
    from dpo_driver.preferences.collect import DEFAULT_LOG
    from dpo_driver.preferences.log import LOG, PreferenceLog

    if run is None and log is None and not any(Path("runs").glob("*/run.db")) and DEFAULT_LOG.is_file():
        log = DEFAULT_LOG
    with ExitStack() as opened:
        if log is not None:
            yield _Books(None, opened.enter_context(PreferenceLog(log, "read")))
            return
        folder = find_run(run)
        store = opened.enter_context(RunStore(folder, mode="read"))
        own = folder / LOG
        books = _Books(store, opened.enter_context(PreferenceLog(own, "read")) if own.is_file() else None)
        config = _config(store)
        kept = store.get_fact("judgements")  # where the pairs of a role were judged, see flywheel/roles.py
        other = Path(kept) if kept else None if config is None else config.pair.log
        if other is not None and other.resolve() != own.resolve() and other.is_file():
            books.judgements = opened.enter_context(PreferenceLog(other, "read"))
        yield books


def _config(store: RunStore) -> RunConfig | None:
    import yaml

    from dpo_driver.core.config import RunConfig

    written = store.get_fact("config")
    return RunConfig.model_validate(yaml.safe_load(written)) if written else None


# -- replay ------------------------------------------------------------------------------------------------------------


def _replay(store: RunStore, count: int) -> list[Replayed]:
    from dpo_driver.rollout.reverify import sample

    def there(row: Preference) -> bool:
        sides = (row.evidence.get(side) or {} for side in ("chosen", "rejected"))
        return all(store.has_trajectory(str(side.get("trajectory"))) for side in sides)

    rows = sample(filter(there, store.preferences(broken=[])), count)
    config = _config(store)
    return asyncio.run(_played(store, rows, config)) if rows else []


async def _played(store: RunStore, rows: Sequence[Preference], config: RunConfig | None) -> list[Replayed]:
    """In the environment that results come from, not in the faster one that training may use."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from dpo_driver.cli.record_options import keeps_time
    from dpo_driver.core import plugins
    from dpo_driver.rollout.reverify import replay

    task = store.trajectory(rows[0].evidence["chosen"]["trajectory"]).task
    source = config.env.source if config is not None and config.env.name == task.env else task.env
    columns = (TextColumn("pairs played again"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(rows))
        async with plugins.load("environments", source)() as make:
            return await replay(make, rows, store.trajectory, timed=keeps_time,
                                on_replayed=lambda _one: progress.advance(bar))  # fmt: skip


# -- showing -----------------------------------------------------------------------------------------------------------


def _say(text: str, style: str = "") -> None:
    results.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _show(found: Audit) -> None:
    from dpo_driver.preferences.audit import DOUBTS
    from dpo_driver.preferences.evidence import REASONS

    if found.log is None:
        _say("there is no preference log: changes of the pairs cannot be seen by its chain", "yellow")
    else:
        count, digest = found.head or (0, "")
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(found.entries.items())) or "empty"
        chain = "broken" if found.problems.get("chain") else "whole"
        _say(f"log {found.log}: chain {chain}, {count} entries ({kinds})\nhead to note down: {count}:{digest}")
    wrong = found.pairs - found.traced - found.own_word - found.unchecked
    _say(f"{found.pairs} pairs: {found.traced} traced, {wrong} wrong, {found.own_word} by their own word only, "
         f"{found.unchecked} of a run that was not given")  # fmt: skip
    if found.unlogged:
        _say(f"{found.unlogged} of them were paired before runs had a log", "yellow")
    for title, counts, words in (("wrong", found.problems, REASONS), ("doubtful", found.doubts, DOUBTS)):
        for reason, number in counts.items():
            _say(f"{title}: {number} x {reason} ({words.get(reason, '')})", "red" if title == "wrong" else "yellow")
            for one in [one for one in found.findings if one.reason == reason][:SHOWN]:
                _say(f"    {one.where}: {one.what}")


def _show_replay(played: Sequence[Replayed]) -> None:
    same = sum(one.state == "same" for one in played)
    _say(f"played again: {same} of {len(played)} pairs came out as recorded")
    for one in played:
        if one.state != "same":
            _say(f"    {one.state}: pair {one.pair}: {one.what}", "red" if one.state == "differs" else "yellow")


def _show_drill(caught: Sequence[Caught]) -> None:
    table = Table(title="drill: turned round before they were written", title_justify="left", box=None)
    for heading in ("", "source", "share", "turned", "caught", "missed", "95 % interval", "complained of before"):
        table.add_column(heading, justify="left" if heading in ("", "source") else "right")
    for line in caught:
        table.add_row(line.what, line.source, f"{line.share:.1%}", f"{line.turned} of {line.total}", _caught(line),
                      str(line.missed), _interval(line), str(line.before))  # fmt: skip
    results.print(table)


def _caught(line: Caught) -> str:
    return "-" if line.caught.success is None else f"{line.turned - line.missed} ({line.caught.success:.0%})"


def _interval(line: Caught) -> Any:
    low, high = line.caught.low, line.caught.high
    return "-" if low is None or high is None else f"{low:.0%} to {high:.0%}"
