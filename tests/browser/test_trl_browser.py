"""Our pages as TRL's environments in a real browser: solved by tool calls, shared, broken and mended, closed at the
end; and the example, run as it stands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import get_json_schema

from dpo_driver.browser.reaper import find_marked
from dpo_driver.core.errors import ActionError
from dpo_driver.core.records import StopReason
from dpo_driver.policies.loading import is_adapter, load_model
from dpo_driver.rollout.trl import PROMPT, EnvironmentFactory, environment_factory, reward_from_environment
from tool_model import clicking_model

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


def ours() -> set[int]:
    """Browser processes that this very process has started."""
    return {marked.pid for marked in find_marked() if marked.owner_pid == os.getpid()}


@pytest.fixture(scope="module")
def factory() -> Iterator[EnvironmentFactory]:
    with environment_factory("miniwob.click-button") as made:
        yield made
    assert ours() == set()


def numbered(page: str, role: str, name: str) -> str:
    """Number of the first element of a role and name."""
    return re.findall(rf'^\[(\d+)\] {role} "{re.escape(name)}"', page, re.MULTILINE)[0]


def quoted(page: str) -> list[str]:
    return re.findall(r'"([^"]*)"', page.rpartition("# Goal:")[2])


def call(tools: Any, written: str) -> str:
    """A tool call as a model writes it, found and done as TRL does it."""
    function = json.loads(written)
    return str(getattr(tools, function["name"])(**function["arguments"]))


def test_tool_calls_solve_click_button(factory: EnvironmentFactory) -> None:
    tools = factory()
    for seed in (3, 4, 5):
        page = tools.reset(seed=seed, prompt=[{"role": "user", "content": PROMPT}])
        (name,) = quoted(page)
        assert tools.reward == 0.0
        arguments = {"ref": numbered(page, "button", name)}
        call(tools, json.dumps({"name": "click", "arguments": arguments}))
        assert (tools.success, tools.stop, tools.steps) == (True, StopReason.SUCCESS, 1)
        assert reward_from_environment([tools]) == [1.0] and tools.raw_reward >= 0.99


def test_several_calls_fill_a_form_and_a_wrong_one_earns_nothing(factory: EnvironmentFactory) -> None:
    tools = factory()
    page = tools.reset(seed=2, task="login-user")
    user, password = quoted(page)
    fields = re.findall(r"^\[(\d+)\] (?:textbox|password)", page, re.MULTILINE)
    page = tools.fill(ref=fields[0], value=user)
    assert f'value="{user}"' in page and tools.stop is None
    tools.fill(ref=fields[1], value=password)
    tools.click(ref=numbered(page, "button", "Login"))
    assert reward_from_environment([tools]) == [1.0]
    page = tools.reset(seed=2, task="miniwob.login-user")
    tools.click(ref=numbered(page, "button", "Login"))
    assert (tools.success, tools.reward) == (False, 0.0) and tools.raw_reward < 0


def test_rollouts_share_a_browser_and_nothing_else(factory: EnvironmentFactory) -> None:
    one, other = factory(), factory()
    page = one.reset(seed=6)
    before = ours()
    assert other.reset(seed=6) == page
    assert ours() == before
    one.click(ref=numbered(page, "button", quoted(page)[0]))
    assert one.success and other.stop is None and other.reward == 0.0
    other.click(ref=numbered(page, "button", quoted(page)[0]))
    assert other.success


def test_a_browser_that_dies_is_no_score_and_the_next_episode_has_another() -> None:
    with environment_factory("click-button") as factory:
        tools = factory()
        page = tools.reset(seed=1)
        for pid in ours():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ActionError, match="the page is broken"):
            tools.click(ref="1")
        with pytest.raises(ActionError, match="the page is broken"):
            tools.click(ref="1")
        assert (tools.reward, tools.success, tools.steps) == (None, None, 0)
        assert reward_from_environment([tools]) == [None]
        assert tools.reset(seed=1) == page
        tools.click(ref=numbered(page, "button", quoted(page)[0]))
        assert reward_from_environment([tools]) == [1.0]
    assert ours() == set()


def test_a_script_that_forgets_to_close_leaves_nothing() -> None:
    program = """
import os
from dpo_driver.rollout.trl import environment_factory
assert "click" in environment_factory("click-button")().reset(seed=1).lower()
print(os.getpid())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    deadline = time.monotonic() + 10
    while any(marked.owner_pid == int(done.stdout) for marked in find_marked()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_the_example_runs_two_steps_of_trls_trainer(root: Path, tmp_path: Path) -> None:
    """As the documents show it, with a tiny model in place of Qwen3; what it saves is a parent here."""
    with environment_factory("miniwob.click-test-2", actions=["click"], profile="pocket") as factory:
        probe = factory()
        pages = [PROMPT + probe.reset(seed=seed) for seed in range(8)]
        tools = [get_json_schema(probe.click)]
    refs = sorted({int(number) for page in pages for number in re.findall(r"\[(\d+)\]", page)})
    model = clicking_model(tmp_path, tools, pages, range(refs[0], refs[-1] + 1), steps=40)
    command = [
        sys.executable, str(root / "examples" / "trl_grpo.py"), "--model", str(model), "--task", "miniwob.click-test-2",
        "--actions", "click", "--seeds", "4", "--steps", "2", "--generations", "4", "--tokens", "300",
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stdout.splitlines() if "'tools/call_frequency'" in line]
    assert len(steps) == 2 and all("'rewards/reward_from_environment/mean'" in line for line in steps)
    assert any("'tools/call_frequency': '0'" not in line for line in steps)
    assert is_adapter(tmp_path / "out")
    parent = load_model(tmp_path / "out", device="cpu", trainable="lora")
    assert any(parameter.requires_grad for parameter in parent.parameters())
    assert {marked.owner_pid for marked in find_marked()} & {os.getpid()} == set()
