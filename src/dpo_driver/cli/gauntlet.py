"""The gauntlet: gauntlet serve, explore, smoke, audit. Called by cli/main.py; calls envs, agents and rollout."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpo_driver.cli.options import AsJson, console, print_json
from dpo_driver.core.errors import DriverError, RolloutFailure
from dpo_driver.core.protocols import Agent, Environment, Outcome

if TYPE_CHECKING:
    from dpo_driver.core.actions import Action
    from dpo_driver.core.records import Observation, Task, Trajectory

DAY_S = 86_400.0
WALK_S = 120.0
SMOKE_ACTIONS = 15
gauntlet_app = typer.Typer(help="The gauntlet: thirty web puzzles in a row.", no_args_is_help=True)

BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="ADDRESS", help="A site of this kind that somebody else serves.",
                 show_default="our own, started for it"),
]  # fmt: skip
Seed = Annotated[int, typer.Option("--seed", min=0, help="Order, types, content, distractors.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(gauntlet_app, name="gauntlet", rich_help_panel="The gauntlet")


@gauntlet_app.command()
def serve(
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 takes a free one.")] = 8123,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="The same run for everybody.", show_default="a new one each visit"),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, max=500)] = 30,
    difficulty: Annotated[int, typer.Option("--difficulty", min=1, max=3)] = 1,
    order: Annotated[str, typer.Option("--order", help="band: easy types first; or mixed.")] = "band",
    skin: Annotated[str, typer.Option("--skin", help="a, or the held-out b.")] = "a",
    held_out: Annotated[bool, typer.Option("--held-out", help="With the types that are never trained on.")] = False,
    host: Annotated[
        str, typer.Option("--host", help="Browsers play on other addresses than loopback only behind https.")
    ] = "127.0.0.1",
) -> None:
    """Serve the gauntlet to people until Ctrl-C."""
    from dpo_driver.envs.gauntlet.serve import serve as serve_site

    def say(text: str) -> None:
        print(f"{text}  (Ctrl-C stops it)", flush=True)

    try:
        serve_site(host, port, say, seed=-1 if seed is None else seed, steps=steps, difficulty=difficulty, order=order,
                   skin=skin, held_out=held_out)  # fmt: skip
    except KeyboardInterrupt:
        return


@gauntlet_app.command()
def explore(
    interactive: Annotated[bool, typer.Option("--interactive", help="Type the actions yourself.")] = False,
    save_snapshots: Annotated[
        Path | None, typer.Option("--save-snapshots", metavar="DIR", help="Keep every observation and its picture.")
    ] = None,
    base_url: BaseUrl = None,
    task: Annotated[str, typer.Option("--task", help="A family, such as run or step-slider-b.")] = "run",
    seed: Seed = 1,
    actions: Annotated[int, typer.Option("--actions", min=1, help="Of a walk that goes by itself.")] = SMOKE_ACTIONS,
) -> None:
    """See the site as an agent does; type actions, or (without --interactive) watch a walk at random."""
    made = _task(task, seed, base_url)
    if not interactive:
        made = made.model_copy(update={"max_steps": min(made.max_steps, actions)})
    trajectory, _ = asyncio.run(_walk(made, base_url, save_snapshots, interactive=interactive))
    print(f"\n=== {_summary(trajectory)} ===", flush=True)
    if save_snapshots is not None:
        console.print(f"saved: {save_snapshots}", highlight=False, soft_wrap=True)


@gauntlet_app.command()
def smoke(
    base_url: BaseUrl = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where every observation is written.")] = Path(
        "gauntlet-smoke"
    ),
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Take 15 actions at random on the site and write down all that is seen. Fails if the site does not answer."""
    made = _task("run", seed, base_url).model_copy(update={"max_steps": SMOKE_ACTIONS})
    began = time.monotonic()
    trajectory, seen = asyncio.run(_walk(made, base_url, out, interactive=False))
    if trajectory.failure is not None:
        raise DriverError(f"the walk broke after {len(trajectory.steps)} actions: {trajectory.failure}",
                          where=base_url, remedy="see whether the site still answers, and try again")  # fmt: skip
    figures: dict[str, Any] = {
        "actions": len(trajectory.steps),
        "observations": len(seen),
        "elements": [len(observation.elements) for observation in seen],
        "refused_actions": sum(1 for observation in seen if observation.last_error),
        "solved": _solved(trajectory),
        "seconds": round(time.monotonic() - began, 2),
        "seconds_an_action": round(sum(s.timing.browser for s in trajectory.steps) / max(1, len(trajectory.steps)), 4),
        "folder": str(out),
    }
    if as_json:
        print_json(figures)
        return
    print(f"{_summary(trajectory)}; {figures['observations']} observations of {min(figures['elements'])} to "
          f"{max(figures['elements'])} elements, {figures['refused_actions']} actions could not be carried out, "
          f"{1000 * figures['seconds_an_action']:.0f} ms an action; {out}")  # fmt: skip


@gauntlet_app.command()
def audit(
    types: Annotated[
        str | None, typer.Option("--types", metavar="A,B", help="Only these types of puzzle.", show_default="all")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many runs through all types.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first seed.")] = 1,
    difficulty: Annotated[
        int | None, typer.Option("--difficulty", min=1, max=3, show_default="another for each type and seed")
    ] = None,
    skin: Annotated[str | None, typer.Option("--skin", show_default="another for each type and seed")] = None,
    attacks: Annotated[
        str | None,
        typer.Option(
            "--attacks", metavar="A,B", help="Only these families of attacks, or single ones.", show_default="all"
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Types at the same time.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Try to get codes without solving: scripts in a real browser, and clients beside it. Exit code 1 on a leak."""
    from dpo_driver.envs.gauntlet.audit.play import audit as carry_out
    from dpo_driver.envs.gauntlet.audit.report import lines

    def named(text: str | None) -> tuple[str, ...]:
        return tuple(part.strip() for part in (text or "").split(",") if part.strip())

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    result = asyncio.run(
        carry_out(named(types), range(seed, seed + seeds), difficulty=difficulty, skin=skin, attacks=named(attacks),
                  jobs=jobs, say=say)
    )  # fmt: skip
    if as_json:
        print_json(result)
    else:
        print("\n".join(lines(result)))
    if result["leaks"] or result["failed"]:
        raise typer.Exit(1)


def _solved(trajectory: Trajectory) -> int:
    return sum(1 for step in trajectory.steps if (step.reward or 0.0) > 0)


def _summary(trajectory: Trajectory) -> str:
    if trajectory.failure is not None:
        return f"ended without a score: {trajectory.failure}"
    return f"{len(trajectory.steps)} actions, {_solved(trajectory)} steps solved ({trajectory.stop_reason.value})"


def _task(name: str, seed: int, base_url: str | None) -> Task:
    from dpo_driver.core import plugins

    made: Task = plugins.load("make_task", _source(base_url))(name, seed)
    return made


def _source(base_url: str | None) -> str:
    return f"gauntlet:{base_url}" if base_url else "gauntlet"


class Snapshots:
    """An environment that writes down what it shows: ``007.json`` and ``007.jpg`` for what followed the 7th action.

    Args:
        inner: what is really acted in.
        folder: made if need be; None keeps the observations in ``seen`` only.
    """

    def __init__(self, inner: Environment, folder: Path | None) -> None:
        self._inner, self._folder = inner, folder
        self.seen: list[Observation] = []

    async def reset(self, task: Task) -> Observation:
        self.seen = []
        return await self._kept(await self._inner.reset(task))

    async def step(self, action: Action) -> Outcome:
        outcome = await self._inner.step(action)
        await self._kept(outcome.observation)
        return outcome

    async def screenshot(self) -> bytes:
        return await self._inner.screenshot()

    async def close(self) -> None:
        await self._inner.close()

    async def _kept(self, observation: Observation) -> Observation:
        if self._folder is not None:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
            stem = self._folder / f"{len(self.seen):03d}"
            await asyncio.to_thread(stem.with_suffix(".json").write_text, observation.model_dump_json(indent=1))
            await asyncio.to_thread(stem.with_suffix(".jpg").write_bytes, await self._inner.screenshot())
        self.seen.append(observation)
        return observation


async def _walk(
    task: Task, base_url: str | None, folder: Path | None, *, interactive: bool
) -> tuple[Trajectory, list[Observation]]:
    from dpo_driver.agents.random import RandomAgent
    from dpo_driver.core import plugins
    from dpo_driver.rollout.episode import run_episode

    agent: Agent = _person() if interactive else RandomAgent(profile="chat")
    async with plugins.load("environments", _source(base_url))() as make:
        try:
            one = Snapshots(await make(), folder)
        except RolloutFailure as failure:
            raise DriverError(f"the site could not be opened: {failure}", where=base_url) from failure
        try:
            trajectory = await run_episode(one, agent, task, deadline_s=DAY_S if interactive else WALK_S)
        finally:
            await one.close()
    return trajectory, one.seen


def _person() -> Agent:
    from dpo_driver.agents.human import HumanAgent, TypedLines

    def ask(prompt: str) -> None:
        print(prompt, end="", flush=True)

    async def read(prompt: str) -> str | None:
        line = await lines.read(prompt)
        if line is not None and not sys.stdin.isatty():
            show(line)  # a terminal has shown it already
        return line

    show: Callable[[str], None] = print
    lines = TypedLines(0, ask)
    return HumanAgent(read, show, "chat")
