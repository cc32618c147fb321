"""``dpo-driver solve``: play whole runs of the gauntlet and measure them. Called by cli/main.py; calls agents, envs and
rollout. What an agent is made of is decided here and nowhere else (:func:`make_agent`)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dpo_driver.cli.options import AsJson, console, print_json
from dpo_driver.core.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from dpo_driver.core.protocols import Agent
    from dpo_driver.core.records import Task, Trajectory
    from dpo_driver.core.store import RunStore
    from dpo_driver.policies.budget import Budget, BudgetError
    from dpo_driver.rollout.pool import EnvironmentFactory
    from dpo_driver.rollout.solve import Caps, Run, Spent

MODES = ("deterministic", "api", "hybrid", "local")
Mode = Literal["deterministic", "api", "hybrid", "local"]
STEPS = 30  # of a whole run
RESULTS = Path("runs/solve")  # where metrics.json goes without --out
FIRST_SEED = 900_000  # of the block that nothing is trained on (core/schema.py, SeedsConfig.test)
_SIZE = re.compile(r"(\d{3,4})x(\d{3,4})")
MAX_TOKENS = 8192  # of a local model's prompt and answer


@dataclass(frozen=True)
class Game:
    """What is played: settles the tasks, and is compared when results are added to."""

    family: str
    difficulty: int
    skin: str
    order: str
    actions_a_step: int
    actions: int
    base_url: str | None
    viewport: tuple[int, int]
    held_out: bool = False
    headed: bool = False

    def tasks(self, seeds: Sequence[int]) -> list[Task]:
        """One run for each seed."""
        from dpo_driver.core import plugins
        from dpo_driver.envs.gauntlet.tasks import setting_of

        make = plugins.load("make_task", self.source)
        known = plugins.load("tasks", self.source)
        params = {"difficulty": self.difficulty, "skin": self.skin, "order": self.order,
                  "held_out": self.held_out, "actions_a_step": self.actions_a_step}  # fmt: skip
        tasks = [self._task(make(self.family, seed, "test"), params) for seed in seeds]
        setting_of(tasks[0], known)  # what the gauntlet does not have is told before anything starts
        return tasks

    def _task(self, task: Task, params: dict[str, Any]) -> Task:
        name = f"gauntlet.{self.family}-d{self.difficulty}-{self.skin}-{self.order}{'-all' * self.held_out}"
        changed = {"id": f"{name}/{task.seed}", "params": {**task.params, **params}, "max_steps": self.actions}
        return task.model_copy(update=changed)

    @property
    def source(self) -> str:
        return f"gauntlet:{self.base_url}" if self.base_url else "gauntlet"

    def environments(self) -> AbstractAsyncContextManager[EnvironmentFactory]:
        """Opens site and browser, and gives the factory of environments."""
        from dpo_driver.core import plugins

        source: Any = plugins.load("environments", self.source)
        opened: AbstractAsyncContextManager[EnvironmentFactory] = source(headed=self.headed, viewport=self.viewport)
        return opened

    def types(self, task: Task) -> Sequence[str]:
        """The types of a run's steps; none where the site is not ours and nobody says."""
        from dpo_driver.envs.gauntlet.tasks import types_of

        return () if self.base_url else types_of(task)


@dataclass(frozen=True)
class Player:
    """Who plays."""

    mode: Mode
    provider: str | None = None
    model: str | None = None
    adapter: Path | None = None
    profile: str | None = None
    endpoint: str | None = None
    key_env: str | None = None
    price: str | None = None
    jobs: int = 1

    @property
    def remote(self) -> bool:
        """Whether its model is asked over the network."""
        return self.mode == "api" or (self.mode == "hybrid" and self.provider is not None)

    def check(self) -> None:
        """ConfigError for options that do not belong together, before anything starts."""
        if self.mode not in MODES:
            raise UnknownNameError("mode", self.mode, MODES, where="--mode")
        remote: dict[str, Any] = {"--provider": self.provider, "--endpoint": self.endpoint, "--key-env": self.key_env,
                  "--price": self.price}  # fmt: skip
        here: dict[str, Any] = {"--adapter": self.adapter}
        foreign = here if self.remote else remote
        if self.mode == "deterministic":
            foreign = {**remote, **here, "--model": self.model, "--profile": self.profile}
        for option, value in foreign.items():
            if value is not None:
                raise ConfigError(f"{option} says nothing here", where=f"--mode {self.mode}",
                                  remedy="leave it out, or choose another --mode or --provider")  # fmt: skip


def make_agent(player: Player, budget: Budget | None = None) -> Agent:
    """The agent of a mode; what it needs is imported here, when it is asked for.

    Raises:
        DriverError: the model, its key or its folder is missing.
    """
    from dpo_driver.agents.hybrid import HybridAgent
    from dpo_driver.agents.solver.agent import SolverAgent

    if player.mode == "deterministic":
        return SolverAgent("chat")
    model = _remote_agent(player, budget) if player.remote else _local_agent(player)
    return HybridAgent(model) if player.mode == "hybrid" else model


def _remote_agent(player: Player, budget: Budget | None) -> Agent:
    from dpo_driver.agents.llm import PolicyAgent
    from dpo_driver.core.records import Sampling
    from dpo_driver.policies.budget import Price
    from dpo_driver.policies.endpoint import EndpointPolicy
    from dpo_driver.policies.providers import provider

    preset = provider(player.provider or "google", player.model, player.endpoint, key_env=player.key_env)
    price = Price.parse(player.price) if player.price else None
    policy = EndpointPolicy(preset, budget=budget, price=price, concurrency=player.jobs)
    sampling = Sampling(temperature=0.7, max_new_tokens=512, seed=0)
    return PolicyAgent(policy, player.profile or "chat-turns", sampling, name=policy.version)


def _local_agent(player: Player) -> Agent:
    from dpo_driver.agents.hybrid import StepwiseAgent
    from dpo_driver.agents.llm import LOCAL_SAMPLING, PolicyAgent
    from dpo_driver.policies.hf import HFPolicy

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    source = str(player.adapter or player.model or "pocket")
    policy = HFPolicy(source, max_length=MAX_TOKENS)
    profile = player.profile or ("pocket" if _is_pocket(source) else "chat-turns")
    sampling = LOCAL_SAMPLING.model_copy(update={"seed": 0})
    return StepwiseAgent(PolicyAgent(policy, profile, sampling, max_batch=max(player.jobs, 1), name="local"))


def _is_pocket(source: str) -> bool:
    """Whether a model is the pocket model or was trained from it: it then reads the pocket's prompts."""
    from dpo_driver.policies.loading import resolve

    if source == "pocket":
        return True
    shapes = []
    for folder in (resolve("pocket"), source):
        file = Path(folder) / "config.json"
        said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        shapes.append([said.get(key) for key in ("vocab_size", "hidden_size", "num_hidden_layers")])
    return shapes[0] == shapes[1]


@dataclass
class Results:
    """Finished runs: in a run directory, where the same command goes on, or in memory without one."""

    folder: Path | None
    store: RunStore | None = None

    @classmethod
    def open(cls, folder: Path | None, game: Game, player: Player) -> Results:
        """Raises ConfigError when the folder holds runs of another game or player."""
        if folder is None:
            return cls(None)
        from dpo_driver.core.store import RunStore

        store = RunStore(folder)
        said = json.loads(json.dumps({**asdict(game), **asdict(player)}, default=str))
        for key in ("jobs", "headed"):  # how, not what
            said.pop(key)
        before = store.get_fact("solve")
        if before is not None and before != said:
            store.close()
            other = ", ".join(sorted(key for key in said if said[key] != before.get(key)))
            raise ConfigError(f"this folder holds runs with other options ({other})", where=str(folder),
                              remedy="give another --out")  # fmt: skip
        store.set_fact("solve", said)
        return cls(folder, store)

    def kept(self, tasks: Sequence[Task]) -> list[Trajectory]:
        """Runs of these tasks that are done already."""
        from dpo_driver.rollout.solve import STAGE

        if self.store is None:
            return []
        wanted = {f"{STAGE}/{task.id}/0" for task in tasks}
        known = wanted.intersection(f"{STAGE}/{key}" for key in self.store.done_task_keys(STAGE))
        return [self.store.trajectory(identity) for identity in sorted(known)]

    def add(self, run: Trajectory) -> None:
        from dpo_driver.rollout.solve import STAGE

        if self.store is not None:
            self.store.add_trajectory(STAGE, run)

    def write(self, found: dict[str, Any]) -> Path:
        """metrics.json, whole or not at all."""
        folder = self.folder or RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "metrics.json"
        draft = target.with_suffix(".json.part")
        draft.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(target)
        return target

    def close(self) -> None:
        if self.store is not None:
            self.store.close()


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel="The gauntlet")(solve)


def solve(
    mode: Annotated[str, typer.Option("--mode", help="deterministic, api, hybrid or local.")] = "deterministic",
    provider: Annotated[
        str | None,
        typer.Option("--provider", help="google, anthropic, openai, azure or local (a server).", show_default="google"),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Its name, or a local model's.", show_default="the provider's, pocket")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option("--adapter", metavar="DIR", help="A trained model or adapter, played here.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Prompt profile of the model.", show_default="the model's")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="Of the model.", show_default="the provider's")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option("--key-env", help="Variable that holds the key.", show_default="the provider's")
    ] = None,
    price: Annotated[
        str | None, typer.Option("--price", metavar="IN,OUT", help="Dollars a million tokens.", show_default="known")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first seed.")] = FIRST_SEED,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100_000, help="So many, from there on.")] = 1,
    steps: Annotated[int, typer.Option("--steps", min=1, max=STEPS, help="The first so many steps of a run.")] = STEPS,
    difficulty: Annotated[int, typer.Option("--difficulty", min=1, max=3)] = 1,
    skin: Annotated[str, typer.Option("--skin", help="a, or the held-out b.")] = "a",
    order: Annotated[str, typer.Option("--order", help="mixed or band.")] = "mixed",
    held_out: Annotated[
        bool, typer.Option("--held-out", help="With the types that are kept for evaluation.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=64, help="Runs at once.")] = 1,
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="A site of this kind.", show_default="our own")
    ] = None,
    headed: Annotated[bool, typer.Option("--headed", help="Show the browser.")] = False,
    viewport: Annotated[str, typer.Option("--viewport", metavar="WxH", help="CSS pixels.")] = "1280x720",
    actions_a_step: Annotated[int, typer.Option("--max-actions-per-step", min=1, help="Then a run ends.")] = 30,
    actions: Annotated[int, typer.Option("--max-actions", min=1, help="Of a whole run.")] = 500,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds of a whole run.")] = 300.0,
    budget_tokens: Annotated[int | None, typer.Option("--budget-tokens", min=1, help="Of all runs together.")] = None,
    budget_usd: Annotated[float | None, typer.Option("--budget-usd", min=0, help="Of all runs together.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Keep every run there; the same command goes on.",
                     show_default=f"{RESULTS}, figures only"),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Solve the gauntlet: by script, by a model, or by both. Writes metrics.json."""
    from dpo_driver.cli.solve_view import show
    from dpo_driver.rollout.solve import Caps

    family = "run" if steps == STEPS else f"run-{steps}"
    size = size_of(viewport)
    game = Game(family, difficulty, skin, order, actions_a_step, actions, base_url, size, held_out, headed)
    player = Player(mode, provider, model, adapter, profile, endpoint, key_env, price, jobs)  # type: ignore[arg-type]
    player.check()
    tasks = game.tasks(range(seed, seed + seeds))
    results = Results.open(out, game, player)
    try:
        found, problem = play(game, player, tasks, Caps(timeout, budget_tokens, budget_usd), results, steps)
    finally:
        results.close()
    if as_json:
        print_json(found)
    else:
        show(found)
    if problem is not None:
        raise problem


def size_of(written: str) -> tuple[int, int]:
    """``1280x720`` as numbers; ConfigError otherwise."""
    match = _SIZE.fullmatch(written)
    if match is None:
        raise ConfigError(f"{written!r} is no size", where="--viewport", remedy="write WIDTHxHEIGHT, such as 1280x720")
    return int(match[1]), int(match[2])


def play(
    game: Game, player: Player, tasks: Sequence[Task], caps: Caps, results: Results, steps: int
) -> tuple[dict[str, Any], BudgetError | None]:
    """Play what is not done yet and write metrics.json, also when it is stopped: the figures of all runs so far, and
    the budget that ended it, if one did."""
    from dpo_driver.cli.solve_view import Progress
    from dpo_driver.policies.budget import BudgetError
    from dpo_driver.rollout.solve import BoundedAgent, Spent, metrics, solve_runs

    kept = results.kept(tasks)
    runs = {run.seed: run for run in (_run_of(trajectory, game, steps) for trajectory in kept)}
    left = [task for task in tasks if task.seed not in runs]
    spent = Spent.by(step for trajectory in kept for step in trajectory.steps)
    problem: BudgetError | None = None
    began = time.monotonic()
    try:
        if left:
            with Progress(len(tasks), steps, before=len(runs)) as progress:

                def done(trajectory: Trajectory) -> None:
                    results.add(trajectory)
                    run = runs[trajectory.task.seed] = _run_of(trajectory, game, steps)
                    progress.done(run)

                agent = BoundedAgent(make_agent(player, _left_of(caps, spent)), caps, progress.see, spent)

                async def whole() -> None:
                    async with game.environments() as make:
                        await solve_runs(left, agent, environments=make, on_run=done, jobs=player.jobs)

                asyncio.run(whole())
    except BudgetError as error:
        problem = error
    finally:
        found = metrics(list(runs.values()), time.monotonic() - began)
        if runs:
            console.print(f"written: {results.write(found)}", highlight=False, soft_wrap=True)
    return found, problem


def _left_of(caps: Caps, spent: Spent) -> Budget | None:
    """What a remote policy may spend: it refuses a call that could go beyond."""
    from dpo_driver.policies.budget import Budget

    if caps.tokens is None and caps.usd is None:
        return None
    tokens = None if caps.tokens is None else max(1, caps.tokens - spent.input - spent.output)
    usd = None if caps.usd is None else max(1e-9, caps.usd - (spent.cost or 0.0))
    return Budget(tokens, usd)


def _run_of(trajectory: Trajectory, game: Game, steps: int) -> Run:
    from dpo_driver.rollout.solve import Run

    return Run.of(trajectory, game.types(trajectory.task), steps)
