"""The solver on hand-made pages: which step it is on, what it closes, enters, waits for, and when it passes on.

Its types are played on the real site in tests/browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dpo_driver.agents.experts.page import Page
from dpo_driver.agents.hybrid import HybridAgent, StepwiseAgent
from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.agents.prompt import parse_completion
from dpo_driver.agents.solver import agent as solver
from dpo_driver.agents.solver import detector, distractors
from dpo_driver.agents.solver.page import PuzzlePage, of_this_step, step_of
from dpo_driver.core.actions import (
    Action,
    Click,
    Fill,
    Hover,
    KeyboardPress,
    MouseDown,
    Noop,
    Press,
    ReportInfeasible,
    Scroll,
)
from dpo_driver.core.records import Element, Observation, Step, Task, state_hash
from dpo_driver.policies.scripted import ScriptedPolicy
from dpo_driver.testing.check_agent import check_agent

TASK = Task(id="gauntlet.run/1", env="gauntlet", name="run", seed=1, max_steps=500)
FORM = ("textbox Code", "button Submit")
LID = ("heading Step 3 of 30", "heading A covered code", 'text Press "Unveil" to see the code.', "button Unveil")


def page_of(*written: str, url: str = "http://127.0.0.1/", error: str | None = None) -> Observation:
    """``"button Go"`` numbered from 1; ``"textbox Code = x"`` has a value, ``"dialog Hello @ 10 10 200 100"`` a box."""
    made: list[Element] = []
    for number, text in enumerate(written, 1):
        text, _, place = text.partition(" @ ")
        text, _, value = text.partition(" = ")
        role, _, name = text.partition(" ")
        nth = 1 + sum(e.role == role and e.name == name for e in made)
        box = tuple(float(part) for part in place.split()) if place else None
        ref = None if role in ("text", "heading", "dialog") else str(number)
        made.append(Element(ref=ref, role=role, name=name, value=value or None, nth=nth, box=box))  # type: ignore[arg-type]
    elements = tuple(made)
    return Observation(
        goal="g", url=url, elements=elements, last_error=error, state_hash=state_hash("g", url, elements)
    )


def past(*steps: tuple[Observation, Action]) -> list[Step]:
    return [Step(observation=observation, action=action, thought="t") for observation, action in steps]


def decided(observation: Observation, history: Sequence[Step] = ()) -> Action:
    thought, action = solver.solve(Page(observation, history))
    assert thought
    return action


# -- the page ----------------------------------------------------------------------------------------------------------


def test_a_heading_says_which_step_it_is_before_running_text_does() -> None:
    assert step_of(page_of("text Step 1 of 3: knock", "heading Step 7 of 30")) == (7, 30)
    assert step_of(page_of("heading Welcome", "text step 12 / 30")) == (12, 30)
    assert step_of(page_of("heading Door 4/30")) == (4, 30)
    assert step_of(page_of("text nothing", url="http://x/step/9")) == (9, 0)
    assert step_of(page_of("heading Welcome")) is None


def test_a_second_tab_belongs_to_its_step_and_the_start_page_to_none() -> None:
    start, first, second = page_of("button Start"), page_of("heading Step 1 of 30"), page_of("heading Step 2 of 30")
    tab = page_of("text piece K7", url="http://x/asset/1")
    click = Click(ref="1")
    assert of_this_step(first, past((start, click))) == []
    history = past((start, click), (first, click), (second, click), (tab, click))
    assert of_this_step(second, history) == history[2:]
    assert of_this_step(tab, history[:3]) == history[2:3]
    assert of_this_step(page_of("heading Step 3 of 30"), history) == []


def test_a_revealed_code_is_one_that_was_not_there_before() -> None:
    before = page_of("text sample code QQ22QQ", *FORM)
    after = page_of("text PLEASE take", "text WW33WW", "text sample code QQ22QQ", "text Your code: AB23CD", *FORM)
    assert PuzzlePage(before, ()).revealed() == []
    assert PuzzlePage(after, past((before, Click(ref="2")))).revealed() == ["AB23CD", "WW33WW", "PLEASE"]


# -- the detector ------------------------------------------------------------------------------------------------------


def test_the_table_lists_the_modules_and_each_loads() -> None:
    own = {"agent", "detector", "distractors", "page", "__init__"}
    files = {file.stem for file in Path(detector.__file__).parent.glob("*.py")} - own
    kept = {module for module in detector.TYPES.values() if detector.load_solver(module.replace("_", "-")) is not None}
    assert list(detector.TYPES) == sorted(detector.TYPES)
    assert kept == set(detector.TYPES.values()), "a type of the table has no module"
    assert files >= kept


def test_a_page_is_recognised_by_one_read() -> None:
    ranked = detector.rank(PuzzlePage(page_of(*LID, *FORM), ()))
    assert ranked[0].name == "click-reveal"
    assert ranked[0].score > 0.8
    assert [signal.score for signal in ranked] == sorted((signal.score for signal in ranked), reverse=True)


@pytest.mark.parametrize(
    "written",
    [
        ("heading Our prices", "text Bread 2, milk 1", "link Contact"),
        ("heading Step 3 of 30", "heading Whale song", "text Hum along with the whales.", *FORM),
        (),
    ],
)
def test_what_no_type_recognises_is_unknown(written: tuple[str, ...]) -> None:
    assert detector.rank(PuzzlePage(page_of(*written), ())) == ()


# -- distractors -------------------------------------------------------------------------------------------------------


def test_nothing_is_closed_where_nothing_is_open() -> None:
    written = ("text We use cookies", "button Accept", "button Close", *FORM)
    assert distractors.close(PuzzlePage(page_of(*written), ())) is None


def test_a_window_is_closed_by_the_buttons_in_turn_and_escape() -> None:
    window = page_of(
        *FORM, "dialog A prize @ 100 100 300 200", "text You have won", "button Claim @ 110 200 50 20",
        "button Close @ 200 200 50 20", "button No thanks @ 300 200 50 20", "button Elsewhere @ 900 600 50 20",
    )  # fmt: skip
    history: list[Step] = []
    tried: list[object] = []
    for _ in range(8):
        decision = distractors.close(PuzzlePage(window, history))
        assert decision is not None
        tried.append(getattr(decision[1], "ref", None) or getattr(decision[1], "key", None))
        history += past((window, decision[1]))
    assert tried == ["Escape", "6", "7", "5"] * 2
    assert distractors.close(PuzzlePage(window, history)) is None


def test_the_button_that_the_window_names_comes_first() -> None:
    window = page_of("dialog Wait", 'text Only "Carry on" closes this window.', "button Close", "button Carry on")
    pressed = past((window, KeyboardPress(key="Escape")))
    decision = distractors.close(PuzzlePage(window, pressed))
    assert decision is not None and decision[1] == Click(ref="4")


def test_a_window_that_comes_later_is_left_alone_until_it_is_in_the_way() -> None:
    before = page_of(*LID, *FORM)
    popup = page_of(
        *LID, *FORM, "dialog Our newsletter @ 900 500 300 200", "text Once a week", "button Not now @ 950 600 50 20"
    )
    page = PuzzlePage(popup, past((before, Click(ref="4"))))
    assert distractors.close(page) is None
    assert distractors.clear_the_way(page, Click(ref="4")) is None
    assert distractors.clear_the_way(page, MouseDown(x=100, y=100)) is None
    escape = ("close", KeyboardPress(key="Escape"))
    assert distractors.clear_the_way(page, MouseDown(x=1000, y=550)) == escape
    idle = PuzzlePage(popup, past((before, Click(ref="4")), (popup, Click(ref="4"))))
    assert distractors.clear_the_way(idle, Click(ref="4")) == escape
    covered = popup.model_copy(update={"last_error": 'element 4 is covered by section "Our newsletter Once a week"'})
    assert distractors.close(PuzzlePage(covered, past((before, Click(ref="4"))))) == escape


def test_a_banner_is_closed_before_points_are_aimed_at() -> None:
    banner = page_of(*LID, *FORM, "text We use cookies.", "button Accept all", "button Only necessary")
    page = PuzzlePage(banner, ())
    assert distractors.clear_the_way(page, Click(ref="4")) is None
    decision = distractors.clear_the_way(page, MouseDown(x=10, y=10))
    assert decision is not None and decision[1] == Click(ref="9")


def test_what_covers_the_target_is_closed() -> None:
    covered = page_of("button Unveil", "text We use cookies", "button Accept all", "button Reject all", *FORM,
                      error='element 1 is covered by button "Accept all"')  # fmt: skip
    decision = distractors.close(PuzzlePage(covered, past((covered, Click(ref="1")))))
    assert decision is not None and decision[1] == Click(ref="4")
    # What covers has a name that the page does not show: the banner is known by its words, and the puzzle's own
    # buttons are left alone whatever they are called.
    named = page_of("button Skip", "radio triangle", "text We use cookies", "button Accept all", "button Reject all",
                    *FORM, error='element 2 is covered by section "Your privacy"')  # fmt: skip
    decision = distractors.close(PuzzlePage(named, past((named, Click(ref="2")))))
    assert decision is not None and decision[1] == Click(ref="5")
    # Words about cookies are no banner, and the button that sends the code off closes nothing.
    both = page_of("textbox Key", "button Go on", "text What lies in the cookies?", "button Open the session storage",
                   "text Crumbs of your visit", "button Only the needed ones",
                   error='element 4 is covered by section "What we keep"')  # fmt: skip
    decision = distractors.close(PuzzlePage(both, past((both, Click(ref="4")))))
    assert decision is not None and decision[1] == Click(ref="6")
    nothing = page_of("button Skip", "radio triangle", *FORM, error='element 2 is covered by p "ghof 5mrx"')
    assert distractors.close(PuzzlePage(nothing, past((nothing, Click(ref="2"))))) is None


# -- the agent ---------------------------------------------------------------------------------------------------------


def test_the_start_page_is_left() -> None:
    assert decided(page_of("heading Thirty doors", "link About", "button Start")) == Click(ref="3")


def test_a_code_is_entered_once_it_appears_and_sent_off() -> None:
    before = page_of(*LID, *FORM)
    assert decided(before) == Click(ref="4")
    shown = page_of(*LID, "text The code is AB23CD.", *FORM)
    history = past((before, Click(ref="4")))
    assert decided(shown, history) == Fill(ref="6", value="AB23CD")
    filled = page_of(*LID, "text The code is AB23CD.", "textbox Code = AB23CD", "button Submit")
    history += past((shown, Fill(ref="6", value="AB23CD")))
    assert decided(filled, history) == Press(ref="6", key="Enter")
    history += past((filled, Press(ref="6", key="Enter")))
    assert decided(filled, history) == Noop(wait_ms=solver.ANSWER_MS)
    refused = page_of(*LID, "text The code is AB23CD.", "textbox Code = AB23CD", "button Submit", "text That is wrong.")
    assert decided(refused, history) == Press(ref="6", key="Enter")
    history += past((refused, Press(ref="6", key="Enter")))
    again = page_of(*LID, "text The code is AB23CD.", "textbox Code = AB23CD", "button Submit", "text Wrong again.")
    assert decided(again, history) == Click(ref="4")


def test_an_unknown_page_gets_a_few_looks_and_is_passed_on() -> None:
    page = page_of("heading Step 3 of 30", "heading Whale song", "text Hum along with the whales.", *FORM)
    history: list[Step] = []
    for _ in range(solver.LOOKS):
        thought, action = solver.solve(Page(page, history))
        assert thought.startswith("unknown: ")
        assert action == Noop(wait_ms=solver.LOOK_MS)
        history += past((page, action))
    action = decided(page, history)
    assert isinstance(action, ReportInfeasible)
    assert action.reason.startswith("unknown: ")


def test_whoever_gets_nowhere_loses_the_turn() -> None:
    page, other = page_of(*LID, *FORM), page_of(*LID, "text 1", *FORM)
    same = past(*[(page, Click(ref="4"))] * 2)
    assert solver.setbacks(PuzzlePage(page, same)) == 0
    assert solver.setbacks(PuzzlePage(page, same + past((page, Click(ref="4"))))) == 1
    moving = past(*[(page, Click(ref="4")), (other, Click(ref="4"))] * 2)
    assert solver.setbacks(PuzzlePage(page, moving)) == 0
    waiting = past(*[(page, Noop(wait_ms=500))] * 10)
    assert solver.setbacks(PuzzlePage(page, waiting)) == 0
    sent = past((page, Fill(ref="5", value="AB23CD")), (page, Press(ref="5", key="Enter")),
                (other, Fill(ref="5", value="AB23CE")), (other, Press(ref="5", key="Enter")))  # fmt: skip
    assert solver.setbacks(PuzzlePage(page, sent)) == 1


def test_the_pointer_is_taken_aside_where_the_wheel_does_nothing() -> None:
    told = 'text Far down on this page is a button named "Lift". Scroll to it and press it.'
    far = page_of("heading Step 3 of 30", told, "heading Staff", *FORM, "button Free code")
    first = decided(far)
    assert isinstance(first, Scroll) and first.delta_y > 0
    down = Scroll(delta_x=0, delta_y=1200)
    assert isinstance(decided(far, past((far, down))), Scroll)
    other = page_of("heading Step 3 of 30", "text Welcome")
    assert isinstance(decided(far, past((other, down), (far, down))), Scroll)
    # hand-made headings have no number; the real ones do
    elements = tuple(e.model_copy(update={"ref": e.ref or f"h{i}"}) for i, e in enumerate(far.elements))
    numbered = far.model_copy(update={"elements": elements})
    assert decided(numbered, past((numbered, down), (numbered, down))) == Hover(ref="h2")
    moved = past((numbered, down), (numbered, down), (numbered, Hover(ref="h2")))
    assert isinstance(decided(numbered, moved), Scroll)


def test_every_family_has_the_expert_whatever_its_suffixes() -> None:
    for name in ("run", "run-7", "run-7-d3-b", "step-click-reveal", "step-shadow-dom-d2-b"):
        assert solver.EXPERTS[name] is solver.solve
    for name in ("click-button", "runs", "step-", ""):
        assert name not in solver.EXPERTS
    assert len(set(solver.EXPERTS)) == len(solver.EXPERTS) == 35


async def test_the_oracle_plays_it_as_one_of_its_experts() -> None:
    move = await OracleAgent("pocket", solver.EXPERTS).act(TASK, page_of(*LID, *FORM), [])
    assert parse_completion(move.completion) == ("button Unveil", Click(ref="4"))


async def test_it_is_an_agent() -> None:
    trajectories = await check_agent(solver.SolverAgent())
    assert {t.steps[-1].action.kind for t in trajectories if t.steps[-1].action} <= {"report_infeasible", "noop"}


# -- the hybrid --------------------------------------------------------------------------------------------------------


def scripted(answer: str) -> PolicyAgent:
    return PolicyAgent(ScriptedPolicy(lambda _messages, _sampling: answer), "chat", name="model")


async def test_the_model_plays_what_the_solver_leaves_and_nothing_else() -> None:
    agent = HybridAgent(scripted("thought: hum\naction: scroll(0, 100)"))
    known = page_of(*LID, *FORM)
    move = await agent.act(TASK, known, [])
    assert (move.action, move.generation) == (Click(ref="4"), None)
    page = page_of("heading Step 4 of 30", "heading Whale song", "text Hum along with the whales.", *FORM)
    looks = past(*[(page, Noop(wait_ms=solver.LOOK_MS))] * solver.LOOKS)
    move = await agent.act(TASK, page, [*past((known, Click(ref="4"))), *looks])
    assert move.action == Scroll(delta_x=0, delta_y=100)
    assert move.generation is not None
    hummed = Step(observation=page, action=move.action, thought="hum", generation=move.generation)
    again = await agent.act(TASK, page, [*looks, hummed])
    assert again.action == Scroll(delta_x=0, delta_y=100), "the model keeps the step"
    shown = page_of("heading Step 4 of 30", "text The code is AB23CD.", *FORM)
    free = await agent.act(TASK, shown, [*looks, hummed])
    assert (free.action, free.generation) == (Fill(ref="3", value="AB23CD"), None), "a code costs no tokens"


async def test_the_model_has_its_turn_when_the_solver_used_up_its_own() -> None:
    agent = HybridAgent(scripted("thought: t\naction: noop()"), solver_actions=4)
    page = page_of(*LID, *FORM)
    history = past((page, Click(ref="4")), (page, Noop()), (page, Click(ref="4")))
    assert (await agent.act(TASK, page, history)).generation is None
    assert (await agent.act(TASK, page, [*history, *past((page, Noop()))])).generation is not None
    patient = HybridAgent(scripted("thought: t\naction: noop()"))
    circles = past(*[(page, Click(ref="4"))] * 5)
    assert (await patient.act(TASK, page, circles)).generation is None
    assert (await patient.act(TASK, page, [*circles, *past((page, Click(ref="4")))])).generation is not None


async def test_a_stepwise_agent_forgets_earlier_steps() -> None:
    one, two = page_of("heading Step 1 of 30", *FORM), page_of("heading Step 2 of 30", *FORM)
    agent = StepwiseAgent(scripted("thought: t\naction: noop()"))
    history = past((one, Scroll(delta_x=0, delta_y=11)), (two, Scroll(delta_x=0, delta_y=22)))
    prompt = (await agent.act(TASK, two, history)).messages[-1].content
    assert "scroll(0, 22)" in prompt
    assert "scroll(0, 11)" not in prompt
    assert agent.context_policy.endswith("+stepwise")


def test_the_puzzles_button_is_meant_where_the_forms_has_the_same_name() -> None:
    """The frame's wording and the puzzle's may both say "Next"."""
    told = 'text A word passes by letter by letter when you press "Next". Type it and press "Try the word".'
    heading, puzzle = "heading Step 24 of 30", ("text 0 of 4 letters", "button Next", "button Start over")
    page = page_of(heading, "textbox Enter the code", "button Next", "heading Watch the change", told, *puzzle,
                   "textbox The word", "button Try the word")  # fmt: skip
    assert solver.decide(page, [])[1] == Click(ref="7")
    alone = PuzzlePage.of(page_of(heading, "textbox Code", "button Go on"), [])
    assert alone.named("Go on", "button").ref == "3"
