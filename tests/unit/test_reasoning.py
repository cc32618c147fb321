"""The check of reasonings, case by case: what may stand before an action, what is refused, and why."""

from __future__ import annotations

import pytest

from dpo_driver.agents.prompt import get_profile, parse_completion, render
from dpo_driver.agents.reasoning import asked_again, cleaned, question, template_thought, with_thoughts
from dpo_driver.agents.reasoning_check import Problem, gives_away, holds_call, problems, sentences, strange_codes
from dpo_driver.agents.reasoning_intents import names_another
from dpo_driver.core.actions import (
    Action,
    Click,
    DragAndDrop,
    Fill,
    GoBack,
    Hover,
    KeyboardPress,
    MouseClick,
    Noop,
    Press,
    Scroll,
    SelectOption,
    parse_action,
)
from dpo_driver.core.records import Element, Observation, Step, StopReason, Task, Trajectory


def element(ref: str | None, role: str, name: str, **more: object) -> Element:
    return Element.model_validate({"ref": ref, "role": role, "name": name, **more})


LOGIN = Observation(
    goal='Log in as "amber" with "birch".',
    url="http://site/login",
    title="Sign in",
    elements=(
        element(None, "heading", "Sign in"),
        element("1", "textbox", "User"),
        element("2", "textbox", "Password"),
        element("3", "button", "Log in"),
        element("4", "button", "Cancel"),
        element("5", "link", "Forgot password?"),
        element("6", "checkbox", "Stay signed in"),
        element("7", "combobox", "Language", options=("English", "German", "French")),
    ),
)
PUZZLE = Observation(
    goal="Get to the last step.",
    url="http://site/step/3",
    title="Step 3",
    elements=(
        element(None, "heading", "Step 3 of 30"),
        element("1", "button", "Reveal", nth=1, box=(10, 10, 80, 20)),
        element("2", "button", "Reveal", nth=2, box=(10, 40, 80, 20)),
        element("3", "button", "Accept all", box=(10, 70, 80, 20)),
        element("4", "slider", "Volume", value="3"),
        element("5", "listitem", "Cube"),
        element("6", "listitem", "Box A"),
        element("7", "listitem", "Box B"),
        element("8", "textbox", "Code"),
        element("9", "button", "Enter"),
        element("10", "button", ""),
        element(None, "status", "The code is K7M2QX."),
    ),
)
USER, LOG_IN, REVEAL = Fill(ref="1", value="amber"), Click(ref="3"), Click(ref="1")
LANGUAGE = SelectOption(ref="7", options=("German",))
CODE = Fill(ref="8", value="K7M2QX")
ENTER = Press(ref="8", key="Enter")
CUBE = DragAndDrop(from_ref="5", to_ref="6")

FITS: list[tuple[str, Observation, Action]] = [
    ("The goal wants me to log in, and both fields are filled. I click the Log in button.", LOGIN, LOG_IN),
    ('Both fields hold their text. So I click "Log in" to send them.', LOGIN, LOG_IN),
    ("The fields are filled. Clicking Log in sends them.", LOGIN, LOG_IN),
    ("The fields are filled. The Log in button must be pressed now.", LOGIN, LOG_IN),
    ("The fields are filled. The next step is to press Log in.", LOGIN, LOG_IN),
    ("Cancel would throw the entries away. I press Log in instead of clicking Cancel.", LOGIN, LOG_IN),
    ("I do not click Cancel, because that loses the entries. I click Log in.", LOGIN, LOG_IN),
    ("If I click Cancel, everything is lost. Therefore I click Log in.", LOGIN, LOG_IN),
    ("I have already typed the password. I submit the form with the button Log in.", LOGIN, LOG_IN),
    ("The form is complete. I submit it.", LOGIN, LOG_IN),
    ("I find the button Log in below the fields. I look at it and click it.", LOGIN, LOG_IN),
    ("The form needs a user and a password. I type amber into the User field.", LOGIN, USER),
    ('The goal names the user. I enter "amber" in "User".', LOGIN, USER),
    (
        "I need to fill in the User and the Password field. I start with the first and type amber into User.",
        LOGIN,
        USER,
    ),
    ("I have to enter the password later. Now I fill the User field with amber.", LOGIN, USER),
    ("The user comes first. I type amber into User, then I will type birch into Password.", LOGIN, USER),
    ("The user comes first. I fill User with amber and then click Log in.", LOGIN, USER),
    ("The field for the user is empty. I write the user name of the goal there.", LOGIN, USER),
    ("The page is in English. I select German in the Language list.", LOGIN, LANGUAGE),
    ("The page is in English. I choose German from the list to read it in my language.", LOGIN, LANGUAGE),
    ("There are two buttons that reveal something. I click the first Reveal button.", PUZZLE, REVEAL),
    ("There are two buttons. I click Reveal #2.", PUZZLE, Click(ref="2")),
    ("There are two buttons. I press the second of them, the last Reveal button.", PUZZLE, Click(ref="2")),
    ("A banner covers the page. I close it and click Accept all.", PUZZLE, Click(ref="3")),
    ("The banner is in the way. I dismiss it by accepting the cookies.", PUZZLE, Click(ref="3")),
    ("The code K7M2QX is shown. I type K7M2QX into the Code field.", PUZZLE, CODE),
    ("The status shows a code. I enter the code into its field.", PUZZLE, CODE),
    ("The code stands in its field. I press Enter to send it.", PUZZLE, ENTER),
    ("The code stands in its field. I hit the Enter key.", PUZZLE, ENTER),
    ("The code stands in its field. I press Enter in the Code field to send it.", PUZZLE, ENTER),
    ("The site has a door. I press the Enter button.", PUZZLE, Click(ref="9")),
    ("The site has a door. I press Enter.", PUZZLE, Click(ref="9")),
    ("The cube belongs into the first box. I drag the Cube to Box A.", PUZZLE, CUBE),
    ("The button must be further down. I scroll down to find it.", PUZZLE, Scroll(delta_x=0, delta_y=400)),
    ("The code comes in a moment. I wait for it.", PUZZLE, Noop(wait_ms=300)),
    ("The volume is too low. I press the up arrow on the slider.", PUZZLE, Press(ref="4", key="ArrowUp")),
    ("The volume is too low. I use the arrow keys, so I press ArrowUp.", PUZZLE, Press(ref="4", key="ArrowUp")),
    ("The pad wants a letter. I press the key a now.", PUZZLE, KeyboardPress(key="a")),
    ("The pad wants a letter. I type 'w'.", PUZZLE, KeyboardPress(key="w")),
    ("The pad wants a letter. I press w.", PUZZLE, KeyboardPress(key="w")),
    ("It shows when the pointer rests there. I hover over the first Reveal button.", PUZZLE, Hover(ref="1")),
    ("It shows when the pointer rests there. I move the pointer onto Reveal.", PUZZLE, Hover(ref="1")),
    ("This page is the wrong one. I go back to the list.", PUZZLE, GoBack()),
    ("The button has no name. I click the button below the Code field.", PUZZLE, Click(ref="10")),
    ("The upper button is at that place. I click Reveal at the top.", PUZZLE, MouseClick(x=20, y=15)),
    ("I check whether the code is shown. It is not, so I click Reveal.", PUZZLE, REVEAL),
    ("I click Reveal and wait for the code. It should appear below.", PUZZLE, REVEAL),
    ("The page is step 3. The hidden code is shown by the button.", PUZZLE, REVEAL),
    ("Cancel is not the right choice here. Log in is the right one.", LOGIN, LOG_IN),
    ("The User field must be filled with amber. It is still empty.", LOGIN, USER),
    ("I can see that Cancel would leave the form. The right choice is Log in, so I click on it.", LOGIN, LOG_IN),
    ("To log in I must fill both fields and press Log in. The first is empty, so I'll type amber in it.", LOGIN, USER),
    ("There is a banner in front. Before I can reveal the code, I click Accept all.", PUZZLE, Click(ref="3")),
    ("The goal wants Box A, not Box B. The cube lies outside, so I drag the Cube onto Box A.", PUZZLE, CUBE),
]

NAMES_ANOTHER: list[tuple[str, Observation, Action]] = [
    ("Both fields are filled. I click Cancel.", LOGIN, LOG_IN),
    ('Both fields are filled. I will now click the "Cancel" button.', LOGIN, LOG_IN),
    ("Both fields are filled. Let me press Cancel to go on.", LOGIN, LOG_IN),
    ("Both fields are filled. The next step is to click Cancel.", LOGIN, LOG_IN),
    ("Both fields are filled. Clicking Cancel is right.", LOGIN, LOG_IN),
    ("Both fields are filled. The Cancel button must be clicked.", LOGIN, LOG_IN),
    ("Both fields are filled. I should click Cancel.", LOGIN, LOG_IN),
    ("Both fields are filled. Click Cancel.", LOGIN, LOG_IN),
    ("Both fields are filled, so click Cancel now. That is all.", LOGIN, LOG_IN),
    ("I find the Cancel button and click it. It ends the form.", LOGIN, LOG_IN),
    ("I see the button and click Cancel. It ends the form.", LOGIN, LOG_IN),
    ("I click Log in and Cancel. Both are needed.", LOGIN, LOG_IN),
    ("I click Log in. I also click Cancel.", LOGIN, LOG_IN),
    ("Both fields are filled. I click element 4.", LOGIN, LOG_IN),
    ("Both fields are filled. I click the button [4].", LOGIN, LOG_IN),
    ('The form is there. I click "Register".', LOGIN, LOG_IN),
    ("The form is there. I type amber into User.", LOGIN, LOG_IN),
    ("The form is there. I press Enter.", LOGIN, LOG_IN),
    ("The form is long. I scroll down.", LOGIN, LOG_IN),
    ("The form is there. I wait for the page.", LOGIN, LOG_IN),
    ("The form needs the user. I type birch into User.", LOGIN, USER),
    ('The form needs the user. I type "cedar" into User.', LOGIN, USER),
    ("The form needs the user. I type amber into Password.", LOGIN, USER),
    ("The form needs the user. I fill the Password field.", LOGIN, USER),
    ("The form needs the user. I click the User field.", LOGIN, USER),
    ("The form needs the user. I select User.", LOGIN, USER),
    ("The form needs the user. I submit it.", LOGIN, USER),
    ("I have to read German. I select French.", LOGIN, LANGUAGE),
    ("I have to read German. I choose 'English' from the list.", LOGIN, LANGUAGE),
    ("There are two buttons. I click the second Reveal button.", PUZZLE, REVEAL),
    ("There are two buttons. I click Reveal #2.", PUZZLE, REVEAL),
    ("There are two buttons. I click the last Reveal button.", PUZZLE, REVEAL),
    ("The banner covers the page. I click Accept all.", PUZZLE, REVEAL),
    ("The code is shown. I type K7M2QY into the Code field.", PUZZLE, CODE),
    ("The sum is easy. I type 41 into the field.", PUZZLE, Fill(ref="8", value="42")),
    ("The code is there. I press Escape to go on.", PUZZLE, ENTER),
    ("The code is there. I click the Enter button.", PUZZLE, ENTER),
    ("The code is there. I press Enter in the Volume field.", PUZZLE, ENTER),
    ("The cube belongs into a box. I drag the Cube to Box B.", PUZZLE, CUBE),
    ("The cube belongs into a box. I click the Cube.", PUZZLE, CUBE),
    ("The button is hidden. I scroll up to find it.", PUZZLE, Scroll(delta_x=0, delta_y=400)),
    ("The button is hidden. I click Reveal.", PUZZLE, Scroll(delta_x=0, delta_y=400)),
    ("The volume is too low. I press the down arrow.", PUZZLE, Press(ref="4", key="ArrowUp")),
    ("The pad wants a letter. I press the key b.", PUZZLE, KeyboardPress(key="a")),
    ("The pad wants a letter. I press b now.", PUZZLE, KeyboardPress(key="c")),
    ("It shows on hovering. I hover over Volume.", PUZZLE, Hover(ref="1")),
    ("It shows on hovering. I click Reveal.", PUZZLE, Hover(ref="1")),
    ("The code comes in a moment. I click Reveal again.", PUZZLE, Noop(wait_ms=300)),
    ("The lower button is meant. I click Accept all.", PUZZLE, MouseClick(x=20, y=15)),
    ("The page is wrong. I give up.", PUZZLE, GoBack()),
    ("The user field is empty. It should be filled with birch.", LOGIN, USER),
    ("It is best to leave. I'd click Cancel.", LOGIN, LOG_IN),
    ("My plan: clicking on Cancel to leave. That is what the goal wants.", LOGIN, LOG_IN),
    ("I opt for the Cancel button. It is the only one.", LOGIN, LOG_IN),
    ("The Cancel button is the right one. It ends this.", LOGIN, LOG_IN),
    ("I should click on Log in. But I will click Cancel instead.", LOGIN, LOG_IN),
    ("I need the password first. I type birch into Password, then amber into User.", LOGIN, USER),
]


@pytest.mark.parametrize(("text", "page", "action"), FITS, ids=[text[-60:] for text, *_ in FITS])
def test_a_reasoning_that_fits_may_stand(text: str, page: Observation, action: Action) -> None:
    assert problems(text, page, action) == ()


@pytest.mark.parametrize(("text", "page", "action"), NAMES_ANOTHER, ids=[text[-60:] for text, *_ in NAMES_ANOTHER])
def test_a_reasoning_that_names_another_action_is_refused(text: str, page: Observation, action: Action) -> None:
    assert names_another(text, page, action)
    assert "action" in {problem.kind for problem in problems(text, page, action)}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One only", 1),
        ("One. Two.", 2),
        ("One! Two? Three… Four.", 4),
        ("The sum is 3.5, e.g. for two. I type it.", 2),
        ('The goal says "Press it. Now." I press it.', 2),
        ('It says "Stop!" in red. I stop.', 2),
        ("See http://a.b/c.html for it. I click.", 2),
        ("Wait... It comes. I look.", 3),
        ("One. Two. Three. Four. Five.", 5),
        ("1. 2. 3.", 0),
    ],
)
def test_sentences_are_counted(text: str, count: int) -> None:
    assert len(sentences(text)) == count


def test_too_few_and_too_many_sentences_are_refused() -> None:
    assert [p.kind for p in problems("I click Log in.", LOGIN, LOG_IN)] == ["sentences"]
    five = "A form. A user. A password. All is filled. I click Log in."
    assert problems(five, LOGIN, LOG_IN) == (Problem("sentences", "it had 5 sentences instead of 2 to 4"),)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('I use click("3") now.', True),
        ("Then fill([1], 'amber').", True),
        ("noop() is best.", True),
        ("action: click it", True),
        ("CLICK(selector='3')", True),
        ("press ('Enter')", True),
        ("I need three click(s).", False),
        ("I type (as the goal says) amber.", False),
        ("The action I take is a click.", False),
    ],
)
def test_calls_are_seen(text: str, holds: bool) -> None:
    assert holds_call(text) is holds


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("I click it as given.", True),
        ("The provided action is right.", True),
        ("This leads to the given answer.", True),
        ("The action that was given is a click.", True),
        ("I was told to click it.", True),
        ("The action to take is a click.", True),
        ("The expert clicks here.", True),
        ("As in the demonstration, I click.", True),
        ("The prompt says so.", True),
        ("With hindsight it is clear.", True),
        ("I type the name as given in the goal.", False),
        ("I type the name given in the goal.", False),
        ("The field Given name is empty.", False),
        ("The goal asks me to click.", False),
        ("The answer is 42.", False),
    ],
)
def test_what_tells_of_the_answer_is_seen(text: str, told: bool) -> None:
    assert gives_away(text, "a page") is told


def test_words_of_the_page_are_not_held_against_a_text() -> None:
    assert gives_away("I choose the expert mode.", "a page") and not gives_away("I choose the expert mode.", "Expert")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The code is K7M2QX.", []),
        ("The code is k7m2qx.", []),
        ("The code is K 7 M 2 Q X.", []),
        ("The code is K7M-2QX.", []),
        ("The code is Z9Z9Z9.", ["Z9Z9Z9"]),
        ("The key is sk-test-9f8e7d6c5b4a.", ["9f8e7d6c5b4a"]),
        ("It is QWERTZ.", ["QWERTZ"]),
        ("It spells A, B, C, D, E.", ["A, B, C, D, E"]),
        ("It is AB-12-CD-34.", ["AB-12-CD-34"]),
        ("It is 123456.", ["123456"]),
        ("It is the 30th of 500ms at 100px, 12345, base64.", []),
        ("I see JSON and HTML.", []),
    ],
)
def test_codes_from_nowhere_are_seen(text: str, found: list[str]) -> None:
    assert strange_codes(text, "Step 3 of 30: the code is K7M2QX.") == found


def test_a_code_that_was_written_or_is_written_now_is_known() -> None:
    bare = Observation(goal="Enter it.", elements=(element("8", "textbox", "Code"),))
    text = "The code was Z9Z9Z9 on the page before. I type Z9Z9Z9 into Code."
    assert problems(text, bare, Fill(ref="8", value="Z9Z9Z9")) == ()
    said = "The code Z9Z9Z9 is in its field. I press Enter."
    before = Step(observation=bare, action=Fill(ref="8", value="Z9Z9Z9"))
    assert problems(said, bare, ENTER, [before]) == ()
    (found,) = problems(said, bare, ENTER)
    assert found.kind == "code" and "Z9Z9Z9" not in found.detail


def test_all_problems_are_found_at_once() -> None:
    text = 'As given, I click Cancel with click("4") and Z9Z9Z9.'
    assert [p.kind for p in problems(text, LOGIN, LOG_IN)] == ["sentences", "call", "told", "code", "action"]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Thought: One.\nTwo.", "One. Two."),
        ("**Reasoning:** One. Two.", "One. Two."),
        ("<think>hm, click(3)</think>\n\nOne. Two.", "One. Two."),
        ("```\nOne. Two.\n```", "One. Two."),
        ('"One. Two."', "One. Two."),
        ("It says “OK”. I’ll click.", 'It says "OK". I\'ll click.'),
        ('"OK" is there. I click "OK"', '"OK" is there. I click "OK"'),
    ],
)
def test_answers_are_cleaned(raw: str, clean: str) -> None:
    assert cleaned(raw) == clean


# -- the question and the rewriting ------------------------------------------------------------------------------------


def test_the_question_shows_page_past_and_action_and_nobodys_thoughts() -> None:
    past = Step(observation=LOGIN, thought="secret thought", action=USER)
    system, user = question(LOGIN, [past], LOG_IN)
    assert "2 to 4 short sentences" in system.content
    assert user.content.endswith('# What you do next: click("3")\n[3] button "Log in"')
    assert 'fill("1", "amber")' in user.content and '# Goal: Log in as "amber"' in user.content
    assert "secret thought" not in user.content
    other = question(LOGIN, [past.model_copy(update={"thought": "another"})], LOG_IN)
    assert other == (system, user)
    again = asked_again((system, user), ["it contained an action call", "it contained an action call"])
    assert again[1].content.count("it contained an action call") == 1 and again[0] == system
    assert asked_again((system, user), []) == (system, user)


def test_a_thought_is_never_missing() -> None:
    assert template_thought(PUZZLE, CUBE) == "listitem Cube, listitem Box A"
    assert template_thought(PUZZLE, Noop()) == "noop"
    assert template_thought(PUZZLE, Click(ref="2")) == "button Reveal #2"


@pytest.mark.parametrize("name", ["chat", "chat-turns", "pocket"])
def test_thoughts_are_rewritten_in_answers_and_in_the_history(name: str) -> None:
    profile, silent = get_profile(name), get_profile(f"{name}-no-thought")
    actions = [parse_action('fill("1", "amber")'), parse_action('click("3")'), None]
    steps = [Step(observation=LOGIN, thought=f"label {i}", action=a, completion="?") for i, a in enumerate(actions)]
    task = Task(id="t/1", env="t", name="t", seed=1, split="demo")
    one = Trajectory(id="demos/t/1/0", task=task, agent="oracle", steps=tuple(steps), stop_reason=StopReason.SUCCESS)
    new = with_thoughts(one, ["The user is asked for. I type it.", None, "unused"], profile)
    assert new.context_policy == profile.id and one.steps == tuple(steps)
    first, second, third = new.steps
    assert parse_completion(first.completion) == ("The user is asked for. I type it.", actions[0])
    assert parse_completion(second.completion) == ("label 1", actions[1])
    assert (third.thought, third.completion) == ("label 2", "?")
    assert first.messages == render(profile, LOGIN, [])
    assert second.messages == render(profile, LOGIN, [first])
    assert "The user is asked for. I type it." in "\n".join(message.content for message in second.messages)
    bare = with_thoughts(new, ["Never. Written.", "Nor. This.", None], silent)
    assert [step.thought for step in bare.steps[:2]] == ["", ""]
    assert not any("Never" in m.content for step in bare.steps for m in step.messages)
    assert parse_completion(bare.steps[0].completion) == ("", actions[0])
