"""Recorded demonstrations: what ``dpo-driver collect --agent`` proved, as if it had been played in this run.

They are written again in the run's own prompt profile, so that what is trained is what is served, whoever recorded them
and in whichever form. Called by train.py; must not import environments.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpo_driver.agents.prompt import Profile, get_profile, render, render_completion
from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Step, Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.context import RunContext
from dpo_driver.preferences.decisions import TRAINABLE
from dpo_driver.rollout.recorder import Recordings


def recorded(ctx: RunContext) -> list[Trajectory]:
    """The proven successes of ``demos.from`` on this run's families, outside the seeds to choose by and to test on.

    Raises:
        StoreError: the folder is no run directory.
        DataError: nothing in it is of use.
    """
    folder = ctx.config.demos.from_
    if folder is None:
        return []
    profile = get_profile(ctx.config.model.prompt_profile)
    families, kept_back = set(ctx.config.env.tasks), (ctx.config.seeds.val, ctx.config.seeds.test)
    found = []
    with RunStore(folder, mode="read") as store:
        for trajectory in Recordings(store).proven():
            task = trajectory.task
            held = task.split not in TRAINABLE or any(first <= task.seed <= last for first, last in kept_back)
            if task.env == ctx.config.env.name and task.name in families and not held:
                found.append(rewritten(trajectory, profile))
    if not found:
        raise DataError("nothing proven was recorded for these tasks", where=f"demos.from: {folder}",
                        remedy=_command(ctx, folder))  # fmt: skip
    return found


def _command(ctx: RunContext, folder: Path) -> str:
    agent = "solver" if ctx.config.env.name == "gauntlet" else "oracle"
    task = ctx.config.env.tasks[0]
    return f"record some: dpo-driver collect --agent {agent} --env {ctx.config.env.source} --task {task} --out {folder}"


def rewritten(trajectory: Trajectory, profile: Profile) -> Trajectory:
    """The same decisions with the prompts and texts of a profile. A demonstration is an SFT row of the demo split."""
    steps: list[Step] = []
    for step in trajectory.steps:
        assert step.action is not None, "what is proven can be read"
        thought = step.thought or step.action.kind.replace("_", " ")
        more = {
            "messages": render(profile, step.observation, steps),
            "completion": render_completion(profile, thought, step.action),
            "thought": thought if profile.thought else "",
        }
        steps.append(step.model_copy(update=more))
    identity = f"demos/{trajectory.id.partition('/')[2]}"
    task = trajectory.task.model_copy(update={"split": "demo"})
    return trajectory.model_copy(
        update={"id": identity, "task": task, "steps": tuple(steps), "context_policy": profile.id}
    )  # fmt: skip


def families_of(trajectories: Sequence[Trajectory]) -> set[str]:
    """The task families that are demonstrated."""
    return {trajectory.task.name for trajectory in trajectories}
