"""Benchmarks: bench env, bench train, bench generate. Called by cli/main.py; calls rollout and training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, console, print_json, results
from dpo_driver.core.errors import ConfigError

bench_app = typer.Typer(help="Measure this machine.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(bench_app, name="bench", rich_help_panel="This machine")


@bench_app.command("env")
def env(
    task: Annotated[list[str] | None, typer.Option("--task", help="Task family; may be repeated.")] = None,
    all_oracles: Annotated[bool, typer.Option("--all-oracles", help="Every family that the oracle plays.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=3600, help="For each task and count.")] = 15.0,
    episodes: Annotated[
        int | None, typer.Option("--episodes", min=1, help="So many of each task instead; --all-oracles: 20.")
    ] = None,
    workers: Annotated[list[int] | None, typer.Option("--workers", min=1, max=256, help="May be repeated.")] = None,
    engine: Annotated[str, typer.Option("--engine", help="What to measure.")] = "trusted",
    peers: Annotated[bool, typer.Option("--peers", help="Side by side with BrowserGym and the Selenium gym.")] = False,
    peer_workers: Annotated[int, typer.Option("--peer-workers", min=1, max=64, help="Processes of each peer.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="Blocks of each, for the spread.")] = 5,
    profile: Annotated[bool, typer.Option("--profile", help="Where the time of an episode goes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Episodes a second with the oracle, through the same path that training data takes, success checked."""
    from dpo_driver.rollout import bench

    if all_oracles and task:
        raise ConfigError("both --task and --all-oracles were given", remedy="give one of them")
    if peers and (episodes is not None or len(workers or ()) > 1):
        raise ConfigError("--peers measures by --seconds and one number of --workers", remedy="leave the others out")
    tasks = bench.oracle_tasks() if all_oracles else tuple(task or ("click-button",))
    if profile:
        from dpo_driver.rollout.bench_profile import profile_env

        figures = {"profiles": [profile_env(name) for name in tasks]}
    elif peers:
        figures = bench.bench_peers(
            tasks,
            seconds,
            workers=(workers or [4])[0],
            peer_workers=peer_workers,
            repeats=repeats,
            ours=tuple(dict.fromkeys((engine, "trusted"))),
        )
    else:
        each = 20 if all_oracles and episodes is None else episodes
        figures = bench.bench_env(tasks, seconds, workers or [4], episodes=each, engine=engine)
    if as_json:
        print_json(figures)
        return
    for table in _profiles(figures) if profile else _rates(figures):
        results.print(table)


def _rates(figures: dict[str, Any]) -> Iterator[Table]:
    table = Table("task", "workers", "episodes/s", "steps/s", "correct", box=None, header_style="bold")
    rows = figures["rows"] if len(figures["rows"]) == len(figures["by_workers"]) else None
    for row in rows or [*figures["rows"], *figures["by_workers"]]:
        rates = (f"{row['episodes_per_second']:.4g}", f"{row['steps_per_second']:.4g}")
        table.add_row(row["task"], str(row["workers"]), *rates, f"{row['correct']} of {row['total']}")
    yield table
    if "peers" not in figures:
        return
    peers = figures["peers"]
    table = Table("engine", "workers", "episodes/s", "correct", box=None, header_style="bold")
    for name, row in peers["engines"].items():
        rate = row["episodes_per_second"]
        table.add_row(name, str(row["workers"]), _with_spread(rate), f"{row['correct']} of {row['total']}")
    yield table
    table = Table("faster than", *peers["ratios"], "same goals", "same actions", box=None, header_style="bold")
    for peer, same in peers["same"].items():
        ratios = (_with_spread(ratios[peer]) if ratios[peer] else "-" for ratios in peers["ratios"].values())
        table.add_row(peer, *ratios, *(f"{same[what]} of {same['episodes']}" for what in ("goals", "actions")))
    yield table


def _with_spread(value: dict[str, float]) -> str:
    return f"{value['median']:.3g} ({value['low']:.3g} to {value['high']:.3g})"


def _profiles(figures: dict[str, Any]) -> Iterator[Table]:
    for row in figures["profiles"]:
        table = Table(row["task"], "ms", box=None, header_style="bold")
        table.add_row("an episode", f"{row['episode_ms']:.3f}")
        table.add_row("floor: the page alone", f"{row['floor_ms']:.3f}")
        table.add_row("times the floor", f"{row['times_floor']:.1f}")
        table.add_row("reading the page, inside it", f"{row['distiller_ms']:.3f}")
        table.add_row("a round trip", f"{row['round_trip_ms']:.3f}")
        for name, value in row["parts_ms"].items():
            table.add_row(f"  {name}", f"{value:.3f}")
        yield table


@bench_app.command("train")
def train(
    full: Annotated[
        bool, typer.Option("--full", help="Prompts of 16,384 tokens too, however long it takes (default: 10 minutes).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A DPO step and a GRPO update here against TRL: seconds, peak memory, and how far losses and gradients differ."""
    from dpo_driver.training.bench import bench_train
    from dpo_driver.training.bench_online import bench_grpo

    def tell(row: dict[str, Any]) -> None:
        point = ", ".join(f"{name} {row[name]}" for name in ("prompt", "completion", "pairs", "group") if name in row)
        console.print(f"[dim]{point}: {row['seconds']['ours']:.3f} s a step[/dim]")

    online = bench_grpo(on_row=tell)
    figures = bench_train(full=full, on_row=tell) | {"grpo": online["rows"]}
    if as_json:
        print_json(figures)
        return
    rows = [(row, ("default", "tuned")) for row in figures["rows"]]
    table = Table("prompt", "completion", "pairs", "s/step here", "TRL default", "TRL tuned", "times", "times tuned",
                  "MB here", "MB TRL", "loss diff.", title="DPO", title_justify="left", box=None)  # fmt: skip
    for row, names in rows:
        seconds, peak = row["seconds"], row["peak_mb"]
        table.add_row(
            *(str(row[name]) for name in ("prompt", "completion", "pairs")),
            *(f"{seconds[name]:.3f}" for name in ("ours", "trl_default", "trl_tuned")),
            *(f"{row['speedup'][name]:.1f}" for name in names),
            str(peak["ours"]),
            f"{peak['trl_default']}, {peak['trl_tuned']}",
            f"{row['max_loss_diff']:.1e}",
        )
    results.print(table)
    for row in figures["left_out"]:
        results.print(f"left out: {row['prompt']} x {row['completion']} x {row['pairs']} ({row['why']})")
    table = Table("prompt", "completion", "group", "s/update here", "TRL", "times", "MB here", "MB TRL", "loss diff.",
                  title="GRPO", title_justify="left", box=None)  # fmt: skip
    for row in figures["grpo"]:
        table.add_row(
            *(str(row[name]) for name in ("prompt", "completion", "group")),
            *(f"{row['seconds'][name]:.3f}" for name in ("ours", "trl")),
            f"{row['speedup']:.1f}",
            *(str(row["peak_mb"][name]) for name in ("ours", "trl")),
            f"{row['max_loss_diff']:.1e}",
        )
    results.print(table)


@bench_app.command("generate")
def generate(
    prompts: Annotated[int, typer.Option("--prompts", min=8, max=10_000, help="How many, of real rollouts.")] = 192,
    as_json: AsJson = False,
) -> None:
    """Actions a second of the local policy against plain transformers generate, at batch 1, 8 and 32."""
    from functools import partial

    from dpo_driver.policies.bench import bench_generate
    from dpo_driver.policies.encoding import encode_prompt
    from dpo_driver.policies.hf import HFPolicy
    from dpo_driver.policies.loading import load_tokenizer
    from dpo_driver.rollout.bench_prompts import prompts_of_rollouts

    asked = prompts_of_rollouts(HFPolicy("pocket"), partial(encode_prompt, load_tokenizer("pocket")), prompts)
    figures = bench_generate(asked)
    if as_json:
        print_json(figures)
        return
    table = Table("batch", "actions/s here", "transformers", "times", "spread", "same texts", box=None)
    for row in figures["rows"]:
        times = row["speedup"]
        table.add_row(str(row["batch"]), f"{row['ours']:.1f}", f"{row['transformers']:.1f}", f"{times['median']:.1f}",
                      f"{times['low']:.1f} to {times['high']:.1f}", f"{row['same']} of {row['prompts']}")  # fmt: skip
    results.print(table)
