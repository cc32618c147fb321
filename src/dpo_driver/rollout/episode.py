"""One rollout: reset, then decide and act until something ends it. Called by rollout/pool.py and the gymnasium face.

Whatever the agent does ends in a reward or a stop reason; whatever breaks in the world ends in ``failure`` with reward
and success None. Knows environments and agents by their protocols only; must not import either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.protocols import Agent, Environment, Move, Outcome
from dpo_driver.core.records import Observation, Step, StopReason, Task, Timing, Trajectory

MAX_UNREADABLE = 3  # unreadable actions in a row that end an episode
SCREENSHOT_DEADLINE_S = 10.0
Screenshots = Literal["none", "final", "all"]
PutBlob = Callable[[bytes], str]


@dataclass
class _Progress:
    """What an episode has so far; the record is made from it however the episode ends."""

    task: Task
    steps: list[Step] = field(default_factory=list)
    reward: float | None = None
    waiting_for: StopReason = StopReason.PAGE_HUNG  # whom to blame when the deadline passes
    final_screenshot: str | None = None


async def run_episode(
    environment: Environment,
    agent: Agent,
    task: Task,
    *,
    trajectory_id: str | None = None,
    sibling: int = 0,
    attempt: int = 1,
    screenshots: Screenshots = "none",
    put_blob: PutBlob | None = None,
    deadline_s: float = 300.0,
    check_start: Callable[[str], None] | None = None,
) -> Trajectory:
    """Roll out one task and return its record; the world's failures are in the record, not raised.

    Args:
        environment: reset here; usable again afterwards only if the trajectory has no failure.
        agent: asked once a step. It sees ``sibling`` as ``task.params["sibling"]``, so that siblings sample apart.
        task: its goal is filled in from the page.
        trajectory_id: defaults to ``"{task.id}/{sibling}"``.
        attempt: 1 for the first try; goes into the record.
        screenshots: "none", "final" (one after the last action) or "all" (one per step as well).
        put_blob: where screenshots go; needed unless ``screenshots`` is "none".
        deadline_s: seconds for the whole episode.
        check_start: given the start-state hash before the first decision; may raise RolloutFailure.
    """
    if screenshots != "none" and put_blob is None:
        raise ValueError("screenshots need put_blob")
    progress = _Progress(task)
    began = time.monotonic()
    failure: str | None = None
    try:
        async with asyncio.timeout(deadline_s):
            camera = _Camera(environment, screenshots, put_blob)
            stop = await _loop(environment, agent, progress, sibling, camera, check_start)
    except RolloutFailure as error:
        stop, failure = StopReason(error.kind), str(error)
    except TimeoutError:
        stop = progress.waiting_for
        failure = f"{stop}: the episode passed its deadline of {deadline_s:g} s"
    reward = success = None
    if failure is None:
        success = stop is StopReason.SUCCESS
        # The agent's own doing without a measured reward earned nothing; that is a measurement too.
        reward = 0.0 if progress.reward is None else progress.reward
    return Trajectory(
        id=trajectory_id or f"{task.id}/{sibling}",
        task=progress.task,
        agent=agent.name,
        policy_version=agent.policy_version,
        context_policy=agent.context_policy,
        steps=tuple(progress.steps),
        stop_reason=stop,
        reward=reward,
        success=success,
        failure=failure,
        attempts=attempt,
        final_screenshot=progress.final_screenshot,
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True)
class _Camera:
    """Takes the screenshots that were asked for. A picture is for people: failing to get one never voids a score."""

    environment: Environment
    wanted: Screenshots
    put_blob: PutBlob | None

    async def take(self) -> str | None:
        assert self.put_blob is not None
        try:
            picture = await asyncio.wait_for(self.environment.screenshot(), SCREENSHOT_DEADLINE_S)
        except (RolloutFailure, TimeoutError):
            return None
        return await asyncio.to_thread(self.put_blob, picture)

    async def onto(self, observation: Observation) -> Observation:
        if self.wanted != "all":
            return observation
        return observation.model_copy(update={"screenshot": await self.take()})


async def _loop(
    environment: Environment,
    agent: Agent,
    progress: _Progress,
    sibling: int,
    camera: _Camera,
    check_start: Callable[[str], None] | None,
) -> StopReason:
    """Step until something ends the episode; ``progress`` is kept current for whoever catches an exception."""
    observation = await environment.reset(progress.task)
    progress.task = progress.task.model_copy(update={"goal": observation.goal})
    if check_start is not None:
        check_start(observation.state_hash)
    asked = progress.task
    if sibling:
        asked = asked.model_copy(update={"params": {**asked.params, "sibling": sibling}})
    unreadable = 0
    stop: StopReason | None = None
    while stop is None:
        observation = await camera.onto(observation)
        progress.waiting_for, started = StopReason.POLICY_ERROR, time.monotonic()
        move = await agent.act(asked, observation, progress.steps)
        progress.waiting_for, decided = StopReason.PAGE_HUNG, time.monotonic()
        outcome = Outcome(observation.model_copy(update={"last_error": move.parse_error}))
        unreadable = 0 if move.action is not None else unreadable + 1
        if move.generation is not None and move.generation.finish_reason == "error":
            stop = StopReason.CONTEXT_OVERFLOW
        elif move.action is not None:
            outcome = await environment.step(move.action)
            stop = outcome.stop
            if stop is None and move.action.kind == "report_infeasible":
                stop = StopReason.INFEASIBLE
        elif unreadable >= MAX_UNREADABLE:
            stop = StopReason.PARSE_ERRORS
        timing = Timing(policy=move.policy_seconds or decided - started, browser=time.monotonic() - decided)
        progress.steps.append(_step(observation, move, outcome, timing))
        if outcome.reward is not None:  # a milestone, or the end
            progress.reward = (progress.reward or 0.0) + outcome.reward
        observation = outcome.observation
        if stop is None and len(progress.steps) >= progress.task.max_steps:
            stop = StopReason.MAX_STEPS
    if stop.is_failure:
        raise RolloutFailure(stop, "the environment reported it")
    if camera.wanted != "none":
        progress.final_screenshot = await camera.take()
    return stop


def _step(observation: Observation, move: Move, outcome: Outcome, timing: Timing) -> Step:
    return Step(
        observation=observation,
        messages=move.messages,
        generation=move.generation,
        completion=move.completion,
        thought=move.thought,
        action=move.action,
        parse_error=move.parse_error,
        reward=outcome.reward,
        timing=timing,
    )
