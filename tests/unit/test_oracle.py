"""Experts on hand-made observations: what they do first, then, and when the page is not as expected.

The real pages are played in tests/browser/test_oracles.py.
"""

from __future__ import annotations

import pytest

from dpo_driver.agents.oracle import ORACLES, OracleAgent
from dpo_driver.agents.prompt import parse_completion
from dpo_driver.core.actions import Action, Click, Fill, Noop, Press, SelectOption
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.records import Element, Observation, Step, Task

LISTED = """
    click-button click-link click-test click-test-2 click-option click-checkboxes enter-text enter-text-dynamic
    enter-password login-user focus-text focus-text-2 click-tab-2-easy choose-list click-dialog click-dialog-2
    navigate-tree click-button-sequence enter-date click-widget form-sequence-2
""".split()


def elements(*written: str) -> tuple[Element, ...]:
    """``"button Go"`` numbered from 1; ``"checkbox a !checked"`` and ``"textbox = x"`` have a state and a value."""
    made: list[Element] = []
    for number, text in enumerate(written, 1):
        text, _, states = text.partition(" !")
        text, _, value = text.partition(" = ")
        role, _, name = text.partition(" ")
        nth = 1 + sum(e.role == role and e.name == name for e in made)
        ref = None if role == "text" else str(number)
        made.append(Element(ref=ref, role=role, name=name, value=value or None, states=tuple(states.split()), nth=nth))
    return tuple(made)


async def decide(
    family: str, goal: str, *written: str, done: tuple[Action, ...] = (), error: str | None = None
) -> Action:
    observation = Observation(goal=goal, elements=elements(*written), last_error=error)
    history = [Step(observation=observation, action=action, thought="t") for action in done]
    task = Task(id=f"x.{family}/1", env="x", name=family, seed=1)
    move = await OracleAgent("pocket").act(task, observation, history)
    assert move.action is not None
    assert parse_completion(move.completion) == (move.thought, move.action)
    return move.action


def test_every_listed_family_has_an_expert() -> None:
    assert set(LISTED) <= set(ORACLES)
    assert list(ORACLES) == sorted(ORACLES)
    assert all(expert.__doc__ for expert in ORACLES.values())


async def test_names_are_matched_exactly() -> None:
    goal = 'Click on the "ok" button.'
    assert await decide("click-button", goal, "text ok", "textbox ok", "button OK", "button ok") == Click(ref="4")
    goal = 'Click on the link "Elit.".'
    assert await decide("click-link", goal, "text Elit.", "link Elit", "clickable Elit.") == Click(ref="3")


async def test_checkboxes_are_ticked_unticked_and_submitted() -> None:
    goal = "Select aB, c and click Submit."
    boxes = ["checkbox ab", "checkbox aB", "checkbox c", "button Submit"]
    assert await decide("click-checkboxes", goal, *boxes) == Click(ref="2")
    boxes[1] += " !checked"
    assert await decide("click-checkboxes", goal, *boxes) == Click(ref="3")
    boxes[2] += " !checked"
    assert await decide("click-checkboxes", goal, *boxes) == Click(ref="4")
    boxes[0] += " !checked"
    assert await decide("click-checkboxes", goal, *boxes) == Click(ref="1")
    assert await decide("click-checkboxes", "Select nothing and click Submit.", "checkbox a", "button Submit") == Click(
        ref="2"
    )


async def test_fields_are_filled_once_even_when_their_value_is_masked() -> None:
    goal = 'Enter the username "bo" and the password "x1" into the text fields and press login.'
    page = ["textbox Username", "textbox Password", "button Login"]
    first = Fill(ref="1", value="bo")
    second = Fill(ref="2", value="x1")
    assert await decide("login-user", goal, *page) == first
    page[0] += " = bo"
    assert await decide("login-user", goal, *page, done=(first,)) == second
    page[1] += " = ••"
    assert await decide("login-user", goal, *page, done=(first, second)) == Click(ref="3")
    page[0] = "textbox Username = other"
    assert await decide("login-user", goal, *page, done=(first, second)) == first


async def test_forms() -> None:
    goal = "Enter 05/21/2014 as the date and hit submit."
    assert await decide("enter-date", goal, "date", "button Submit") == Fill(ref="1", value="2014-05-21")
    goal = "Enter 12:07 AM as the time and press submit."
    assert await decide("enter-time", goal, "time", "button Submit") == Fill(ref="1", value="00:07")
    goal = 'Check the 2nd radio button and enter the number "-7" into the 3rd textbox.'
    page = ["radio", "radio", "radio", "textbox", "textbox", "textbox", "button Submit"]
    assert await decide("form-sequence-2", goal, *page) == Click(ref="2")
    page[1] += " !checked"
    assert await decide("form-sequence-2", goal, *page) == Fill(ref="6", value="-7")
    page[5] += " = -7"
    assert await decide("form-sequence-2", goal, *page) == Click(ref="7")
    goal = "Select Cape Verde from the list and click Submit."
    page = ["combobox = Cuba", "button Submit"]
    assert await decide("choose-list", goal, *page) == SelectOption(ref="1", options=("Cape Verde",))
    page[0] = "combobox = Cape Verde"
    assert await decide("choose-list", goal, *page) == Click(ref="2")


async def test_sequences_go_by_what_was_done() -> None:
    goal = "Click button ONE, then click button TWO."
    page = ["button ONE", "button TWO"]
    assert await decide("click-button-sequence", goal, *page) == Click(ref="1")
    assert await decide("click-button-sequence", goal, *page, done=(Click(ref="1"),)) == Click(ref="2")
    covered = await decide("click-button-sequence", goal, *page, done=(Click(ref="1"),), error="covered")
    assert covered == Press(ref="1", key="Enter")


async def test_links_behind_tabs_and_folders() -> None:
    goal = 'Switch between the tabs to find and click on the link "sit".'
    page = ["tab Tab #1 !selected", "tab Tab #2", "tab Tab #3", "link Sit"]
    assert await decide("click-tab-2", goal, *page) == Click(ref="2")
    page = ["tab Tab #1", "tab Tab #2 !selected", "tab Tab #3", "link sit"]
    assert await decide("click-tab-2", goal, *page, done=(Click(ref="2"),)) == Click(ref="4")
    page = ["tab Tab #1", "tab Tab #2 !selected", "tab Tab #3"]
    assert await decide("click-tab-2", goal, *page, done=(Click(ref="1"), Click(ref="2"))) == Click(ref="3")


async def test_a_lost_expert_says_so_and_does_nothing() -> None:
    assert await decide("click-button", 'Click on the "ok" button.', "button no") == Noop()
    assert await decide("click-button", "A goal of another kind", "button no") == Noop()
    with pytest.raises(UnknownNameError, match="unknown oracle"):
        await decide("click-buton", "x")
