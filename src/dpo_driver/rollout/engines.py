"""What `dpo-driver bench env` can measure: a table of engines, ours and the peers', all playing real episodes.

An engine plays seeded episodes of a task with the oracle and says how many were right. A new one is a function here or
elsewhere and one line in ``ENGINES``. The peers run in processes of their own (envs/browsergym.py), see the page
through their own observations and act through their own actions; only the time inside their own reset and step counts.
Called by rollout/bench.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dpo_driver.core.actions import Action
from dpo_driver.core.plugins import load
from dpo_driver.core.protocols import Agent, Environment, Move
from dpo_driver.core.records import Observation, Step, StopReason, Task, Trajectory
from dpo_driver.envs.browsergym import PeersMissingError, peers_folder
from dpo_driver.rollout.episode import run_episode

SELENIUM_SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "peers" / "selenium_worker.py"
FAST_BROWSERGYM = {"slow_mo": 0, "pre_observation_delay": 0.0}
PAGE_SEEDS = 1_000_000  # BrowserGym draws the page's seed below this
WARM_UP_SEED = 900_000_000
NEVER = float("inf")


@dataclass
class Block:
    """What an engine played in one go. ``busy`` has one (episodes, seconds) for each clock: one for workers that share
    a clock, one for each worker with its own. ``plays`` says how each seed began and what was done: (goal, actions)."""

    episodes: int = 0
    correct: int = 0
    steps: int = 0
    stops: Counter[str] = field(default_factory=Counter)
    busy: list[tuple[int, float]] = field(default_factory=list)
    plays: dict[int, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def episodes_per_second(self) -> float:
        """Episodes a second, summed over clocks."""
        return sum(episodes / seconds for episodes, seconds in self.busy if seconds > 0)

    @property
    def seconds(self) -> float:
        """The longest of the clocks."""
        return max((seconds for _, seconds in self.busy), default=0.0)

    def count(self, seed: int, trajectory: Trajectory) -> None:
        """Add one finished episode. Success is strict."""
        self.episodes += 1
        self.correct += trajectory.stop_reason is StopReason.SUCCESS
        self.steps += len(trajectory.steps)
        self.stops[trajectory.stop_reason.value] += 1
        done = tuple(_deed(step.observation, step.action) for step in trajectory.steps if step.action is not None)
        self.plays[seed] = (" ".join((trajectory.task.goal or "").split()), done)


def _deed(observation: Observation, action: Action) -> str:
    """An action with the element's name instead of its number, which every engine counts differently."""
    ref = getattr(action, "ref", None)
    names = [element.name.strip() for element in observation.elements if element.ref == ref and ref is not None]
    written = getattr(action, "value", None) or getattr(action, "text", None) or getattr(action, "options", None) or ""
    return f"{action.kind} {names[0] if names else ''} {written}".strip()


class Engine(Protocol):
    """Something that plays. Opened for a number of workers, closed by its context."""

    async def warm_up(self, task: str) -> None:
        """Start what has to be started and load the task's page: this is not measured."""
        ...

    async def play(self, task: str, seeds: Sequence[int], seconds: float) -> Block:
        """Play the seeds in order until they are used up, or until ``seconds`` have passed; what has begun is ended."""
        ...


EngineSource = Callable[[int], AbstractAsyncContextManager[Engine]]


class _EnvironmentEngine:
    """An engine of environments: one a worker, all fed from one list of seeds."""

    def __init__(
        self, environments: Sequence[Environment], make_task: Callable[[str, int], Task], agent: Agent, warm_up: int
    ) -> None:
        self._environments, self._make_task, self._agent, self._warm_up = environments, make_task, agent, warm_up
        self._warm: str | None = None

    async def warm_up(self, task: str) -> None:
        if task == self._warm:
            return

        async def one(worker: int) -> None:
            seeds = range(WARM_UP_SEED + worker * self._warm_up, WARM_UP_SEED + (worker + 1) * self._warm_up)
            await self._work(worker, task, iter(seeds), NEVER, Block())

        await asyncio.gather(*(one(worker) for worker in range(len(self._environments))))
        self._warm = task

    async def play(self, task: str, seeds: Sequence[int], seconds: float) -> Block:
        block, left, began = Block(), iter(seeds), time.monotonic()
        workers = range(len(self._environments))
        played = await asyncio.gather(*(self._work(w, task, left, began + seconds, block) for w in workers))
        wall = time.monotonic() - began
        # Environments that keep a clock of their own are asked for it; the others share the wall's.
        own = [(episodes, inside) for episodes, inside in played if inside is not None]
        block.busy = own or [(block.episodes, wall)]
        return block

    async def _work(
        self, worker: int, task: str, seeds: Iterator[int], until: float, block: Block
    ) -> tuple[int, float | None]:
        environment, episodes = self._environments[worker], 0
        before = getattr(environment, "engine_seconds", None)
        while time.monotonic() < until and (seed := next(seeds, None)) is not None:
            trajectory = await run_episode(environment, self._agent, self._make_task(task, seed))
            block.count(seed, trajectory)
            episodes += 1
        return episodes, None if before is None else getattr(environment, "engine_seconds", before) - before


class _UnderOtherNames:
    """The oracle for a peer: it knows a task by its plain name, the peer by its own."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.name, self.policy_version, self.context_policy = agent.name, agent.policy_version, agent.context_policy

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        plain = task.model_copy(update={"name": task.name.removeprefix("miniwob.")})
        return await self._agent.act(plain, observation, history)


def page_seed(seed: int) -> int:
    """The seed that a MiniWoB++ page gets from BrowserGym for a task's seed, so that all can be given the same page."""
    import numpy as np

    return int(np.random.RandomState(seed).randint(0, PAGE_SEEDS))


@asynccontextmanager
async def _ours(workers: int, *, environments_of: str) -> AsyncIterator[Engine]:
    """Environments of ours: the same path that training data takes."""
    make_task = load("make_task", "miniwob")
    async with load("environments", environments_of)() as make, AsyncExitStack() as stack:
        environments = [await make() for _ in range(workers)]
        for environment in environments:
            stack.push_async_callback(environment.close)

        def task(name: str, seed: int) -> Task:
            made: Task = make_task(name, seed, "test").model_copy(update={"seed": page_seed(seed)})
            return made

        yield _EnvironmentEngine(environments, task, load("agent", "oracle")(), warm_up=1)


@asynccontextmanager
async def _peer(workers: int, *, arguments: dict[str, Any], name: str, own_seed: bool) -> AsyncIterator[Engine]:
    """A peer, a process for each worker. ``name`` is how it writes a task; ``own_seed``: it draws the page's seed."""
    make_task, agent = load("make_task", "browsergym"), load("agent", "oracle")()
    limits = load("tasks", "miniwob")
    async with load("environments", "browsergym")(**arguments) as make, AsyncExitStack() as stack:
        environments = [await make() for _ in range(workers)]
        for environment in environments:
            stack.push_async_callback(environment.close)

        def task(family: str, seed: int) -> Task:
            changed = {"seed": seed if own_seed else page_seed(seed), "max_steps": limits[family].max_steps}
            made: Task = make_task(name.format(family), seed, "test").model_copy(update=changed)
            return made

        yield _EnvironmentEngine(environments, task, _UnderOtherNames(agent), warm_up=1)


def _as_json(action: Action, _scale: float) -> str:
    return action.model_dump_json()


def _selenium(**options: Any) -> EngineSource:
    arguments = {"script": SELENIUM_SCRIPT, "write": _as_json, "options": options}
    return partial(_peer, arguments=arguments, name="{}", own_seed=False)


def _browsergym(**options: Any) -> EngineSource:
    return partial(_peer, arguments={"options": options}, name="miniwob.{}", own_seed=True)


ENGINES: dict[str, EngineSource] = {
    "trusted": partial(_ours, environments_of="miniwob"),  # trusted input, one context a worker in one browser
    "batched": partial(_ours, environments_of="miniwob-batched"),  # synthetic events, in certified tasks only
    "selenium": _selenium(),  # MiniWoB++'s own gym as it is
    "selenium-tuned": _selenium(record_screenshots=False),
    "browsergym": _browsergym(),  # as it is: 100 ms before each input, 0.5 s before each observation
    "browsergym-tuned": _browsergym(**FAST_BROWSERGYM),
}
PEERS = ("selenium", "selenium-tuned", "browsergym", "browsergym-tuned")
OURS = tuple(name for name in ENGINES if name not in PEERS)


def check_peers() -> None:
    """PeersMissingError unless the peers can be measured."""
    folder = peers_folder()
    if not SELENIUM_SCRIPT.is_file():
        raise PeersMissingError(folder)
