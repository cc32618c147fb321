"""What raters compare and how it looks to them: comparisons out of runs and files, words, marks, differences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from markupsafe import Markup

from dpo_driver.core.actions import parse_action
from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Comparison, Element, Message, Observation
from dpo_driver.core.store import RunStore
from dpo_driver.label.candidates import comparisons_of
from dpo_driver.label.pictures import Pictures
from dpo_driver.label.texts import comparisons_in
from dpo_driver.label.views import Views, page_changes
from dpo_driver.label.words import action_words, marked, text_difference
from dpo_driver.report.pictures import Pictures as ReportPictures
from label_run import trajectories, write_label_run, write_texts

PAGE = Observation(
    goal="g", url="http://x/a", state_hash="s",
    elements=(
        Element(ref="1", role="textbox", name="User", box=(10, 20, 100, 20)),
        Element(ref="2", role="button", name="Log in", box=(10, 60, 60, 20)),
        Element(ref="3", role="button", name="Log in", nth=2, box=(80, 60, 60, 20)),
        Element(ref="4", role="checkbox", states=("checked",)),
    ),
)  # fmt: skip


def said(action: str) -> str:
    return "".join(part.text for part in action_words(parse_action(action), PAGE))


@pytest.mark.parametrize(("action", "words"), [
    ('click("2")', "Click the “Log in” button"),
    ('click("3", button="right")', "Click the “Log in” button, number 2 of its kind with the right button"),
    ('fill("1", "ann")', "Write “ann” into the “User” textbox"),
    ('click("4")', "Click the checkbox without a name"),
    ('click("9")', "Click the element 9, which is not on the page"),
    ('select_option("1", ["a", "b"])', "Choose “a”, “b” in the “User” textbox"),
    ("scroll(0, -200)", "Scroll 200 pixels up"),
    ('drag_and_drop("2", "1")', "Drag the “Log in” button onto the “User” textbox"),
    ("mouse_click(3.5, 4)", "Click at (3.5, 4)"),
    ("noop(500)", "Wait 500 milliseconds"),
    ('fill("1", "{ref} {x}")', "Write “{ref} {x}” into the “User” textbox"),
    ('report_infeasible("no such page")', "Give up: “no such page”"),
])  # fmt: skip
def test_actions_in_words(action: str, words: str) -> None:
    assert said(action) == words


def test_every_action_has_words() -> None:
    from dpo_driver.core.actions import ACTIONS
    from dpo_driver.label.words import _WORDS

    assert set(_WORDS) == set(ACTIONS)


def test_only_what_differs_is_marked() -> None:
    one, other = (action_words(parse_action(text), PAGE) for text in ('fill("1", "ann")', 'fill("1", "bob")'))
    assert [part.text for part in marked(one, other)[0] if part.differs] == ["“ann”"]
    unlike = action_words(parse_action("go_back()"), PAGE)
    assert not any(part.differs for part in marked(one, unlike)[0])  # all differs: marking all says nothing


def test_text_differences_word_by_word() -> None:
    one, other = text_difference("You get the fee back today.", "You get the whole fee back tomorrow.")
    assert "".join(part.text for part in one) == "You get the fee back today."
    assert [part.text for part in one if part.differs] == ["today"]
    assert [part.text.strip() for part in other if part.differs] == ["whole", "tomorrow"]
    for pair in (("Yes.", "It depends on many things"), ("word " * 2000, "word " * 2001)):
        assert [len(side) for side in text_difference(*pair)] == [1, 1]


def test_what_changed_on_a_page() -> None:
    filled = PAGE.elements[0].model_copy(update={"value": "ann"})
    after = PAGE.model_copy(
        update={"elements": (filled, *PAGE.elements[1:3], Element(ref=None, role="text", name="Hi"))}
    )
    assert [(one.kind, one.text) for one in page_changes(PAGE, after)] == [
        ("changed", "textbox “User” contains “ann” (before: empty)"),
        ("new", "text “Hi”"),
        ("gone", "checkbox, checked"),
    ]
    elsewhere = page_changes(PAGE, after.model_copy(update={"url": "http://x/b?c=1"}))
    assert elsewhere[0].text == "the address is now /b?c=1" and "gone" not in {one.kind for one in elsewhere}
    assert page_changes(PAGE, PAGE) == ()


def test_comparisons_are_of_one_state_and_do_not_depend_on_order_or_outcome() -> None:
    rolled = trajectories(5)
    found = comparisons_of(rolled)
    assert len(found) == 10 and comparisons_of(rolled[::-1]) == found
    turned = [one.model_copy(update={"success": not one.success, "reward": 0.0}) for one in rolled]
    assert [one.id for one in comparisons_of(turned)] == [one.id for one in found]
    by_id = {one.id: one for one in rolled}
    for one in found:
        sides = [one.evidence["first"], one.evidence["second"]]
        steps = [by_id[side["trajectory"]].steps[side["step"]] for side in sides]
        assert {step.observation.state_hash for step in steps} == {one.state_hash}
        assert [step.completion for step in steps] == [one.first, one.second] and one.first != one.second
        assert one.messages == steps[0].messages == steps[1].messages
    assert [one.id for one in comparisons_of(rolled, limit=4)] == [one.id for one in found[:4]]


def test_held_out_broken_and_unscored_trajectories() -> None:
    rolled = trajectories(3)
    held_out = [one.model_copy(update={"task": one.task.model_copy(update={"split": "test"})}) for one in rolled]
    assert comparisons_of(held_out) == []  # what people say of test tasks would be trained on
    assert comparisons_of([one.model_copy(update={"failure": "browser_lost"}) for one in rolled]) == []
    unscored = [one.model_copy(update={"success": None, "reward": None}) for one in rolled]
    assert len(comparisons_of(unscored)) == 6  # people are asked where the environment is silent


def test_text_pairs_in_both_ways_of_writing_and_blind(tmp_path: Path) -> None:
    found = comparisons_in(write_texts(tmp_path / "pairs.jsonl", rows=40))
    assert len(found) == 40 and {one.role for one in found} == {"support"}
    assert 8 < sum("fee back" in one.first for one in found) < 32  # the better one is not always first
    assert found[1].evidence["stood_as"][("first", "second")["fee back" in found[1].second]] == "chosen"
    assert comparisons_in(tmp_path / "pairs.jsonl", limit=3) == found[:3]


def test_which_response_is_first_does_not_follow_from_the_file(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "response_a": "x", "response_b": "y"},
        {"prompt": "p", "response_a": "y", "response_b": "x"},
        {"prompt": "p", "chosen": "y", "rejected": "x"},
    ]
    (tmp_path / "same.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert len(comparisons_in(tmp_path / "same.jsonl")) == 1  # the same comparison, however it is written
    seen = set()
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(row))
        seen |= {(one.id, one.first, one.second) for one in comparisons_in(tmp_path / f"{number}.jsonl")}
    assert len(seen) == 1


@pytest.mark.parametrize(("row", "wrong"), [
    ({"prompt": "p", "response_a": "x"}, "response_b"),
    ({"prompt": "p", "response_a": "x", "response_b": "x"}, "nothing to compare"),
    ({"response_a": "x", "response_b": "y"}, "prompt"),
])  # fmt: skip
def test_broken_rows_are_named(tmp_path: Path, row: dict[str, str], wrong: str) -> None:
    (tmp_path / "broken.jsonl").write_text(
        json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n" + json.dumps(row)
    )
    with pytest.raises(DataError, match=wrong) as caught:
        comparisons_in(tmp_path / "broken.jsonl")
    assert "line 2" in str(caught.value)


def test_the_view_of_a_run_shows_both_sides_and_no_source(tmp_path: Path) -> None:
    write_label_run(tmp_path, seeds=2)
    with RunStore(tmp_path, mode="read") as store:
        rolled = [one for stage in store.trajectory_stages() for one in store.iterate(stage)]
        drawing = ReportPictures(store.get_blob)
        views = Views(Pictures(store.get_blob, drawing.frame), store.trajectory)
        for comparison in comparisons_of(rolled):
            view, other = views.of(comparison, swapped=False), views.of(comparison, swapped=True)
            assert [side.letter for side in view.sides] == ["A", "B"] == [side.letter for side in other.sides]
            words = [["".join(part.text for part in side.did) for side in one.sides] for one in (view, other)]
            assert words[0] == words[1][::-1] and words[0][0] != words[0][1]
            assert (
                view.before is not None and "mark-a" in view.before.picture.svg and "mark-b" in view.before.picture.svg
            )
            assert comparison.task is not None and view.goal == comparison.task.goal
            for telltale in ("secret-agent", "c0ffee", "collect/1", "success", "reward"):
                assert telltale not in str(view)


def test_the_view_without_the_run_shows_prompt_and_answers() -> None:
    comparison = Comparison(
        id="x", messages=(Message(role="user", content="Which?"),), first="This one.", second="That one.",
        evidence={"first": {"trajectory": "gone", "step": 0}, "second": "?"},
    )  # fmt: skip
    view = Views(Pictures(None, lambda _: Markup(""))).of(comparison, swapped=True)
    assert view.before is None and view.messages == comparison.messages
    assert "".join(part.text for part in view.sides[0].did) == "That one."


def test_what_a_page_says_cannot_become_markup(tmp_path: Path) -> None:
    hostile = '"><script>alert(1)</script>'
    page = PAGE.model_copy(
        update={"title": hostile, "elements": (Element(ref="1", role="button", name=hostile, box=(0, 0, 50, 20)),)}
    )
    drawn = Pictures(None, ReportPictures(lambda _: b"").frame).of(
        page, None, "toy", [("A", parse_action('click("1")'))]
    )
    assert "<script" not in drawn.svg and "mark-a" in drawn.svg
