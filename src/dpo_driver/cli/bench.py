"""Benchmarks: bench env, bench train. Called by cli/main.py; calls rollout and training."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, print_json, results

bench_app = typer.Typer(help="Measure this machine.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(bench_app, name="bench", rich_help_panel="This machine")


@bench_app.command("env")
def env(
    task: Annotated[str, typer.Option("--task", help="Task family.")] = "click-button",
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=3600)] = 15.0,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256)] = 4,
    as_json: AsJson = False,
) -> None:
    """Episodes a second with the oracle, through the same path that training data takes."""
    from dpo_driver.rollout.bench import bench_env

    figures = bench_env(task, seconds, workers)
    if as_json:
        print_json(figures)
        return
    table = Table(show_header=False, box=None)
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    results.print(table)


@bench_app.command("train")
def train(as_json: AsJson = False) -> None:
    """Seconds per DPO step here against TRL, default and tuned, and the largest difference of the losses."""
    from dpo_driver.training.bench import bench_train

    figures = bench_train()
    if as_json:
        print_json(figures)
        return
    names = (
        "prompt",
        "completion",
        "pairs",
        "s/step here",
        "TRL default",
        "TRL tuned",
        "times",
        "times tuned",
        "loss diff.",
    )
    table = Table(*names, box=None, header_style="bold")
    for row in figures["rows"]:
        seconds, speedup = row["seconds"], row["speedup"]
        table.add_row(
            *(str(row[name]) for name in ("prompt", "completion", "pairs")),
            *(f"{seconds[name]:.3f}" for name in ("ours", "trl_default", "trl_tuned")),
            *(f"{speedup[name]:.1f}" for name in ("default", "tuned")),
            f"{row['max_loss_diff']:.1e}",
        )
    results.print(table)
