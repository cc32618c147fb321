"""`dpo-driver collect --agent` and `--import`: what does not go together is said before a browser starts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dpo_driver.cli.record_options import Request, check, keeps_time, kind_of, tasks_of
from dpo_driver.core.errors import ConfigError, DriverError, UnknownNameError
from dpo_driver.envs.gauntlet.plan import Plan
from dpo_driver.envs.gauntlet.puzzles import HELD_OUT
from dpo_driver.envs.gauntlet.tasks import make_task

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


def test_steps_of_runs_are_tasks_of_their_types() -> None:
    tasks = tasks_of(Request("solver", steps="1-30", runs=2, seed=4))
    assert len(tasks) == len({task.id for task in tasks}) == 60
    assert [task.name for task in tasks[:30]] == [f"step-{step.type}" for step in Plan.of(4).steps]
    assert {task.seed for task in tasks[30:]} == {5}
    assert not {kind_of(task) for task in tasks} & HELD_OUT
    assert {task.split for task in tasks} == {"demo"}
    (one,) = tasks_of(Request("solver", steps="7", difficulty=3))
    assert one.name == f"step-{Plan.of(1, difficulty=3).step(7).type}-d3"


def test_what_is_held_out_gets_a_split_that_is_never_trained_on() -> None:
    def split(request: Request) -> str:
        return tasks_of(request)[0].split

    assert split(Request("solver", steps="1", skin="b")) == "test"
    assert split(Request("solver", tasks=("step-conditional",))) == "test"
    assert split(Request("solver", tasks=("step-math/900001",))) == "test"
    assert split(Request("oracle", tasks=("click-button/100000",))) == "val"
    assert split(Request("oracle", tasks=("click-button/5000",))) == "demo"


def test_only_types_with_a_clock_may_differ_in_their_states() -> None:
    timed = {"animated-button", "audio", "delayed-reveal", "hover-reveal", "memory", "rotating-code", "timing",
             "websocket"}  # fmt: skip
    from dpo_driver.envs.gauntlet.puzzles import TYPES

    assert {name for name in TYPES if keeps_time(make_task(f"step-{name}", 1))} == timed
    assert keeps_time(make_task("run", 1))
    assert not keeps_time(tasks_of(Request("oracle", tasks=("click-button",)))[0])


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (Request("solver", steps="0-3"), "are no steps of a run"),
        (Request("solver", steps="9-3"), "are no steps of a run"),
        (Request("solver", steps="1-31"), "are no steps of a run"),
        (Request("oracle"), "nothing says what is played"),
        (Request(None, file=Path("x.py")), "a file is acted out on one task"),
        (Request(None, file=Path("x.py"), tasks=("a", "b")), "a file is acted out on one task"),
    ],
)
def test_tasks_that_are_none(request_: Request, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        tasks_of(request_)


def test_what_does_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    cases = [
        (Request(None, steps="1"), ConfigError, "nothing says who plays"),
        (Request("solver", file=Path("x")), ConfigError, "exclude each other"),
        (Request("solvr"), UnknownNameError, "did you mean solver"),
        (Request("solver", steps="1", tasks=("x",)), ConfigError, "exclude each other"),
        (Request("oracle", steps="1", source="miniwob"), ConfigError, "miniwob has no steps"),
        (Request("human", tasks=("click-button",)), DriverError, "there is no display"),
    ]
    for request, error, what in cases:
        with pytest.raises(error, match=what):
            check(request)


def test_the_command_says_so_and_leaves_nothing_behind(cli: CommandLine, tmp_path: Path) -> None:
    for arguments, what in (
        (("x.yaml", "--agent", "oracle", "--task", "click-button"), "recorded without a configuration"),
        (("--steps", "1-3"), "these options are about expert play"),
        (("--import", "gone.py", "--task", "click-button/1"), "the recording cannot be read"),
    ):
        done = cli("collect", *arguments)
        assert done.returncode == 2, done.stderr
        assert what in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
