"""The grammar: every call of BrowserGym's is read by its names and written back, and nothing else is."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_driver.core.actions import (
    ACTION_ADAPTER,
    ACTIONS,
    FILES,
    NAVIGATION,
    OPT_IN,
    TABS,
    Click,
    MouseClick,
    MouseDragAndDrop,
    MouseMove,
    Press,
    UploadFile,
    describe_actions,
    format_action,
    parse_action,
)
from dpo_driver.core.errors import ActionError

# One written call of each action, in the one form that we write.
WRITTEN = {
    "click": 'click("12", modifiers=["Control", "Shift"])',
    "dblclick": 'dblclick("12", button="right")',
    "fill": 'fill("12", "a \\"b\\"\\nc")',
    "type": 'type("12", "text")',
    "clear": 'clear("12")',
    "press": 'press("12", "Control+a")',
    "keyboard_press": 'keyboard_press("Escape")',
    "hover": 'hover("12")',
    "focus": 'focus("12")',
    "select_option": 'select_option("12", ["Blue", "Red"])',
    "scroll": "scroll(0, -200.5)",
    "drag_and_drop": 'drag_and_drop("3", "9")',
    "goto": 'goto("http://shop.example/")',
    "go_back": "go_back()",
    "go_forward": "go_forward()",
    "noop": "noop(500)",
    "mouse_move": "mouse_move(65.2, 158.5)",
    "mouse_down": 'mouse_down(458, 254.5, button="middle")',
    "mouse_up": "mouse_up(250, 120)",
    "mouse_click": "mouse_click(887.2, 68)",
    "mouse_dblclick": "mouse_dblclick(5, 236)",
    "mouse_drag_and_drop": "mouse_drag_and_drop(10.7, 325, 235.6, 24.54)",
    "upload_file": 'upload_file("12", "receipt.pdf")',
    "mouse_upload_file": 'mouse_upload_file(132.1, 547, ["a.png", "b.png"])',
    "keyboard_down": 'keyboard_down("Shift")',
    "keyboard_up": 'keyboard_up("Shift")',
    "keyboard_type": 'keyboard_type("Hello world!")',
    "keyboard_insert_text": 'keyboard_insert_text("Hello world!")',
    "new_tab": "new_tab()",
    "tab_close": "tab_close()",
    "tab_focus": "tab_focus(2)",
    "js_eval": 'js_eval("document.title")',
    "send_msg_to_user": 'send_msg_to_user("The total is 12.")',
    "report_infeasible": 'report_infeasible("there is no such page")',
}


def test_every_action_is_read_and_written_back() -> None:
    assert WRITTEN.keys() == ACTIONS.keys()
    for name, text in WRITTEN.items():
        action = parse_action(text)
        assert action.kind == name
        assert format_action(action) == text
        assert ACTION_ADAPTER.validate_json(action.model_dump_json()) == action
    assert ACTIONS.keys() >= NAVIGATION | TABS | FILES | OPT_IN


def test_browsergyms_names_of_arguments_are_read() -> None:
    assert parse_action("click(bid='a51', button='right')") == Click(ref="a51", button="right")
    assert parse_action("click('48', 'middle', ['Shift'])") == Click(ref="48", button="middle", modifiers=("Shift",))
    assert parse_action("press('88', key_comb='Backspace')") == Press(ref="88", key="Backspace")
    assert parse_action("mouse_drag_and_drop(from_x=1, from_y=2, to_x=3, to_y=4)") == MouseDragAndDrop(
        from_x=1, from_y=2, to_x=3, to_y=4
    )
    assert parse_action("mouse_click(56, 712.56, 'right')") == MouseClick(x=56, y=712.56, button="right")
    assert parse_action("upload_file('63', [])") == UploadFile(ref="63", file=())
    assert parse_action("upload_file([63], 'x.pdf')") == UploadFile(ref="63", file=("x.pdf",))
    assert format_action(UploadFile(ref="63", file=()), bracket_refs=True) == "upload_file([63], [])"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mouse_click(1)", "mouse_click: y: field required"),
        ("mouse_click(1, 2, 'fourth')", "mouse_click: button: input should be 'left', 'middle' or 'right'"),
        ("mouse_click(1, 2, x=3)", "x is given twice"),
        ("mouse_move(1e999, 2)", "finite number"),
        ("mouse_move('left', 2)", "mouse_move: x: input should be a valid number"),
        ("mouse_move(1, 2, 3)", "at most 2 arguments: x, y"),
        ("scroll(0, 1e400)", "finite number"),
        ("tab_focus(1.5)", "tab_focus: index: input should be a valid integer"),
        ("new_tab(url='http://x')", "no argument 'url'; it takes none"),
        ("click('1', modifiers=['Hyper'])", "click: modifiers"),
        ("upload_file('1', open('x'))", "argument file must be a literal"),
        ("js_eval(__import__('os'))", "argument code must be a literal"),
        ("mouse_wheel(1, 2)", "unknown action 'mouse_wheel'; known: click, dblclick"),
        ("mouse_click(*[1, 2])", "must be a literal"),
        ("mouse_click(**{'x': 1})", "no argument"),
        ("page.mouse_click(1, 2)", "not one call"),
        ("mouse_click(1, 2); mouse_click(3, 4)", "cannot read"),
    ],
)
def test_what_is_written_wrongly_is_told(text: str, told: str) -> None:
    with pytest.raises(ActionError) as caught:
        parse_action(text)
    assert told in str(caught.value)


def test_javascript_is_not_offered_unless_it_is_on() -> None:
    offered = describe_actions()
    assert len(offered.splitlines()) == len(ACTIONS) - 1
    assert "js_eval" not in offered
    assert "- mouse_drag_and_drop(10, 32, 120, 32)" in offered
    assert "js_eval(" in describe_actions(opt_in={"js_eval"})
    with pytest.raises(ActionError) as caught:
        parse_action("nonsense()")
    assert "js_eval" not in str(caught.value)


points = st.floats(allow_nan=False, allow_infinity=False)


@given(points, points)
def test_points_survive_being_written(x: float, y: float) -> None:
    action = MouseMove(x=x, y=y)
    assert parse_action(format_action(action)) == action


def test_unreadable_text_says_nothing_on_the_console(recwarn: pytest.WarningsRecorder) -> None:
    for text in ("click(1if 2else 3)", "click(0x1for)", 'fill("1", "\\d")'):
        with contextlib.suppress(ActionError):
            parse_action(text)
    assert not list(recwarn)
