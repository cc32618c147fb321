"""The loop and its verbs: run, collect, evaluate, promote. Called by cli/main.py; calls flywheel."""

from __future__ import annotations

from typing import Annotated

import typer

from dpo_driver.cli import record_options as recording
from dpo_driver.cli.options import (
    AsJson,
    ConfigPath,
    Overrides,
    Round,
    console,
    open_settings,
    opened_run,
    print_json,
    read_config,
)
from dpo_driver.cli.record import record
from dpo_driver.cli.report import publish
from dpo_driver.core.errors import ConfigError

PANEL = "The loop"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (run, collect, evaluate, promote):
        app.command(rich_help_panel=PANEL)(command)


def run(config: ConfigPath = None, overrides: Overrides = None) -> None:
    """The whole job: SFT, rollouts, pairs, DPO, evaluation, promotion, report. Goes on where it was stopped."""
    from dpo_driver.cli.checks import verify
    from dpo_driver.policies.loading import check_name

    settings = read_config(config, overrides)
    for warning in verify(settings.run_dir):
        console.print(f"[yellow]warning[/yellow] {warning.name}: {warning.detail} [dim]-> {warning.remedy}[/dim]")
    # A model that is not there is said now, not after the demonstrations.
    check_name(settings.model.name)
    with open_settings(settings) as context:
        from dpo_driver.flywheel import loop

        loop.run(context)
        if context.store.vault is not None:
            context.say("no report was written: it would hold the run's pages in the clear (dpo-driver report)")
            return
        page = publish(context.run_dir)
        if context.tracker is not None:
            context.tracker.log_artifact(page)


def collect(
    config: ConfigPath = None,
    overrides: Overrides = None,
    number: Round = None,
    agent: recording.AgentName = None,
    steps: recording.Steps = None,
    runs: recording.Runs = 1,
    seed: recording.FirstSeed = recording.FIRST_SEED,
    task: recording.Families = None,
    difficulty: recording.Difficulty = 1,
    skin: recording.Skin = "a",
    environment: recording.Source = None,
    out: recording.Out = recording.OUT,
    workers: recording.Workers = 1,
    again: recording.Again = False,
    file: recording.Import = None,
    form: recording.Form = recording.FORMS[1],
    as_json: AsJson = False,
) -> None:
    """Roll out the current model on training seeds and record it. With --agent or --import: record expert play."""
    asked = recording.Request(agent, steps, runs, seed, task or (), difficulty, skin, environment, out, workers, again,
                              file, form, as_json)  # fmt: skip
    if agent is not None or file is not None:
        if config is not None or overrides or number is not None:
            raise ConfigError("expert play is recorded without a configuration", where="CONFIG, --set, --round",
                              remedy="leave them out; training names the recordings: demos.from")  # fmt: skip
        record(asked)
        return
    if asked != recording.Request(None):
        raise ConfigError("these options are about expert play", remedy="give --agent solver, oracle or human")
    with opened_run(config, overrides) as context:
        from dpo_driver.flywheel.collect import collect

        collect(context, round=number)


def evaluate(
    config: ConfigPath = None,
    overrides: Overrides = None,
    agents: Annotated[
        list[str] | None,
        typer.Option("--agent", help="Only this agent. May be repeated.", show_default="those of the config"),
    ] = None,
) -> None:
    """Measure the agents on the held-out test seeds, the same ones for each."""
    with opened_run(config, overrides) as context:
        from dpo_driver.flywheel.evaluate import evaluate, replay
        from dpo_driver.flywheel.train import choose

        if agents is None or {"dpo", "control"} & set(agents):
            choose(context)
        evaluate(context, agents=agents)
        if agents is None:
            replay(context)


def promote(config: ConfigPath = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Make the candidate the champion if its gain is proven; otherwise say why not."""
    with opened_run(config, overrides) as context:
        from dpo_driver.flywheel.promote import promote

        decision = promote(context)
    if as_json:
        print_json(decision.model_dump(mode="json"))
