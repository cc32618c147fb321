"""``dpo-driver label``: people compare answers, blind. Called by cli/main.py; calls label, and report for drawings."""

from __future__ import annotations

import getpass
import json
import os
import sys
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_driver.cli.options import AsJson, console, find_run
from dpo_driver.core.errors import ConfigError

if TYPE_CHECKING:
    from markupsafe import Markup

    from dpo_driver.core.records import Comparison, Observation
    from dpo_driver.core.store import RunStore
    from dpo_driver.label.work import Labelling
    from dpo_driver.web.listen import Listening
    from dpo_driver.web.password import Password

PANEL = "The loop"
OF_A_RUN = 200  # comparisons put up without --limit; of a file: all rows


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel=PANEL)(label)


def label(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Run directory or its configuration.", show_default="the last run"),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option("--texts", metavar="FILE", help="Text pairs instead of a run: JSONL, Parquet, ...")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log", metavar="FILE", help="Where labels go.", show_default="the run's, or runs/preferences.db"
        ),
    ] = None,
    raters: Annotated[
        list[str] | None,
        typer.Option("--rater", metavar="NAME", help="Who labels. May be repeated: a link for each."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option("--host", help="Anything but loopback needs a password.")] = "127.0.0.1",
    origin: Annotated[
        str, typer.Option("--origin", metavar="URL", help="Where raters find it behind a proxy that adds TLS.")
    ] = "",
    repeats: Annotated[
        float, typer.Option("--repeats", min=0, max=1, help="Share shown a second time, unannounced.")
    ] = 0.1,
    overlap: Annotated[
        float, typer.Option("--overlap", min=0, max=1, help="Share that every rater is asked for.")
    ] = 0.2,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Comparisons to put up.", show_default=f"{OF_A_RUN} of a run, all of a file"
        ),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the web browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two answers at a time in the browser, blind; every label goes into the preference log.

    With RUN: two decisions taken in one state, with the page, what each did and what came of it. With --texts: rows
    {prompt, response_a, response_b} or {prompt, chosen, rejected}. With --log alone: what stands there.
    """
    if run is not None and texts is not None:
        raise ConfigError("a run and --texts are both given", remedy="give one of them")
    from dpo_driver.label.serve import PASSWORD
    from dpo_driver.label.work import Labelling
    from dpo_driver.web.listen import listen

    # What may be refused comes first: nothing is written before.
    names, password = _names(raters), _password(host, origin)
    listening = listen(host, port, origin=origin, has_password=password is not None, variable=PASSWORD)
    run_dir = find_run(run) if run is not None or (texts is None and log is None) else None
    with ExitStack() as stack:
        store = _store(run_dir or _run_of(log), stack)
        path = _put_up(run_dir, texts, log, limit, store if run_dir else None)
        work = Labelling(path, repeats=repeats, overlap=overlap)
        _serve(work, store, listening, names, password, show=not no_open, as_json=as_json)


def _serve(
    work: Labelling,
    store: RunStore | None,
    listening: Listening,
    names: list[str],
    password: Password | None,
    *,
    show: bool,
    as_json: bool,
) -> None:
    from dpo_driver.label.pictures import Pictures
    from dpo_driver.label.serve import TLS_ADVICE, serve
    from dpo_driver.label.views import Views

    views = Views(Pictures(store.get_blob if store else None, _drawing), store.trajectory if store else None)

    def say(links: dict[str, str]) -> None:
        if as_json:
            print(json.dumps({"log": str(work.path), "address": listening.address, "links": links}), flush=True)
        for rater, link in links.items():
            console.print(f"{rater}: {link}", highlight=False, soft_wrap=True)
        if password is not None and not listening.place.secure:
            console.print(TLS_ADVICE.replace("PORT", str(listening.place.port)), style="yellow", soft_wrap=True)
        console.print(f"labels go to {work.path}; stop with Ctrl-C, nothing is lost", highlight=False, soft_wrap=True)
        if show and len(links) == 1:
            webbrowser.open(next(iter(links.values())))

    serve(work, views, listening, names, password=password, say=say)


def _put_up(
    run_dir: Path | None, texts: Path | None, log: Path | None, limit: int | None, store: RunStore | None
) -> Path:
    """Put comparisons into the log that is meant, and return its path."""
    from dpo_driver.preferences.collect import DEFAULT_LOG
    from dpo_driver.preferences.log import LOG

    path = log or (run_dir / LOG if run_dir else DEFAULT_LOG)
    if texts is not None:
        from dpo_driver.label.texts import comparisons_in

        _say_what_is_new(path, comparisons_in(texts, limit=limit), str(texts))
    elif store is not None and run_dir is not None:
        from dpo_driver.label.candidates import comparisons_of

        with console.status("looking for states in which two decisions were taken"):
            trajectories = (one for stage in store.trajectory_stages() for one in store.iterate(stage))
            found = comparisons_of(trajectories, limit=OF_A_RUN if limit is None else limit)
        if not found:
            raise ConfigError(
                "no state of this run saw two different decisions", where=str(run_dir),
                remedy="collect more siblings: set collect.group_size to 2 or more and run dpo-driver collect",
            )  # fmt: skip
        _say_what_is_new(path, found, str(run_dir))
    elif not path.is_file():
        raise ConfigError("there is no such log", where=str(path), remedy="give a RUN or --texts to label")
    return path


def _say_what_is_new(path: Path, comparisons: list[Comparison], where: str) -> None:
    from dpo_driver.label.work import put_up

    new, known = put_up(path, comparisons)
    console.print(f"{new} comparisons of {where} are new, {known} were in the log", highlight=False, soft_wrap=True)


def _store(run_dir: Path | None, stack: ExitStack) -> RunStore | None:
    if run_dir is None:
        return None
    from dpo_driver.core.store import RunStore

    return stack.enter_context(RunStore(run_dir, mode="read"))


def _run_of(log: Path | None) -> Path | None:
    """The run that a log lies in, for its pages."""
    return log.parent if log is not None and (log.parent / "run.db").is_file() else None


def _names(raters: list[str] | None) -> list[str]:
    from dpo_driver.label.app import is_rater

    names = list(dict.fromkeys(raters or [_user()]))
    for name in names:
        if not is_rater(name):
            raise ConfigError(
                f"{name!r} cannot be a rater's name", where="--rater",
                remedy="up to 40 letters, digits, blanks and . @ + - _, beginning with a letter or digit",
            )  # fmt: skip
    return names


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "rater"


def _password(host: str, origin: str) -> Password | None:
    """The password, where one is needed: from the environment, or asked for."""
    from dpo_driver.label.serve import PASSWORD
    from dpo_driver.web.listen import is_loopback
    from dpo_driver.web.password import Password

    if is_loopback(host) and not origin:
        return None
    given = os.environ.get(PASSWORD)
    if not given and sys.stdin.isatty():
        given = typer.prompt("Password for raters", hide_input=True, confirmation_prompt=True, err=True)
    return Password(given) if given else None


def _drawing(page: Observation) -> Markup:
    """The report's drawing of a page from its elements' boxes."""
    from dpo_driver.core.errors import StoreError
    from dpo_driver.report.pictures import Pictures

    def no_picture(sha: str) -> bytes:
        raise StoreError(f"no picture {sha}")

    return Pictures(no_picture).frame(page)
