"""Preferences of people, models and files: prefs add, list, stats, import, export. Called by cli/main.py; calls
preferences and flywheel.

Where a command says ``--run`` or ``--log`` it means a preference log; a run's rounds are named by CONFIG or RUN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dpo_driver.cli import prefs_audit, prefs_view
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
from dpo_driver.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from dpo_driver.core.records import Preference, TrainingSample
    from dpo_driver.core.store import RunStore
    from dpo_driver.preferences.collect import Judgement
    from dpo_driver.preferences.jsonl import Row
    from dpo_driver.preferences.log import Entry, PreferenceLog

PANEL = "The loop"
SHOWN = 20  # rows of `prefs list` without --limit

prefs_app = typer.Typer(help="Preferences by people, models and files: add, look at, check, hand on.",
                        no_args_is_help=True)  # fmt: skip
RunsLog = Annotated[Path | None, typer.Option("--run", metavar="RUN", help="The preference log of this run.")]
LogFile = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="This preference log.", show_default="runs/preferences.db")
]
Role = Annotated[str | None, typer.Option("--role", metavar="NAME", help="Whose answers they are, such as CEO.")]
Source = Annotated[
    str | None, typer.Option("--source", metavar="NAME", help="Who preferred: human, teacher, environment, ...")
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    prefs_audit.register(prefs_app)
    app.add_typer(prefs_app, name="prefs", rich_help_panel=PANEL)


# -- logs ------------------------------------------------------------------------------------------------------------


def log_path(run: Path | None, log: Path | None) -> Path:
    """The preference log that ``--run`` or ``--log`` means.

    Raises:
        ConfigError: both are given, or there is no such run.
    """
    from dpo_driver.preferences.collect import DEFAULT_LOG
    from dpo_driver.preferences.log import LOG

    if run is not None and log is not None:
        raise ConfigError("--run and --log both name a preference log", remedy="give one of them")
    return find_run(run) / LOG if run is not None else log or DEFAULT_LOG


@contextmanager
def opened_log(path: Path, mode: Literal["read", "write"] = "read") -> Iterator[PreferenceLog]:
    """A preference log, open."""
    from dpo_driver.preferences.log import PreferenceLog

    with PreferenceLog(path, mode) as log:
        yield log


def gathered(run: Path | None, log: Path | None) -> tuple[Path, list[Preference], list[Entry]]:
    """The pairs and entries that ``--run`` or ``--log`` means. A run's pairs count that no log of it mentions, too.

    Raises:
        StoreError: there is no log, and no run that has pairs without one.
    """
    from dpo_driver.core.store import RunStore
    from dpo_driver.preferences.mix import logged

    path = log_path(run, log)
    entries: list[Entry] = []
    if run is None or path.is_file():
        with opened_log(path) as opened:
            entries = list(opened.entries())
    rows = logged(entries)
    if run is not None:
        known = {(row.id, row.source) for row in rows}
        with RunStore(find_run(run), mode="read") as store:
            rows = [row for row in store.preferences() if (row.id, row.source) not in known] + rows
    return path, rows, entries


def chosen(
    rows: Iterable[Preference], role: str | None, source: str | None, task: str | None = None
) -> list[Preference]:
    """The rows of a role, source and task; None stands for all.

    Raises:
        UnknownNameError: there is no such source.
    """
    from dpo_driver.preferences.mix import check_source

    if source is not None:
        check_source(source, "--source")
    return [
        row
        for row in rows
        if role in (None, row.role)
        and source in (None, row.source)
        and task in (None, row.task_name, row.evidence.get("task_id"))
    ]


# -- add, list, stats ------------------------------------------------------------------------------------------------


@prefs_app.command("add")
def add(
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="What was asked.")] = None,
    better: Annotated[str | None, typer.Option("--chosen", metavar="TEXT", help="The better answer.")] = None,
    worse: Annotated[str | None, typer.Option("--rejected", metavar="TEXT", help="The worse one.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="PATH", help="Rows instead: JSONL, JSON, Parquet; see below.")
    ] = None,
    role: Role = None,
    source: Annotated[str, typer.Option("--source", metavar="NAME", help="Who preferred.")] = "human",
    rater: Annotated[str | None, typer.Option("--rater", metavar="NAME", help="Who that is.")] = None,
    confidence: Annotated[
        float | None, typer.Option("--confidence", min=0, max=1, help="How sure; becomes the weight.")
    ] = None,
    run: RunsLog = None,
    log: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Write down which of two answers is better.

    One pair by options; or rows from --file or, without it, from stdin: {"prompt", "chosen", "rejected", "metadata":
    {"role", "source", "rater", "confidence", ...}}, or with "response_a", "response_b" and "preference" (a, b, tie,
    both_bad). With a broken row nothing is added.
    """
    from dpo_driver.preferences.collect import judgement, write
    from dpo_driver.preferences.jsonl import RowError

    about = {"role": role, "source": source, "rater": rater, "confidence": confidence}
    given = {"prompt": prompt, "chosen": better, "rejected": worse}
    if any(value is not None for value in given.values()):
        if file is not None:
            raise ConfigError("a pair by options and --file are two things", remedy="give one of them")
        lacking = [f"--{name}" for name, value in given.items() if value is None]
        if lacking:
            raise ConfigError(f"{' and '.join(lacking)} is missing", remedy="a pair is --prompt, --chosen, --rejected")
        try:
            found = [judgement({**given, "metadata": about})]
        except RowError as error:
            raise DataError(str(error), remedy="nothing was added") from None
    else:
        found = _judgements(file, {name: value for name, value in about.items() if value is not None})
    path = log_path(run, log)
    with opened_log(path, "write") as opened:
        written = write(opened, found)
        head = opened.head
    console.print(f"{len(found)} judgements added to {path}", highlight=False)
    if as_json:
        labels = [entry.seq for entry in written if entry.kind == "label"]
        print_json({"log": str(path), "labels": labels, "head": {"count": head.count, "hash": head.hash}})


def _judgements(file: Path | None, defaults: dict[str, Any]) -> list[Judgement]:
    """The rows of a file or of stdin. What the options say holds where a row's metadata does not."""
    from dpo_driver.preferences.collect import judgement
    from dpo_driver.preferences.files import read_parts
    from dpo_driver.preferences.jsonl import parse_rows

    def parse(row: Row) -> Judgement:
        about = row.get("metadata")
        return judgement({**row, "metadata": {**defaults, **about}} if isinstance(about, dict) else
                         {**row, "metadata": defaults} if about is None else row)  # fmt: skip

    if file is not None:
        return [found for part in read_parts(file) for found in part.parse(parse)]
    if sys.stdin.isatty():
        remedy = "give --prompt, --chosen and --rejected; or --file PATH; or rows on stdin"
        raise ConfigError("there is nothing to add", remedy=remedy)
    return parse_rows(_rows_of(sys.stdin.buffer.read()), parse, Path("stdin"))


def _rows_of(content: bytes) -> Iterable[tuple[str, Any]]:
    """One JSON object, a list of them, or one a line."""
    from dpo_driver.preferences.jsonl import as_object, lines_of

    if not content.strip():
        raise DataError("stdin is empty", remedy="give --prompt, --chosen and --rejected; or rows as JSON")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return lines_of(content)
    values = value if isinstance(value, list) else [value]
    return [(str(number), as_object(one)) for number, one in enumerate(values, start=1)]


@prefs_app.command("list")
def list_pairs(
    role: Role = None,
    source: Source = None,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME", help="Task family, or a task's id.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="The last so many.", show_default=f"{SHOWN}; all with --json")
    ] = None,
    run: RunsLog = None,
    log: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Show pairs, those that labels give among them; the last ones last."""
    path, rows, _ = gathered(run, log)
    found = chosen(rows, role, source, task)
    shown = found[-(limit or (len(found) if as_json else SHOWN)) :] if found else []
    if as_json:
        print_json([row.model_dump(mode="json") for row in shown])
        return
    if not found:
        console.print(f"no pair of {len(rows)} in {path} is like that" if rows else f"there are no pairs in {path}")
        return
    results.print(prefs_view.table_of(shown))
    console.print(f"{len(shown)} of {len(found)} pairs in {path}", highlight=False)


@prefs_app.command("stats")
def stats(role: Role = None, run: RunsLog = None, log: LogFile = None, as_json: AsJson = False) -> None:
    """Say what the pairs are made of: sources, roles, raters and how far they agree, weights, biases."""
    from dpo_driver.preferences.summary import summarise

    path, rows, entries = gathered(run, log)
    if role is not None:
        rows, entries = chosen(rows, role, None), _of_role(entries, role)
    found = summarise(rows, entries)
    if as_json:
        print_json({"log": str(path), **found.model_dump(mode="json")})
    else:
        prefs_view.show(found, path)


def _of_role(entries: Sequence[Entry], role: str) -> list[Entry]:
    """Comparisons of a role and all labels: those of other comparisons find none to belong to."""
    return [entry for entry in entries if entry.kind != "comparison" or entry.body.get("role", "") == role]


# -- files in and out ------------------------------------------------------------------------------------------------


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
    role: Role = None,
    source: Source = None,
    runs_log: RunsLog = None,
    log: LogFile = None,
    plain: Annotated[bool, typer.Option("--plain", help="In the clear, though the run is sealed.")] = False,
) -> None:
    """Write preferences in TRL's columns: prompt, chosen, rejected. Of a run's rounds; with --run or --log of a log.

    What comes out of a sealed run is sealed.
    """
    from dpo_driver.core.store import RunStore
    from dpo_driver.core.store_files import vault_around
    from dpo_driver.preferences.formats import export_preferences, export_samples

    if runs_log is not None or log is not None:
        if run is not None or number is not None or demonstrations:
            raise ConfigError("a log has no rounds and no demonstrations",
                              remedy="leave out RUN, --round and --demos, or --run and --log")  # fmt: skip
        path, rows, _ = gathered(runs_log, log)
        sealed = not plain and vault_around(path) is not None
        written = export_preferences(file, chosen(rows, role, source), sealed=sealed)
    else:
        with RunStore(find_run(run), mode="read") as store:
            sealed = not plain and store.vault is not None
            if demonstrations:
                written = export_samples(file, _demonstrations(store), sealed=sealed)
            else:
                written = export_preferences(file, chosen(store.preferences(number), role, source), sealed=sealed)
    console.print(f"{written} {'demonstrated steps' if demonstrations else 'preferences'} written to {file}")


@prefs_app.command("import")
def import_file(
    file: Annotated[
        Path, typer.Argument(metavar="PATH", help="To read: JSONL, JSON, Parquet, or a folder of datasets.")
    ],
    config: ConfigPath = None,
    overrides: Overrides = None,
    number: Annotated[int | None, typer.Option("--round", min=1, help="Round that will train on them.",
                                               show_default="1")] = None,
    layout: Annotated[
        str, typer.Option("--format", metavar="NAME", help="trl, dpo-driver, gauntlet, or auto to look at the file.")
    ] = "auto",
    role: Role = None,
    run: RunsLog = None,
    log: LogFile = None,
) -> None:  # fmt: skip
    """Give a round of a run the preferences of a file or dataset, in place of those that it had; or, with --run or
    --log, add them to a preference log.

    With a broken row nothing changes.
    """
    from dpo_driver.preferences.filters import told_apart
    from dpo_driver.preferences.readers import read_preferences
    from dpo_driver.preferences.rounds import keep

    rows = [row if row.role or not role else row.model_copy(update={"role": role})
            for row in read_preferences(file, layout)]  # fmt: skip
    if run is not None or log is not None:
        if config is not None or overrides or number is not None:
            raise ConfigError("a log has no rounds", remedy="leave out CONFIG, --set and --round, or --run and --log")
        _into_log(rows, log_path(run, log))
        return
    with opened_run(config, overrides) as context:
        keep(context.store, number or 1, told_apart(rows))
    console.print(f"{len(rows)} preferences added to round {number or 1}")


def _into_log(rows: Sequence[Preference], path: Path) -> None:
    from dpo_driver.preferences.collect import write_pairs

    with opened_log(path, "write") as opened:
        written = len(write_pairs(opened, rows))
    before = f", {len(rows) - written} are there already" if written < len(rows) else ""
    console.print(f"{written} preferences added to {path}{before}", highlight=False)


def _demonstrations(store: RunStore) -> list[TrainingSample]:
    """What SFT of this run learns from."""
    from dpo_driver.cli.play import run_config
    from dpo_driver.flywheel.train import as_rows

    rows = as_rows(store, run_config(store.run_dir))
    if not rows:
        raise DataError("this run has no demonstrations", remedy="make them: dpo-driver sft CONFIG")
    return rows
