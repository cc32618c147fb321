"""The older Python face over today's parts: a real small model, the toy environment, and Chromium."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dpo_driver.compat import AgentModel, EnvironmentInterface, find_by_selector
from dpo_driver.core.errors import ActionError, ModelError, RolloutFailure, UnknownNameError
from dpo_driver.core.records import Element, Observation, StopReason
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.policies.scripted import ScriptedPolicy

# -- the agent ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of the pocket kind, saved as any model is."""
    torch = pytest.importorskip("torch")
    from transformers import Qwen3ForCausalLM

    from dpo_driver.policies.pocket import build_config, build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    folder = tmp_path_factory.mktemp("base")
    Qwen3ForCausalLM(build_config(tokenizer, layers=1, width=32, heads=2, ff=32)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that changes what the model says."""
    torch = pytest.importorskip("torch")
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=8, lora_alpha=64, target_modules="all-linear")
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


def test_a_model_answers_and_an_adapter_changes_the_answer(base: Path, adapter: Path) -> None:
    agent = AgentModel(str(base))
    before = agent.generate_completion("goal: go\n")
    assert before and before == AgentModel(str(base)).generate_completion("goal: go\n")
    assert agent.load_adapter(adapter) is agent
    after = agent.generate_completion("goal: go\n")
    assert after != before
    assert AgentModel.from_sft_adapter(str(base), adapter).generate_completion("goal: go\n") == after
    answer = agent.predict("goal: go\n")
    assert set(answer) == {"thought", "action"} and all(isinstance(text, str) for text in answer.values())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("thought: button OK\naction: click([3])", {"thought": "button OK", "action": "click([3])"}),
        ("<think>go</think>\nfill('2', 'x')", {"thought": "go", "action": "fill('2', 'x')"}),
        ('thought: t\naction: CLICK(selector="#a")', {"thought": "t", "action": 'CLICK(selector="#a")'}),
        (" I cannot say. ", {"thought": "I cannot say.", "action": ""}),
    ],
)
def test_predict_splits_thought_and_action(said: str, expected: dict[str, str]) -> None:
    asked = []

    def answer(messages: object, sampling: object) -> str:
        asked.append(messages)
        return said

    agent = AgentModel("any", policy=ScriptedPolicy(answer))
    assert agent.predict("page\ngoal: g") == expected
    [[message]] = asked
    assert (message.role, message.content) == ("user", "page\ngoal: g")


def test_what_cannot_be_loaded_is_said(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ValueError, match="model name"):
        AgentModel("")
    with pytest.raises(ModelError, match="no adapter here"):
        AgentModel(str(base)).load_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="pickled weights"):
        AgentModel(str(base)).load_adapter(tmp_path)
    with pytest.raises(ModelError):
        AgentModel(str(tmp_path / "nothing")).predict("x")
    with pytest.raises(ModelError, match="does not fit"):
        AgentModel("any", policy=ScriptedPolicy(lambda *_: "x", max_prompt_chars=3)).predict("long prompt")


# -- the environment ---------------------------------------------------------------------------------------------------


async def open_toy() -> ToyEnvironment:
    return ToyEnvironment()


def toy(task_id: str | None = None) -> EnvironmentInterface:
    return EnvironmentInterface(task_id, open_environment=open_toy, make_task=make_task)


def test_an_episode_from_reset_to_success() -> None:
    with toy() as environment:
        observation = environment.reset("login", seed=7)
        user, password = observation["utterance"].split('"')[1::2]
        assert observation["prompt"].endswith(f"goal: {observation['utterance']}\n")
        field = observation["elements"][0]
        assert (field["ref"], field["role"], field["name"]) == ("1", "textbox", "User")
        observation, reward, done, info = environment.step(f'thought: user\naction: fill([1], "{user}")')
        assert (reward, done, info["success"], info["stop_reason"]) == (0.0, False, None, None)
        assert observation["elements"][0]["value"] == user
        assert f'past: user; fill([1], "{user}")' in observation["prompt"]
        environment.step(f'TYPE(selector="[name=\'password\']", text="{password}")')
        observation, reward, done, info = environment.step("CLICK(selector=\"button:contains('Log in')\")")
        assert (reward, done, info) == (
            1.0,
            True,
            {"success": True, "stop_reason": "success", "error": None, "seed": 7},
        )
        with pytest.raises(RuntimeError, match="reset"):
            environment.step("noop()")


def test_a_wrong_click_ends_the_episode_without_success() -> None:
    with toy("press") as environment:
        observation = environment.reset()
        wrong = next(e for e in observation["elements"] if e["name"] not in observation["utterance"])
        _, reward, done, info = environment.step(f'click("{wrong["ref"]}")')
        assert (reward, done, info["success"], info["stop_reason"]) == (-1.0, True, False, "wrong")
        assert info["seed"] == 10_000
        environment.reset()
        assert environment.step("noop()")[3]["seed"] == 10_001


def test_unreadable_actions_change_nothing_and_steps_run_out() -> None:
    with toy("press") as environment:
        start = environment.reset(seed=3)
        observation, reward, done, info = environment.step("dance(1)")
        assert (reward, done) == (0.0, False) and "unknown action" in info["error"]
        assert observation["state_hash"] == start["state_hash"] and "unknown action" in observation["last_error"]
        _, _, done, info = environment.step('CLICK(selector="#nowhere")')
        assert not done and "cannot be read here" in info["error"]
        _, reward, done, info = environment.step('click("99")')
        assert (reward, done, info["success"], info["stop_reason"]) == (0.0, True, False, "max_steps")


def test_reset_needs_a_known_task_and_close_ends_the_thread() -> None:
    environment = toy()
    with pytest.raises(ValueError, match="task id"):
        environment.reset()
    with pytest.raises(UnknownNameError, match="press"):
        environment.reset("pres")
    environment.reset("press")
    assert [thread.name for thread in threading.enumerate()].count("environment") == 1
    environment.close()
    assert [thread.name for thread in threading.enumerate()].count("environment") == 0
    environment.close()
    assert environment.reset()["utterance"].startswith("Press")
    environment.close()


def test_a_failure_of_the_world_ends_the_episode() -> None:
    class Breaking(ToyEnvironment):
        async def step(self, action: object) -> None:  # type: ignore[override]
            raise RolloutFailure(StopReason.BROWSER_LOST, "gone")

    async def open_breaking() -> Breaking:
        return Breaking()

    with EnvironmentInterface("press", open_environment=open_breaking, make_task=make_task) as environment:
        environment.reset()
        with pytest.raises(RolloutFailure, match="browser_lost"):
            environment.step("noop()")
        with pytest.raises(RuntimeError, match="reset"):
            environment.step("noop()")


async def test_it_works_inside_a_running_loop() -> None:
    with toy("press") as environment:
        assert environment.reset(seed=1)["utterance"].startswith("Press")


# -- older selectors ---------------------------------------------------------------------------------------------------

PAGE = Observation(
    goal="g",
    elements=(
        Element(ref=None, role="heading", name="Log in", tag="h1"),
        Element(ref="1", role="textbox", name="Email address", tag="input"),
        Element(ref="2", role="combobox", name="Colour, tone", tag="select"),
        Element(ref="3", role="checkbox", name="I agree to terms", tag="input"),
        Element(ref="4", role="link", name="Home", tag="a"),
        Element(ref="5", role="tab", name="Home", tag="li"),
        Element(ref="6", role="button", name="Log in", tag="button"),
    ),
)


@pytest.mark.parametrize(
    ("selector", "ref"),
    [
        ("button:contains('Log in')", "6"),
        ("[role='tab']:contains('Home'), .tab:contains('Home'), a:contains('Home')", "5"),
        (".tab:contains('Home'), a:contains('Home')", "4"),
        ("input[type='email'], .email", "1"),
        ("input[name*='e-mail'], input[placeholder*='email' i]", "1"),
        ("select", "2"),
        ("form > div select[name='colour, tone']", "2"),
        ("input[type='checkbox'] + label:contains('I agree'), input[type='checkbox'][id*='agree']", "3"),
        ("#login, button", "6"),
        ("div[class='x y']>a", "4"),
        ('button:contains("in"), ', "6"),
    ],
)
def test_older_selectors_find_what_they_mean(selector: str, ref: str) -> None:
    assert find_by_selector(selector, PAGE).ref == ref


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("#login", "cannot be read"),
        (".a, .b", "cannot be read"),
        ("[style*='red']", "cannot be read"),
        ("", "cannot be read"),
        ("button[", "cannot be read"),
        ("it's", "cannot be read"),
        ("h1", "no element fits"),
        ("button:contains('Cancel')", "no element fits"),
    ],
)
def test_older_selectors_that_mean_nothing_here(selector: str, message: str) -> None:
    with pytest.raises(ActionError, match=message):
        find_by_selector(selector, PAGE)


def test_importing_the_older_face_loads_nothing_heavy() -> None:
    heavy = ("torch", "playwright", "numpy", "gymnasium")
    script = f"import sys, dpo_driver.compat; assert not [name for name in {heavy!r} if name in sys.modules]"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.browser
def test_miniwob_by_its_older_id() -> None:
    with EnvironmentInterface() as environment:
        observation = environment.reset("click-button-v1", seed=10_001)
        wanted = observation["utterance"].split('"')[1]
        assert "Click on the" in observation["utterance"]
        _, reward, done, info = environment.step(f"CLICK(selector=\"button:contains('{wanted}')\")")
        assert (reward, done, info["success"]) == (pytest.approx(1.0, abs=0.2), True, True)
