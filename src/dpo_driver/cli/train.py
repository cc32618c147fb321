"""Training: sft, train sft|dpo|control|sft-best|grpo, pretrain. Called by cli/main.py; calls flywheel and training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dpo_driver.cli.options import AsJson, ConfigPath, Overrides, Round, console, opened_run, print_json
from dpo_driver.core.errors import ConfigError

PANEL = "Training"
DEFAULT_RECIPE = Path("configs/pretrain/pocket.yaml")

train_app = typer.Typer(help="Train one model: SFT, DPO, or what they are measured against.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(rich_help_panel=PANEL)(sft)
    app.add_typer(train_app, name="train", rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(pretrain)


@train_app.command("sft")
def sft(config: ConfigPath = None, overrides: Overrides = None) -> None:
    """Imitate a few expert demonstrations: the parent of everything that follows."""
    with opened_run(config, overrides) as context:
        from dpo_driver.flywheel.train import sft

        sft(context)


@train_app.command("dpo")
def dpo(
    config: ConfigPath = None,
    overrides: Overrides = None,
    number: Round = None,
    role: Annotated[
        str | None, typer.Option("--role", metavar="NAME", help="Align the model of a role from text alone, no run.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="PATH", help="With --role: rows or a preference log.",
                     show_default="runs/preferences.db"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="With --role: pocket, a folder, a hub id, or ROLE@champion."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="With --role: its folder.", show_default="runs/NAME")
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Learn from preference pairs against the frozen parent: those of a run's round, or with --role a role's own."""
    if role is not None:
        if number is not None:
            raise ConfigError("the rounds of a role count by themselves", remedy="leave out --round")
        from dpo_driver.flywheel.roles import train_role
        from dpo_driver.preferences.collect import DEFAULT_LOG

        given: dict[str, Any] = {"config": config, "overrides": overrides or (), "model": model, "out": out}
        facts = train_role(role, data or DEFAULT_LOG, **given, console=console)
        console.print(f"the model is in {facts['model']}", highlight=False)
    elif data is not None or model is not None or out is not None:
        raise ConfigError("--data, --model and --out go with --role", remedy="say whose answers they are: --role CEO")
    else:
        with opened_run(config, overrides) as context:
            from dpo_driver.flywheel.train import dpo

            facts = dpo(context, round=number)
    if as_json:
        print_json(facts)


@train_app.command("control")
def control(config: ConfigPath = None, overrides: Overrides = None, number: Round = None) -> None:
    """The control beside DPO: same rollouts, same number of steps, imitation of the successes only."""
    with opened_run(config, overrides) as context:
        from dpo_driver.flywheel.train import control

        control(context, round=number)


@train_app.command("sft-best")
def sft_best(config: ConfigPath = None, overrides: Overrides = None) -> None:
    """The yardstick: SFT trained to its best on the same demonstrations."""
    with opened_run(config, overrides) as context:
        from dpo_driver.flywheel.train import sft_best

        sft_best(context)


@train_app.command("grpo")
def grpo(config: ConfigPath = None, overrides: Overrides = None) -> None:
    """Go on learning on live pages, from the model that DPO ended with."""
    with opened_run(config, overrides) as context:
        from dpo_driver.flywheel.grpo import grpo
        from dpo_driver.flywheel.train import choose

        if context.config.rounds:
            choose(context)
        grpo(context)


def pretrain(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML recipe of the pocket model.")] = DEFAULT_RECIPE,
    out: Annotated[Path, typer.Option("--out", help="Folder for the model.")] = Path("runs/pretrain"),
) -> None:
    """Train the pocket model from scratch on synthetic pages (never on MiniWoB++)."""
    from dpo_driver.training.pretrain import load_pretrain_config
    from dpo_driver.training.pretrain import pretrain as train_from_scratch

    def show(row: dict[str, Any]) -> None:
        console.print(
            f"{row['tokens'] / 1e6:7.2f}M tokens  {row['seconds']:6.0f} s  loss {row['loss']:.3f}  "
            f"exact {row['exact']:.1%}  page size {row['size']}"
        )

    last = train_from_scratch(load_pretrain_config(recipe), out, show)
    console.print(f"the model is in {out}: {last.get('exact', 0):.1%} of fresh synthetic decisions exactly right")
