"""A person at the terminal, as a pipe of lines: sees the prompt, acts in a real page, and can keep the episode."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.agents.prompt import get_profile, render
from dpo_driver.browser.reaper import find_marked
from dpo_driver.core.store import RunStore
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.preferences.formats import import_samples
from dpo_driver.preferences.replay import successes_as_samples
from dpo_driver.rollout.episode import run_episode

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]

# click-button with seed 7 asks for "Next"; its number comes from the page.
SEED = 7


def play(folder: Path, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "dpo_driver", "play", *arguments]
    return subprocess.run(
        command, cwd=folder, env=env, input=typed, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def expert() -> tuple[list[str], str]:
    """What the expert would type for login-user/3, and the first prompt of the chat profile."""

    async def roll() -> tuple[list[str], str]:
        environment = await MiniwobEnvironment.create()
        try:
            task = make_task("login-user", 3, "demo")
            trajectory = await run_episode(environment, OracleAgent("chat"), task)
        finally:
            await environment.close()
        assert trajectory.success
        first = render(get_profile("chat"), trajectory.steps[0].observation, ())
        return [step.completion for step in trajectory.steps], first[-1].content

    return asyncio.run(roll())


def test_a_person_sees_what_the_agent_sees_and_solves_the_task(tmp_path: Path, expert: tuple[list[str], str]) -> None:
    completions, prompt = expert
    done = play(tmp_path, "\n".join(completions) + "\n", "login-user/3")
    assert done.returncode == 0, done.stderr
    assert prompt.strip() in done.stdout
    assert f"=== success: reward 1 after {len(completions)} steps ===" in done.stdout


def test_slips_cost_nothing_and_errors_are_shown(tmp_path: Path) -> None:
    typed = 'click(\nfly("1")\n\npage\nclick("99")\nnoop()\nquit\n'
    done = play(tmp_path, typed, "click-button", "--seed", str(SEED), "--save", "runs/mine")
    assert done.returncode == 0, done.stderr
    assert "! cannot read the action 'click('" in done.stdout
    assert "! unknown action 'fly'" in done.stdout
    assert "# The last action failed: there is no element 99" in done.stdout
    assert "--- step 3 of 3 ---" in done.stdout
    assert "cancelled: the person left" in done.stdout
    assert not (tmp_path / "runs").exists(), "an episode that was left is not kept"


def test_the_end_of_input_ends_the_episode(tmp_path: Path) -> None:
    done = play(tmp_path, "", "click-button")
    assert done.returncode == 0, done.stderr
    assert "ended without a score: cancelled: the person left" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_demonstration_can_be_trained_on(tmp_path: Path, expert: tuple[list[str], str]) -> None:
    typed = "\n".join(expert[0]) + "\n"
    done = play(tmp_path, typed, "login-user", "--seed", "3", "--save", "runs/mine", "--profile", "pocket", "--json")
    told = json.loads(done.stdout)
    assert (told["success"], told["reward"], told["split"]) == (True, 1.0, "demo")
    assert told["saved"] == "runs/mine: demos/miniwob.login-user/3/0"
    with RunStore(tmp_path / "runs/mine", "read") as store:
        (kept,) = store.trajectories("demos")
    assert (kept.agent, kept.context_policy) == ("human", get_profile("pocket").id)
    rows = successes_as_samples([kept])
    assert [row.completion.splitlines()[0] for row in rows] == [text.splitlines()[0] for text in expert[0]]
    # The same as a file of training rows; done twice it holds them once.
    for _ in range(2):
        assert play(tmp_path, typed, "login-user/3", "--save", "mine.jsonl").returncode == 0
    assert len(import_samples(tmp_path / "mine.jsonl")) == len(expert[0])


def test_a_test_seed_is_played_but_never_trained_on(tmp_path: Path) -> None:
    done = play(tmp_path, 'noop()\nreport_infeasible("no")\n', "click-test/900001", "--save", "mine.jsonl", "--json")
    assert json.loads(done.stdout)["split"] == "test"
    assert not (tmp_path / "mine.jsonl").exists()


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    done = play(tmp_path, "", "click-buton")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean" in done.stderr
    done = play(tmp_path, "", "click-button/3", "--seed", "4")
    assert done.returncode == 2
    assert "two different seeds" in done.stderr


def test_ctrl_c_while_thinking_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dpo_driver", "play", "click-button"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline().startswith("--- step 1")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert "Traceback" not in (process.stderr.read() if process.stderr else "")
    assert [marked for marked in find_marked() if marked.owner_pid == process.pid] == []
