"""Expert play recorded on real pages: by the solver, by a person in the browser, and out of other recorders' files."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from dpo_driver.agents.prompt import get_profile
from dpo_driver.browser.observe import Limits, observe
from dpo_driver.cli.record_options import keeps_time
from dpo_driver.core.actions import format_action
from dpo_driver.core.protocols import Environment
from dpo_driver.core.records import Element, StopReason, Task, Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.envs.gauntlet.environment import GauntletEnvironment
from dpo_driver.envs.gauntlet.tasks import make_task as gauntlet_task
from dpo_driver.envs.miniwob.environment import LIMITS, MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task as miniwob_task
from dpo_driver.rollout.intents import act_out
from dpo_driver.rollout.person import Played, watch
from dpo_driver.rollout.recorder import Proof, Recordings, prove

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = ROOT / "tests" / "recordings"
SHOP = f"website:{ROOT / 'examples' / 'shop' / 'tasks'}"


def kept(folder: Path) -> list[Trajectory]:
    with RunStore(folder, "read") as store:
        return list(Recordings(store).proven())


# -- the solver --------------------------------------------------------------------------------------------------------


def test_the_solver_is_recorded_proven_and_merged_without_doubles(cli: CommandLine, tmp_path: Path) -> None:
    families = ("step-click-reveal", "step-scroll-find", "step-math")
    tasks = [word for name in families for word in ("--task", name)]
    first = cli("collect", "--agent", "solver", *tasks, "--runs", "1", "--json", timeout=200)
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert (told["played"], told["doubles"], told["failed"], told["parted"]) == (3, 0, [], {})
    assert set(told["coverage"]) == {"click-reveal", "scroll-find", "math"}
    for row in told["coverage"].values():
        assert (row["tried"], row["solved"], row["reproduced"], row["by_elements"]) == (1, 1, 1, 0)
        assert 2 <= row["actions"] <= 12
    assert len(told["uncovered"]) == 30 - 3

    before = {one.id: one for one in kept(tmp_path / "runs/expert")}
    assert set(before) == {f"expert/gauntlet.{name}/1/solver-0" for name in families}
    for one in before.values():
        assert (one.agent, one.success, one.task.split) == ("solver", True, "demo")
        assert one.context_policy == get_profile("pocket").id
        assert all(step.messages and step.thought and step.completion for step in one.steps)

    again = cli("collect", "--agent", "solver", *tasks, "--runs", "1", "--again", "--json", timeout=200)
    told = json.loads(again.stdout)
    assert (told["played"], told["doubles"]) == (3, 3), "the same play is kept once"
    assert {one.id for one in kept(tmp_path / "runs/expert")} == set(before)

    done = cli("collect", "--agent", "solver", *tasks, "--runs", "1")
    assert "3 of 3 played before" in done.stderr
    assert re.search(r"click-reveal +1 +1 +1 +0 +0 ", done.stdout)


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(cli: CommandLine, tmp_path: Path) -> None:
    arguments = ["collect", "--agent", "oracle", "--task", "click-button", "--runs", "40"]
    with subprocess.Popen(
        [sys.executable, "-m", "dpo_driver", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "NO_COLOR": "1", "TERM": "dumb"},
    ) as going:  # fmt: skip
        asyncio.run(_until(lambda: _count(tmp_path / "runs/expert") >= 2))
        going.send_signal(signal.SIGINT)
        assert going.wait(30) == 130
    stopped = _count(tmp_path / "runs/expert")
    assert 2 <= stopped < 40
    more = cli(*arguments[:-1], str(stopped + 2), "--json", timeout=120)
    assert more.returncode == 0, more.stderr
    row = json.loads(more.stdout)["coverage"]["click-button"]
    assert (row["tried"], row["solved"], row["reproduced"], row["waiting"]) == (
        stopped + 2,
        stopped + 2,
        stopped + 2,
        0,
    )
    assert json.loads(more.stdout)["played"] <= 2


async def _until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.1)


def _count(folder: Path) -> int:
    if not (folder / "run.db").is_file():
        return 0
    with RunStore(folder, "read") as store:
        return sum(store.count(stage) for stage in ("recorded", "demos"))


# -- a person ----------------------------------------------------------------------------------------------------------

Source = Callable[[], AbstractAsyncContextManager[Callable[[], Awaitable[Any]]]]


class Hand:
    """A person's hand and eyes in an environment's window: real input beside the recorder."""

    def __init__(self, environment: Any, limits: Limits) -> None:
        self.environment, self._limits = environment, limits

    @property
    def page(self) -> Any:
        return self.environment.session.page

    async def look(self, pattern: str, *roles: str) -> Element:
        """The element of that name once it can be seen."""
        async with asyncio.timeout(15):
            while True:
                seen = await observe(self.environment.session, self._limits)
                for element in seen.elements:
                    if element.box and re.search(pattern, element.name) and (not roles or element.role in roles):
                        return element
                await asyncio.sleep(0.1)

    async def point_at(self, pattern: str, *roles: str) -> None:
        element = await self.look(pattern, *roles)
        assert element.box is not None
        left, top, width, height = element.box
        await self.page.mouse.move(left + width / 2, top + height / 2, steps=3)

    async def click(self, pattern: str, *roles: str) -> None:
        await self.point_at(pattern, *roles)
        await self.page.mouse.down()
        await self.page.mouse.up()

    async def type(self, text: str) -> None:
        await self.page.keyboard.type(text, delay=20)


Play = Callable[[Hand, str], Awaitable[None]]


def recorded(
    source: Source, task: Task, limits: Limits, play: Play, *, by_elements: bool = False
) -> tuple[Played, Trajectory, Proof]:
    """What the recorder makes of a person's play: the intents, the trajectory, its proof."""

    async def whole() -> tuple[Played, Trajectory, Proof]:
        async with source() as make:
            environments: list[Environment] = [await make() for _ in range(3)]
            ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            watching = asyncio.ensure_future(watch(environments[0], task, limits, ready.set_result))
            await asyncio.wait({watching, ready}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            await play(Hand(environments[0], limits), ready.result())
            played = await asyncio.wait_for(watching, 30)
            trajectory = await act_out(played.intents, task, environments[1], name="human")
            proof = await prove(trajectory, environments[2], by_elements=by_elements)
            for environment in environments:
                await environment.close()
            return played, trajectory, proof

    return asyncio.run(whole())


def written(trajectory: Trajectory) -> list[str]:
    return [format_action(step.action) for step in trajectory.steps if step.action is not None]


async def _log_in(hand: Hand, goal: str) -> None:
    user, password = re.findall(r'"(.+?)"', goal)
    await hand.click("Username", "textbox")
    await hand.type(user)
    await hand.click("Password", "textbox")
    await hand.type(password)
    await hand.click("Login", "button")


def test_a_person_on_miniwob() -> None:
    task = miniwob_task("login-user", 3, "demo")
    played, trajectory, proof = recorded(MiniwobEnvironment.source, task, LIMITS, _log_in)
    assert (played.stop, played.reward) == (StopReason.SUCCESS, 1.0)
    assert [intent.kind for intent in played.intents] == ["fill", "fill", "click"]
    assert (trajectory.success, trajectory.agent) == (True, "human")
    assert written(trajectory) == ['fill("1", "keneth")', 'fill("2", "91YP")', 'click("3")']
    assert [step.thought for step in trajectory.steps] == ["textbox Username", "textbox Password", "button Login"]
    assert proof == Proof("states", 3, 3)


async def _rest_and_enter(hand: Hand, _goal: str) -> None:
    told = (await hand.look(r'"\w+"', "text")).name  # "Let the pointer rest on "rope" for a moment."
    wanted = re.search(r'"(\w+)"', told)
    assert wanted is not None
    await hand.point_at(f"^{wanted[1]}$", "clickable")
    shown = await hand.look(r"\b[A-HJ-NP-Z2-9]{6}\b", "text")
    code = re.search(r"\b[A-HJ-NP-Z2-9]{6}\b", shown.name)
    assert code is not None
    await hand.click("code|key", "textbox")
    await hand.type(code[0])
    await hand.page.keyboard.press("Enter")


def test_a_person_on_the_gauntlet() -> None:
    task = gauntlet_task("step-hover-reveal", 3, "demo")
    played, trajectory, proof = recorded(
        GauntletEnvironment.source, task, Limits(), _rest_and_enter, by_elements=keeps_time(task)
    )
    assert played.stop is StopReason.SUCCESS
    kinds = [intent.kind for intent in played.intents if intent.kind != "noop"]
    assert kinds == ["hover", "fill", "press"], "the stay that mattered is in it"
    assert [intent.copied for intent in played.intents if intent.kind == "fill"] == [
        intent.values["value"] for intent in played.intents if intent.kind == "fill"
    ]
    assert trajectory.success
    actions = written(trajectory)
    assert actions[0].startswith("hover(")
    assert actions[-1].endswith('"Enter")')
    assert any(action.startswith("noop(") for action in actions), "the code was waited for"
    assert proof.how is not None, proof.reason


# -- files -------------------------------------------------------------------------------------------------------------

FILES: Sequence[tuple[str, str, str, str, list[str]]] = (
    ("settings_codegen.py", "playwright-codegen", SHOP, "settings/3",
     ["click", "select_option", "click", "click"]),
    ("trade.spec.ts", "playwright-codegen", SHOP, "trade/3",
     ["goto", "fill", "fill", "click", "fill", "fill", "fill", "press", "click", "select_option", "click"]),
    ("login_browser_use.json", "browser-use", "miniwob", "login-user/3", ["fill", "fill", "click"]),
)  # fmt: skip


@pytest.mark.parametrize(("file", "form", "source", "task", "kinds"), FILES, ids=[row[0] for row in FILES])
def test_a_file_is_acted_out_and_proven(
    cli: CommandLine, tmp_path: Path, file: str, form: str, source: str, task: str, kinds: list[str]
) -> None:
    command = (
        "collect",
        "--import",
        str(RECORDINGS / file),
        "--format",
        form,
        "--env",
        source,
        "--task",
        task,
        "--json",
    )
    told = json.loads(cli(*command, timeout=120).stdout)
    (row,) = told["coverage"].values()
    assert (row["tried"], row["solved"], row["reproduced"], row["by_elements"]) == (1, 1, 1, 0)
    (one,) = kept(tmp_path / "runs/expert")
    assert one.agent == form
    assert [step.action.kind for step in one.steps if step.action] == kinds
    if source == "miniwob":
        assert json.loads(cli(*command, timeout=120).stdout)["doubles"] == 1


def test_a_file_that_does_not_lead_there_is_kept_apart_and_says_why(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(
        'def test(page):\n    page.goto("/")\n    page.get_by_label("Username").fill("who")\n'
        '    page.get_by_role("button", name="Logout").click()\n'
    )
    done = cli("collect", "--import", "x.py", "--task", "login-user/3", timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'not solved: role "button" "Logout" is not there (x.py:4)' in done.stderr
    assert kept(tmp_path / "runs/expert") == []
