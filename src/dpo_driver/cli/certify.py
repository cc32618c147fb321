"""``dpo-driver certify``: in which MiniWoB++ tasks frames with synthetic events are the same as trusted input."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="This machine")(certify)


def certify(
    task: Annotated[
        list[str] | None, typer.Option(help="Family to compare; repeat for several. Default: all with an oracle.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds for each agent.")] = 20,
    write: Annotated[Path | None, typer.Option(help="Write the list of certified tasks to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures to standard output.")] = False,
) -> None:
    """Compare the batched MiniWoB++ engine with trusted input: goals, observations and rewards, seed by seed."""
    from dpo_driver.agents.oracle import ORACLES, OracleAgent
    from dpo_driver.agents.random import RandomAgent
    from dpo_driver.envs.miniwob.batched import BatchedEnvironment
    from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
    from dpo_driver.envs.miniwob.tasks import find_task, make_task
    from dpo_driver.rollout.certify import certify as compare

    # A family with a clock of our own never runs in frames, so there is nothing to compare.
    names = [spec.name for spec in map(find_task, task or sorted(ORACLES)) if not spec.clocked]
    tasks = [make_task(name, seed, "val") for name in names for seed in range(SEED, SEED + seeds)]
    found = compare(
        tasks,
        [OracleAgent(), RandomAgent(seed=0)],
        reference=MiniwobEnvironment.source,
        candidate=partial(BatchedEnvironment.source, tasks=frozenset(names)),
    )
    holding = {name: certificate for name, certificate in sorted(found.tasks.items()) if certificate.holds}
    if write is not None:
        rows = {name: {"episodes": c.episodes, "steps": c.steps} for name, c in holding.items()}
        temporary = write.with_suffix(".tmp")
        temporary.write_text(
            json.dumps({"seeds": [SEED, SEED + seeds - 1], "tasks": rows}, indent=1) + "\n", encoding="utf-8"
        )
        temporary.replace(write)
    if as_json:
        whole = {name: {**vars(c), "holds": c.holds} for name, c in sorted(found.tasks.items())}
        print(
            json.dumps(
                {"certified": len(holding), "of": len(names), "seconds": found.seconds, "tasks": whole}, indent=2
            )
        )
        return
    console = Console()
    for name, certificate in sorted(found.tasks.items()):
        mark = "[green]✓[/green]" if certificate.holds else "[red]✗[/red]"
        console.print(
            f"{mark} {name}: {certificate.equal}/{certificate.episodes} {certificate.first_difference}", highlight=False
        )
    console.print(
        f"{len(holding)} of {len(names)} certified; trusted {found.seconds[0]:.0f} s, frames {found.seconds[1]:.0f} s"
    )


SEED = 950_000  # far behind the seeds that results are reported on
