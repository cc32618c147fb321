"""The gauntlet's task families, and what trajectories cover of its types. No browser."""

from __future__ import annotations

import pytest

from dpo_driver.core import plugins
from dpo_driver.core.actions import Noop
from dpo_driver.core.errors import ConfigError, UnknownNameError
from dpo_driver.core.records import Observation, Step, StopReason, Task, Trajectory
from dpo_driver.envs.gauntlet.puzzles import HELD_OUT, TYPES
from dpo_driver.envs.gauntlet.tasks import FAMILIES, RUNS, coverage, find_family, make_task, setting_of, types_of


def test_every_type_and_every_length_of_a_run_is_a_family_in_each_difficulty_and_skin() -> None:
    assert len(FAMILIES) == (len(TYPES) + 30) * 3 * 2
    assert {f.type for f in FAMILIES.values() if f.kind == "step"} == set(TYPES)
    assert {f.until for f in FAMILIES.values() if f.kind == "run"} == set(range(1, 31))
    assert sum(f.held_out for f in FAMILIES.values()) == len(FAMILIES) // 2 + 3 * len(HELD_OUT)


@pytest.mark.parametrize(
    ("written", "name", "max_steps", "params"),
    [
        ("run", "run", 500, {"difficulty": 1, "skin": "a", "order": "band"}),
        ("run-30", "run", 500, {"difficulty": 1, "skin": "a", "order": "band"}),
        ("gauntlet.run-5-d1-a", "run-5", 150, {"difficulty": 1, "skin": "a", "order": "band"}),
        ("run-b-d3", "run-d3-b", 500, {"difficulty": 3, "skin": "b", "order": "band"}),
        ("step-click-reveal", "step-click-reveal", 10, {"difficulty": 1, "skin": "a", "order": "band"}),
        ("step-memory-b", "step-memory-b", 24, {"difficulty": 1, "skin": "b", "order": "band"}),
        ("step-memory-d3", "step-memory-d3", 30, {"difficulty": 3, "skin": "a", "order": "band"}),
        ("step-slider-b-d2", "step-slider-d2-b", 30, {"difficulty": 2, "skin": "b", "order": "band"}),
    ],
)
def test_a_name_says_what_is_played(written: str, name: str, max_steps: int, params: dict[str, object]) -> None:
    task = make_task(written, 7, "val")
    assert task == Task(
        id=f"gauntlet.{name}/7", env="gauntlet", name=name, seed=7, split="val", params=params, max_steps=max_steps
    )
    assert make_task(task.name, 7, "val") == task
    setting = setting_of(task)
    assert (setting.difficulty, setting.skin, setting.order) == tuple(params.values())


@pytest.mark.parametrize("name", ["step", "run-0", "run-31", "run-d4", "step-slider-c", "step-slidr", "", "-b"])
def test_an_unknown_family_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="gauntlet task"):
        find_family(name)


def test_parameters_go_before_the_name_and_are_checked() -> None:
    task = make_task("run-3", 1)
    assert setting_of(task.model_copy(update={"params": {"skin": "b"}})).skin == "b"
    assert setting_of(task.model_copy(update={"params": {"actions_a_step": 12}})).actions_a_step == 12
    for wrong in ({"difficulty": 4}, {"skin": "z"}, {"order": "upwards"}, {"difficulty": "1"}, {"actions_a_step": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            setting_of(task.model_copy(update={"params": wrong}))


def test_what_an_agent_is_asked_to_do() -> None:
    assert find_family("run").goal == "Solve all 30 steps."
    assert find_family("run-2-b").goal == "Solve the first 2 steps."
    assert find_family("run-1").goal == "Solve the first step."
    assert find_family("step-math-d3").goal == "Find the code of this step and submit it."


def test_a_site_of_somebody_else_has_runs_only() -> None:
    place = "gauntlet:http://127.0.0.1:9000"
    assert plugins.load("tasks", place) is RUNS
    assert set(RUNS) == {"run", *(f"run-{k}" for k in range(1, 30))}
    made = plugins.load("make_task", place)("run-4", 9)
    assert (made.id, made.max_steps) == ("gauntlet.run-4/9", 120)
    with pytest.raises(UnknownNameError):
        plugins.load("make_task", place)("step-math", 9)
    # What does not depend on the place is the same there.
    assert plugins.load("experts", place) is plugins.load("experts", "gauntlet")
    assert plugins.load("make_task", "gauntlet") is make_task


def step(reward: float | None = None) -> Step:
    return Step(observation=Observation(goal="g"), action=Noop(), reward=reward)


def trajectory(task: Task, *rewards: float | None, failure: str | None = None, success: bool = False) -> Trajectory:
    ended = StopReason.SERVER_ERROR if failure else StopReason.SUCCESS if success else StopReason.MAX_STEPS
    return Trajectory(
        id=f"{task.id}/{len(rewards)}", task=task, agent="test", steps=tuple(step(reward) for reward in rewards),
        stop_reason=ended, failure=failure, success=None if failure else success,
    )  # fmt: skip


def test_coverage_counts_tries_and_successes_by_type() -> None:
    math, slider = make_task("step-math", 1), make_task("step-slider-d2-b", 2)
    found = coverage(
        [
            trajectory(math, None, 1.0, success=True),
            trajectory(math, None, None),
            trajectory(math, None, failure="server_error: gone"),
            trajectory(slider, 1.0, success=True),
        ]
    )
    assert set(found) == set(TYPES)
    assert (found["math"].n, found["math"].success, found["math"].excluded) == (2, 0.5, 1)
    assert (found["slider"].n, found["slider"].success) == (1, 1.0)
    assert (found["draw"].n, found["draw"].success) == (0, None)


def test_coverage_of_a_run_counts_its_solved_steps_and_the_one_it_ended_on() -> None:
    task = make_task("run-3", 5)
    first, second, third = types_of(task)
    assert {first, second, third} <= set(TYPES)
    third_part = 1 / 3

    def counts(*rewards: float | None, failure: str | None = None) -> list[tuple[int, float | None, int]]:
        found = coverage([trajectory(task, *rewards, failure=failure)])
        return [(found[name].n, found[name].success, found[name].excluded) for name in (first, second, third)]

    assert counts(third_part, None, third_part, None) == [(1, 1.0, 0), (1, 1.0, 0), (1, 0.0, 0)]
    assert counts(third_part) == [(1, 1.0, 0), (0, None, 0), (0, None, 0)]  # the second was not tried
    assert counts(third_part, None, failure="lost") == [(1, 1.0, 0), (0, None, 1), (0, None, 0)]
    assert counts(third_part, third_part, third_part) == [(1, 1.0, 0)] * 3
