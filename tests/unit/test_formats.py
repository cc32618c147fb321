"""Data files in and out: TRL's columns, DPO-Driver's older rows, the gauntlet's files; broken ones are named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_driver.core.errors import DataError, UnknownNameError
from dpo_driver.core.records import Message, Preference, TrainingSample
from dpo_driver.preferences.decisions import digest
from dpo_driver.preferences.formats import (
    export_preferences,
    export_samples,
    import_preferences,
    import_samples,
    preference_row,
)
from dpo_driver.preferences.gauntlet import read_gauntlet_trajectories
from dpo_driver.preferences.jsonl import write_jsonl
from dpo_driver.preferences.legacy import modern_text
from dpo_driver.preferences.readers import FORMATS, detect_format, read_preferences, read_samples

PROMPT = (Message(role="system", content="be brief"), Message(role="user", content="page\u2028goal 点击"))


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", "utf-8")
    return path


def preference(**changes: Any) -> Preference:
    fields = {
        "id": "a1",
        "messages": PROMPT,
        "chosen": 'thought: x\naction: click("1")',
        "rejected": 'thought: y\naction: click("2")',
        "level": "step",
        "source": "environment",
        "task_name": "click-link",
        "seed": 10_003,
        "split": "val",
        "state_hash": "0123456789abcdef",
        "margin": 0.75,
        "weight": 0.5,
        "evidence": {"chosen": {"trajectory": "t/0", "step": 1, "value": 0.75}, "list": [1, None, True]},
    }
    return Preference(**{**fields, **changes})


# -- TRL's columns -----------------------------------------------------------------------------------------------------


def test_exported_rows_have_trls_columns(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "pairs.jsonl"
    assert export_preferences(path, [preference()]) == 1
    row = json.loads(path.read_text("utf-8").split("\n")[0])
    assert row["prompt"][1] == {"role": "user", "content": "page\u2028goal 点击"}
    assert row["chosen"] == [{"role": "assistant", "content": 'thought: x\naction: click("1")'}]
    assert row["rejected"][0]["content"].endswith('click("2")')
    assert row["metadata"]["margin"] == 0.75 and row["metadata"]["split"] == "val"
    assert "点击" in path.read_text("utf-8")
    assert [entry.name for entry in path.parent.iterdir()] == ["pairs.jsonl"]


def test_trl_takes_exported_rows_as_they_are(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl.data_utils")
    row = preference_row(preference())
    assert trl.is_conversational(row)
    assert trl.maybe_extract_prompt(row)["prompt"] == row["prompt"]


texts = st.text(min_size=1, max_size=40).filter(str.strip)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
messages = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant", "tool"]), content=texts),
    min_size=1,
    max_size=3,
).map(tuple)
preferences = st.builds(
    preference,
    id=texts,
    messages=messages,
    chosen=texts.map(lambda text: "good " + text),
    rejected=texts.map(lambda text: "bad " + text),
    level=st.sampled_from(["step", "outcome", "text"]),
    seed=st.none() | st.integers(0, 10**9),
    margin=st.floats(-5, 5),
    evidence=st.dictionaries(st.text(max_size=8), json_values, max_size=3),
)
samples = st.builds(
    TrainingSample, id=texts, messages=messages, completion=texts, source=texts, seed=st.none() | st.integers()
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(preferences, min_size=1, max_size=4))
def test_preferences_come_back_equal(tmp_path: Path, rows: list[Preference]) -> None:
    path = tmp_path / "pairs.jsonl"
    export_preferences(path, rows)
    assert import_preferences(path) == rows
    assert read_preferences(path) == rows


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(samples, min_size=1, max_size=4))
def test_samples_come_back_equal(tmp_path: Path, rows: list[TrainingSample]) -> None:
    path = tmp_path / "rows.jsonl"
    export_samples(path, rows)
    assert import_samples(path) == rows


def test_lone_surrogates_survive(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [preference(chosen="broken \ud83d half")]
    export_preferences(path, rows)
    assert import_preferences(path) == rows


def test_plain_rows_and_foreign_metadata(tmp_path: Path) -> None:
    metadata = {"source": "human", "rater": "ann", "confidence": 0.8, "role": "CEO"}
    path = lines(
        tmp_path / "p.jsonl", {"prompt": "Hire?", "chosen": "Yes.", "rejected": "No.", "metadata": metadata}, ""
    )
    [row] = read_preferences(path)
    assert row.messages == (Message(role="user", content="Hire?"),)
    assert (row.chosen, row.rejected, row.level, row.source) == ("Yes.", "No.", "text", "human")
    assert (row.role, row.weight) == ("CEO", 0.8)
    assert row.evidence == {"metadata": {"rater": "ann", "confidence": 0.8}}
    assert row.id == digest(row.messages, "Yes.", "No.")
    [sample] = read_samples(lines(tmp_path / "s.jsonl", {"prompt": "Hi", "completion": "Hello"}))
    assert (sample.completion, sample.source, sample.split) == ("Hello", "import", "train")


def test_byte_order_mark_and_windows_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"prompt": "a", "chosen": "b", "rejected": "c"}\r\n\r\n')
    assert len(read_preferences(path)) == 1


GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}
BROKEN: list[tuple[Any, str]] = [
    ('{"prompt": "p"', "broken JSON"),
    ("[1, 2]", "a JSON object is needed, not a list"),
    ({"prompt": "p", "chosen": "a"}, "missing key 'rejected'; the row has 'chosen', 'prompt'"),
    ({**GOOD, "prompt": 7}, "'prompt' must be a text or a list of messages, not a number"),
    ({**GOOD, "prompt": []}, "'prompt' is empty"),
    ({**GOOD, "prompt": "  "}, "'prompt' is empty"),
    (
        {**GOOD, "prompt": [{"role": "king", "content": "x"}]},
        "role must be system, user, assistant or tool, not 'king'",
    ),
    ({**GOOD, "prompt": [{"role": "user"}]}, "content must be a text, not null"),
    ({**GOOD, "prompt": ["x"]}, "must hold messages with role and content, not a text"),
    ({**GOOD, "chosen": None}, "'chosen' must be a text or a list of messages, not null"),
    ({**GOOD, "chosen": " \n"}, "'chosen' is empty"),
    ({**GOOD, "rejected": ""}, "'rejected' is empty"),
    ({**GOOD, "rejected": []}, "'rejected' must begin and end with an assistant message"),
    (
        {**GOOD, "chosen": [{"role": "user", "content": "x"}]},
        "'chosen' must begin and end with an assistant message",
    ),
    ({"prompt": "p", "completion": "c"}, "an SFT row (a prompt and its completion)"),
    ({**GOOD, "rejected": " a "}, "chosen and rejected are equal"),
    ({**GOOD, "metadata": []}, "'metadata' must be an object, not a list"),
    ({**GOOD, "metadata": {"split": "test"}}, "metadata 'split'"),
    ({**GOOD, "metadata": {"margin": "wide"}}, "metadata 'margin'"),
    ({**GOOD, "metadata": {"evidence": 3, "rater": "x"}}, "'metadata.evidence' must be an object"),
]


@pytest.mark.parametrize(("row", "message"), BROKEN)
def test_a_broken_row_is_named_by_file_and_line(tmp_path: Path, row: Any, message: str) -> None:
    path = lines(tmp_path / "p.jsonl", GOOD, "", row, GOOD)
    with pytest.raises(DataError) as caught:
        import_preferences(path)
    assert message in caught.value.what
    assert caught.value.where == f"{path}, line 3"
    assert caught.value.exit_code == 2


def test_all_broken_rows_are_listed_up_to_twenty(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", GOOD, "{", GOOD, {"prompt": "p"})
    with pytest.raises(DataError) as caught:
        import_preferences(path)
    assert caught.value.what == "2 broken rows" and caught.value.where == f"{path}, lines 2, 4"
    assert "line 2: broken JSON" in str(caught.value) and "line 4: missing key 'chosen'" in str(caught.value)
    with pytest.raises(DataError) as caught:
        import_preferences(lines(path, *["{"] * 25))
    assert str(caught.value).count("broken JSON") == 20 and "... and 5 more" in str(caught.value)


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text(" \n\n")
    for path, message in ((empty, "the file is empty"), (tmp_path / "none.jsonl", "no such file")):
        for read in (read_preferences, read_samples, import_preferences, import_samples):
            with pytest.raises(DataError, match=message) as caught:
                read(path)
            assert caught.value.where == str(path)
    binary = tmp_path / "latin.jsonl"
    binary.write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(DataError, match="not UTF-8"):
        import_preferences(binary)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    export_preferences(path, [preference()])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_jsonl(path, [{"a": 1}, {"a": float("nan")}])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_jsonl(blocked / "p.jsonl", [{"a": 1}])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    export_preferences(path, [preference()])
    before = path.read_bytes()
    (tmp_path / f".p.jsonl.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(DataError, match="No space left"):
        export_preferences(path, [preference()])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# -- DPO-Driver's older rows -------------------------------------------------------------------------------------------


def test_older_sft_rows(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "sft_golden_samples.jsonl",
        {
            "prompt": "Click 'Login'.",
            "completion": "thought: find it\naction: CLICK(selector=\"button:contains('Login')\")",
        },
        {"prompt": "Type it.", "completion": 'thought: type\naction: TYPE(selector="#name", text="Ann")'},
        {"prompt": "Choose.", "completion": 'thought: choose\naction: SELECT(selector="select", value="Option 2")'},
        {"prompt": "Tick.", "completion": 'thought: tick\naction: CHECK(selector="#agree")'},
    )
    assert detect_format(path) == "dpo-driver"
    rows = read_samples(path)
    assert [row.completion for row in rows] == [
        "thought: find it\naction: click(\"button:contains('Login')\")",
        'thought: type\naction: fill("#name", "Ann")',
        'thought: choose\naction: select_option("select", "Option 2")',
        'thought: tick\naction: click("#agree")',
    ]
    assert rows[0].messages == (Message(role="user", content="Click 'Login'."),)


def test_older_preference_rows(tmp_path: Path) -> None:
    right, wrong = 'thought: a\naction: CLICK(selector="#a")', 'thought: b\naction: CLICK(selector="#b")'
    rows = [
        {"prompt": "p", "chosen": right, "rejected": wrong},
        {"prompt": "p", "chosen": right, "rejected": "I do not know."},
    ]
    first, second = read_preferences(lines(tmp_path / "dpo_v1_data.jsonl", *rows))
    assert (first.chosen, first.rejected) == ('thought: a\naction: click("#a")', 'thought: b\naction: click("#b")')
    assert (first.level, first.source, second.rejected) == ("text", "import", "I do not know.")
    same = {"prompt": "p", "chosen": right, "rejected": 'thought: other words\naction: CLICK(selector="#a")'}
    with pytest.raises(DataError, match="both decide on the same action"):
        read_preferences(lines(tmp_path / "same.jsonl", same))
    with pytest.raises(DataError, match="cannot read the action") as caught:
        read_preferences(lines(tmp_path / "bad.jsonl", rows[0], {**rows[0], "chosen": "action: CLICK("}))
    assert caught.value.where is not None and caught.value.where.endswith("bad.jsonl, line 2")


@pytest.mark.parametrize(
    ("text", "modern"),
    [
        ("<think>go on</think>\nclick('12')", 'thought: go on\naction: click("12")'),
        ("<think>a\n  b</think>Sure:\nfill('3', 'x')\nDone.", 'thought: a b\naction: fill("3", "x")'),
        ("click('12')", 'action: click("12")'),
        ("js_eval(\"document.title + '(' \")", "action: js_eval(\"document.title + '(' \")"),
        ("<think>why</think>\nmouse_click(10, 20)", "thought: why\naction: mouse_click(10, 20)"),
        ("Thought: x\nAction: CHECK(selector='#c')", 'thought: x\naction: click("#c")'),
    ],
)
def test_modern_text(text: str, modern: str) -> None:
    assert modern_text(text) == modern
    assert modern_text(modern) == modern


# -- the gauntlet agent's files ----------------------------------------------------------------------------------------


def gauntlet_step(action: str, reasoning: str = "", **more: Any) -> dict[str, Any]:
    return {"obs_text": f"page for {action}", "action": action, "reasoning": reasoning, "step_index": 0, **more}


def test_gauntlet_trajectory_files(tmp_path: Path) -> None:
    folder = tmp_path / "trajectories"
    folder.mkdir()
    won = {
        "step_number": 1,
        "success": True,
        "steps": [gauntlet_step("scroll(0, 600)", "look"), gauntlet_step("click('7')")],
    }
    lost = {"step_number": 1, "success": False, "steps": [gauntlet_step("click('8')")]}
    (folder / "step_01.json").write_text(json.dumps([won, lost]))
    (folder / "step_02.json").write_text(json.dumps({"trajectories": [won], "preference_pairs": [], "stats": {}}))
    trajectories = read_gauntlet_trajectories(folder)
    assert [(len(t.steps), t.success) for t in trajectories] == [(2, True), (1, False), (2, True)]
    rows = read_samples(folder)
    assert [row.completion for row in rows] == ["thought: look\naction: scroll(0, 600)", 'action: click("7")']
    assert rows[1].messages == (Message(role="user", content="page for click('7')"),)
    assert {row.task_name for row in rows} == {"gauntlet"}
    assert read_samples(folder / "step_01.json") == rows


def test_gauntlet_one_step_a_file(tmp_path: Path) -> None:
    for index, (reward, action) in enumerate([(0.0, "click('1')"), (0.0, "fill('2', 'ABC123')"), (1.0, "click('3')")]):
        step = {"observation": {"obs_text": f"p{index}"}, "think": f"t{index}", "action": action, "reward": reward}
        (tmp_path / f"step_{index:02}.json").write_text(json.dumps(step))
    [trajectory] = read_gauntlet_trajectories(tmp_path)
    assert trajectory.success is True
    assert [step.page for step in trajectory.steps] == ["p0", "p1", "p2"]
    assert trajectory.steps[1].completion == 'thought: t1\naction: fill("2", "ABC123")'
    (tmp_path / "step_02.json").write_text(json.dumps({**step, "reward": 0.2}))
    assert read_gauntlet_trajectories(tmp_path)[0].success is False
    with pytest.raises(DataError, match="none of the 1 trajectories succeeded"):
        read_samples(tmp_path)


def test_gauntlet_pairs(tmp_path: Path) -> None:
    pair = {"obs_text": "page", "chosen_action": "click('7')", "rejected_action": "scroll(0, 600)", "step_number": 3}
    searched = {**pair, "chosen_q": 0.9, "rejected_q": 0.25}
    as_lines = lines(tmp_path / "pairs.jsonl", pair, searched)
    (tmp_path / "challenge_03.json").write_text(json.dumps([pair, searched]))
    for path in (as_lines, tmp_path / "challenge_03.json"):
        first, second = read_preferences(path)
        assert (first.chosen, first.rejected) == ('action: click("7")', "action: scroll(0, 600)")
        assert (first.margin, first.task_name) == (1.0, "gauntlet")
        assert second.margin == pytest.approx(0.65)
        assert second.evidence == {"metadata": {"step_number": 3, "chosen_q": 0.9, "rejected_q": 0.25}}
    assert len(read_preferences(tmp_path)) == 4


def test_broken_gauntlet_files(tmp_path: Path) -> None:
    file = tmp_path / "step_00.json"
    cases: list[tuple[Any, str, str]] = [
        ("{", "broken JSON", "line 1"),
        ([{"success": True}], "missing key 'steps'", "row 1"),
        ([{"steps": [gauntlet_step("click('1')")]}, {"steps": []}], "'steps' must be a list", "row 2"),
        ([{"steps": [gauntlet_step("click('1')"), {"obs_text": "p"}]}], "step 1: missing key 'action'", "row 1"),
        ([{"steps": [{"action": "click('1')"}]}], "step 0: no page", "row 1"),
        ([{"steps": [gauntlet_step("click(")]}], "cannot read the action", "row 1"),
        ([{"steps": [gauntlet_step("click('1')", reward="high")]}], "'reward' must be a number", "row 1"),
    ]
    for content, message, place in cases:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(DataError) as caught:
            read_samples(file)
        assert message in caught.value.what, content
        assert caught.value.where == f"{file}, {place}"
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="holds nothing that can be read"):
        read_samples(tmp_path / "nothing")
    pair = {"obs_text": "p", "chosen_action": "click('1')", "rejected_action": " click( '1' )"}
    with pytest.raises(DataError, match="same action"):
        read_preferences(lines(tmp_path / "p.jsonl", pair))


def test_unknown_format(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", GOOD)
    assert set(FORMATS) == {"trl", "dpo-driver", "gauntlet"}
    with pytest.raises(UnknownNameError, match="trl"):
        read_preferences(path, "trrl")
    assert len(read_preferences(path, "trl")) == 1
