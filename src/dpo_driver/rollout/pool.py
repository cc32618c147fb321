"""Many rollouts at once: a queue of tasks, a few workers, one environment each. Called by the flywheel and benchmarks.

A worker keeps to one task family as long as it has work, because changing the family costs a page load. A failure of
the world is tried again on a fresh environment; what still fails is handed over as a failure and counted, never scored.
Knows environments by a factory and agents by their protocol; must not import either.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial

from dpo_driver.core.errors import DriverError, RolloutFailure
from dpo_driver.core.protocols import Agent, Environment, InStep
from dpo_driver.core.records import StopReason, Task, Trajectory
from dpo_driver.rollout.episode import PutBlob, Screenshots, run_episode

MAX_ATTEMPTS = 3
OPEN_DEADLINE_S = 60.0
CLOSE_DEADLINE_S = 10.0
HOPELESS_AFTER = 12  # failures in a row, none in between that worked: the set-up is broken, not one page

EnvironmentFactory = Callable[[], Awaitable[Environment]]
EnvironmentSource = Callable[[], AbstractAsyncContextManager[EnvironmentFactory]]


@dataclass
class RolloutProgress:
    """Where a rollout stands. Counts are of trajectories; ``retried`` counts attempts that had to be repeated, and
    ``failures`` all attempts that the world broke, by kind."""

    total: int
    finished: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    skipped: int = 0
    seconds: float = 0.0
    stop_reasons: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        """Trajectories finished a second."""
        return self.finished / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class _Job:
    task: Task
    sibling: int

    @property
    def key(self) -> str:
        return f"{self.task.id}/{self.sibling}"


class _Queue:
    """Jobs by family. A worker stays with its family, then helps where most work is left per worker."""

    def __init__(self, jobs: Sequence[_Job]) -> None:
        self._families: dict[tuple[str, str], deque[_Job]] = {}
        for job in jobs:
            self._families.setdefault((job.task.env, job.task.name), deque()).append(job)
        self._workers: Counter[tuple[str, str]] = Counter()

    def take(self, current: tuple[str, str] | None) -> _Job | None:
        """The next job for a worker whose page shows the family ``current``; None when nothing is left."""
        if current is not None and self._families.get(current):
            return self._families[current].popleft()
        if current is not None:
            self._workers[current] -= 1
        left = {family: len(jobs) / (1 + self._workers[family]) for family, jobs in self._families.items() if jobs}
        if not left:
            return None
        family = max(left, key=lambda name: left[name])
        self._workers[family] += 1
        return self._families[family].popleft()


async def rollout(
    tasks: Sequence[Task],
    agent: Agent,
    *,
    environments: EnvironmentFactory,
    stage: str,
    on_trajectory: Callable[[Trajectory], None],
    workers: int = 4,
    group_size: int = 1,
    skip: Collection[str] = (),
    start_hashes: Mapping[str, str] | None = None,
    screenshots: Screenshots = "none",
    put_blob: PutBlob | None = None,
    on_progress: Callable[[RolloutProgress], None] | None = None,
    deadline_s: float = 300.0,
    in_step: InStep | None = None,
) -> RolloutProgress:
    """Roll out every task ``group_size`` times and hand each trajectory over the moment it ends.

    Args:
        tasks: ids must be unique; siblings of one task count 0, 1, ...
        environments: gives a fresh environment; called once per worker and once more after each failure.
        stage: trajectory ids are ``"{stage}/{task.id}/{sibling}"``.
        on_trajectory: called in the event loop as soon as a trajectory ends, typically ``store.add_trajectory``.
        skip: keys ``"{task.id}/{sibling}"`` that are done already (``store.done_task_keys``).
        start_hashes: known start-state hashes by task id (``store.start_hashes``). A sibling that starts elsewhere is
            tried again and, if that does not help, becomes the failure START_MISMATCH.
        screenshots, put_blob, deadline_s: see :func:`run_episode`.
        on_progress: called after each trajectory.
        in_step: the agent, if its episodes shall go in step: each worker then has its own share of the jobs from the
            start, so that who decides beside whom is the same each time. Slower, and repeatable bit by bit.

    Raises:
        DriverError: nothing works: the first 12 trajectories or 12 in a row failed. Also whatever DriverError an
            environment raises (no browser, unknown task).
        asyncio.CancelledError: after closing all environments; finished trajectories have been handed over.
    """
    jobs = [_Job(task, sibling) for task in tasks for sibling in range(group_size)]
    if len({job.key for job in jobs}) < len(jobs):
        raise ValueError("task ids must be unique: siblings come from group_size")
    left = [job for job in jobs if job.key not in skip]
    progress = RolloutProgress(total=len(jobs), skipped=len(jobs) - len(left))
    play = partial(run_episode, screenshots=screenshots, put_blob=put_blob, deadline_s=deadline_s)
    known = dict(start_hashes or {})
    run = _Run(agent, environments, play, stage, on_trajectory, on_progress, progress, known, in_step)
    count = max(1, min(workers, len(left)))
    queues = _shares(left, count) if in_step is not None else [_Queue(left)] * count
    if in_step is not None:
        in_step.join(count)
    members = [asyncio.create_task(run.work(queue), name=f"rollout-{i}") for i, queue in enumerate(queues)]
    try:
        await asyncio.gather(*members)
    finally:
        for member in members:
            member.cancel()
        await asyncio.gather(*members, return_exceptions=True)
    return progress


def _shares(jobs: Sequence[_Job], workers: int) -> list[_Queue]:
    """A queue for each worker: neighbours, which are siblings, stay together."""
    return [_Queue(jobs[i * len(jobs) // workers : (i + 1) * len(jobs) // workers]) for i in range(workers)]


def rollout_sync(
    tasks: Sequence[Task],
    agent: Agent,
    *,
    environments: EnvironmentSource,
    stage: str,
    on_trajectory: Callable[[Trajectory], None],
    workers: int = 4,
    group_size: int = 1,
    skip: Collection[str] = (),
    start_hashes: Mapping[str, str] | None = None,
    screenshots: Screenshots = "none",
    put_blob: PutBlob | None = None,
    on_progress: Callable[[RolloutProgress], None] | None = None,
    deadline_s: float = 300.0,
) -> RolloutProgress:
    """:func:`rollout` with an event loop of its own.

    ``environments`` opens what environments need (a browser, a server) and gives the factory; it is closed in the same
    loop. Ctrl-C cancels the rollout cleanly and raises KeyboardInterrupt.
    """

    async def whole() -> RolloutProgress:
        async with environments() as factory:
            return await rollout(
                tasks,
                agent,
                environments=factory,
                stage=stage,
                on_trajectory=on_trajectory,
                workers=workers,
                group_size=group_size,
                skip=skip,
                start_hashes=start_hashes,
                screenshots=screenshots,
                put_blob=put_blob,
                on_progress=on_progress,
                deadline_s=deadline_s,
            )

    return asyncio.run(whole())


@dataclass
class _Run:
    """What the workers of one rollout share. They run in one event loop, so nothing here needs a lock."""

    agent: Agent
    factory: EnvironmentFactory
    play: Callable[..., Awaitable[Trajectory]]
    stage: str
    on_trajectory: Callable[[Trajectory], None]
    on_progress: Callable[[RolloutProgress], None] | None
    progress: RolloutProgress
    starts: dict[str, str]
    in_step: InStep | None = None
    began: float = field(default_factory=time.monotonic)
    failures_in_a_row: int = 0

    async def work(self, queue: _Queue) -> None:
        """One worker: take jobs until none is left, keeping one environment while it is healthy."""
        environment: Environment | None = None
        family: tuple[str, str] | None = None
        try:
            while (job := queue.take(family)) is not None:
                family = (job.task.env, job.task.name)
                for attempt in range(1, MAX_ATTEMPTS + 1):
                    trajectory, environment = await self._attempt(environment, job, attempt)
                    if trajectory.failure is None:
                        break
                    self.progress.failures[trajectory.stop_reason.value] += 1
                    await _discard(environment)
                    environment = None
                    self.progress.retried += attempt < MAX_ATTEMPTS
                self._hand_over(trajectory)
        finally:
            if self.in_step is not None:
                self.in_step.leave()
            await _discard(environment)

    async def _attempt(
        self, environment: Environment | None, job: _Job, attempt: int
    ) -> tuple[Trajectory, Environment | None]:
        identity = f"{self.stage}/{job.key}"
        if environment is None:
            try:
                environment = await asyncio.wait_for(self.factory(), OPEN_DEADLINE_S)
            except (RolloutFailure, TimeoutError) as error:
                return self._unopened(identity, job, attempt, error), None
        trajectory = await self.play(
            environment,
            self.agent,
            job.task,
            trajectory_id=identity,
            sibling=job.sibling,
            attempt=attempt,
            check_start=lambda found: self._check_start(job.task.id, found),
        )
        return trajectory, environment

    def _unopened(self, identity: str, job: _Job, attempt: int, error: Exception) -> Trajectory:
        stop = StopReason(error.kind) if isinstance(error, RolloutFailure) else StopReason.BROWSER_LOST
        return Trajectory(
            id=identity,
            task=job.task,
            agent=self.agent.name,
            policy_version=self.agent.policy_version,
            context_policy=self.agent.context_policy,
            stop_reason=stop,
            failure=f"no environment: {error or 'it did not open in time'}",
            attempts=attempt,
        )

    def _check_start(self, task_id: str, found: str) -> None:
        expected = self.starts.setdefault(task_id, found)
        if found != expected:
            raise RolloutFailure(StopReason.START_MISMATCH, f"started at {found}, its siblings at {expected}")

    def _hand_over(self, trajectory: Trajectory) -> None:
        progress = self.progress
        progress.finished += 1
        progress.succeeded += bool(trajectory.success)
        progress.failed += trajectory.failure is not None
        progress.stop_reasons[trajectory.stop_reason.value] += 1
        progress.seconds = time.monotonic() - self.began
        self.on_trajectory(trajectory)
        if self.on_progress is not None:
            self.on_progress(progress)
        self.failures_in_a_row = self.failures_in_a_row + 1 if trajectory.failure is not None else 0
        if self.failures_in_a_row >= HOPELESS_AFTER:
            raise DriverError(
                f"{HOPELESS_AFTER} rollouts in a row failed, each {MAX_ATTEMPTS} times; the last: {trajectory.failure}",
                where=trajectory.id,
                remedy="run `dpo-driver doctor`; when the cause is mended, the same command goes on where it stopped",
            )


async def _discard(environment: Environment | None) -> None:
    """Close an environment that may be broken: it gets its time, and its last words change nothing."""
    if environment is None:
        return
    with suppress(RolloutFailure, TimeoutError):
        await asyncio.wait_for(environment.close(), CLOSE_DEADLINE_S)
