"""Our tasks behind BrowserGym's conventions: in this process, and run by BrowserGym's own experiment loop.

The latter needs benchmarks/peers/setup; without it that test is skipped, and says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.core.actions import format_action
from dpo_driver.core.errors import RolloutFailure, UnknownNameError
from dpo_driver.core.records import Element, Observation, StopReason, Task
from dpo_driver.envs import browsergym_tasks
from dpo_driver.envs.browsergym import peers_folder
from peers import why_not

TASKS = ("click-test", "click-button", "enter-text")
SOURCE = Path(__file__).resolve().parents[2] / "src"
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def oracle_string(observed: browsergym_tasks.Observed, family: str) -> str:
    """What the oracle would do, from BrowserGym's observation only, as an action string."""
    elements = []
    for node in observed["axtree_object"]["nodes"][1:]:
        value = node.get("value", {}).get("value")
        role = node["role"]["value"]
        elements.append(Element(ref=node.get("browsergym_id"), role=role, name=node["name"]["value"], value=value))
    page = Observation(goal=observed["goal"], elements=tuple(elements))
    move = asyncio.run(OracleAgent().act(Task(id="x", env="miniwob", name=family, seed=0), page, ()))
    assert move.action is not None
    return format_action(move.action)


@pytest.mark.parametrize("family", TASKS)
def test_our_tasks_are_solved_through_their_conventions(family: str) -> None:
    env = gymnasium.make(f"browsergym/dpo_driver.{family}", headless=True, action_mapping=None, slow_mo=100)
    try:
        for seed in (1, 2):
            observed, info = env.reset(seed=seed)
            assert set(observed) == set(browsergym_tasks.KEYS)
            assert observed["goal_object"][0]["text"] == observed["goal"] == observed["chat_messages"][1]["message"]
            done, steps = False, 0
            while not done:
                observed, reward, done, cut, info = env.step(oracle_string(observed, family))
                steps += 1
                assert observed["last_action_error"] == "" and not cut and steps <= 2
            assert reward == 1.0 and info["task_info"]["RAW_REWARD_GLOBAL"] >= 0.99
    finally:
        env.close()


def test_their_strings_are_read_and_never_executed(tmp_path: Path) -> None:
    env = gymnasium.make("browsergym/dpo_driver.enter-text", screenshots=False)
    try:
        observed, _ = env.reset(seed=1)
        wanted = observed["goal"].split('"')[1]
        observed, *_ = env.step(f"open({str(tmp_path / 'pwned')!r}, 'w')")
        assert "unknown action" in observed["last_action_error"] and not (tmp_path / "pwned").exists()
        field = next(n["browsergym_id"] for n in observed["axtree_object"]["nodes"] if n["role"]["value"] == "textbox")
        button = next(n["browsergym_id"] for n in observed["axtree_object"]["nodes"] if n["role"]["value"] == "button")
        # Several calls in one string, and their names of the arguments.
        both = f"fill(bid={field!r}, value={wanted!r})\nclick(bid={button!r})"
        _, reward, done, _, info = env.step(both)
        assert (reward, done, info["task_info"]["stop"]) == (1.0, True, "success")
        with pytest.raises(UnknownNameError):
            browsergym_tasks.BrowserGymTask("click-tset").reset(seed=1)
    finally:
        env.close()


def test_kill_9_of_our_process_is_seen_from_their_side() -> None:
    env = browsergym_tasks.BrowserGymTask("click-test", screenshots=False)
    try:
        env.reset(seed=1)
        assert env.pid is not None
        os.kill(env.pid, signal.SIGKILL)
        with pytest.raises(RolloutFailure) as caught:
            env.step('click("1")')
        assert caught.value.kind == StopReason.BROWSER_LOST
        observed, _ = env.reset(seed=1)
        _, reward, done, _, _ = env.step(oracle_string(observed, "click-test"))
        assert (reward, done) == (1.0, True)
    finally:
        env.close()


AGENT = """
import json, re, sys
from dataclasses import dataclass
from pathlib import Path

import dpo_driver.envs.browsergym_tasks  # registers our tasks
from browsergym.core.action.highlevel import HighLevelActionSet
from browsergym.experiments import Agent, AbstractAgentArgs, EnvArgs, ExpArgs, get_exp_result
from browsergym.utils.obs import flatten_axtree_to_str, flatten_dom_to_str


class Reader(Agent):
    '''Acts on the text that BrowserGym's own function makes of the observation.'''

    action_set = HighLevelActionSet(subsets=["chat", "bid"], strict=False, multiaction=False)

    def obs_preprocessor(self, obs):
        # Nested, because the loop counts the tokens of plain texts with a tokenizer that it downloads.
        seen = {
            "goal": obs["goal"],
            "tree": flatten_axtree_to_str(obs["axtree_object"], obs["extra_element_properties"], with_clickable=True),
            "html": flatten_dom_to_str(obs["dom_object"], obs["extra_element_properties"]),
            "error": obs["last_action_error"],
            "picture": obs["screenshot"].shape,
        }
        return {"seen": seen}

    def get_action(self, obs):
        obs = obs["seen"]
        wanted = re.search('"(.*?)"', obs["goal"])
        field = re.search(r"\\[(\\w+)\\] textbox ''(?! value)", obs["tree"])
        if "text field" in obs["goal"] and "value=" not in obs["tree"]:
            return f"fill({field[1]!r}, {wanted[1]!r})", {}
        name = wanted[1] if wanted and "text field" not in obs["goal"] else None
        buttons = re.findall(r"\\[(\\w+)\\] button '(.*?)'", obs["tree"])
        bid = next(bid for bid, said in buttons if name in (None, said))
        assert f'bid="{bid}"' in obs["html"] and obs["picture"] == (210, 160, 3) and obs["error"] == ""
        return f"click({bid!r})", {}


@dataclass
class ReaderArgs(AbstractAgentArgs):
    agent_name: str = "reader"

    def make_agent(self):
        return Reader()


if __name__ == "__main__":
    results = {}
    for family in ("click-test", "click-button", "enter-text"):
        experiment = ExpArgs(
            agent_args=ReaderArgs(),
            env_args=EnvArgs(task_name=f"dpo_driver.{family}", task_seed=3, max_steps=5, headless=True),
        )
        experiment.prepare(exp_root=Path(sys.argv[1]))
        experiment.run()
        record = get_exp_result(experiment.exp_dir).get_exp_record()
        results[family] = {key: record[key] for key in ("cum_reward", "terminated", "truncated", "n_steps", "err_msg")}
    print("RESULTS" + json.dumps(results))
"""


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_their_own_experiment_loop_runs_our_tasks(tmp_path: Path) -> None:
    """The real package, in its own environment: its runner, its agent class, its text of the tree, its action set."""
    script = tmp_path / "agent.py"
    script.write_text(AGENT)
    variables = {**os.environ, "PYTHONPATH": str(SOURCE), "DPO_DRIVER_PYTHON": sys.executable}
    command = [str(peers_folder() / "bin" / "python"), str(script), str(tmp_path)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=200, check=False)
    assert "RESULTS" in done.stdout, done.stderr[-3000:]
    results = json.loads(done.stdout.rpartition("RESULTS")[2])
    for family in TASKS:
        steps = 2 if family == "enter-text" else 1
        expected = {"cum_reward": 1.0, "terminated": True, "truncated": False, "n_steps": steps, "err_msg": None}
        assert results[family] == expected, done.stderr[-3000:]
