"""MiniWoB++ in a real browser: the same seed gives the same start whatever came before, only the page's own verdict is
a reward, and whatever breaks is typed and mended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Error as PlaywrightError

from dpo_driver.agents.random import RandomAgent
from dpo_driver.browser.browser import Browser
from dpo_driver.core.actions import Action, Click, Goto, ReportInfeasible
from dpo_driver.core.errors import RolloutFailure, UnknownNameError
from dpo_driver.core.records import Observation, StopReason
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.server import BASE_URL, MiniwobServer, pages_folder
from dpo_driver.envs.miniwob.tasks import TASKS, find_task, make_task
from dpo_driver.testing.check_env import check_env

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
module_loop = pytest.mark.asyncio(loop_scope="module")

FAMILIES = tuple(
    """
    click-button click-link click-test-2 click-option click-checkboxes enter-text enter-text-dynamic enter-password
    login-user focus-text-2 click-tab-2-easy click-tab-2 choose-list click-dialog-2 navigate-tree click-button-sequence
    enter-date click-widget form-sequence-2 click-collapsible-2 email-inbox-forward
    """.split()
)
CALL_S = 2.0


@pytest_asyncio.fixture(loop_scope="module")
async def environment(browser: Browser) -> AsyncIterator[MiniwobEnvironment]:
    with MiniwobServer() as server:
        environment = MiniwobEnvironment(browser, server.gateway, call_s=CALL_S)
        yield environment
        await environment.close()


def wanted_button(seen: Observation) -> Action:
    """The oracle of click-button."""
    quoted = re.findall(r'"(.+?)"', seen.goal)
    return Click(ref=ref_of(seen, "button", quoted[0]))


def ref_of(seen: Observation, role: str, name: str = "") -> str:
    found = [e.ref for e in seen.elements if e.role == role and e.name == name]
    assert found and found[0] is not None, f"no {role} {name!r} among {[e.label for e in seen.elements]}"
    return found[0]


# ---- the same start ------------------------------------------------------------------------------------------------


@module_loop
async def test_conformance(environment: MiniwobEnvironment) -> None:
    await check_env(environment, [make_task("click-button", seed) for seed in (1, 2, 3)], expert=wanted_button)


@module_loop
async def test_conformance_across_families(environment: MiniwobEnvironment) -> None:
    await check_env(environment, [make_task(name, 5) for name in ("login-user", "click-checkboxes", "navigate-tree")])


async def check_freshness(
    environment: MiniwobEnvironment, name: str, seeds: tuple[int, ...], steps: int, exact: bool = True
) -> dict[int, Observation]:
    """Fresh pages against restarted ones, with random acting in between, in another order."""
    fresh: dict[int, Observation] = {}
    for seed in seeds:
        await environment.close()
        fresh[seed] = await environment.reset(make_task(name, seed))
    agent = RandomAgent(seed=3)
    for number, seed in enumerate([*reversed(seeds), *seeds, seeds[0], seeds[0]]):
        seen = await environment.reset(make_task(name, seed))
        same = seen == fresh[seed] if exact else seen.state_hash == fresh[seed].state_hash
        assert same, f"{name}, seed {seed}, after {number} episodes"
        for step in range(steps):
            move = await agent.act(make_task(name, 1000 * number + step), seen, [])
            assert move.action is not None
            outcome = await environment.step(move.action)
            seen = outcome.observation
            if outcome.stop is not None:
                break
    return fresh


@module_loop
@pytest.mark.parametrize("name", FAMILIES)
async def test_equal_seeds_give_equal_starts_whatever_came_before(environment: MiniwobEnvironment, name: str) -> None:
    assert not TASKS[name].reload
    starts = await check_freshness(environment, name, (11, 12, 13), steps=6)
    assert starts[11] != starts[12]  # the seed says something


@pytest.mark.slow
@module_loop
@pytest.mark.parametrize("name", [name for name in TASKS if name not in FAMILIES])
async def test_all_other_families_start_fresh(environment: MiniwobEnvironment, name: str) -> None:
    """Up to where things lie: some of these pages are in motion."""
    await check_freshness(environment, name, (21, 22), steps=3, exact=False)


@module_loop
async def test_two_workers_see_the_same(environment: MiniwobEnvironment, browser: Browser) -> None:
    with MiniwobServer() as server:
        other = MiniwobEnvironment(browser, server.gateway)
        for name in FAMILIES[:6]:
            task = make_task(name, 77)
            assert await environment.reset(task) == await other.reset(task)
        await other.close()


# ---- rewards -------------------------------------------------------------------------------------------------------


@module_loop
async def test_success_is_strict(environment: MiniwobEnvironment) -> None:
    seen = await environment.reset(make_task("click-button", 1))
    outcome = await environment.step(wanted_button(seen))
    assert (outcome.reward, outcome.stop) == (1.0, StopReason.SUCCESS)  # raw: not less for being slow
    seen = await environment.reset(make_task("click-test-2", 4))
    outcome = await environment.step(Click(ref=ref_of(seen, "button", "TWO")))
    assert (outcome.reward, outcome.stop) == (-1.0, StopReason.WRONG)
    # One box of several ticked wrongly: MiniWoB++ gives part of the reward, strictly it is no success.
    for seed in range(40):
        seen = await environment.reset(make_task("click-checkboxes", seed))
        boxes = [e for e in seen.elements if e.role == "checkbox"]
        named = re.sub(r"^Select | and click Submit\.$", "", seen.goal).split(", ")
        if len(boxes) < 5 or len(named) < 2:
            continue
        for box in boxes:
            if box.name in named[1:] and box.ref is not None:
                outcome = await environment.step(Click(ref=box.ref))
                assert (outcome.reward, outcome.stop) == (None, None)
        outcome = await environment.step(Click(ref=ref_of(seen, "button", "Submit")))
        expected = (len(boxes) - 2) / len(boxes)
        assert outcome.reward == pytest.approx(expected)
        assert outcome.stop is StopReason.WRONG
        return
    raise AssertionError("no seed below 40 has five boxes and two names")


@module_loop
async def test_page_globals_are_no_reward(environment: MiniwobEnvironment) -> None:
    seen = await environment.reset(make_task("click-test-2", 1))
    assert environment.session is not None
    await environment.session.page.evaluate(
        "WOB_RAW_REWARD_GLOBAL = WOB_REWARD_GLOBAL = 1; WOB_DONE_GLOBAL = true; core.endEpisode = () => 1;"
    )
    outcome = await environment.step(Click(ref="999"))
    assert (outcome.reward, outcome.stop) == (None, None)
    outcome = await environment.step(Click(ref=ref_of(seen, "button", "TWO")))
    assert (outcome.reward, outcome.stop) == (-1.0, StopReason.WRONG)


@module_loop
async def test_actions_without_a_place_here(environment: MiniwobEnvironment) -> None:
    start = await environment.reset(make_task("click-test", 1))
    outcome = await environment.step(Goto(url="http://example.com"))
    assert outcome.observation.last_error == "this task is a single page: goto is not available"
    assert outcome.observation.state_hash == start.state_hash
    outcome = await environment.step(ReportInfeasible(reason="no button"))
    assert (outcome.reward, outcome.stop) == (None, StopReason.INFEASIBLE)
    with pytest.raises(RuntimeError):
        await environment.step(Click(ref="1"))


@module_loop
async def test_observations_wait_for_what_the_page_is_about_to_do(environment: MiniwobEnvironment) -> None:
    seen = await environment.reset(make_task("click-test-2", 1))
    assert environment.session is not None
    add = "area.insertAdjacentHTML('beforeend', '<button>late</button>')"
    later = f"setTimeout(() => setTimeout(() => {add}, 100), 200)"
    await environment.session.page.evaluate(f"d3.select('#subbtn').on('click', () => {{ {later} }})")
    outcome = await environment.step(Click(ref=ref_of(seen, "button", "ONE")))
    assert ref_of(outcome.observation, "button", "late") == "3"
    # Where nothing is about to happen nothing is waited for.
    began = time.monotonic()
    for _ in range(10):
        await environment.step(Click(ref="999"))
    assert (time.monotonic() - began) / 10 < 0.15


@module_loop
async def test_the_end_can_be_seen(environment: MiniwobEnvironment) -> None:
    """MiniWoB++ covers the page when an episode ends; the last picture must show what the agent did."""
    seen = await environment.reset(make_task("click-button", 1))
    before = await environment.screenshot()
    await environment.step(wanted_button(seen))
    after = await environment.screenshot()
    assert before[:3] == after[:3] == b"\xff\xd8\xff"
    assert environment.session is not None
    assert await environment.session.page.evaluate("core.cover_div.style.display") == "none"
    assert len(after) > len(before) / 2  # a black cover would compress to almost nothing


# ---- failures ------------------------------------------------------------------------------------------------------


async def fails(environment: MiniwobEnvironment, ref: str) -> tuple[str, float]:
    began = time.monotonic()
    with pytest.raises(RolloutFailure) as caught:
        await environment.step(Click(ref=ref))
    seconds = time.monotonic() - began
    assert environment.session is None or caught.value.kind == StopReason.SERVER_ERROR
    seen = await environment.reset(make_task("click-button", 1))  # usable again at once
    outcome = await environment.step(wanted_button(seen))
    assert outcome.stop is StopReason.SUCCESS
    return caught.value.kind, seconds


async def arm(environment: MiniwobEnvironment, script: str) -> str:
    """An episode in which clicking the button runs a script; the button's number."""
    seen = await environment.reset(make_task("click-test", 1))
    assert environment.session is not None
    await environment.session.page.evaluate(f"d3.select('#subbtn').on('click', () => {{ {script} }})")
    return ref_of(seen, "button", "Click Me!")


@module_loop
async def test_a_page_that_hangs(environment: MiniwobEnvironment) -> None:
    kind, seconds = await fails(environment, await arm(environment, "for (;;);"))
    assert kind == StopReason.PAGE_HUNG
    assert CALL_S <= seconds < CALL_S + 4


@module_loop
async def test_a_page_that_leaves(environment: MiniwobEnvironment) -> None:
    kind, _ = await fails(environment, await arm(environment, "location.href = 'click-link.html';"))
    assert kind == StopReason.NAVIGATED_AWAY


@module_loop
async def test_a_browser_that_is_killed(environment: MiniwobEnvironment, browser: Browser) -> None:
    ref = await arm(environment, "1")
    for pid in browser.pids:
        os.kill(pid, signal.SIGKILL)
    kind, seconds = await fails(environment, ref)
    assert kind == StopReason.BROWSER_LOST
    assert seconds < CALL_S


@module_loop
async def test_a_renderer_that_crashes(environment: MiniwobEnvironment) -> None:
    ref = await arm(environment, "1")
    assert environment.session is not None
    with pytest.raises(PlaywrightError):
        await asyncio.wait_for(environment.session.page.goto("chrome://crash"), 5)
    kind, seconds = await fails(environment, ref)
    assert kind == StopReason.RENDERER_CRASH
    assert seconds < CALL_S


@module_loop
async def test_a_dialog_is_told_and_stops_nothing(environment: MiniwobEnvironment) -> None:
    ref = await arm(environment, "alert('look out'); core.endEpisode(1.0);")
    outcome = await environment.step(Click(ref=ref))
    assert outcome.observation.last_error == 'the page opened a dialog: "look out"'
    assert outcome.stop is StopReason.SUCCESS


@module_loop
async def test_a_task_whose_script_fails(environment: MiniwobEnvironment) -> None:
    await environment.reset(make_task("click-test", 1))
    assert environment.session is not None
    await environment.session.page.evaluate("void (genProblem = () => { throw new Error('broken task'); })")
    with pytest.raises(RolloutFailure, match=r"server_error: .*broken task"):
        await environment.reset(make_task("click-test", 2))
    assert (await environment.reset(make_task("click-test", 2))).goal == "Click the button."


# ---- names and pages -----------------------------------------------------------------------------------------------


def test_every_page_of_the_package_is_a_task() -> None:
    pages = {path.stem for path in (pages_folder() / "miniwob").glob("*.html")}
    assert set(TASKS) == pages
    assert len(TASKS) == 130


def test_names_and_aliases() -> None:
    for prefix in ("", "browsergym/miniwob.", "miniwob.", "miniwob/"):
        for version in ("", "-v0", "-v1"):
            assert find_task(f"{prefix}click-test{version}").name == "click-test"
    task = make_task("browsergym/miniwob.click-test-2", 7, "test")
    assert (task.id, task.env, task.name) == ("miniwob.click-test-2/7", "miniwob", "click-test-2")
    assert (task.split, task.max_steps) == ("test", 3)
    with pytest.raises(UnknownNameError, match=r"did you mean .*click-button"):
        make_task("click-buton", 1)


def test_the_gateway_serves_the_pages_and_nothing_else() -> None:
    with MiniwobServer() as server:
        through = urllib.request.build_opener(urllib.request.ProxyHandler({"http": server.gateway}))
        with through.open(f"{BASE_URL}click-test.html", timeout=5) as answer:
            assert b"core.js" in answer.read()
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        for url, status in (
            ("http://example.com/", 403),
            (server.gateway + "/miniwob/click-test.html", 403),
            (f"{BASE_URL}../../environment.py", 404),
            (f"{BASE_URL}%2e%2e/%2e%2e/environment.py", 404),
            (f"{BASE_URL}nothing.html", 404),
        ):
            with pytest.raises(urllib.error.HTTPError) as caught:
                through.open(url, timeout=5)
            assert caught.value.code == status, url
        assert server.refused == 2
