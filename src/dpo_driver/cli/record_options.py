"""What ``dpo-driver collect --agent`` and ``--import`` are asked for: their options, and the tasks that these mean.
Used by cli/loop.py and cli/record.py.

Of the gauntlet, ``--steps 1-30`` of a run become one trajectory each, played in the step's own family: a prompt's
history begins anew at each step anyway, every step is reached directly by its signed start, and a slip on step 20
spoils no other. A whole run is one trajectory of the family ``run``: ``--task run``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_driver.core.errors import ConfigError, DriverError, UnknownNameError

if TYPE_CHECKING:
    from dpo_driver.browser.observe import Limits
    from dpo_driver.core.records import Task

OUT = Path("runs/expert")
AGENTS = ("solver", "oracle", "human")
FORMS = ("browser-use", "playwright-codegen")
FIRST_SEED = 1  # of the block that demonstrations come from
PROFILE = "pocket"  # how decisions are written down; training writes them again for its own model
_STEPS = re.compile(r"(\d+)(?:-(\d+))?")
_WITH_SEED = re.compile(r"(?P<name>.+)/(?P<seed>\d+)")

AgentName = Annotated[
    str | None, typer.Option("--agent", help="Record expert play instead: solver, oracle or human. Takes no CONFIG.")
]
Steps = Annotated[str | None, typer.Option("--steps", metavar="A-B", help="Which steps of the gauntlet's runs.")]
Runs = Annotated[int, typer.Option("--runs", min=1, max=100_000, help="How many seeds.")]
FirstSeed = Annotated[int, typer.Option("--seed", min=0, help="The first of them.")]
Families = Annotated[
    list[str] | None, typer.Option("--task", metavar="FAMILY", help="Task family, or one task: NAME/SEED. Repeatable.")
]
Difficulty = Annotated[int, typer.Option("--difficulty", min=1, max=3, help="Of the gauntlet's steps.")]
Skin = Annotated[str, typer.Option("--skin", help="Of the gauntlet: a, or b, which is never trained on.")]
Source = Annotated[
    str | None,
    typer.Option("--env", metavar="NAME", help="miniwob, gauntlet, website:FOLDER, ...",
                 show_default="gauntlet for the solver and --steps, else miniwob"),
]  # fmt: skip
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The run directory that it is merged into.")]
Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="Pages at once.")]
Again = Annotated[bool, typer.Option("--again", help="Also play what this agent has played before.")]
Import = Annotated[
    Path | None, typer.Option("--import", metavar="FILE", help="Act out what another recorder wrote down.")
]
Form = Annotated[str, typer.Option("--format", help="Of that file: browser-use or playwright-codegen.")]


@dataclass(frozen=True)
class Request:
    """What is asked for on the command line."""

    agent: str | None
    steps: str | None = None
    runs: int = 1
    seed: int = FIRST_SEED
    tasks: Sequence[str] = ()
    difficulty: int = 1
    skin: str = "a"
    source: str | None = None
    out: Path = OUT
    workers: int = 1
    again: bool = False
    file: Path | None = None
    form: str = FORMS[1]
    as_json: bool = False

    @property
    def environment(self) -> str:
        """The environment as the tables know it."""
        if self.source is not None:
            return self.source
        return "gauntlet" if self.agent == "solver" or self.steps else "miniwob"


def check(asked: Request) -> None:
    """Raises DriverError for options that do not go together, or that nothing here can do."""
    if asked.agent is None and asked.file is None:
        raise ConfigError("nothing says who plays", remedy=f"give --agent {', '.join(AGENTS)}, or --import FILE")
    if asked.agent is not None and asked.file is not None:
        raise ConfigError("--agent and --import exclude each other", remedy="leave one of them out")
    if asked.agent is not None and asked.agent not in AGENTS:
        raise UnknownNameError("recorded agent", asked.agent, AGENTS)
    if asked.steps and asked.tasks:
        raise ConfigError("--steps and --task exclude each other", remedy="leave one of them out")
    if asked.steps and asked.environment.partition(":")[0] != "gauntlet":
        raise ConfigError(f"{asked.environment} has no steps", where="--steps", remedy="give --task FAMILY")
    if asked.agent == "human" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DriverError("there is no display for a window", remedy="start it on a desktop, or play in the terminal: "
                          "dpo-driver play TASK --save RUN")  # fmt: skip


# -- tasks -------------------------------------------------------------------------------------------------------------


def tasks_of(asked: Request) -> list[Task]:
    """What is to be played, seed by seed. What lies in the blocks to choose by or to test on, and what is held out,
    gets a split that is never trained on, whoever did it."""
    seeds = range(asked.seed, asked.seed + asked.runs)
    if asked.file is not None:
        if len(asked.tasks) != 1:
            raise ConfigError("a file is acted out on one task", where="--import", remedy="give --task NAME/SEED")
        seeds = range(asked.seed, asked.seed + 1)
    if asked.tasks:
        named = [_named(name, seeds) for name in asked.tasks]
    elif asked.agent in ("solver", "human") and asked.environment.partition(":")[0] == "gauntlet":
        named = [_steps_of_runs(asked, seeds)]
    else:
        raise ConfigError("nothing says what is played", remedy="give --task FAMILY, or --steps A-B of the gauntlet")
    found = {task.id: task for pairs in named for task in (_task(asked, name, seed) for name, seed in pairs)}
    return list(found.values())


def _named(name: str, seeds: Sequence[int]) -> list[tuple[str, int]]:
    one = _WITH_SEED.fullmatch(name)
    return [(one["name"], int(one["seed"]))] if one else [(name, seed) for seed in seeds]


def _steps_of_runs(asked: Request, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """(family, seed) of each step asked for, run by run."""
    from dpo_driver.envs.gauntlet.plan import STEPS, Plan

    written = asked.steps or f"1-{STEPS}"
    match = _STEPS.fullmatch(written.strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= STEPS:
        raise ConfigError(f"{written!r} are no steps of a run", where="--steps", remedy=f"write 1-{STEPS}, or 7")
    how = ("" if asked.difficulty == 1 else f"-d{asked.difficulty}") + ("" if asked.skin == "a" else f"-{asked.skin}")
    found = []
    for seed in seeds:
        plan = Plan.of(seed, difficulty=asked.difficulty, skin=asked.skin)
        found += [(f"step-{plan.step(number).type}{how}", seed) for number in range(first, last + 1)]
    return found


def _task(asked: Request, name: str, seed: int) -> Task:
    from dpo_driver.core import plugins
    from dpo_driver.core.schema import SeedsConfig

    blocks = dict(SeedsConfig())
    split = next((split for split, (first, last) in blocks.items() if first <= seed <= last), "demo")
    made: Task = plugins.load("make_task", asked.environment, where="--env")(name, seed, split)
    family = plugins.load("tasks", asked.environment).get(made.name)
    if getattr(family, "held_out", False):
        return made.model_copy(update={"split": "test"})
    return made


def kind_of(task: Task) -> str:
    """What a task counts as: its type of puzzle, or its family."""
    if task.env == "gauntlet":
        from dpo_driver.envs.gauntlet.tasks import setting_of

        family = setting_of(task).family
        return family.type or family.name
    return task.name


def keeps_time(task: Task) -> bool:
    """Whether the task's page changes by its own clock, so that two equal plays may see other states."""
    if task.env != "gauntlet":
        return False  # MiniWoB++'s clock goes on by actions only; a site that is to be learned from should do the same
    from dpo_driver.envs.gauntlet.puzzles import load_puzzle
    from dpo_driver.envs.gauntlet.puzzles.base import Puzzle
    from dpo_driver.envs.gauntlet.tasks import types_of

    puzzles = [load_puzzle(name) for name in types_of(task)]
    return any(puzzle.wakes is not Puzzle.wakes or puzzle.feed is not Puzzle.feed for puzzle in puzzles)


def limits_of(environment: str) -> Limits:
    """What an environment's observations leave out."""
    if environment.startswith("miniwob"):
        from dpo_driver.envs.miniwob.environment import LIMITS

        return LIMITS
    from dpo_driver.browser.observe import Limits

    return Limits()
