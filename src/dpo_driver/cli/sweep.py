"""Sweeps and ablations: sweep. Called by cli/main.py; calls flywheel and report."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from dpo_driver.cli.options import DEFAULT_CONFIG, AsJson, Overrides, console, print_json, read_config, results
from dpo_driver.core.errors import ConfigError

PANEL = "The loop"
FAILED = 1  # exit code when a point could not be finished


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=PANEL)(sweep)


def sweep(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="Configuration file, or a sweep file such as those in configs/ablations.",
                       show_default=str(DEFAULT_CONFIG)),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option("--over", metavar="KEY=V1,V2",
                     help="A key and its values: --over dpo.beta=.05,.1,.2. Several keys give every combination."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="S1,S2", help="Training seeds; the table takes them together.",
                     show_default="the config's one"),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the web browser at the end.")] = False,
) -> None:  # fmt: skip
    """One run for every combination of values, what they have in common done once, and one table of them all."""
    from dpo_driver.cli.checks import verify
    from dpo_driver.flywheel.sweep_plan import SEED, States, make_plan, parse_over, read_sweep_file

    axes = [parse_over(text) for text in (*(over or ()), *([] if seeds is None else [f"{SEED}={seeds}"]))]
    path, given = config or DEFAULT_CONFIG, list(overrides or ())
    file = read_sweep_file(path)
    if file is not None:  # what the command line says of a key stands instead of what the file says
        axes = [*(axis for axis in file.axes if axis.key not in {ours.key for ours in axes}), *axes]
        path, given = Path(file.base), [*file.overrides, *given]
    if not axes:
        raise ConfigError("nothing to sweep", where=str(path),
                          remedy="name a key and its values: --over dpo.beta=.05,.1,.2")  # fmt: skip
    # Training seeds change fastest: a row of the table is complete before the next one begins.
    plan = make_plan(lambda more: read_config(path, [*given, *more]), sorted(axes, key=lambda axis: axis.key == SEED),
                     name=file.name if file else None, about=file.about if file else "")  # fmt: skip
    from dpo_driver.policies.loading import check_name  # loads torch, which a wrong key need not wait for

    for warning in verify(plan.folder):
        console.print(f"[yellow]warning[/yellow] {warning.name}: {warning.detail} [dim]-> {warning.remedy}[/dim]")
    for name in dict.fromkeys(point.config.model.name for point in plan.points):
        check_name(name)

    from dpo_driver.flywheel.sweep import sweep as run_sweep
    from dpo_driver.report.page import write_report
    from dpo_driver.report.sweep import print_sweep, write_sweep
    from dpo_driver.report.sweep_data import collect_sweep

    def show_states(states: States) -> None:
        write_sweep(collect_sweep(plan, states), plan.folder)

    states = run_sweep(
        plan,
        console,
        on_point=show_states,
        finish=lambda ctx: ctx.tracker.log_artifact(write_report(ctx.run_dir)),
    )
    report = collect_sweep(plan, states)
    page = write_sweep(report, plan.folder)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_sweep(report, results)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
    if show:
        webbrowser.open(page.resolve().as_uri())
    if report.failed:
        raise typer.Exit(FAILED)
