"""``dpo-driver play``: a person does a task from the terminal. Called by cli/main.py; calls agents and rollout."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_driver.cli.options import AsJson, console, print_json
from dpo_driver.core.errors import ConfigError

if TYPE_CHECKING:
    from dpo_driver.core.config import RunConfig
    from dpo_driver.core.records import Task, Trajectory

PANEL = "See it"
WHOLE_DAY_S = 86_400.0
FIRST_SEED = 1  # of the block that demonstrations come from
_WITH_SEED = re.compile(r"^(?P<name>.+)/(?P<seed>\d+)$")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel=PANEL)(play)


def play(
    task: Annotated[str, typer.Argument(metavar="TASK", help="click-button, or with its seed: click-button/7.")],
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Which one of its family.")] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="RUN", help="Keep it: a run directory, or a FILE.jsonl of training rows."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="chat or pocket.", show_default="the run's, else chat")
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(
            "--env", metavar="NAME", help="miniwob, website:FOLDER, ...", show_default="the run's, else miniwob"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Do a task yourself: see what the agent sees, type what it would write. Lines may also come from a pipe."""
    config = run_config(save) if save is not None else None
    chosen = profile or (config.model.prompt_profile if config is not None else "chat")
    source = environment or (config.env.source if config is not None else "miniwob")
    trajectory = asyncio.run(_play(_task(source, task, seed, config), source, chosen, quiet=as_json))
    kept = _keep(trajectory, save) if save is not None else None
    if as_json:
        print_json(
            {
                "task": trajectory.task.id,
                "split": trajectory.task.split,
                "steps": [step.completion for step in trajectory.steps],
                "stop_reason": trajectory.stop_reason.value,
                "reward": trajectory.reward,
                "success": trajectory.success,
                "failure": trajectory.failure,
                "saved": kept,
            }
        )
    elif kept is not None:
        console.print(f"saved: {kept}", highlight=False, soft_wrap=True)


def _task(environment: str, name: str, seed: int | None, config: RunConfig | None) -> Task:
    """The task, with the split that its seed belongs to: what lies in the blocks to choose by or to test on is never
    trained on, whoever did it."""
    from dpo_driver.core import plugins
    from dpo_driver.core.schema import SeedsConfig

    found = _WITH_SEED.match(name)
    if found is not None:
        if seed not in (None, int(found["seed"])):
            raise ConfigError("two different seeds", where=f"{name} --seed {seed}", remedy="give one of them")
        name, seed = found["name"], int(found["seed"])
    number = FIRST_SEED if seed is None else seed
    blocks = dict(config.seeds if config is not None else SeedsConfig())
    split = next((split for split, (first, last) in blocks.items() if first <= number <= last), "demo")
    made: Task = plugins.load("make_task", environment)(name, number, split)
    return made


async def _play(task: Task, environment: str, profile: str, *, quiet: bool) -> Trajectory:
    from dpo_driver.agents.human import HumanAgent, TypedLines
    from dpo_driver.core import plugins
    from dpo_driver.rollout.episode import run_episode

    def show(text: str) -> None:
        # stderr when stdout holds JSON; plain print, because a page's brackets are no markup.
        console.print(text, markup=False, highlight=False, soft_wrap=True) if quiet else print(text, flush=True)

    def ask(prompt: str) -> None:
        if not quiet:
            print(prompt, end="", flush=True)

    async def read(prompt: str) -> str | None:
        line = await lines.read(prompt)
        if line is not None and not quiet and not sys.stdin.isatty():
            show(line)  # a terminal has shown it already
        return line

    lines = TypedLines(0, ask)
    person = HumanAgent(read, show, profile)
    async with plugins.load("environments", environment)() as make:
        one = await make()
        try:
            trajectory = await run_episode(one, person, task, deadline_s=WHOLE_DAY_S)
        finally:
            await one.close()
    show(_ending(trajectory))
    return trajectory


def _ending(trajectory: Trajectory) -> str:
    if trajectory.failure is not None:
        return f"\n=== ended without a score: {trajectory.failure} ==="
    verdict = "success" if trajectory.success else f"no success ({trajectory.stop_reason.value})"
    return f"\n=== {verdict}: reward {trajectory.reward:g} after {len(trajectory.steps)} steps ==="


def run_config(run_dir: Path) -> RunConfig | None:
    """The configuration that a run was started with; None if it has none or is no run yet."""
    if not (run_dir / "run.db").is_file():
        return None
    import yaml

    from dpo_driver.core.config import RunConfig
    from dpo_driver.core.store import RunStore

    with RunStore(run_dir, mode="read") as store:
        written = store.get_fact("config")
    return RunConfig.model_validate(yaml.safe_load(written)) if written else None


def _keep(trajectory: Trajectory, target: Path) -> str | None:
    """Save a finished episode and say where it is; None if there is nothing to keep."""
    if trajectory.failure is not None or not trajectory.steps:
        return None
    if target.suffix == ".jsonl":
        from dpo_driver.core.redact import redacted

        return _append(redacted(trajectory), target)
    from dpo_driver.core.store import RunStore

    # Training reads the successes of the stage "demos"; there a person's takes the place of the expert's.
    stage = "demos" if trajectory.success else "play"
    kept = trajectory.model_copy(update={"id": f"{stage}/{trajectory.task.id}/0"})
    with RunStore(target) as store:
        store.add_trajectory(stage, kept)
    return f"{target}: {kept.id}"


def _append(trajectory: Trajectory, file: Path) -> str | None:
    from dpo_driver.preferences.formats import export_samples, import_samples
    from dpo_driver.preferences.replay import successes_as_samples

    rows = successes_as_samples([trajectory], source="human")
    if not rows:
        reason = f"a {trajectory.task.split} seed is not trained on" if trajectory.success else "no success"
        console.print(f"nothing to learn from here: {reason}", style="yellow", highlight=False)
        return None
    before = import_samples(file) if file.is_file() else []
    known = {row.id for row in before}
    new = [row for row in rows if row.id not in known]
    export_samples(file, [*before, *new])
    return f"{file}: {len(new)} rows"
