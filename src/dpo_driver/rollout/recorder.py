"""Expert play as data: play it, prove it, keep it once.

:func:`record` plays tasks; :func:`prove` acts a trajectory out again from its seed in a fresh environment and says
whether it reproduces; :class:`Recordings` keeps what was played in a run directory, each play once. Only what solved
its task and was proven lies in the stage ``demos``, from which training learns. Called by ``dpo-driver collect``. Knows
environments and agents by their protocols; must not import either.

The rule of the proof. Every action is written in the grammar and read back, and must be equal. Then it is carried out
again, and three things must come out as recorded: the state before each action (its hash), whether the action could be
carried out, and the end with its reward. Where a page changes by its own clock, two equal plays need not see equal
states; for such tasks (``by_elements``) it is enough that each action found the very element that it was recorded on
(role, name, and which of its like it is) and that the end came with the same reward. The two are counted apart.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dpo_driver.agents.prompt import parse_completion
from dpo_driver.core import redact
from dpo_driver.core.actions import REF_FIELDS, format_action, parse_action
from dpo_driver.core.errors import ActionError, RolloutFailure
from dpo_driver.core.protocols import Agent, Environment
from dpo_driver.core.records import Element, Observation, Step, StopReason, Task, Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.rollout.pool import EnvironmentFactory, rollout
from dpo_driver.rollout.reenact import REWARD_TOLERANCE, Reenactment, Scene, fingerprint, reenact

TRIES = 3  # of a proof that the world breaks
PROOF_S = 300.0  # for one trajectory
CLOSE_S = 10.0

# Stages of a run directory. What waits for its proof is done first when the same command goes on.
WAITING, PROVEN, PARTED, UNSOLVED = "recorded", "demos", "recorded/parted", "recorded/unsolved"
STAGES = (WAITING, PROVEN, PARTED, UNSOLVED)
_PREFIX = "expert"  # of ids: they stay the same when a trajectory changes its stage


@dataclass(frozen=True)
class Proof:
    """Whether a trajectory reproduced. ``how`` is "states" (all hashes equal), "elements" or None with a ``reason``;
    ``same`` of ``states`` hashes were equal."""

    how: Literal["states", "elements"] | None
    states: int = 0
    same: int = 0
    reason: str | None = None


# -- playing -----------------------------------------------------------------------------------------------------------


async def record(
    tasks: Sequence[Task],
    agent: Agent,
    environments: EnvironmentFactory,
    *,
    workers: int = 1,
    on_trajectory: Callable[[Trajectory], None] = lambda _trajectory: None,
) -> list[Trajectory]:
    """Let an agent play each task once; trajectories in the order in which they ended.

    Args:
        on_trajectory: is handed each the moment it ends. What the world broke has a ``failure``.
    """
    found: list[Trajectory] = []

    def ended(trajectory: Trajectory) -> None:
        found.append(trajectory)
        on_trajectory(trajectory)

    await rollout(
        tasks, agent, environments=environments, stage=WAITING, on_trajectory=ended, workers=workers
    )  # fmt: skip
    return found


# -- proving -----------------------------------------------------------------------------------------------------------


async def prove_in(
    environments: EnvironmentFactory, trajectory: Trajectory, *, by_elements: bool = False
) -> Proof | None:
    """:func:`prove` in an environment that nothing was done in before. None when the world broke it each time: nothing
    is known then, and it may be tried again."""
    for _ in range(TRIES):
        environment: Environment | None = None
        try:
            async with asyncio.timeout(PROOF_S):
                environment = await environments()
                return await prove(trajectory, environment, by_elements=by_elements)
        except (RolloutFailure, TimeoutError):
            continue
        finally:
            await closed(environment)
    return None


async def closed(environment: Environment | None) -> None:
    """Close an environment that may be broken: its last words change nothing."""
    if environment is None:
        return
    try:
        await asyncio.wait_for(environment.close(), CLOSE_S)
    except (RolloutFailure, TimeoutError):
        return


async def prove(trajectory: Trajectory, environment: Environment, *, by_elements: bool = False) -> Proof:
    """Act a trajectory out once more and compare; see the rule at the top.

    Args:
        environment: reset here.
        by_elements: states may differ, elements and reward may not.

    Raises:
        RolloutFailure: the world broke; nothing is proven either way.
    """
    if redact.is_lost(trajectory):
        lost = "it types a secret that was kept nowhere: record it again, or name the secret in DPO_DRIVER_SECRETS"
        return Proof(None, reason=lost)
    for number, step in enumerate(trajectory.steps, 1):
        problem = unwritten(step)
        if problem:
            return Proof(None, reason=f"step {number}: {problem}")
    seen: list[Scene] = []

    async def look(scene: Scene) -> None:
        seen.append(scene)

    found = await reenact(environment, trajectory, look)
    if all(scene.step is not None for scene in seen):  # it never came to an end, not even to a wrong one
        raise RolloutFailure(StopReason.CANCELLED, f"the replay broke after {len(found.lines)} steps")
    same = sum(line.state == "same" for line in found.lines)
    reason = _parted(trajectory, found, seen, by_elements=by_elements)
    if reason is not None:
        return Proof(None, len(found.lines), same, reason)
    return Proof("states" if same == len(found.lines) else "elements", len(found.lines), same)


def unwritten(step: Step) -> str | None:
    """Why a step's action is not what its text says; None if it is."""
    if step.action is None:
        return "nothing could be read from what was written"
    for bracketed in (False, True):
        written = format_action(step.action, bracket_refs=bracketed)
        try:
            read = parse_action(written)
        except ActionError as error:
            return f"{written} cannot be read back: {error}"
        if read != step.action:
            return f"{written} is read back as {format_action(read)}"
    if step.completion.strip():
        try:
            _, said = parse_completion(step.completion)
        except ActionError as error:
            return f"its text holds no action: {error}"
        if said != step.action:
            return f"its text says {format_action(said)}, done was {format_action(step.action)}"
    return None


def _parted(
    trajectory: Trajectory, found: Reenactment, seen: Sequence[Scene], *, by_elements: bool
) -> str | None:  # fmt: skip
    """Where a replay left the record, by the rule; None if it did not."""
    scenes = {scene.number: scene for scene in seen if scene.step is not None}
    for line in found.lines:
        if line.state != "same" and not by_elements:
            different = line.difference or "element numbers"
            return f"step {line.number}: the page differs: {different}"
        scene = scenes.get(line.number)
        if scene is None:
            return f"step {line.number}: {line.label or 'its element'} is not on the page"
        problem = _other_element(scene)
        if problem:
            return f"step {line.number}: {problem}"
        if line.number < len(trajectory.steps) and line.number + 1 in scenes:
            then = trajectory.steps[line.number].observation.last_error
            now = scenes[line.number + 1].observation.last_error
            if (then is None) != (now is None):
                return f"step {line.number}: {now or 'it could be done'}; recorded: {then or 'it could be done'}"
    recorded = trajectory.stop_reason.value
    if found.stop_reason != recorded:
        return found.parted or f"the end: {found.stop_reason or 'the episode goes on'}, recorded: {recorded}"
    if abs((found.reward or 0.0) - (trajectory.reward or 0.0)) > REWARD_TOLERANCE:
        return f"the end: reward {found.reward or 0.0:g}, recorded: {trajectory.reward or 0.0:g}"
    return None if len(found.lines) == len(trajectory.steps) else found.parted or "it ended early"


def _other_element(scene: Scene) -> str | None:
    """Which recorded element another one stood in for; None if all were found as they were."""
    step, action = scene.step, scene.action
    assert step is not None
    if step.action is None or action is None:
        return "there is nothing to do"
    for name in sorted(REF_FIELDS & set(type(action).model_fields)):
        then = _element(step.observation, getattr(step.action, name))
        now = _element(scene.observation, getattr(action, name))
        if then is not None and (now is None or fingerprint(now) != fingerprint(then)):
            return f"{then.label} was recorded, there is {now.label if now else 'nothing'} instead"
    return None


def _element(observation: Observation, ref: str) -> Element | None:
    return next((element for element in observation.elements if element.ref == ref), None)


# -- keeping -----------------------------------------------------------------------------------------------------------


def done_in(trajectory: Trajectory) -> str:
    """16 hex digits of what was done on which task: equal for doubles."""
    actions = [format_action(step.action) if step.action is not None else None for step in trajectory.steps]
    text = json.dumps([trajectory.task.id, trajectory.task.seed, actions], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Recordings:
    """The recorded plays of a run directory. ``add`` keeps one, ``settle`` says how its proof came out.

    Everything is on disk when a call returns, so a command that was stopped goes on where it was.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._facts: dict[str, dict[str, Any]] = {}
        for identity in store.trajectory_ids():
            if identity.startswith(f"{_PREFIX}/"):
                fact = store.get_fact(_fact(identity))
                # One that was stopped between its two commits has none.
                self._facts[identity] = fact or {"done": done_in(store.trajectory(identity))}
        self._done = {fact["done"] for fact in self._facts.values()}

    def __len__(self) -> int:
        return len(self._facts)

    def played(self, agent: str) -> set[str]:
        """Ids of the tasks that an agent has played, solved or not."""
        ids = (identity.rpartition("/") for identity in self._facts)
        return {task.partition("/")[2] for task, _, who in ids if who.rpartition("-")[0] == agent}

    def add(self, trajectory: Trajectory) -> bool:
        """Keep a play that the world did not break; False if the very same was kept before."""
        stem = f"{_PREFIX}/{trajectory.task.id}/{trajectory.agent}-"
        identity = f"{stem}{sum(known.startswith(stem) for known in self._facts)}"
        trajectory = redact.redacted(trajectory.model_copy(update={"id": identity}))
        done = done_in(trajectory)
        if trajectory.failure is not None or done in self._done:
            return False
        stage = WAITING if trajectory.success and trajectory.steps else UNSOLVED
        self._store.add_trajectory(stage, trajectory)
        self._note(identity, {"done": done})
        self._done.add(done)
        return True

    def waiting(self) -> list[Trajectory]:
        """What solved its task and has no proof yet."""
        return self._store.trajectories(WAITING)

    def settle(self, trajectory: Trajectory, proof: Proof) -> None:
        """What reproduced may be trained on; what did not is kept apart."""
        self._store.add_trajectory(PARTED if proof.how is None else PROVEN, trajectory)
        self._note(trajectory.id, {"done": done_in(trajectory), "proof": asdict(proof)})

    def proof(self, identity: str) -> Proof | None:
        """How the proof of a trajectory came out; None: it has none."""
        found = self._facts.get(identity, {}).get("proof")
        return None if found is None else Proof(**found)

    def proven(self) -> Iterator[Trajectory]:
        """What training may learn from."""
        for trajectory in self._store.iterate(PROVEN):  # what was saved here otherwise has no proof
            proof = self.proof(trajectory.id)
            if proof is not None and proof.how is not None and trajectory.success:
                yield trajectory

    def coverage(self, kind: Callable[[Task], str]) -> dict[str, dict[str, Any]]:
        """How often each kind of task was tried, solved and reproduced (and how), and with how many actions."""
        table: dict[str, dict[str, Any]] = {}
        actions: dict[str, list[int]] = {}
        for stage in STAGES:
            for trajectory in self._store.iterate(stage):
                if trajectory.id not in self._facts:
                    continue
                name = kind(trajectory.task)
                row = table.setdefault(
                    name, {"tried": 0, "solved": 0, "reproduced": 0, "by_elements": 0, "parted": 0, "waiting": 0}
                )
                proof = self.proof(trajectory.id)
                row["tried"] += 1
                row["solved"] += bool(trajectory.success)
                row["reproduced"] += proof is not None and proof.how is not None
                row["by_elements"] += proof is not None and proof.how == "elements"
                row["parted"] += proof is not None and proof.how is None
                row["waiting"] += stage == WAITING
                if trajectory.success:
                    actions.setdefault(name, []).append(len(trajectory.steps))
        for name, row in table.items():
            counts = actions.get(name, [])
            row["actions"] = round(sum(counts) / len(counts), 2) if counts else None
        return dict(sorted(table.items()))

    def reasons(self) -> Mapping[str, str]:
        """Why what was kept apart did not reproduce, by id."""
        proofs = ((identity, self.proof(identity)) for identity in sorted(self._facts))
        return {identity: proof.reason or "" for identity, proof in proofs if proof is not None and proof.how is None}

    def _note(self, identity: str, fact: dict[str, Any]) -> None:
        self._facts[identity] = fact
        self._store.set_fact(_fact(identity), fact)


def _fact(identity: str) -> str:
    return f"recording/{identity}"
