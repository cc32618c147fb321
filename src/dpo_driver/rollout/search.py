"""Search over real page states: which decisions of a policy lead on, found by UCB1 with branches by replay.

An iteration plays one line from a task's start to the end of the episode: decisions that are known to lead to a page of
the tree (rollout/search_line.py checks every page on the way), one that was not tried there, then the policy's own. The
line's value goes to all its decisions (rollout/search_tree.py). Each line is an ordinary trajectory. Many tasks are
searched at once, each on an environment of its own. Called by the flywheel and benchmarks. Knows environments by a
factory and agents by their protocol; must not import either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from dpo_driver.core.errors import DriverError, RolloutFailure
from dpo_driver.core.protocols import Agent, Environment
from dpo_driver.core.records import Observation, Task, Trajectory
from dpo_driver.rollout.episode import run_episode
from dpo_driver.rollout.pool import (
    CLOSE_DEADLINE_S,
    HOPELESS_AFTER,
    MAX_ATTEMPTS,
    OPEN_DEADLINE_S,
    EnvironmentFactory,
    EnvironmentSource,
)
from dpo_driver.rollout.search_account import LineValue, Searched, SearchSettings, Solution, outcome_of
from dpo_driver.rollout.search_line import Branch, Known, Line, SeenBefore
from dpo_driver.rollout.search_tree import Node, Tree, blended

Critic = Callable[[Observation, Task], float | None]
MAX_DRAWS = 8  # how often a page is asked for candidates, while everything found so far was tried
CANDIDATES_FROM = 10_000  # candidates sample apart from lines, which are numbered from 0


OnLine = Callable[[Trajectory, Searched], None]
Earlier = Callable[[Task], tuple[Searched, Sequence[Trajectory]] | None]


async def search(
    tasks: Sequence[Task],
    agent: Agent,
    *,
    environments: EnvironmentFactory,
    stage: str,
    on_line: OnLine,
    settings: SearchSettings | None = None,
    critic: Critic | None = None,
    solutions: Mapping[str, Solution] | None = None,
    earlier: Earlier | None = None,
    workers: int = 4,
    deadline_s: float = 300.0,
) -> list[Searched]:
    """Search several tasks at once; the accounts come in the order of the tasks.

    Args:
        agent: gives candidates and plays lines to their end. It sees another ``task.params["sibling"]`` each time, so
            that it samples apart; what it writes is kept, with tokens and log-probs.
        environments: gives a fresh environment; called once per worker and once more after each failure.
        stage: trajectory ids are ``"{stage}/{task.id}/{line}"``.
        on_line: called in the event loop as soon as a line has been played, with the search's account as it is then.
            Whoever stores both can go on from them.
        critic: how good a page looks, from 0 to 1, or None where it cannot say; :class:`SeenBefore` when not given.
        solutions: by task id; such a task's first line replays it.
        earlier: a task's account and the trajectories of its lines, if it was begun before.
        workers: searches at once.
        deadline_s: of a line.

    Raises:
        DriverError: nothing works: 12 lines in a row failed. Also whatever an environment or the agent raises.
        asyncio.CancelledError: after closing all environments; lines that were played have been handed over.
    """
    found: dict[str, Searched] = {}
    waiting = deque(tasks)
    shared = _Shared(agent, settings or SearchSettings(), stage, on_line, critic, solutions or {}, deadline_s)

    async def work() -> None:
        seat = _Seat(environments)
        try:
            while waiting:
                task = waiting.popleft()
                found[task.id] = await _Search(task, shared, seat, earlier(task) if earlier else None).run()
        finally:
            await seat.leave()

    members = [asyncio.create_task(work(), name=f"search-{i}") for i in range(max(1, min(workers, len(tasks))))]
    try:
        await asyncio.gather(*members)
    finally:
        for member in members:
            member.cancel()
        await asyncio.gather(*members, return_exceptions=True)
    return [found[task.id] for task in tasks]


def search_sync(tasks: Sequence[Task], agent: Agent, *, environments: EnvironmentSource, **how: Any) -> list[Searched]:
    """:func:`search` with an event loop of its own. ``environments`` opens what environments need and gives the
    factory. Ctrl-C cancels cleanly and raises KeyboardInterrupt."""

    async def whole() -> list[Searched]:
        async with environments() as factory:
            return await search(tasks, agent, environments=factory, **how)

    return asyncio.run(whole())


class _Seat:
    """A worker's environment: opened when it is needed, given up when something has failed in it."""

    def __init__(self, factory: EnvironmentFactory) -> None:
        self._factory = factory
        self._environment: Environment | None = None

    async def take(self) -> Environment:
        """RolloutFailure or TimeoutError if none opens."""
        if self._environment is None:
            self._environment = await asyncio.wait_for(self._factory(), OPEN_DEADLINE_S)
        return self._environment

    async def leave(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            with suppress(RolloutFailure, TimeoutError):
                await asyncio.wait_for(environment.close(), CLOSE_DEADLINE_S)


@dataclass
class _Shared:
    """What the searches of one call have in common. They run in one event loop."""

    agent: Agent
    settings: SearchSettings
    stage: str
    on_line: OnLine
    critic: Critic | None
    solutions: Mapping[str, Solution]
    deadline_s: float
    failures_in_a_row: int = 0

    def note(self, why: str | None) -> None:
        """Whether the world broke, and how; DriverError when it does nothing else."""
        self.failures_in_a_row = self.failures_in_a_row + 1 if why is not None else 0
        if self.failures_in_a_row >= HOPELESS_AFTER:
            raise DriverError(
                f"{HOPELESS_AFTER} lines in a row failed, each {MAX_ATTEMPTS} times; the last: {why}",
                where=self.stage,
                remedy="run `dpo-driver doctor`; when the cause is mended, the same command goes on where it stopped",
            )


class _Search:
    """One task's search."""

    def __init__(
        self, task: Task, shared: _Shared, seat: _Seat, earlier: tuple[Searched, Sequence[Trajectory]] | None
    ) -> None:
        self._task, self._shared, self._seat = task, shared, seat
        self._tree = Tree(shared.settings.exploration)
        self._seen = SeenBefore()
        self._draws = 0
        self._account = Searched(task.id)
        if earlier is not None:
            self._go_on(*earlier)

    def _go_on(self, account: Searched, trajectories: Sequence[Trajectory]) -> None:
        """The tree as it was: its lines in their order, then what was refused."""
        self._account = account
        by_id = {trajectory.id: trajectory for trajectory in trajectories}
        for line in account.lines:
            steps = by_id[line.trajectory].steps
            self._tree.add(line.trajectory, steps, line.value)
            self._seen.earn(steps)
            self._seen.learn(line.trajectory, steps, line.outcome)
        for decisions in account.refused:
            self._tree.refuse_decisions(decisions)

    async def run(self) -> Searched:
        """Lines until the budget is spent or nothing is left to try."""
        account = self._account
        while account.ended is None:
            account.ended = self._spent()
            if account.ended is None:
                try:
                    line = await self._next()
                except RolloutFailure as failure:  # the policy: it was tried again in there
                    self._shared.note(str(failure))
                    account.ended = "failed"
                else:
                    if line is None:
                        account.ended = "exhausted"
                    else:
                        await self._play(line)
        return account

    def _spent(self) -> str | None:
        account, settings = self._account, self._shared.settings
        if settings.until_solved and account.solved:
            return "solved"
        if account.played >= settings.iterations:
            return "iterations"
        if settings.max_actions is not None and account.actions >= settings.max_actions:
            return "actions"
        if settings.max_seconds is not None and account.seconds >= settings.max_seconds:
            return "seconds"
        return None

    # -- which line ---------------------------------------------------------------------------------------------------

    async def _next(self) -> Line | None:
        """The line to play; None when everything has been tried."""
        if not self._tree.begun:
            solution = self._shared.solutions.get(self._task.id) if not self._account.played else None
            return Known(self._shared.agent, solution) if solution else Branch(self._shared.agent, self._tree.root)
        while True:
            node = self._tree.select()
            if node is None:
                self._draws += 1
                if self._draws >= MAX_DRAWS:
                    return None
                self._tree.reopen()
            elif not node.asked:
                self._account.candidates += self._tree.offer(node, await self._candidates(node))
            else:
                return Branch(self._shared.agent, node.untried()[0])

    async def _candidates(self, node: Node) -> list[Any]:
        """What the policy would do on a page, asked several times. The page is the recorded one: no browser needed."""
        page, history = node.page, node.history
        assert page is not None
        first = CANDIDATES_FROM * (self._draws + 1)
        asked = [
            self._task.model_copy(
                update={"goal": page.goal, "params": {**self._task.params, "sibling": first + number}}
            )
            for number in range(self._shared.settings.candidates)
        ]
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return list(await asyncio.gather(*(self._shared.agent.act(task, page, history) for task in asked)))
            except RolloutFailure:
                if attempt == MAX_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    # -- playing it ---------------------------------------------------------------------------------------------------

    async def _play(self, line: Line) -> None:
        account, number = self._account, self._account.played
        identity = f"{self._shared.stage}/{self._task.id}/{number}"
        account.played += 1
        trajectory: Trajectory | None = None
        why = "no environment opened"
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                environment = await self._seat.take()
            except (RolloutFailure, TimeoutError) as error:
                why = f"no environment: {error or 'it did not open in time'}"
                continue
            play = partial(run_episode, environment, line, self._task, trajectory_id=identity, sibling=number)
            trajectory = await play(attempt=attempt, deadline_s=self._shared.deadline_s)
            self._count(trajectory)
            if trajectory.failure is None:
                break
            why = trajectory.failure
            await self._seat.leave()
            if line.parted is not None:
                break
        if trajectory is None:
            account.failed, account.ended = account.failed + 1, "failed"
            self._shared.note(why)
            return
        self._learn(line, trajectory)
        self._shared.on_line(trajectory, account)
        self._shared.note(trajectory.failure if line.parted is None else None)

    def _count(self, trajectory: Trajectory) -> None:
        """What a line cost, however it ended."""
        account = self._account
        account.actions += sum(step.action is not None for step in trajectory.steps)
        account.seconds += max(0.0, trajectory.seconds - sum(step.timing.policy for step in trajectory.steps))
        if trajectory.success and account.solved_after is None:
            account.solved_after = account.actions

    def _learn(self, line: Line, trajectory: Trajectory) -> None:
        account, steps = self._account, trajectory.steps
        if trajectory.failure is not None:
            account.failed += line.parted is None
            self._give_up(line, len(steps))
            return
        if isinstance(line, Known) and not trajectory.success:
            account.stale += 1
        early = self._ended_early(line, len(steps))
        if early is not None:
            self._refuse(early)
            return
        outcome, new = outcome_of(trajectory), self._tree.first_new(steps)
        self._seen.earn(steps)
        critic = self._judge(trajectory, new)
        value = blended(outcome, critic, self._shared.settings.blend)
        parted = self._tree.add(trajectory.id, steps, value)
        if parted is not None:
            self._refuse(parted)
            return
        self._seen.learn(trajectory.id, steps, outcome)
        account.lines.append(LineValue(trajectory.id, value, outcome, critic, new))

    def _judge(self, trajectory: Trajectory, new: int) -> float | None:
        """The critic's view of the page after the new decision. Where the episode was over then, nothing is left to
        guess."""
        if new + 1 >= len(trajectory.steps):
            return None
        critic = self._shared.critic or self._seen
        return critic(trajectory.steps[new + 1].observation, trajectory.task)

    def _ended_early(self, line: Line, steps: int) -> Node | None:
        """The node at which an episode was over although the tree has it go on there."""
        if isinstance(line, Branch) and steps < len(line.nodes) - 1:
            return line.nodes[steps]
        return None

    def _give_up(self, line: Line, steps: int) -> None:
        """What becomes of a line that failed after so many steps: a branch that leads elsewhere is refused, and so is a
        known decision that breaks the world each time; what breaks later on is played otherwise the next time. Without
        a start there is no search."""
        account = self._account
        if isinstance(line, Known):
            account.stale += line.parted is not None
        elif isinstance(line, Branch):
            at = line.parted if line.parted is not None else steps + 1
            if at < len(line.nodes):
                self._refuse(line.nodes[at])
        if not self._tree.begun and account.failed >= MAX_ATTEMPTS:
            account.ended = "failed"

    def _refuse(self, node: Node) -> None:
        """Take out a branch, with all lines through it: no two pages are ever taken for one."""
        account = self._account
        if node.parent is None:
            account.ended = "start_differs"
            return
        if not node.refused:
            account.refused.append(node.decisions)
        gone = set(self._tree.refuse(node))
        self._seen.forget(gone)
        account.lines = [line for line in account.lines if line.trajectory not in gone]
        account.forgotten += len(gone)
