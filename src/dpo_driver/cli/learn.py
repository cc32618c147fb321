"""The loop that keeps learning: dpo-driver learn. Called by cli/main.py; calls flywheel/learn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, console, print_json, read_config, results
from dpo_driver.core.errors import ConfigError

DEFAULT = Path("configs/learn.yaml")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel="The loop")(learn)


def learn(
    settings: Annotated[
        Path | None, typer.Argument(metavar="SETTINGS", help="Settings of the loop.", show_default=str(DEFAULT))
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key; agent.KEY: one of the agent's configuration."),
    ] = None,
    turns: Annotated[
        int | None, typer.Option("--turns", min=1, help="Until so many turns are done; else go on, as they are due.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, take what is due, and end: for cron.")] = False,
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder of the runs.", show_default="the agent's, else runs")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn from what agents do, again and again: pair, train, evaluate, promote or refuse."""
    from dpo_driver.flywheel.learn.loop import keep_learning
    from dpo_driver.flywheel.learn.loop import learn as take
    from dpo_driver.flywheel.learn.settings import load_learn

    if turns is not None and once:
        raise ConfigError("--turns and --once are two things", remedy="give one of them")
    if settings is None and DEFAULT.is_file():
        settings = DEFAULT
    given = overrides or []
    own = [each for each in given if not each.startswith("agent.")]
    asked = load_learn(settings, own)
    agent = None
    if asked.agent is not None:
        agent = read_config(asked.agent, [each.removeprefix("agent.") for each in given if each not in own])
    folder = root or (agent.run_dir.parent if agent is not None else Path("runs"))
    if agent is not None and agent.run_dir.resolve().parent != folder.resolve():
        raise ConfigError("the agent's run lies elsewhere", where=f"--root {folder}",
                          remedy=f"leave --root out, or set agent.project.run_dir below {folder}")  # fmt: skip
    if turns is not None:
        _tell(take(asked, agent, folder, turns, console), as_json)
        return
    if not once:
        console.print("looking for what is new; stop with Ctrl-C")
    keep_learning(asked, agent, folder, console, once=once, told=lambda found: _tell(found, as_json))


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for who, why in found.get("due", {}).items():
        results.print(f"{who}: {why}")
    if found.get("turns"):
        results.print(_turns(found["turns"]))
    if "success" in found:
        results.print(_success(found["success"]))
    for role, one in found.get("roles", {}).items():
        verdict = one.get("error") or one["decision"]["reasons"][0]
        results.print(f"{role}: {'promoted' if one.get('decision', {}).get('promoted') else 'refused'}: {verdict}")


def _turns(rows: list[dict[str, Any]]) -> Table:
    table = Table("turn", "pairs", "champion before", "candidate", "verdict", box=None)
    for row in rows:
        decision = row["decision"]
        verdict = f"{'promoted' if decision['promoted'] else 'refused'}: {decision['reasons'][0]}"
        table.add_row(str(row["turn"]), str(row["pairs"]), _rate(row.get("before")), _rate(row.get("after")), verdict)
    return table


def _success(account: dict[str, Any]) -> Table:
    table = Table("after turn", "champion", "strict success", "gain over the start, paired", box=None)
    for row in account["by_turn"]:
        gain = row["gain_over_start"]
        told = f"{gain['mean']:+.1%} [{gain['low']:+.1%}, {gain['high']:+.1%}]" if gain and gain["n"] else ""
        table.add_row(str(row["turn"]), row["model"], _rate(row["strict"]), told)
    return table


def _rate(found: dict[str, Any] | None) -> str:
    if not found or found["success"] is None:
        return ""
    excluded = f", {found['excluded']} excluded" if found["excluded"] else ""
    return f"{found['success']:.1%} [{found['low']:.1%}, {found['high']:.1%}] of {found['n']}{excluded}"
