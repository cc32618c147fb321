"""Our environments as TRL's: tools made from the action table, and two steps of TRL's own trainer; no browser here."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import get_json_schema

from dpo_driver.core.actions import ACTIONS, parse_action
from dpo_driver.core.errors import ActionError, ConfigError, UnknownNameError
from dpo_driver.core.records import StopReason
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.policies.loading import load_tokenizer
from dpo_driver.rollout.trl import (
    OVER,
    PROMPT,
    EnvironmentFactory,
    environment_factory,
    episode_rows,
    reward_from_environment,
)
from tool_model import clicking_model


@pytest.fixture
def press() -> Iterator[EnvironmentFactory]:
    with environment_factory("toy.press") as factory:
        yield factory


def wanted(page: str) -> str:
    """Number of the button that the goal names."""
    name = page.rpartition('Press "')[2].partition('"')[0]
    (line,) = [line for line in page.splitlines() if line.endswith(f'button "{name}"')]
    return line[1 : line.index("]")]


def test_every_action_becomes_a_tool_with_its_types() -> None:
    tools = environment_factory("toy.press", actions=ACTIONS)()
    for kind, model in ACTIONS.items():
        schema = get_json_schema(getattr(tools, kind))["function"]
        parameters = schema["parameters"]
        assert schema["name"] == kind and schema["description"]
        assert tuple(parameters["properties"]) == model.arguments
        assert all(shape["description"] for shape in parameters["properties"].values())
        needed = [name for name in model.arguments if model.model_fields[name].is_required()]
        assert parameters.get("required", []) == needed
    types = {
        ("click", "ref"): "string", ("click", "button"): "string", ("select_option", "options"): "array",
        ("scroll", "delta_y"): "number", ("tab_focus", "index"): "integer",
    }  # fmt: skip
    for (kind, name), expected in types.items():
        assert get_json_schema(getattr(tools, kind))["function"]["parameters"]["properties"][name]["type"] == expected


def test_trl_finds_the_actions_and_nothing_else(press: EnvironmentFactory) -> None:
    """By TRL's rule: public functions of the class, without reset and get_reward."""
    public = {name for name, _ in inspect.getmembers(type(press()), inspect.isfunction) if not name.startswith("_")}
    assert public - {"reset"} == {"click", "fill", "select_option", "press", "scroll", "drag_and_drop"}


def test_an_episode_is_won_lost_or_given_up(press: EnvironmentFactory) -> None:
    tools = press()
    page = tools.reset(seed=7, prompt=[], other="column")
    assert '# Goal: Press "' in page and (tools.reward, tools.success, tools.steps) == (0.0, False, 0)
    assert "there is no element 9" in tools.click(ref="9")
    assert "does nothing here" in tools.press(ref="1", key="Enter")
    assert tools.click(ref=int(wanted(page))) == OVER  # models write numbers without quotes, too
    assert (tools.reward, tools.success, tools.stop) == (1.0, True, StopReason.SUCCESS)
    assert tools.click(ref="1") == OVER and tools.steps == 3
    assert tools.reset(seed=7) == page and tools.reward == 0.0
    wrong = next(str(n) for n in range(1, 5) if str(n) != wanted(page))
    assert tools.click(ref=wrong) == OVER
    assert (tools.reward, tools.success, tools.stop, tools.raw_reward) == (0.0, False, StopReason.WRONG, -1.0)
    tools.reset(seed=7)
    for _ in range(make_task("press", 7).max_steps):
        assert tools.stop is None
        tools.scroll(delta_x=0, delta_y=10)
    assert (tools.stop, tools.reward) == (StopReason.MAX_STEPS, 0.0)


async def test_seeds_start_what_our_own_rollouts_start(press: EnvironmentFactory) -> None:
    observation = await ToyEnvironment().reset(make_task("press", 11))
    one, other = press(), press()
    assert one.reset(seed=11) == other.reset(seed=11) == "\n" + press.written(observation)
    assert one.reset(seed=12) != other.reset(seed=11)


@pytest.mark.parametrize(("kind", "half", "none"), [("strict", 0.0, 0.0), ("positive", 1.0, 0.0), ("dense", 0.5, 0.0)])
def test_partial_success_is_rewarded_as_asked(kind: Any, half: float, none: float) -> None:
    with environment_factory("login", environment="toy", actions=["fill", "click"], reward=kind) as factory:
        tools = factory()
        page = tools.reset(seed=1)
        user = page.partition('Log in as "')[2].partition('"')[0]
        tools.fill(ref="1", value=user)
        tools.click(ref="3")
        assert tools.raw_reward == 0.5 and reward_from_environment([tools], prompts=[]) == [half]
        tools.reset(seed=1)
        tools.click(ref="3")
        assert reward_from_environment(environments=[tools]) == [none]


def test_rows_choose_their_family_and_their_seed(press: EnvironmentFactory) -> None:
    rows = episode_rows("toy.wizard", [3, 4])
    assert rows[1] == {"prompt": [{"role": "user", "content": PROMPT}], "task": "toy.wizard", "seed": 4}
    tools = press()
    assert 'Choose "' in tools.reset(**rows[0])
    assert 'Press "' in tools.reset(seed=3)
    with pytest.raises(ConfigError, match="without a seed"):
        tools.reset(prompt=[])
    with pytest.raises(UnknownNameError, match="toy task 'wizzard'"):
        tools.reset(seed=1, task="wizzard")


def test_calls_that_cannot_be_read_do_nothing(press: EnvironmentFactory) -> None:
    tools = press()
    with pytest.raises(ActionError, match="reset comes first"):
        tools.click(ref="1")
    tools.reset(seed=1)
    with pytest.raises(TypeError, match="missing a required argument: 'ref'"):
        tools.click()
    with pytest.raises(TypeError, match="unexpected keyword argument 'selector'"):
        tools.click(ref="1", selector="1")
    for call in ({"ref": {"deep": 1}}, {"ref": None}, {"ref": "1", "button": "side"}):
        with pytest.raises(ActionError):
            tools.click(**call)
    with pytest.raises(ActionError, match="delta_y"):
        tools.scroll(delta_x=1, delta_y=float("nan"))
    assert tools.steps == 0 and tools.stop is None
    hostile = "1\") or __import__('os').system(\"touch harmed"
    assert "there is no element" in tools.click(ref=hostile)
    assert parse_action(f"click({hostile!r})").ref == hostile  # type: ignore[union-attr]


def test_unknown_names_are_told_before_anything_starts() -> None:
    for arguments in ({"task": "toy.pres"}, {"task": "toy.press", "actions": ["clik"]},
                      {"task": "toy.press", "reward": "strickt"}, {"task": "toy.press", "profile": "chatty"},
                      {"task": "press", "environment": "toys"}, {"task": "press"}):  # fmt: skip
        with pytest.raises(UnknownNameError):
            environment_factory(**arguments)  # type: ignore[arg-type]


def test_everything_is_closed_and_may_begin_again() -> None:
    before = threading.active_count()
    factory = environment_factory("toy.press")
    assert threading.active_count() == before  # nothing has been started yet
    tools = factory()
    page = tools.reset(seed=1)
    assert threading.active_count() == before + 1
    factory.close()
    factory.close()
    assert threading.active_count() == before
    assert factory().reset(seed=1) == page
    factory.close()
    assert threading.active_count() == before


def test_trls_trainer_learns_from_what_the_environment_says(tmp_path: Path) -> None:
    """Two steps of GRPO with a tiny model: its tool calls are carried out, and the rewards are the episodes' own."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    seen: list[list[tuple[int, Any, float | None]]] = []

    def reward(environments: Any, completions: Any, seed: list[int], **columns: Any) -> list[float | None]:
        rewards = reward_from_environment(environments, **columns)
        seen.append(list(zip(seed, completions, rewards, strict=True)))
        return rewards

    with environment_factory("toy.press", actions=["click"]) as factory:
        probe = factory()
        starts = {seed: probe.reset(seed=seed) for seed in range(16)}
        pages = [PROMPT + page for page in starts.values()]
        model = clicking_model(tmp_path, [get_json_schema(probe.click)], pages, range(1, 5))
        trainer = trl.GRPOTrainer(
            model=str(model),
            args=trl.GRPOConfig(
                output_dir=str(tmp_path / "trainer"), max_steps=2, per_device_train_batch_size=16, num_generations=8,
                max_completion_length=256, max_tool_calling_iterations=1, learning_rate=1e-3, report_to="none",
                chat_template_kwargs={"enable_thinking": False}, use_cpu=True, bf16=False, logging_steps=1,
                save_strategy="no", disable_tqdm=True, seed=0,
            ),
            train_dataset=datasets.Dataset.from_list(episode_rows("toy.press", starts)),
            reward_funcs=reward, environment_factory=factory, processing_class=load_tokenizer(model),
        )  # fmt: skip
        before = {name: value.clone() for name, value in trainer.model.named_parameters()}
        trainer.train()
    logged = [row for row in trainer.state.log_history if "reward" in row]
    assert len(logged) == len(seen) == 2
    tried = 0
    for row, rollouts in zip(logged, seen, strict=True):
        assert [len([1 for seed, *_ in rollouts if seed == one]) for one in {seed for seed, *_ in rollouts}] == [8, 8]
        assert row["reward"] == pytest.approx(sum(value or 0.0 for *_, value in rollouts) / 16)
        for seed, completion, value in rollouts:
            if calls := completion[0].get("tool_calls"):
                tried += 1
                clicked = str(calls[0]["function"]["arguments"].get("ref"))
                assert value == (1.0 if clicked == wanted(starts[seed]) else 0.0)
                assert completion[1]["role"] == "tool"
            else:
                assert value == 0.0  # nothing was done, so nothing was earned
    assert tried >= 16
    # Where some rollouts of a page won and others lost, there is something to learn from, and it is learned.
    assert any(0 < row["reward"] < 1 and row["grad_norm"] > 0 for row in logged)
    assert any(not value.equal(before[name]) for name, value in trainer.model.named_parameters())
