"""``dpo-driver``: puts the commands together and turns errors into messages and exit codes.

Exit codes: 0 done (a refused promotion is a result, not an error), 1 an audit found something wrong, 2 something the
user can mend, 130 stopped by Ctrl-C or SIGTERM. ``DPO_DRIVER_DEBUG=1`` shows tracebacks. The entry point of
pyproject.toml; imported by nobody.
"""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import sys
import warnings
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from dpo_driver import __version__
from dpo_driver.cli import (
    act,
    annotate,
    bench,
    certify,
    cloud,
    cost,
    dashboard,
    doctor,
    gauntlet,
    jobs,
    label,
    learn,
    loop,
    mcp,
    memory,
    models,
    monitors,
    oracles,
    pairs,
    plan,
    play,
    prefs,
    report,
    search,
    serve,
    solve,
    sweep,
    teach,
    train,
    watch,
)
from dpo_driver.core import ranks
from dpo_driver.core.errors import DriverError
from dpo_driver.core.memory import keep_freed_memory

STOPPED = 130
# Import name -> the extra of pyproject.toml that brings it.
EXTRAS = {
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "accelerate": "train",
    "safetensors": "train",
    "trl": "dev",
    "bitsandbytes": "gpu",
    "mlflow": "tracking",
    "psutil": "tracking",
    "httpx": "api",
    "prometheus_client": "serve",
    "mcp": "mcp",
    "azure": "azure",
}

app = typer.Typer(
    name="dpo-driver",
    help="Trains small browser agents from what the browser itself reports: act, compare, train, prove, promote.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    loop,
    learn,
    jobs,
    sweep,
    train,
    plan,
    search,
    memory,
    annotate,
    pairs,
    prefs,
    label,
    teach,
    report,
    dashboard,
    play,
    watch,
    gauntlet,
    solve,
    monitors,
    models,
    serve,
    bench,
    oracles,
    certify,
    doctor,
    act,
    mcp,
    cloud,
    cost,
):
    group.register(app)


@app.command(rich_help_panel="This machine")
def version() -> None:
    """Print the version."""
    print(__version__)


@app.callback(invoke_without_command=True)
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        version()
        raise typer.Exit


def main() -> NoReturn:
    """Run the command in ``sys.argv`` and leave the process with its exit code."""
    signal.signal(signal.SIGTERM, _stop)
    _quiet_libraries()
    try:
        with ranks.job() as leads:
            if leads:
                app()
            else:
                keep_freed_memory()
                ranks.follow()
    except SystemExit as leaving:
        if leaving.code == STOPPED:
            _say("stopped; the same command goes on from here", style="yellow")
        raise
    except KeyboardInterrupt:
        if ranks.is_main():
            _say("stopped; the same command goes on from here", style="yellow")
        sys.exit(STOPPED)
    except (DriverError, ModuleNotFoundError, OSError, sqlite3.Error) as error:
        if os.environ.get("DPO_DRIVER_DEBUG"):
            raise
        known = error if isinstance(error, DriverError) else _from_system(error)
        if known is None:
            raise
        _say(str(known), style="red")
        sys.exit(known.exit_code)
    sys.exit(0)


def _quiet_libraries() -> None:
    """What libraries say to programmers is nothing a user can act on; it would tear up the progress bars."""
    if not os.environ.get("DPO_DRIVER_DEBUG"):
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM stops a run as Ctrl-C does: what was acknowledged is on disk."""
    raise KeyboardInterrupt


def _say(text: str, *, style: str) -> None:
    name = "dpo-driver: " if ranks.is_main() else f"dpo-driver, process {ranks.rank()}: "
    Console(stderr=True, soft_wrap=True).print(Text(name, style=f"bold {style}").append(text, style=style))


def _from_system(error: ModuleNotFoundError | OSError | sqlite3.Error) -> DriverError | None:
    """A refusal of the machine that a person can do something about; None when it is our own bug."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            return None
        return DriverError(
            f"{package} is not installed", remedy=f"pip install -e '.[{EXTRAS[package]}]', or run ./setup.sh"
        )
    where = getattr(error, "filename", None)
    place = str(where) if where is not None else None
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in str(error):
        remedy = "free some space and run the same command again; what was finished before is intact"
        return DriverError("the disk is full", where=place, remedy=remedy)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) or "readonly database" in str(error):
        return DriverError(
            f"not allowed: {error}", where=place, remedy="choose another project.run_dir, or change its owner"
        )
    if number == errno.EADDRINUSE:
        return DriverError("the port is taken", where=place, remedy="choose another one with --port")
    if number == errno.EMFILE:
        return DriverError("too many open files", remedy="raise the limit (ulimit -n 4096) or lower env.workers")
    return None
