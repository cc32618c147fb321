"""A recorded trajectory acted out once more: the same actions, and where the page parts from the record.

Element numbers may have changed since (a new distiller, another build of a page), so an action's element is looked up
by its fingerprint: role, name, and which of its like it is. Called by ``dpo-driver watch``. Knows environments by
their protocol; must not import any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from dpo_driver.core import redact
from dpo_driver.core.actions import REF_FIELDS, Action, format_action
from dpo_driver.core.errors import RolloutFailure
from dpo_driver.core.protocols import Environment
from dpo_driver.core.records import Element, Observation, Step, StopReason, Trajectory

REWARD_TOLERANCE = 1e-6
# What the environment itself ends an episode with; other reasons are the rollout's.
_BY_ENVIRONMENT = frozenset({StopReason.SUCCESS, StopReason.WRONG, StopReason.INFEASIBLE})


@dataclass(frozen=True)
class Scene:
    """A moment to look at: before an action, or with ``action`` None the end."""

    number: int  # from 1
    total: int
    observation: Observation  # as it is now
    step: Step | None  # as it was recorded
    action: Action | None  # as it is about to be carried out
    targets: tuple[Element, ...] = ()  # what it acts on, as it lies now
    ended: StopReason | None = None  # at the end: what the environment ended the episode with, if it did
    reward: float | None = None


OnScene = Callable[[Scene], Awaitable[None]]


@dataclass
class Line:
    """One recorded step and what became of it. ``state`` is "same", "renumbered" (the same page under other element
    numbers) or "differs"; ``found`` and ``recorded`` are state hashes."""

    number: int
    action: str
    label: str
    state: str
    recorded: str
    found: str
    difference: str = ""


@dataclass
class Reenactment:
    """How a replay went. ``parted`` says where and how it left the record, None if it never did."""

    lines: list[Line] = field(default_factory=list)
    stop_reason: str | None = None  # the environment's; None if it did not end the episode
    reward: float | None = None
    parted: str | None = None

    def part(self, where: str) -> None:
        """Only the first parting counts: what follows follows from it."""
        self.parted = self.parted or where


async def reenact(environment: Environment, trajectory: Trajectory, on_scene: OnScene) -> Reenactment:
    """Reset to the trajectory's task and carry out its actions, as far as their elements can be found.

    Args:
        environment: reset here.
        on_scene: awaited before every action and once at the end.

    Secrets that were taken out of the record are typed where this process knows them, and are not shown.

    Raises:
        RolloutFailure: the start broke; what breaks later is where the replay parts.
    """
    found = Reenactment()
    started = await environment.reset(trajectory.task)
    secrets = redact.secrets_of(trajectory)  # the environment has said its own by now
    observation = redact.covered_observation(started, secrets)
    ended: StopReason | None = None
    for number, step in enumerate(trajectory.steps, 1):
        line = _compare(number, step, observation, found)
        found.lines.append(line)
        if step.action is None:  # unreadable then, so nothing was done
            await on_scene(Scene(number, len(trajectory.steps), observation, step, None))
            continue
        action, targets = _translate(step.action, step.observation.elements, observation.elements)
        if action is None:
            found.part(f"step {number}: {line.label} is not on the page, so {line.action} cannot be done")
            break
        line.action = format_action(action)
        await on_scene(Scene(number, len(trajectory.steps), observation, step, action, targets))
        try:
            outcome = await environment.step(redact.acted(action, secrets))
        except RolloutFailure as failure:
            found.part(f"step {number}: the replay broke: {failure}")
            return found
        observation = redact.covered_observation(outcome.observation, secrets)
        if outcome.reward is not None:
            found.reward = (found.reward or 0.0) + outcome.reward
        ended = outcome.stop
        if ended is not None:
            if number < len(trajectory.steps):
                found.part(f"step {number}: the episode ended with {ended}, the record goes on")
            break
    found.stop_reason = ended.value if ended is not None else None
    _compare_end(trajectory, ended, found)
    await on_scene(
        Scene(len(found.lines), len(trajectory.steps), observation, None, None, ended=ended, reward=found.reward)
    )
    return found


def _compare(number: int, step: Step, now: Observation, found: Reenactment) -> Line:
    label = _label(step)
    written = format_action(step.action) if step.action is not None else "(unreadable)"
    then = step.observation
    line = Line(number, written, label, "same", then.state_hash, now.state_hash)
    if then.state_hash != now.state_hash:
        line.difference = difference(then, now)
        line.state = "differs" if line.difference else "renumbered"
    if line.difference:
        found.part(
            f"step {number}: the state is {now.state_hash} and not {then.state_hash} as recorded: {line.difference}"
        )
    return line


def _compare_end(trajectory: Trajectory, ended: StopReason | None, found: Reenactment) -> None:
    if trajectory.failure is not None:
        return  # the world broke then; there is no outcome to compare with
    expected = trajectory.stop_reason if trajectory.stop_reason in _BY_ENVIRONMENT else None
    if ended is not expected:
        found.part(f"the end: {ended or 'the episode goes on'}, recorded: {expected or 'it went on'}")
    elif ended is not None and abs((found.reward or 0.0) - (trajectory.reward or 0.0)) > REWARD_TOLERANCE:
        found.part(f"the end: reward {found.reward or 0.0:g}, recorded: {trajectory.reward or 0.0:g}")


def fingerprint(element: Element) -> tuple[str, str, int]:
    """What an element is known by when its number has changed: role, name, and which of its like it is."""
    return element.role, element.name, element.nth


def difference(then: Observation, now: Observation) -> str:
    """The first thing that looks different, in words; empty if only numbers, geometry or focus do."""
    if then.goal != now.goal:
        return f"the goal is {now.goal!r}"
    old, new = Counter(map(_look, then.elements)), Counter(map(_look, now.elements))
    gone, come = list((old - new).elements()), list((new - old).elements())
    if gone and come and gone[0][0] == come[0][0]:
        return f"{gone[0][0]} has changed"
    if gone:
        return f"{gone[0][0]} is gone"
    return f"{come[0][0]} is new" if come else ""


def _look(element: Element) -> tuple[str, str | None, tuple[str, ...], tuple[str, ...], bool]:
    """An element without its number, as the state hash sees it."""
    states = tuple(state for state in element.states if state != "focused")
    return element.label, element.value, states, element.options, element.ref is None


def _translate(
    action: Action, then: Sequence[Element], now: Sequence[Element]
) -> tuple[Action | None, tuple[Element, ...]]:
    """The action with today's element numbers and the elements it acts on; None if one of them cannot be found."""
    numbers: dict[str, str] = {}
    targets = []
    for name in REF_FIELDS & set(type(action).model_fields):
        ref = getattr(action, name)
        recorded = next((element for element in then if element.ref == ref), None)
        if recorded is None:
            # The agent named a number that was not there; it must not hit something by accident now.
            if any(element.ref == ref for element in now):
                return None, ()
            continue
        current = counterpart(recorded, now)
        if current is None or current.ref is None:
            return None, ()
        numbers[name] = current.ref
        targets.append((name, current))
    # from_ref before to_ref
    return action.model_copy(update=numbers), tuple(element for _, element in sorted(targets, key=lambda one: one[0]))


def counterpart(recorded: Element, now: Sequence[Element]) -> Element | None:
    """The element of a page that a recorded one corresponds to, by fingerprint; else the only one with its role and
    name; None if there is none."""
    numbered = [element for element in now if element.ref is not None]
    exact = [element for element in numbered if fingerprint(element) == fingerprint(recorded)]
    if exact:
        return next((element for element in exact if element.ref == recorded.ref), exact[0])
    alike = [element for element in numbered if (element.role, element.name) == (recorded.role, recorded.name)]
    return alike[0] if len(alike) == 1 else None


def _label(step: Step) -> str:
    if step.action is None:
        return ""
    refs = [getattr(step.action, name) for name in step.action.arguments if name in REF_FIELDS]
    labels = [element.label for ref in refs for element in step.observation.elements if element.ref == ref]
    return " to ".join(labels)
