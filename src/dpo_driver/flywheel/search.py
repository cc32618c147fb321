"""Search: what the current model does not find by itself, found by UCB1 over real pages. Called by the command line.

Lines are stored as trajectories of ``search/N`` the moment they end, and with each the account of its search as a fact;
so an interrupted search goes on where it stopped, and pairing needs nothing else. Solutions are kept in a file of the
run, JSON lines; a task that is in it is replayed first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_driver.agents.random import RandomAgent
from dpo_driver.core import plugins, redact
from dpo_driver.core.errors import ConfigError, UnknownNameError
from dpo_driver.core.protocols import Agent
from dpo_driver.core.records import Sampling, Task, Trajectory
from dpo_driver.core.schema import SearchConfig
from dpo_driver.core.stats import rate
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.collect import make_tasks, model_agent, next_round, oracle, parent_of_round
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.shares import one_thread
from dpo_driver.preferences.jsonl import Row, RowError, read_jsonl, write_jsonl
from dpo_driver.preferences.search import SearchedLines
from dpo_driver.rollout.search import search_sync
from dpo_driver.rollout.search_account import Searched, SearchSettings, Solution

if TYPE_CHECKING:
    from dpo_driver.rollout.search import Critic

SOLUTIONS = "solutions.jsonl"  # in the run directory
_SCRIPTS = ("random", "oracle")


class Solutions:
    """The solutions of a run: one a line, the shortest known for each task. The file is whole or absent.

    Raises:
        DataError: the file is there and broken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.by_task = {each.task: each for each in _read(path)} if path.is_file() else {}

    def add(self, solutions: Iterable[Solution]) -> int:
        """Keep what is new or shorter than what is there; returns how many were."""
        better = [new for new in solutions if self._is_better(new)]
        if better:
            self.by_task |= {new.task: new for new in better}
            write_jsonl(self._path, [asdict(self.by_task[task]) for task in sorted(self.by_task)])
        return len(better)

    def _is_better(self, new: Solution) -> bool:
        known = self.by_task.get(new.task)
        return known is None or len(new.actions) < len(known.actions)


def _read(path: Path) -> list[Solution]:
    def parse(row: Row) -> Solution:
        try:
            lists = {key: tuple(map(str, row[key])) for key in ("actions", "thoughts", "states")}
            solution = Solution(**{**row, **lists})
        except (KeyError, TypeError) as error:
            raise RowError(f"no solution: {error}") from None
        if len({len(solution.actions), len(solution.thoughts), len(solution.states)}) > 1:
            raise RowError("actions, thoughts and states differ in number")
        return solution

    return read_jsonl(path, parse)


def search(
    ctx: RunContext, round: int | None = None, *, solutions: Path | None = None, critic: Critic | None = None
) -> dict[str, Any]:
    """Search start states of the round's training seeds with the model that acts in it.

    Args:
        solutions: a file of another run; what it knows of these tasks is replayed first.
        critic: see :func:`dpo_driver.rollout.search.search`.

    Raises:
        ConfigError: the block of training seeds is too small, or the agent cannot be had.
        DataError: a file of solutions is broken.
    """
    number = next_round(ctx, "search", round)
    known = Solutions(ctx.run_dir / SOLUTIONS)
    if solutions is not None:
        known.add(_read(solutions))

    def work() -> dict[str, Any]:
        tasks = _tasks(ctx, number)
        accounts = _searched(ctx, f"search/{number}", tasks, _agent(ctx, number), known, critic)
        return _facts(accounts, tasks)

    return ctx.stage(f"search/{number}", f"round {number}: search", work)


def searched_lines(ctx: RunContext, number: int) -> tuple[list[Trajectory], SearchedLines]:
    """All that a round's search played, and what its lines were worth: what pairing reads."""
    stage = f"search/{number}"
    trajectories = ctx.store.trajectories(stage)
    accounts = [ctx.store.get_fact(account_key(stage, task)) for task in {one.task.id for one in trajectories}]
    known = [account for account in accounts if account is not None]
    return trajectories, SearchedLines.of(trajectories, known, ctx.config.search.min_margin)


def account_key(stage: str, task_id: str) -> str:
    """The fact that holds the account of a task's search."""
    return f"{stage}/account/{task_id}"


def settings_of(config: SearchConfig) -> SearchSettings:
    """A configuration's section as the search takes it."""
    return SearchSettings(
        iterations=config.iterations,
        candidates=config.candidates,
        exploration=config.exploration,
        blend=config.blend,
        max_actions=config.max_actions,
        max_seconds=config.max_seconds,
    )


def _tasks(ctx: RunContext, number: int) -> list[Task]:
    each, (first, last) = ctx.config.search.per_task, ctx.config.seeds.train
    if number * each > last - first + 1:
        raise ConfigError(f"round {number} of {each} start states a family is beyond seeds.train",
                          where=f"seeds.train [{first}, {last}]", remedy="lower search.per_task")  # fmt: skip
    return make_tasks(ctx, "train", dict.fromkeys(ctx.config.env.tasks, each), (number - 1) * each)


def _agent(ctx: RunContext, number: int) -> Agent:
    """Who proposes and plays on. All write in the prompts of the run's model, so that it can learn from what they do.

    Raises:
        UnknownNameError: ``search.agent`` names neither a script nor a provider.
        DriverError: the model, or its key, is missing.
    """
    settings = ctx.config.search
    profile, seed = ctx.config.model.prompt_profile, ctx.config.project.seed
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=settings.max_new_tokens,
                        seed=seed)  # fmt: skip
    if settings.agent == "policy":
        return model_agent(ctx, parent_of_round(ctx, number), sampling)
    if settings.agent == "random":
        return RandomAgent(seed, profile)
    if settings.agent == "oracle":
        return oracle(ctx)
    from dpo_driver.agents.llm import PolicyAgent
    from dpo_driver.policies.endpoint import EndpointPolicy
    from dpo_driver.policies.providers import PROVIDERS, provider

    name, _, model = settings.agent.partition(":")
    if name not in PROVIDERS:
        raise UnknownNameError("agent", settings.agent, ["policy", *_SCRIPTS, *PROVIDERS], where="search.agent")
    policy = EndpointPolicy(provider(name, model or None), concurrency=ctx.config.env.workers)
    return PolicyAgent(policy, profile, sampling, name=policy.version)


def _searched(
    ctx: RunContext, stage: str, tasks: list[Task], agent: Agent, known: Solutions, critic: Critic | None
) -> list[Searched]:
    """Search what is not done yet, storing every line as it ends."""
    store, env, settings = ctx.store, ctx.config.env, settings_of(ctx.config.search)
    lines = _Lines(store, stage, known)
    with ctx.bar(f"search with {ctx.config.search.agent}", len(tasks) * settings.iterations) as advance, one_thread():

        def on_line(trajectory: Trajectory, account: Searched) -> None:
            lines.add(trajectory, account)
            advance(lines.played, f"{lines.solved} of {len(tasks)} solved")

        return search_sync(
            tasks,
            agent,
            environments=plugins.load("environments", env.source if env.rollouts is None else env.rollouts),
            stage=stage,
            settings=settings,
            on_line=on_line,
            critic=critic,
            solutions=known.by_task,
            earlier=lines.earlier,
            workers=env.workers,
        )


class _Lines:
    """The lines of a stage in the store."""

    def __init__(self, store: RunStore, stage: str, known: Solutions) -> None:
        self._store, self._stage, self._known = store, stage, known
        self._accounts: dict[str, Searched] = {}

    @property
    def played(self) -> int:
        return sum(account.played for account in self._accounts.values())

    @property
    def solved(self) -> int:
        return sum(account.solved for account in self._accounts.values())

    def add(self, trajectory: Trajectory, account: Searched) -> None:
        """The trajectory first: an account never speaks of a line that is not there."""
        self._accounts[account.task] = account
        self._store.add_trajectory(self._stage, trajectory)
        self._store.set_fact(account_key(self._stage, account.task), account.as_json())
        if trajectory.success:
            self._known.add([Solution.of(redact.redacted(trajectory))])

    def earlier(self, task: Task) -> tuple[Searched, list[Trajectory]] | None:
        """What was played of a task before the run was stopped."""
        written = self._store.get_fact(account_key(self._stage, task.id))
        if written is None:
            return None
        account = self._accounts[task.id] = Searched.from_json(written)
        return account, [self._store.trajectory(line.trajectory) for line in account.lines]


def _facts(accounts: list[Searched], tasks: list[Task]) -> dict[str, Any]:
    """What a round's search came to; start states whose search failed have no outcome."""
    without = {"failed", "start_differs"}
    names = {task.id: task.name for task in tasks}
    outcomes = {account.task: None if account.ended in without else account.solved for account in accounts}
    found = rate(outcomes.values())
    families = {
        name: rate(won for task, won in outcomes.items() if names[task] == name).model_dump(mode="json")
        for name in sorted(set(names.values()))
    }
    lines, refused = sum(each.played for each in accounts), sum(len(each.refused) for each in accounts)
    return {
        "summary": f"{found.success or 0:.0%} of {found.n} start states solved by {lines} lines; {refused} branches "
        f"refused, {found.excluded} start states excluded",
        "solved": found.model_dump(mode="json"),
        "families": families,
        "lines": lines,
        "actions": sum(each.actions for each in accounts),
        "browser_seconds": round(sum(each.seconds for each in accounts), 1),
        "refused": refused,
        "forgotten": sum(each.forgotten for each in accounts),
        "failed": sum(each.failed for each in accounts),
        "stale": sum(each.stale for each in accounts),
        "ended": {why: sum(each.ended == why for each in accounts) for why in sorted({str(e.ended) for e in accounts})},
    }
