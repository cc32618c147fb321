"""Environments that stay open between rollouts, and an event loop of their own to run them in.

Online training rolls out dozens of times; opening a browser, its pages and its workers for each would cost more than
the rollouts. ``with LiveRollouts(environments, workers) as live: live.roll_out(tasks, agent, ...)``. Called by the
flywheel. Knows environments by their factory and agents by their protocol; must not import either.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from dpo_driver.core.actions import Action
from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.protocols import Agent, Environment, InStep, Outcome
from dpo_driver.core.records import Observation, Task, Trajectory
from dpo_driver.rollout.pool import EnvironmentFactory, EnvironmentSource, rollout

T = TypeVar("T")


class KeptEnvironment:
    """An environment whose ``close`` puts it aside for the next rollout, unless it has failed."""

    def __init__(self, inner: Environment, aside: list[Environment]) -> None:
        self._inner, self._aside, self._sound = inner, aside, True

    async def reset(self, task: Task) -> Observation:
        return await self._watched(self._inner.reset(task))

    async def step(self, action: Action) -> Outcome:
        return await self._watched(self._inner.step(action))

    async def screenshot(self) -> bytes:
        return await self._watched(self._inner.screenshot())

    async def close(self) -> None:
        if self._sound:
            self._aside.append(self._inner)
        else:
            await self._inner.close()

    async def _watched(self, call: Coroutine[Any, Any, T]) -> T:
        """Whatever ends a call early, a deadline too, leaves an environment in an unknown state."""
        sound, self._sound = self._sound, False
        result = await call
        self._sound = sound
        return result


class LiveRollouts:
    """Opened once, rolled out many times; everything is closed at the end.

    Args:
        environments: as for :func:`dpo_driver.rollout.pool.rollout_sync`.
        workers: environments at once.
    """

    def __init__(self, environments: EnvironmentSource, workers: int) -> None:
        self._source, self._workers = environments, workers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rollouts", daemon=True)
        self._open = AsyncExitStack()
        self._factory: EnvironmentFactory | None = None
        self._aside: list[Environment] = []

    def __enter__(self) -> LiveRollouts:
        self._thread.start()
        try:
            self._factory = self._run(self._open.enter_async_context(self._source()))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._shut())
        finally:
            self._stop()

    def roll_out(
        self, tasks: Sequence[Task], agent: Agent, *, stage: str, group_size: int = 1, in_step: bool = False
    ) -> list[Trajectory]:
        """Roll out; trajectories come back in the order of the tasks, siblings by number. ``in_step``: as in
        :func:`dpo_driver.rollout.pool.rollout`, for an agent that can."""
        found: dict[str, Trajectory] = {}
        self._run(
            rollout(
                tasks,
                agent,
                environments=self._one,
                stage=stage,
                on_trajectory=lambda trajectory: found.__setitem__(trajectory.id, trajectory),
                workers=self._workers,
                group_size=group_size,
                in_step=agent if in_step and isinstance(agent, InStep) else None,
            )
        )
        return [found[f"{stage}/{task.id}/{sibling}"] for task in tasks for sibling in range(group_size)]

    async def _one(self) -> Environment:
        """One that was put aside, or a new one."""
        assert self._factory is not None
        inner = self._aside.pop() if self._aside else await self._factory()
        return KeptEnvironment(inner, self._aside)

    async def _shut(self) -> None:
        for environment in self._aside:
            try:
                await environment.close()
            except (RolloutFailure, TimeoutError):
                continue
        await self._open.aclose()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C while waiting: the rollout ends its environments before the loop goes
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
