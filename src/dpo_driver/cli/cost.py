"""What a training may cost: cost estimate, compare. Called by cli/main.py; calls cloud/costs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dpo_driver.cli.options import AsJson, console, print_json, results

cost_app = typer.Typer(help="Estimates from your own prices.", no_args_is_help=True)
Prices = Annotated[Path, typer.Option("--prices", help="Your price table: see configs/prices.example.yaml.")]
Spot = Annotated[bool, typer.Option("--spot", help="At the price of low priority.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(cost_app, name="cost", rich_help_panel="Elsewhere")


@cost_app.command("estimate")
def estimate(
    machine: Annotated[str, typer.Argument(help="As the table calls it.")],
    prices: Prices,
    hours: Annotated[float, typer.Option("--hours", min=0, help="How long.")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many machines.")] = 1,
    spot: Spot = False,
    as_json: AsJson = False,
) -> None:
    """Hours times price."""
    from dpo_driver.cloud import costs
    from dpo_driver.core.prices import load_prices

    found = costs.estimate(load_prices(prices), machine, 3600 * hours, spot=spot, count=count)
    if as_json:
        print_json(found)
        return
    results.print(f"about {found['cost']:g} {found['currency']}: {count} x {machine} for {hours:g} h at "
                  f"{found['price_an_hour']:g} an hour (an estimate from your table)")  # fmt: skip


@cost_app.command("compare")
def compare(
    workload: Annotated[
        Path | None, typer.Argument(metavar="WORKLOAD", help="A file; without one the defaults.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    prices: Annotated[Path | None, typer.Option("--prices", help="Your price table.")] = None,
    machine: Annotated[str | None, typer.Option("--machine", help="Of that table.")] = None,
    spot: Spot = False,
    as_json: AsJson = False,
) -> None:
    """DPO, PPO and GRPO for the same prompts, from stated FLOPs."""
    from dpo_driver.cloud import costs
    from dpo_driver.core.prices import load_prices

    table = load_prices(prices)
    found = costs.compare(costs.load_workload(workload, overrides or []), table, machine, spot=spot)
    if as_json:
        print_json(found)
        return
    shown = Table("algorithm", "generation", "reference", "reward", "value", "learning", "PFLOP", "against DPO",
                  *(["hours", "cost"] if "hours" in found["rows"][0] else []), box=None)  # fmt: skip
    for row in found["rows"]:
        parts = [
            f"{row[key] / 1e15:.3g}" for key in ("generation", "reference", "reward", "value", "learning", "flops")
        ]
        more = [f"{row['hours']:g}", f"{row['cost']:g} {row['currency']}"] if "hours" in row else []
        shown.add_row(row["algorithm"], *parts, f"{row['against_dpo']:g}", *more)
    results.print(shown)
    console.print("estimates from stated FLOPs; nothing here was measured")
