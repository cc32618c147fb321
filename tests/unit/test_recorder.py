"""Expert play as data, on the browserless environment: what reproduces, what is kept, and what training makes of it."""

from __future__ import annotations

import asyncio
import io
import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from rich.console import Console

from dpo_driver.agents.experts.page import Decision, Page
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.core.actions import Click, Noop, format_action
from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import ConfigError, DataError, RolloutFailure, StoreError
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Element, Observation, StopReason, Task, Trajectory, state_hash
from dpo_driver.core.store import RunStore
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.flywheel.context import open_run
from dpo_driver.flywheel.demos import rewritten
from dpo_driver.flywheel.train import demonstrations
from dpo_driver.rollout import recorder
from dpo_driver.rollout.recorder import Proof, Recordings, prove, prove_in, record


def wizard(page: Page) -> Decision:
    wanted = re.findall(r'"(\w+)"', page.goal)
    return page.click(page.named(wanted[len(page.history)], "button"))


def press(page: Page) -> Decision:
    return page.click(page.named(page.read(r'"(\w+)"')[1], "button"))


def log_in(page: Page) -> Decision:
    user, password = re.findall(r'"(\w+)"', page.goal)
    wanted = [(page.named("User", "textbox"), user), (page.named("Password", "textbox"), password)]
    return page.fill_all(wanted) or page.submit("Log in")


EXPERTS = {"wizard": wizard, "press": press, "login": log_in}


def expert(profile: str = "pocket") -> OracleAgent:
    return OracleAgent(profile, EXPERTS)


def play(
    *tasks: Task, environment: Callable[[], ToyEnvironment] = ToyEnvironment, profile: str = "pocket"
) -> list[Trajectory]:
    async def make() -> ToyEnvironment:
        return environment()

    return asyncio.run(record(tasks, expert(profile), make))


def proven(trajectory: Trajectory, environment: ToyEnvironment | None = None, *, by_elements: bool = False) -> Proof:
    return asyncio.run(prove(trajectory, environment or ToyEnvironment(), by_elements=by_elements))


class Clock(ToyEnvironment):
    """Shows a number that no seed decides, as a page with a clock does."""

    ticks = 0

    def _observe(self, error: str | None = None) -> Observation:
        Clock.ticks += 1
        seen = super()._observe(error)
        elements = (*seen.elements, Element(ref=None, role="text", name=f"{Clock.ticks} ticks"))
        return seen.model_copy(update={"elements": elements, "state_hash": state_hash(seen.goal, "/page", elements)})


class Moody(ToyEnvironment):
    """Its buttons are others each time, whatever the seed."""

    async def reset(self, task: Task) -> Observation:
        await super().reset(task)
        assert self._page is not None
        words = random.SystemRandom().sample(range(10_000), len(self._page.elements))
        self._page.elements = [
            element.model_copy(update={"name": f"w{number}"}) if element.role == "button" else element
            for element, number in zip(self._page.elements, words, strict=True)
        ]
        return self._observe()


class Stingy(ToyEnvironment):
    """Pays a little less."""

    async def step(self, action: Click) -> Outcome:  # type: ignore[override]
        outcome = await super().step(action)
        return outcome if outcome.reward is None else Outcome(outcome.observation, 0.995, outcome.stop)


class Refusing(ToyEnvironment):
    """Does not let the second field be written."""

    async def step(self, action: Click) -> Outcome:  # type: ignore[override]
        if action.kind == "fill" and action.ref == "2":
            return Outcome(self._observe("element 2 is read-only"))
        return await super().step(action)


# -- the proof ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "steps"), [("wizard", 3), ("press", 1), ("login", 3)])
def test_what_was_played_reproduces(family: str, steps: int) -> None:
    (trajectory,) = play(make_task(family, 5))
    assert trajectory.success
    assert proven(trajectory) == Proof("states", steps, steps)


def test_a_page_that_is_another_each_time_does_not_reproduce() -> None:
    (trajectory,) = play(make_task("wizard", 5))
    found = proven(trajectory, Moody())
    assert found.how is None
    assert found.reason is not None
    assert found.reason.startswith("step 1: the page differs: button")
    # Elements decide where states may differ: the first button is not there.
    assert proven(trajectory, Moody(), by_elements=True).how is None


def test_a_clock_on_the_page_is_forgiven_where_pages_have_one() -> None:
    (trajectory,) = play(make_task("wizard", 5), environment=Clock)
    strict = proven(trajectory, Clock())
    assert (strict.how, strict.same) == (None, 0)
    assert proven(trajectory, Clock(), by_elements=True) == Proof("elements", 3, 0)


def test_the_reward_must_come_out_as_it_did() -> None:
    (trajectory,) = play(make_task("press", 5))
    found = proven(trajectory, Stingy(), by_elements=True)
    assert (found.how, found.reason) == (None, "the end: reward 0.995, recorded: 1")


def test_an_action_that_is_refused_now_parts() -> None:
    (trajectory,) = play(make_task("login", 5))
    found = proven(trajectory, Refusing(), by_elements=True)
    assert found.how is None
    assert found.reason == "step 2: element 2 is read-only; recorded: it could be done"


def test_another_element_of_the_same_kind_is_no_substitute() -> None:
    (trajectory,) = play(make_task("press", 5))
    (step,) = trajectory.steps
    assert isinstance(step.action, Click)
    other = next(e for e in step.observation.elements if e.ref != step.action.ref)
    # The record says that it was the second button of this name; the page has one.
    elements = tuple(
        e.model_copy(update={"nth": 2}) if e.ref == step.action.ref else e for e in step.observation.elements
    )
    assert other in elements
    seen = step.observation.model_copy(update={"elements": elements})
    changed = trajectory.model_copy(update={"steps": (step.model_copy(update={"observation": seen}),)})
    found = proven(changed, by_elements=True)
    assert found.how is None
    assert found.reason is not None
    assert "#2 was recorded, there is button" in found.reason


def test_what_is_written_must_be_what_was_done() -> None:
    (trajectory,) = play(make_task("press", 5))
    (step,) = trajectory.steps
    cases = {
        'its text says click("99"), done was': {"completion": "thought: x\naction: click([99])"},
        "its text holds no action": {"completion": "I would click it"},
        "nothing could be read": {"action": None},
    }
    for reason, change in cases.items():
        changed = trajectory.model_copy(update={"steps": (step.model_copy(update=change),)})
        found = proven(changed)
        assert found.how is None
        assert (found.reason or "").startswith(f"step 1: {reason}")


def test_the_world_is_no_proof_either_way() -> None:
    (trajectory,) = play(make_task("press", 5))
    made = 0

    class Broken(ToyEnvironment):
        async def reset(self, task: Task) -> Observation:
            raise RolloutFailure(StopReason.BROWSER_LOST, "gone")

    def source(broken: int) -> Callable[[], Awaitable[ToyEnvironment]]:
        async def make() -> ToyEnvironment:
            nonlocal made
            made += 1
            return Broken() if made <= broken else ToyEnvironment()

        return make

    assert asyncio.run(prove_in(source(99), trajectory)) is None
    assert made == recorder.TRIES == 3
    made = 0
    assert asyncio.run(prove_in(source(2), trajectory)) == Proof("states", 1, 1)


# -- keeping -----------------------------------------------------------------------------------------------------------


def test_plays_are_kept_once_and_only_proven_ones_are_learned_from(tmp_path: Path) -> None:
    good, other = play(make_task("wizard", 1, "demo"), make_task("press", 2, "demo"))
    lost = good.model_copy(update={"success": False, "reward": -1.0, "stop_reason": StopReason.WRONG,
                                   "steps": good.steps[:1], "task": make_task("wizard", 3)})  # fmt: skip
    broken = other.model_copy(update={"success": None, "failure": "gone", "stop_reason": StopReason.BROWSER_LOST})
    with RunStore(tmp_path / "runs/expert") as store:
        kept = Recordings(store)
        assert [kept.add(one) for one in (good, other, lost, broken)] == [True, True, True, False]
        assert [one.id for one in kept.waiting()] == ["expert/toy.press/2/oracle-0", "expert/toy.wizard/1/oracle-0"]
        first, second = kept.waiting()
        kept.settle(first, Proof(None, 1, 0, "step 1: the page differs"))
        kept.settle(second, Proof("elements", 3, 1))
        assert not kept.waiting()
    with RunStore(tmp_path / "runs/expert") as store:
        again = Recordings(store)
        assert not again.add(good), "a double"
        assert not again.add(good.model_copy(update={"agent": "human"})), "whoever did the same"
        assert again.played("oracle") == {"toy.wizard/1", "toy.press/2", "toy.wizard/3"}
        assert again.played("human") == set()
        assert [one.id for one in again.proven()] == ["expert/toy.wizard/1/oracle-0"]
        assert again.reasons() == {"expert/toy.press/2/oracle-0": "step 1: the page differs"}
        assert store.count("demos") == 1
        rows = again.coverage(lambda task: task.name)
    assert rows["wizard"] == {"tried": 2, "solved": 1, "reproduced": 1, "by_elements": 1, "parted": 0, "waiting": 0,
                              "actions": 3.0}  # fmt: skip
    assert (rows["press"]["tried"], rows["press"]["reproduced"], rows["press"]["parted"]) == (1, 0, 1)


def test_another_way_to_do_the_same_task_is_no_double(tmp_path: Path) -> None:
    (one,) = play(make_task("press", 2, "demo"))
    waited = one.steps[0].model_copy(update={"action": Noop(wait_ms=50), "completion": "action: noop(50)"})
    other = one.model_copy(update={"steps": (waited, *one.steps)})
    with RunStore(tmp_path / "x") as store:
        kept = Recordings(store)
        assert kept.add(one)
        assert kept.add(other)
        assert [t.id for t in kept.waiting()] == ["expert/toy.press/2/oracle-0", "expert/toy.press/2/oracle-1"]


def test_what_was_stopped_between_two_commits_is_known_again(tmp_path: Path) -> None:
    (one,) = play(make_task("press", 2, "demo"))
    with RunStore(tmp_path / "x") as store:
        store.add_trajectory(recorder.WAITING, one.model_copy(update={"id": "expert/toy.press/2/oracle-0"}))
    with RunStore(tmp_path / "x") as store:
        kept = Recordings(store)
        assert (len(kept), kept.add(one)) == (1, False)
        assert len(kept.waiting()) == 1


def test_what_somebody_saved_there_without_a_proof_is_not_learned_from(tmp_path: Path) -> None:
    (one,) = play(make_task("press", 2, "demo"))
    with RunStore(tmp_path / "x") as store:
        store.add_trajectory("demos", one.model_copy(update={"id": "demos/toy.press/2/0"}))
        kept = Recordings(store)
        assert list(kept.proven()) == []
        assert kept.coverage(lambda task: task.name) == {}


# -- training ----------------------------------------------------------------------------------------------------------


def config(folder: Path, **demos: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "project": {"run_dir": folder / "run"},
            "env": {"name": "toy", "tasks": ("wizard", "press")},
            "model": {"profile": "chat-turns"},
            "demos": demos,
            "tracking": {"mlflow": False},
        }
    )


@pytest.fixture
def expert_run(tmp_path: Path) -> Path:
    """Proven: wizard 1 and 2, press 4, press 900000 (a test seed), login 3 (another family). Parted: press 5."""
    demos = (("wizard", 1), ("wizard", 2), ("press", 4), ("login", 3), ("press", 5))
    tasks = [*(make_task(name, seed, "demo") for name, seed in demos), make_task("press", 900_000, "test")]
    folder = tmp_path / "runs/expert"
    with RunStore(folder) as store:
        kept = Recordings(store)
        for trajectory in play(*tasks):
            assert kept.add(trajectory)
        for trajectory in kept.waiting():
            bad = trajectory.task.seed == 5
            kept.settle(trajectory, Proof(None, reason="no") if bad else Proof("states", 1, 1))
    return folder


def test_recorded_demonstrations_are_what_the_expert_would_have_shown_live(tmp_path: Path, expert_run: Path) -> None:
    settings = config(tmp_path, **{"from": expert_run, "per_task": 0})
    with open_run(settings, console=Console(file=io.StringIO())) as ctx:
        rows = demonstrations(ctx)
        assert sorted(ctx.store.outcomes("demos")) == [("press", 4), ("wizard", 1), ("wizard", 2)]
        assert "3 recorded ones" in ctx.stage_facts("demos")["summary"]
    assert len(rows) == 7
    live = play(make_task("wizard", 1), make_task("wizard", 2), make_task("press", 4), profile="chat-turns")
    shown = {(step.messages, step.completion) for trajectory in live for step in trajectory.steps}
    assert {(row.messages, row.completion) for row in rows} == shown


def test_thoughts_are_left_out_where_a_model_has_none() -> None:
    from dpo_driver.agents.prompt import get_profile

    (trajectory,) = play(make_task("wizard", 1))
    (live,) = play(make_task("wizard", 1), profile="chat-no-thought")
    again = rewritten(trajectory, get_profile("chat-no-thought"))
    assert [(s.messages, s.completion, s.thought) for s in again.steps] == [
        (s.messages, s.completion, s.thought) for s in live.steps
    ]
    assert again.context_policy == live.context_policy
    assert [format_action(s.action) for s in again.steps if s.action] == [
        format_action(s.action) for s in trajectory.steps if s.action
    ]


def test_recordings_that_are_of_no_use_are_named(tmp_path: Path, expert_run: Path) -> None:
    settings = config(tmp_path, **{"from": tmp_path / "nowhere", "per_task": 0})
    with (
        open_run(settings, console=Console(file=io.StringIO())) as ctx,
        pytest.raises(StoreError, match="not a run directory"),
    ):
        demonstrations(ctx)
    other = settings.model_copy(update={
        "demos": settings.demos.model_copy(update={"from_": expert_run}),
        "seeds": settings.seeds.model_copy(update={"demo": (5000, 5001), "val": (1, 4)}),
        "project": settings.project.model_copy(update={"run_dir": tmp_path / "other"}),
    })  # fmt: skip
    with (
        open_run(other, console=Console(file=io.StringIO())) as ctx,
        pytest.raises(DataError, match="nothing proven was recorded"),
    ):
        demonstrations(ctx)  # all of it lies in what this run chooses by


def test_a_family_that_nobody_shows_is_named(tmp_path: Path, expert_run: Path) -> None:
    settings = config(tmp_path, **{"from": expert_run, "per_task": 0})
    more = settings.model_copy(update={"env": settings.env.model_copy(update={"tasks": ("wizard", "press", "gone")})})
    with (
        open_run(more, console=Console(file=io.StringIO())) as ctx,
        pytest.raises(DataError, match="nobody demonstrates gone"),
    ):
        demonstrations(ctx)


def test_the_key_is_called_from_and_nothing_else_changes(tmp_path: Path) -> None:
    plain = config(tmp_path)
    named = config(tmp_path, **{"from": "runs/expert"})
    assert named.demos.from_ == Path("runs/expert")
    assert "from: runs/expert" in named.resolved_yaml()
    assert "from: null" in plain.resolved_yaml()
    assert plain.hash() != named.hash()
    with pytest.raises(ValueError, match="leaves no demonstrations"):
        config(tmp_path, per_task=0)


def test_a_mistyped_key_is_told_by_its_name(tmp_path: Path) -> None:
    from dpo_driver.core.config import load_config

    (tmp_path / "x.yaml").write_text("demos: {form: runs/expert}\n")
    with pytest.raises(ConfigError, match=r"did you mean demos\.from\?"):
        load_config(tmp_path / "x.yaml")
