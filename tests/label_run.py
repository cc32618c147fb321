"""A small run to label: siblings that decide differently on made-up pages. Records of the true schema, no results.

``write_label_run(folder)`` fills a run directory; screenshots come from the caller, and pages without one are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.core.actions import Action, Click, Fill
from dpo_driver.core.records import Element, Observation, Step, StopReason, Task, Trajectory, state_hash
from dpo_driver.core.store import RunStore

PROFILE = get_profile("chat")
Camera = Callable[[Observation], bytes | None]


def _page(goal: str, user: str, password: str, told: str = "") -> Observation:
    elements = [
        Element(ref=None, role="heading", name="Sign in", tag="h1", box=(12, 14, 120, 18)),
        Element(ref=None, role="text", name="User", box=(12, 42, 60, 12)),
        Element(ref="1", role="textbox", name="User", value=user, tag="input", box=(12, 56, 136, 20)),
        Element(ref=None, role="text", name="Password", box=(12, 84, 60, 12)),
        Element(ref="2", role="textbox", name="Password", value=password, tag="input", box=(12, 98, 136, 20)),
        Element(ref="3", role="button", name="Log in", tag="button", box=(12, 132, 64, 24)),
        Element(ref="4", role="button", name="Cancel", tag="button", box=(84, 132, 64, 24)),
    ]
    if told:
        elements.append(Element(ref=None, role="text", name=told, box=(12, 168, 136, 14)))
    return Observation(
        goal=goal, url="http://127.0.0.1/login", title="Sign in", elements=tuple(elements),
        state_hash=state_hash(goal, "/login", tuple(elements)),
    )  # fmt: skip


def _trajectory(seed: int, sibling: int, moves: list[tuple[str, Action]], camera: Callable[[Observation], str | None],
                split: str = "train") -> Trajectory:  # fmt: skip
    goal = f'Sign in as "ann{seed}" with the password "birch{seed}".'
    user, password, steps = "", "", []
    for thought, action in moves:
        page = _page(goal, user, password, "Please fill in both fields." if steps and action.kind == "noop" else "")
        page = page.model_copy(update={"screenshot": camera(page)})
        steps.append(
            Step(
                observation=page,
                messages=render(PROFILE, page, steps),
                thought=thought,
                action=action,
                completion=render_completion(PROFILE, thought, action),
            )
        )
        if isinstance(action, Fill):
            user, password = (action.value, password) if action.ref == "1" else (user, action.value)
    task = Task(id=f"toy.sign-in/{seed}", env="toy", name="sign-in", seed=seed, split=split, goal=goal)  # type: ignore[arg-type]
    return Trajectory(
        id=f"collect/1/toy.sign-in/{seed}/{sibling}", task=task, agent="secret-agent", policy_version="c0ffee",
        steps=tuple(steps), stop_reason=StopReason.SUCCESS if sibling == 0 else StopReason.WRONG,
        reward=float(sibling == 0), success=sibling == 0, final_screenshot=camera(page),
    )  # fmt: skip


def trajectories(seeds: int, camera: Callable[[Observation], str | None] = lambda _: None) -> list[Trajectory]:
    """Three siblings of each seed: one signs in, one cancels half-way, one confuses the fields."""
    found = []
    for seed in range(1, seeds + 1):
        user, password = f"ann{seed}", f"birch{seed}"
        right: list[tuple[str, Action]] = [
            ("The user comes first.", Fill(ref="1", value=user)),
            ("Now the password.", Fill(ref="2", value=password)),
            ("Both are filled in.", Click(ref="3")),
        ]
        ways = [
            right,
            [right[0], ("That is enough.", Click(ref="4"))],
            [("The password first.", Fill(ref="1", value=password)), right[1], right[2]],
        ]
        found += [_trajectory(seed, sibling, way, camera) for sibling, way in enumerate(ways)]
    return found


def write_label_run(run_dir: Path, seeds: int = 4, camera: Camera = lambda _: None) -> Path:
    """Fill a run directory with ``3 * seeds`` trajectories, which give ``2 * seeds`` comparisons.

    Args:
        run_dir: made if it is missing.
        seeds: tasks.
        camera: draws an observation, or gives None.
    """
    with RunStore(run_dir) as store:

        def put(page: Observation) -> str | None:
            content = camera(page)
            return store.put_blob(content) if content else None

        store.add_trajectories("collect/1", trajectories(seeds, put))
    return run_dir


def write_texts(path: Path, rows: int = 12) -> Path:
    """A file of text pairs, in both ways of writing them."""
    pairs = []
    for number in range(rows):
        prompt = f"A customer asks for a refund of order {number}. The delivery was late by two days. Answer briefly."
        one = f"I am sorry that order {number} came late. You get the delivery fee back today."
        other = f"I am sorry that order {number} came late. Please read our terms before you write again."
        row = {"prompt": prompt, "response_a": one, "response_b": other, "role": "support"}
        if number % 2:
            row = {"prompt": prompt, "chosen": one, "rejected": other, "metadata": {"role": "support"}}
        pairs.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return path
