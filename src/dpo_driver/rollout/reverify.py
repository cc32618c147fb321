"""A sample of pairs played again: do both sides still start, part and end as the record says?

Each side's trajectory is reset from its seed in a fresh environment and acted out (reenact.py). Three things must come
out as recorded: the state at the start, the state at the step that the pair is about, and the end with its reward. Of
tasks whose pages change by their own clock only the end is compared.
Called by ``dpo-driver prefs audit --replay``. Knows environments by their factory; must not import any.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence

from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.records import Preference, Record, Task, Trajectory
from dpo_driver.core.redact import is_lost
from dpo_driver.rollout.pool import EnvironmentFactory
from dpo_driver.rollout.recorder import PROOF_S, TRIES, closed
from dpo_driver.rollout.reenact import REWARD_TOLERANCE, Reenactment, Scene, reenact

SIDES = ("chosen", "rejected")


class Replayed(Record):
    """One pair played again. ``state``: "same", "differs" (``what`` says where), "lost" (it types a secret that was not
    kept) or "broke" (the world did, each time: nothing is known)."""

    pair: str
    state: str
    what: str = ""


def sample(rows: Iterable[Preference], count: int, seed: int | None = None) -> list[Preference]:
    """At most ``count`` pairs that name pages, in a random order; ``seed`` None draws others each time, so that nobody
    knows beforehand which will be played."""
    pages = [row for row in rows if all("trajectory" in (row.evidence.get(side) or {}) for side in SIDES)]
    return random.Random(seed).sample(pages, min(count, len(pages)))


async def replay(
    environments: EnvironmentFactory,
    rows: Sequence[Preference],
    find: Callable[[str], Trajectory],
    *,
    timed: Callable[[Task], bool] = lambda _task: False,
    on_replayed: Callable[[Replayed], None] = lambda _one: None,
) -> list[Replayed]:
    """Play both sides of each pair again.

    Args:
        environments: gives a fresh environment.
        rows: pairs that name pages.
        find: a trajectory by id.
        timed: whether a task's page changes by its own clock.
        on_replayed: told each as soon as it is known.
    """
    found = []
    for row in rows:
        one = await _replayed(environments, row, find, timed)
        on_replayed(one)
        found.append(one)
    return found


async def _replayed(
    environments: EnvironmentFactory, row: Preference, find: Callable[[str], Trajectory], timed: Callable[[Task], bool]
) -> Replayed:
    for side in SIDES:
        witness = row.evidence[side]
        trajectory = find(witness["trajectory"])
        at = 0 if row.level == "trajectory" else int(witness["step"])
        if is_lost(trajectory):
            return Replayed(pair=row.id, state="lost", what=f"{side}: {trajectory.id} types a secret")
        played = await _played(environments, trajectory)
        if played is None:
            return Replayed(pair=row.id, state="broke", what=f"{side}: {trajectory.id}")
        parted = _end(played, trajectory) if timed(trajectory.task) else _parted(played, trajectory, at)
        if parted is not None:
            return Replayed(pair=row.id, state="differs", what=f"{side}, {trajectory.id}: {parted}")
    return Replayed(pair=row.id, state="same")


async def _played(environments: EnvironmentFactory, trajectory: Trajectory) -> Reenactment | None:
    """A trajectory acted out; None where the world broke it each time."""
    for _ in range(TRIES):
        environment = None
        seen: list[Scene] = []

        async def look(scene: Scene, seen: list[Scene] = seen) -> None:
            seen.append(scene)

        try:
            async with asyncio.timeout(PROOF_S):
                environment = await environments()
                found = await reenact(environment, trajectory, look)
            if any(scene.step is None for scene in seen):  # it came to an end, to whichever
                return found
        except (RolloutFailure, TimeoutError):
            continue
        finally:
            await closed(environment)
    return None


def _parted(played: Reenactment, trajectory: Trajectory, at: int) -> str | None:
    """Where a replay left the record; None if it did not."""
    for number, name in ((0, "start"), (at, "fork")):
        if number >= len(played.lines):
            return played.parted or f"it ended before step {at + 1}"
        line = played.lines[number]
        if line.state == "differs" or line.found != line.recorded:
            return f"the {name}'s state is {line.found}, recorded: {line.recorded} {line.difference}".rstrip()
    return played.parted


def _end(played: Reenactment, trajectory: Trajectory) -> str | None:
    """Where the outcome differs; None if it does not."""
    if played.stop_reason != trajectory.stop_reason.value:
        return f"the end: {played.stop_reason or 'the episode goes on'}, recorded: {trajectory.stop_reason.value}"
    if abs((played.reward or 0.0) - (trajectory.reward or 0.0)) > REWARD_TOLERANCE:
        return f"the end: reward {played.reward or 0.0:g}, recorded: {trajectory.reward or 0.0:g}"
    return None
