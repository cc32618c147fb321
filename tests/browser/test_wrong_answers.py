"""The grader refuses wrong answers: experts that do something else than was asked, perfectly, earn no success."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from dpo_driver.agents.experts.page import Decision, Page
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.core.actions import Fill
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Observation, Step, StopReason, Task, Trajectory
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.pool import rollout_sync

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]
SEEDS = range(620, 624)


def swap(*pairs: tuple[str, str]) -> Callable[[str], str]:
    """A goal with the first of the words that occurs exchanged for its counterpart."""

    def change(goal: str) -> str:
        for left, right in [*pairs, *((right, left) for left, right in pairs)]:
            if left in goal:
                return goal.replace(left, right, 1)
        raise AssertionError(f"nothing to exchange in {goal!r}")

    return change


def other_day(goal: str) -> str:
    return re.sub(r"/(\d\d)/", lambda day: "/15/" if day[1] != "15" else "/16/", goal)


def other_word(goal: str) -> str:
    return re.sub(r"the (\d+)\w\w word", lambda place: "the 2nd word" if place[1] != "2" else "the 3rd word", goal)


def other_event(goal: str) -> str:
    return re.sub(r'named "(\w+)"', lambda name: f'named "{"Gym" if name[1] != "Gym" else "Food"}"', goal)


def other_button(goal: str) -> str:
    return re.sub(r'the "([\w ]+)" button', lambda it: f'the "{"Like" if it[1] != "Like" else "Reply"}" button', goal)


def one_more(goal: str) -> str:
    return re.sub(r"Order (\d)", lambda n: f"Order {int(n[1]) + 1}", goal).replace(
        ": ", ": Garlic bread, Cheese wheel, "
    )


def other_style(goal: str) -> str:
    return swap(("bold", "italics"), ("underlined", "italics"), ("color red", "color blue"), ("color ", "color red "))(
        goal
    )


MISREAD: dict[str, Callable[[str], str]] = {
    "buy-ticket": swap(("cheapest", "most expensive"), ("shortest", "longest")),
    "book-flight-nodelay": other_day,
    "choose-date-easy": other_day,
    "daily-calendar": other_event,
    "email-inbox-forward": lambda goal: re.sub(r"to ([\w-]+)\.$", r"to \1a.", goal),
    "email-inbox-reply": lambda goal: goal.replace('.".', '!".'),
    "find-word": other_word,
    "form-sequence": swap(("1st", "2nd"), ("3rd", "2nd")),
    "order-food": one_more,
    "phone-book": swap(("phone number", "email"), ("address", "email")),
    "sign-agreement": swap(('"Agree"', '"Cancel"'), ("Click the cancel", 'enter the name "x" then press "Agree"')),
    "social-media": other_button,
    "social-media-all": other_button,
    "text-editor": other_style,
}
MISTYPED = ("copy-paste", "login-user-popup", "read-table", "scroll-text", "simple-algebra", "text-transform")


class WrongAgent:
    """The expert, told another goal (``MISREAD``) or with another text typed (``MISTYPED``)."""

    name, policy_version, context_policy = "wrong", "wrong", "pocket"

    def __init__(self) -> None:
        self._expert = OracleAgent()

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        if task.name in MISREAD:
            observation = observation.model_copy(update={"goal": MISREAD[task.name](observation.goal)})
        move = await self._expert.act(task, observation, history)
        if task.name not in MISTYPED or not isinstance(move.action, Fill):
            return move
        if any(isinstance(s.action, Fill) and s.action.ref == move.action.ref for s in history):
            page = Page(observation, history)  # it holds the wrong text already
            empty = [field for field in page.all("textbox") if not field.value]
            if not empty:
                return _move(page.submit("OK" if page.maybe("OK") else "Submit"))
            return _move(page.fill(empty[0], "wrong"))
        value = move.action.value
        wrong = value.swapcase() if value.isalpha() else f"{value}1"
        return _move((move.thought, Fill(ref=move.action.ref, value=wrong)))


def _move(decision: Decision) -> Move:
    return Move(action=decision[1], thought=decision[0], completion="", messages=())


@pytest.fixture(scope="module")
def played() -> list[Trajectory]:
    found: list[Trajectory] = []
    tasks = [make_task(family, seed) for family in (*MISREAD, *MISTYPED) for seed in SEEDS]
    source = MiniwobEnvironment.source
    rollout_sync(tasks, WrongAgent(), environments=source, stage="test", on_trajectory=found.append, workers=3)
    return found


@pytest.mark.parametrize("family", [*MISREAD, *MISTYPED])
def test_a_wrong_answer_is_refused(family: str, played: list[Trajectory]) -> None:
    """The page itself ends the episode and does not give full reward."""
    mine = [t for t in played if t.task.name == family]
    assert len(mine) == len(SEEDS)
    assert {t.stop_reason for t in mine} == {StopReason.WRONG}, [(t.task.goal, t.steps[-1]) for t in mine]
    assert not any(t.success for t in mine)
    if family != "phone-book":
        assert all(t.reward is not None and t.reward <= 0 for t in mine)


def test_the_right_person_with_the_wrong_detail_is_a_partial_success(played: list[Trajectory]) -> None:
    """Where "any positive reward is a success" and "full reward is a success" part."""
    mine = [t for t in played if t.task.name == "phone-book"]
    assert [t.reward for t in mine] == pytest.approx([0.4] * len(SEEDS))
    assert all(t.positive and t.success is False for t in mine)
