"""The gymnasium face passes gymnasium's own checker and plays a real episode."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from dpo_driver.browser.reaper import find_marked
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.records import StopReason
from dpo_driver.envs.gym import BrowserEnv
from dpo_driver.envs.gym_hook import register
from dpo_driver.envs.miniwob.tasks import TASKS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
register()


@pytest.fixture(scope="module")
def env() -> gymnasium.Env[dict[str, str], str]:
    env = gymnasium.make("dpo_driver/miniwob.click-button")
    yield env
    env.close()
    env.close()


def test_it_passes_gymnasiums_checker(env: gymnasium.Env[dict[str, str], str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)


def test_an_episode_is_won_by_the_right_button(env: gymnasium.Env[dict[str, str], str]) -> None:
    seen, info = env.reset(seed=3)
    assert seen["last_error"] == ""
    assert info["observation"].goal == seen["goal"]
    (wanted,) = re.findall(r'"(.+)"', seen["goal"])
    (number,) = set(re.findall(rf'\[(\d+)\] button "{wanted}"', seen["page"])[:1])
    seen, reward, terminated, truncated, _ = env.step("not an action")
    assert seen["last_error"]
    assert (reward, terminated, truncated) == (0.0, False, False)
    _, reward, terminated, truncated, info = env.step(f'click("{number}")')
    assert (reward, terminated, truncated, info["stop"]) == (1.0, True, False, StopReason.SUCCESS)


@pytest.mark.parametrize(("kind", "expected"), [("dense", 1 / 3), ("strict", 0.0), ("positive", 1.0)])
def test_a_partial_success_is_told_as_asked(kind: str, expected: float) -> None:
    """With nothing ticked two boxes of three are right and one is wrong, so the page gives a third."""
    env = gymnasium.make("dpo_driver/miniwob.click-checkboxes", reward=kind)
    try:
        seen, _ = env.reset(seed=8)
        (number,) = re.findall(r'\[(\d+)\] button "Submit"', seen["page"])
        _, reward, terminated, _, info = env.step(f'click("{number}")')
    finally:
        env.close()
    assert terminated
    assert info["raw_reward"] == pytest.approx(1 / 3)
    assert reward == pytest.approx(expected)


def test_an_unknown_reward_is_refused_with_a_close_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean strict"):
        BrowserEnv("click-test", reward="strickt")  # type: ignore[arg-type]


def test_the_step_limit_truncates_and_seeds_repeat(env: gymnasium.Env[dict[str, str], str]) -> None:
    first, _ = env.reset(seed=8)
    steps = [env.step("noop()")[2:4] for _ in range(TASKS["click-button"].max_steps)]
    assert steps == [*[(False, False)] * (len(steps) - 1), (False, True)]
    drawn, info = env.reset()
    again, _ = env.reset(seed=info["seed"])
    assert again == drawn
    assert env.reset(seed=8)[0] == first
    assert env.unwrapped.screenshot()[:3] == b"\xff\xd8\xff"  # type: ignore[attr-defined]


def test_all_families_are_registered_and_unknown_ones_start_no_browser() -> None:
    ids = {name for name in gymnasium.registry if name.startswith("dpo_driver/miniwob.")}
    assert ids == {f"dpo_driver/miniwob.{name}" for name in TASKS}
    before = len(find_marked())
    with pytest.raises(UnknownNameError):
        BrowserEnv("click-buton")
    assert len(find_marked()) == before


@pytest.mark.parametrize(
    "order",
    ["hook.install(); import gymnasium", "import gymnasium; hook.install()", "import dpo_driver.envs.gym, gymnasium"],
)
def test_ids_are_known_whichever_is_imported_first(order: str) -> None:
    code = f"""
import sys
from dpo_driver.envs import gym_hook as hook
{order}
assert "playwright" not in sys.modules
assert gymnasium.spec("dpo_driver/miniwob.click-button").max_episode_steps == 3
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
