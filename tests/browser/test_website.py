"""Any site as an environment: the example shop for real, and a small site that does everything wrong."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dpo_driver.agents.experts.page import Lost, Page
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.browser.wire import free_port
from dpo_driver.core.actions import Click, Fill, Goto, Noop, UploadFile, parse_action
from dpo_driver.core.errors import ConfigError
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Observation, StopReason, Trajectory
from dpo_driver.envs.website.environment import WebsiteEnvironment, environments
from dpo_driver.envs.website.serve import answers
from dpo_driver.envs.website.site import experts, make_task
from dpo_driver.rollout.pool import rollout
from dpo_driver.testing.check_env import check_env

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
in_module_loop = pytest.mark.asyncio(loop_scope="module")
SHOP = Path(__file__).resolve().parents[2] / "examples" / "shop"
FAMILIES = ("checkout", "orders", "returns", "settings", "trade")
Make = Callable[[], Awaitable[WebsiteEnvironment]]


# -- the example shop -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """The shop, served by its own command on a free port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(SHOP / "serve.py"), "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield f"{SHOP / 'tasks'}@http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(5)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def make(place: str) -> AsyncIterator[Make]:
    async with environments(place)() as factory:
        yield factory


async def play(environment: WebsiteEnvironment, name: str, seed: int, place: str, **replaced: str) -> list[Outcome]:
    """The expert's play, with words of its goal replaced: what it then does is wrong in that."""
    task = make_task(place)(name, seed)
    seen: Observation = await environment.reset(task)
    told = seen.goal
    for old, new in replaced.items():
        assert old.replace("_", " ") in told, told
        told = told.replace(old.replace("_", " "), new)
    outcomes = []
    for _ in range(task.max_steps):
        try:
            _, action = experts(place)[name](Page(seen.model_copy(update={"goal": told}), ()))
        except Lost:
            action = Noop()
        outcomes.append(await environment.step(action))
        seen = outcomes[-1].observation
        if outcomes[-1].stop is not None:
            break
    return outcomes


@in_module_loop
async def test_it_is_an_environment(place: str, make: Make) -> None:
    tasks = [make_task(place)(name, seed) for name, seed in (("orders", 1), ("settings", 2))]

    def expert(observation: Observation) -> Any:
        name = "orders" if observation.goal.startswith("Open the") else "settings"
        return experts(place)[name](Page(observation, ()))[1]

    await check_env(await make(), tasks, expert=expert)


async def oracles(place: str, make: Make, seeds: range) -> list[Trajectory]:
    found: list[Trajectory] = []
    tasks = [make_task(place)(name, seed) for name in FAMILIES for seed in seeds]
    agent = OracleAgent("pocket", experts(place))
    await rollout(tasks, agent, environments=make, stage="t", on_trajectory=found.append, workers=2)
    lost = {t.id: (t.failure, [(s.thought, s.action, s.observation.last_error) for s in t.steps]) for t in found
            if not t.success}  # fmt: skip
    assert not lost
    assert len(found) == len(tasks)
    assert all(trajectory.reward == 1.0 and trajectory.attempts == 1 for trajectory in found)
    return found


@in_module_loop
async def test_the_experts_solve_every_task(place: str, make: Make) -> None:
    found = await oracles(place, make, range(500, 501))
    steps = {trajectory.task.name: len(trajectory.steps) for trajectory in found}
    assert all(steps[name] >= 3 for name in FAMILIES), steps
    assert steps["trade"] == 10
    for trajectory in found:  # what a model learns to think is the label of what it acts on
        for step in trajectory.steps:
            assert step.thought in {element.label for element in step.observation.elements}


@in_module_loop
@pytest.mark.slow
async def test_the_experts_solve_twenty_seeds_of_twenty(place: str, make: Make) -> None:
    assert len(await oracles(place, make, range(20))) == 100


WRONG = {  # family, what the expert is told instead, raw reward
    "another phone number": ("trade", {"5346650": "5346651"}, 7 / 8),
    "two wrong fields": ("trade", {"Thursday": "Friday", "Selby Orchards": "Selby"}, 6 / 8),
    "another channel": ("settings", {"New_arrivals": "Garden tips"}, 0.0),
    "not by phone": ("settings", {"by_phone_only": "by email only"}, 0.0),
    "too few": ("checkout", {"Order_5": "Order 4"}, 3 / 4),
    "another product and name": ("checkout", {"Hand_Trowel": "Leaf Rake", "Ana_Heath": "Ana Lane"}, 2 / 4),
    "another file": ("returns", {"receipt.txt": "photo.svg"}, 2 / 3),
    "another reason and order": ("returns", {"Rust": "Broken", "9280": "9281"}, 1 / 3),
    "the same customer's other order": ("orders", {"the_Returned": "the Open"}, 0.0),
}  # what is replaced are the words of seed 3


@in_module_loop
@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_answer_is_refused(case: str, place: str, make: Make) -> None:
    name, replaced, reward = WRONG[case]
    environment = await make()
    try:
        outcomes = await play(environment, name, 3, place, **replaced)
        assert outcomes[-1].stop is StopReason.WRONG
        assert outcomes[-1].reward == pytest.approx(reward)
        assert all(outcome.reward is None for outcome in outcomes[:-1])
        with pytest.raises(RuntimeError, match="after the end"):
            await environment.step(Noop())
    finally:
        await environment.close()


@in_module_loop
async def test_a_refused_form_is_told_and_partial_credit_comes_with_the_last_step(place: str, make: Make) -> None:
    environment = await make()
    try:
        task = make_task(place)("trade", 3).model_copy(update={"max_steps": 4})
        seen = await environment.reset(task)
        refs = {element.name: element.ref for element in seen.elements}
        await environment.step(Fill(ref=str(refs["Company name"]), value="Selby Orchards"))
        await environment.step(Fill(ref=str(refs["VAT number"]), value="653407"))
        outcome = await environment.step(Click(ref=str(refs["Continue"])))
        shown = [element.name for element in outcome.observation.elements]
        assert "GB and six digits, such as GB123456" in shown
        assert outcome.observation.url.endswith("/trade/1") and outcome.stop is None
        last = await environment.step(Noop())
        assert (last.stop, last.reward) == (StopReason.MAX_STEPS, 0.0)  # nothing was taken, so nothing counts
    finally:
        await environment.close()


@in_module_loop
async def test_the_agent_acts_only_as_it_may(place: str, make: Make) -> None:
    environment = await make()
    try:
        seen = await environment.reset(make_task(place)("returns", 3))
        start = seen.url
        for action, told in (
            (parse_action('js_eval("1")'), "js_eval is not allowed here"),
            (Goto(url="http://example.org/"), "not part of this task's site"),
            (Goto(url=start.replace("http://", "http://a@")), "not part of this task's site"),
            (parse_action("go_back()"), "no page to go back to"),
            (UploadFile(ref="1", file=("../experts.py",)), "outside the folder"),
        ):
            outcome = await environment.step(action)
            assert told in (outcome.observation.last_error or ""), action
            assert outcome.observation.state_hash == seen.state_hash
        outcome = await environment.step(Goto(url=start + "orders"))
        assert outcome.observation.last_error is None
        assert outcome.observation.url == start + "orders"
    finally:
        await environment.close()


@in_module_loop
async def test_equal_seeds_start_alike_whatever_came_before(place: str, make: Make) -> None:
    one, other = await make(), await make()
    try:
        starts: dict[tuple[str, int], Observation] = {}
        for name in FAMILIES:
            for seed in (1, 2):
                starts[name, seed] = await one.reset(make_task(place)(name, seed))
            if name in ("orders", "settings", "returns"):
                assert (await play(one, name, 1, place))[-1].stop is StopReason.SUCCESS
        for (name, seed), start in reversed(starts.items()):
            assert await other.reset(make_task(place)(name, seed)) == start
        assert len({start.state_hash for start in starts.values()}) == len(starts)
        # Each episode has a visit of its own: what one does in the shop, the other does not see.
        assert "Cart (0)" in [element.name for element in starts["orders", 1].elements]
    finally:
        await one.close()
        await other.close()


@in_module_loop
async def test_the_site_is_started_and_ended(tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    async with environments(f"{SHOP / 'tasks'}@{address}")() as make:
        assert answers(f"{address}/health")
        environment = await make()
        seen = await environment.reset(make_task(str(SHOP / "tasks"))("orders", 4))
        assert seen.url == f"{address}/orders"
        await environment.close()
    assert not answers(f"{address}/health")


def test_the_site_does_not_outlive_whoever_started_it() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    program = (
        "import sys, time\nfrom dpo_driver.envs.website.site import Site\n"
        "with Site.open(sys.argv[1]).running():\n    print('up', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, f"{SHOP / 'tasks'}@{address}"], stdout=subprocess.PIPE)
    assert owner.stdout is not None and owner.stdout.readline() == b"up\n"
    assert answers(f"{address}/health")
    owner.kill()
    owner.wait(5)
    owner.stdout.close()
    deadline = time.monotonic() + 10
    while answers(f"{address}/health"):
        assert time.monotonic() < deadline, "the site is still there 10 s after its owner was killed"
        time.sleep(0.05)


@in_module_loop
async def test_a_site_that_does_not_come_up_is_told(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("goal: x\nsuccess: {url: /x}\n")
    site = f"name: s\nbase_url: http://127.0.0.1:{free_port()}\n"
    for serve, told in (
        ("", "nothing answers at"),
        ("serve: python -c 'raise SystemExit(\"no database\")'\n", "the site ended with 1; it said: no database"),
        ("serve: no-such-command\n", "the site cannot be started"),
    ):
        (tmp_path / "site.yaml").write_text(site + serve)
        with pytest.raises(ConfigError, match=told):
            async with environments(str(tmp_path))():
                pass
