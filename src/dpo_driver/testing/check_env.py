"""The conformance check for environments: whatever rollouts run on must pass it. Used by tests and plug-in authors.

    asyncio.run(check_env(ToyEnvironment(), [make_task("press", seed) for seed in (1, 2, 3)], expert=press))

Raises AssertionError with the rule that was broken. Knows environments by their protocol only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dpo_driver.core.actions import Action, Click, Fill
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.protocols import Environment, Outcome
from dpo_driver.core.records import Observation, StopReason, Task

MISSING = "999999"
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG")

Expert = Callable[[Observation], Action]


async def check_env(
    environment: Environment, tasks: Sequence[Task], *, expert: Expert | None = None, milestones: bool = False
) -> None:
    """Check the rules of :class:`dpo_driver.core.protocols.Environment`, and close the environment.

    Args:
        environment: fresh, not yet reset.
        tasks: two or more, best of several families and seeds.
        expert: solves each task; with it rewards and endings are checked too.
        milestones: parts of the reward come before the end.
    """
    assert isinstance(environment, Environment), "an environment has reset, step, screenshot and close"
    assert len({task.id for task in tasks}) >= 2, "check an environment on two tasks or more"
    assert await _refuses(environment), "a step before the first reset is a RuntimeError"
    starts = {task.id: await _check_reset(environment, task) for task in tasks}
    for task in reversed(tasks):
        await _check_error(environment, task, starts[task.id])
    assert (await environment.screenshot()).startswith(_PICTURES), "a screenshot is a JPEG or a PNG"
    if expert is not None:
        for task in tasks:
            await _check_end(environment, task, expert, milestones)
    for task in (*tasks, tasks[0]):
        again = await environment.reset(task)
        assert again == starts[task.id], f"{task.id} starts differently after other episodes: {again}"
    try:
        await environment.reset(tasks[0].model_copy(update={"name": "no-such-family"}))
    except UnknownNameError:
        pass
    else:
        raise AssertionError("an unknown family is an UnknownNameError")
    await environment.close()
    await environment.close()


async def _check_reset(environment: Environment, task: Task) -> Observation:
    seen = await environment.reset(task)
    assert seen.goal, f"{task.id} has a goal"
    assert len(seen.state_hash) == 16, f"{task.id} has a state hash"
    assert seen.last_error is None, f"{task.id} starts without an error"
    refs = [element.ref for element in seen.elements if element.ref is not None]
    assert len(set(refs)) == len(refs), f"{task.id} numbers its elements uniquely"
    labels = [element.label for element in seen.elements if element.ref is not None]
    assert len(set(labels)) == len(labels), f"{task.id} tells equal elements apart by `nth`"
    return seen


async def _check_error(environment: Environment, task: Task, start: Observation) -> None:
    assert await environment.reset(task) == start, f"{task.id} starts alike every time"
    for action in (Click(ref=MISSING), Fill(ref=MISSING, value="x")):
        outcome = await environment.step(action)
        assert outcome.observation.last_error, f"{task.id}: {action.kind} on a missing element is told, not raised"
        assert (outcome.reward, outcome.stop) == (None, None), f"{task.id}: a mistake neither ends nor scores"
        assert outcome.observation.state_hash == start.state_hash, f"{task.id}: a mistake changes nothing"


async def _check_end(environment: Environment, task: Task, expert: Expert, milestones: bool) -> None:
    seen = await environment.reset(task)
    outcome, earned = Outcome(seen), 0.0
    for _ in range(task.max_steps):
        outcome = await environment.step(expert(outcome.observation))
        if not milestones or outcome.stop is not None:
            assert (outcome.reward is None) == (outcome.stop is None), f"{task.id}: the reward comes with the end"
        earned += outcome.reward or 0.0
        if outcome.stop is not None:
            break
    assert outcome.stop is StopReason.SUCCESS, f"{task.id}: the expert ends with {outcome.stop}"
    assert earned >= 0.99, f"{task.id}: success means full reward"
    assert await _refuses(environment), "a step after the end is a RuntimeError"


async def _refuses(environment: Environment) -> bool:
    try:
        await environment.step(Click(ref=MISSING))
    except RuntimeError:
        return True
    return False
