"""``dpo-driver dashboard``: one page over all runs, live. Called by cli/main.py; calls dashboard."""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_driver.cli.options import AsJson, console
from dpo_driver.core.errors import ConfigError

if TYPE_CHECKING:
    from dpo_driver.web.password import Password

PANEL = "Results"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel=PANEL)(dashboard)


def dashboard(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder of runs, or one run's folder.")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option("--host", help="Anything but loopback needs a password.")] = "127.0.0.1",
    origin: Annotated[
        str, typer.Option("--origin", metavar="URL", help="Where people find it behind a proxy that adds TLS.")
    ] = "",
    ask_password: Annotated[
        bool, typer.Option("--password", help="Ask for a password and let people in by it, on loopback too.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option("--prices", metavar="FILE", help="Your prices, for the cost ledger.")
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the web browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch runs in the browser: curves, rollouts, pairs, labels, failures, jobs, models and costs, live.

    Reads only: runs that are going on are not disturbed.
    """
    if not root.is_dir():
        raise ConfigError("there is no such folder of runs", where=str(root),
                          remedy="name the folder of your runs, or start one: dpo-driver run CONFIG")  # fmt: skip
    from dpo_driver.core.prices import load_prices
    from dpo_driver.dashboard.runs import Runs
    from dpo_driver.dashboard.serve import PASSWORD, TLS_ADVICE, serve
    from dpo_driver.web.listen import listen

    table = load_prices(prices) if prices else None
    password = _password(host, origin, asked=ask_password)
    listening = listen(
        host, port, origin=origin, has_password=password is not None, page="dashboard", variable=PASSWORD
    )

    def say(link: str) -> None:
        if as_json:
            print(json.dumps({"root": str(root), "address": listening.address, "link": link}), flush=True)
        console.print(f"dashboard: {link}", highlight=False, soft_wrap=True)
        exposed = not listening.place.loopback or origin
        if exposed and not listening.place.secure:
            console.print(TLS_ADVICE.replace("PORT", str(listening.place.port)), style="yellow", soft_wrap=True)
        console.print(f"shows what is below {root}; stop with Ctrl-C", highlight=False, soft_wrap=True)
        if not no_open:
            webbrowser.open(link)

    serve(Runs(root), listening, password=password, prices=table, say=say)


def _password(host: str, origin: str, *, asked: bool) -> Password | None:
    """The password, where one is needed or wanted: from the environment, or asked for. Never from the command line,
    where every process can read it."""
    from dpo_driver.dashboard.serve import PASSWORD
    from dpo_driver.web.listen import is_loopback
    from dpo_driver.web.password import Password

    if is_loopback(host) and not origin and not asked:
        return None
    given = os.environ.get(PASSWORD)
    if not given and sys.stdin.isatty():
        given = typer.prompt("Password for the dashboard", hide_input=True, confirmation_prompt=True, err=True)
    if not given and asked:
        raise ConfigError("there is no password", where="--password", remedy=f"set {PASSWORD}, or run it in a terminal")
    return Password(given) if given else None
