"""The gauntlet's task families: a whole run, a run until step k, and one family for each type of puzzle.

``make_task("step-click-reveal", 7)`` is one step that is reached directly; ``make_task("run-5", 7)`` is the first five
steps of the run of seed 7; ``make_task("run", 7)`` all of it. What follows a name says how: ``-d2`` and ``-d3`` for the
difficulty, ``-b`` for the held-out skin, as in ``step-slider-d2-b``. Also what has been collected, by type
(:func:`coverage`). Listed in core/plugins.py; called by the environment, the flywheel and the command line. Must not
import the browser or the server.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from dpo_driver.core.errors import ConfigError, UnknownNameError
from dpo_driver.core.records import Rate, Split, Task, Trajectory
from dpo_driver.core.stats import rate
from dpo_driver.envs.gauntlet.plan import ORDERS, STEPS, Plan
from dpo_driver.envs.gauntlet.puzzles import HELD_OUT, TYPES
from dpo_driver.envs.gauntlet.puzzles.base import SKINS

ACTIONS_A_STEP = 30
ACTIONS_A_RUN = 500
# A step family of difficulty 1 ends earlier: after about twice what the solver needs at most, so that training does not
# pay for long failures. Types that are not named end after SHORT. Harder families and runs have ACTIONS_A_STEP.
SHORT = 10
LIMITS = {
    "audio": 16, "click-sequence": 12, "conditional": 12, "draw": 12, "encrypted": 12, "form-fill": 14,
    "key-sequence": 12, "memory": 24, "multi-step": 14, "mutation": 18, "radio-force": 20, "rotating-code": 16,
    "scroll-find": 12, "timing": 20, "video": 22, "websocket": 12,
}  # fmt: skip
DIFFICULTIES = (1, 2, 3)
_NAME = re.compile(r"(?:gauntlet\.)?(?P<stem>.+?)(?P<suffixes>(?:-(?:d[1-9]|[a-z]))*)")


@dataclass(frozen=True)
class Family:
    """One family of tasks. ``until`` is the last step of a run that counts; a step family has a ``type`` instead."""

    name: str
    kind: Literal["run", "step"]
    max_steps: int
    type: str = ""
    until: int = 1
    difficulty: int = 1
    skin: str = "a"

    @property
    def goal(self) -> str:
        """What an agent is asked to do."""
        if self.kind == "step":
            return "Find the code of this step and submit it."
        return f"Solve all {STEPS} steps." if self.until == STEPS else f"Solve the first {_steps(self.until)}."

    @property
    def held_out(self) -> bool:
        """Of training: its type or its skin is for evaluation only."""
        return self.type in HELD_OUT or self.skin != SKINS[0]


def _steps(count: int) -> str:
    return "step" if count == 1 else f"{count} steps"


def _families() -> Iterator[Family]:
    for skin in SKINS:
        for difficulty in DIFFICULTIES:
            how = ("" if difficulty == 1 else f"-d{difficulty}") + ("" if skin == SKINS[0] else f"-{skin}")
            for until in range(1, STEPS + 1):
                name = "run" if until == STEPS else f"run-{until}"
                limit = min(ACTIONS_A_RUN, ACTIONS_A_STEP * until)
                yield Family(name + how, "run", limit, "", until, difficulty, skin)
            for kind in TYPES:
                limit = LIMITS.get(kind, SHORT) if difficulty == DIFFICULTIES[0] else ACTIONS_A_STEP
                yield Family(f"step-{kind}{how}", "step", limit, kind, 1, difficulty, skin)


FAMILIES: dict[str, Family] = {family.name: family for family in _families()}
# On a site of somebody else only runs can be asked for, and how hard it is or looks is the site's own affair.
RUNS: dict[str, Family] = {
    name: family
    for name, family in FAMILIES.items()
    if family.kind == "run" and (family.difficulty, family.skin) == (DIFFICULTIES[0], SKINS[0])
}


def find_family(name: str, known: Mapping[str, Family] = FAMILIES) -> Family:
    """The family of a name. Suffixes may stand in any order, ``run-30`` is ``run``, and ``gauntlet.`` may precede.

    Raises:
        UnknownNameError: there is none; close names are listed.
    """
    match = _NAME.fullmatch(name)
    if match is not None and name not in known:
        suffixes = {part for part in match["suffixes"].split("-") if part} - {"d1", SKINS[0]}
        stem = "run" if match["stem"] == f"run-{STEPS}" else match["stem"]
        name = "-".join((stem, *sorted(suffixes, key=lambda part: (part in SKINS, part))))
    if name not in known:
        raise UnknownNameError("gauntlet task", name, known)
    return known[name]


def make_task(name: str, seed: int, split: Split = "train") -> Task:
    """``make_task("run-5-b", 7).id == "gauntlet.run-5-b/7"``. ``params`` say difficulty, skin and order; a task with
    others is another task and must have an id of its own.

    Raises:
        UnknownNameError: there is no such family.
    """
    return _task(find_family(name), seed, split)


def _make_run(name: str, seed: int, split: Split = "train") -> Task:
    return _task(find_family(name, RUNS), seed, split)


def make_runs(_place: str) -> Callable[..., Task]:
    """What makes the tasks of a site of somebody else."""
    return _make_run


def runs(_place: str) -> Mapping[str, Family]:
    """The families of a site of somebody else."""
    return RUNS


def _task(family: Family, seed: int, split: Split) -> Task:
    return Task(
        id=f"gauntlet.{family.name}/{seed}",
        env="gauntlet",
        name=family.name,
        seed=seed,
        params={"difficulty": family.difficulty, "skin": family.skin, "order": ORDERS[0]},
        split=split,
        max_steps=family.max_steps,
    )


@dataclass(frozen=True)
class Setting:
    """How a task is played: its family, and what its parameters say."""

    family: Family
    difficulty: int
    skin: str
    order: str
    held_out: bool  # a run with the types that are for evaluation only
    actions_a_step: int  # of a run: one that needs more on a single step is over


def setting_of(task: Task, known: Mapping[str, Family] = FAMILIES) -> Setting:
    """What a task asks for.

    Raises:
        UnknownNameError: there is no such family.
        ConfigError: a parameter that the gauntlet does not have.
    """
    family, params = find_family(task.name, known), task.params
    difficulty, skin = params.get("difficulty", family.difficulty), params.get("skin", family.skin)
    order, held_out = params.get("order", ORDERS[0]), params.get("held_out", False)
    actions = params.get("actions_a_step", ACTIONS_A_STEP)
    for key, value, allowed in (
        ("difficulty", difficulty, DIFFICULTIES),
        ("skin", skin, SKINS),
        ("order", order, ORDERS),
        ("held_out", held_out, (False, True)),
        ("actions_a_step", actions, range(1, ACTIONS_A_RUN + 1)),
    ):
        if value not in allowed:
            known_ones = (
                f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
            )
            raise ConfigError(f"{key} {value!r} is none of {known_ones}", where=task.id)
    return Setting(family, difficulty, skin, order, bool(held_out), int(actions))


def types_of(task: Task) -> tuple[str, ...]:
    """The types of puzzle that a task asks for, in their order."""
    setting = setting_of(task)
    if setting.family.kind == "step":
        return (setting.family.type,)
    plan = Plan.of(task.seed, steps=STEPS, order=setting.order, held_out=setting.held_out)
    return tuple(step.type for step in plan.steps[: setting.family.until])


def coverage(trajectories: Iterable[Trajectory]) -> dict[str, Rate]:
    """How often each type was tried, and how often it was solved. Types that nobody tried are there with n 0.

    A run tries the types of its solved steps and of the one it ended on. What the world broke is counted as excluded.
    """
    outcomes: dict[str, list[bool | None]] = defaultdict(list)
    for trajectory in trajectories:
        types = types_of(trajectory.task)
        solved = sum(1 for step in trajectory.steps if (step.reward or 0.0) > 0)
        for name in types[:solved]:
            outcomes[name].append(True)
        tried = bool(trajectory.steps) and not (trajectory.steps[-1].reward or 0.0) > 0
        if tried or trajectory.failure is not None:
            for name in types[solved : solved + 1]:
                outcomes[name].append(None if trajectory.failure is not None else False)
    return {name: rate(outcomes[name]) for name in sorted(TYPES)}
