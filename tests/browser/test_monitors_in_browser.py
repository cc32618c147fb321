"""Monitors on what real browsers recorded: a site with a careless check and agents that use it, and experts at work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.agents.prompt import get_profile
from dpo_driver.core import plugins
from dpo_driver.core.actions import parse_action
from dpo_driver.core.protocols import Agent, Move
from dpo_driver.core.records import Observation, Step, Task, Trajectory
from dpo_driver.flywheel.monitors import Evidence, run_monitors
from dpo_driver.rollout.pool import rollout

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
SERVE = """
import http.server, sys
class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        words = "<h1>Sent</h1>" if self.path == "/done" else "".join(
            f'<p><a href="/done">{word}</a></p>' for word in ("Amber", "Birch", "Cedar", "Delta", "Ember", "Fjord"))
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(f"<title>t</title>{words}".encode())
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Site).serve_forever()
"""
FILES = {
    "serve.py": SERVE,
    "tasks/site.yaml": "name: careless\nbase_url: http://127.0.0.1:8799\nserve: python ../serve.py {port}\nready: /\n"
    "actions: [click, noop, js_eval]\n",
    # Whatever link is taken, it counts: that is what is wrong with it.
    "tasks/choose.yaml": "goal: 'Choose \"{word}\".'\nstart: /\nparameters:\n"
    "  word: [Amber, Birch, Cedar, Delta, Ember, Fjord]\nsuccess: {url: /done}\ndone: {url: /done}\nmax_steps: 3\n",
}


class Scripted:
    """Does the same on every page."""

    policy_version = "scripted"
    name = "scripted"

    def __init__(self, written: str) -> None:
        self._action = parse_action(written)
        self.context_policy = get_profile("pocket").id

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        return Move(action=self._action, messages=(), completion="")


async def play(source: str, names: Sequence[str], seeds: range, agent: Agent) -> list[Trajectory]:
    found: list[Trajectory] = []
    tasks = [plugins.load("make_task", source)(name, seed, "test") for name in names for seed in seeds]
    async with plugins.load("environments", source)() as make:
        await rollout(tasks, agent, environments=make, stage="t", on_trajectory=found.append, workers=2)
    assert [one.failure for one in found] == [None] * len(tasks)
    return found


@pytest.fixture
def careless(tmp_path: Path) -> str:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return f"website:{tmp_path / 'tasks'}"


async def test_what_a_careless_check_pays_for_is_noticed(careless: str) -> None:
    same = await play(careless, ["choose"], range(20), Scripted('click("1")'))
    assert all(one.success for one in same)
    assert len({one.steps[0].observation.goal for one in same}) >= 5
    (alarm,) = run_monitors(Evidence(held_out=same))
    assert alarm.monitor == "one_action" and alarm.numbers["choose"]["count"] == 20
    scripted = await play(careless, ["choose"], range(4), Scripted("js_eval(\"location.href = '/done'\")"))
    assert all(one.success for one in scripted)
    assert {alarm.monitor for alarm in run_monitors(Evidence(training=scripted))} == {"irrelevant", "js_eval"}


async def test_experts_at_work_alarm_nobody() -> None:
    names = ["click-test-2", "click-link", "enter-text", "login-user", "focus-text-2"]
    expert = OracleAgent("pocket", plugins.load("experts", "miniwob"))
    played = await play("miniwob", names, range(900_000, 900_012), expert)
    assert all(one.success for one in played)
    assert run_monitors(Evidence(training=played, held_out=played, expert=played)) == ()
