"""TRL's datasets in and out: implicit prompts, tools, whole conversations; JSON lines, Parquet, `datasets` folders."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_driver.core.actions import Click
from dpo_driver.core.errors import DataError
from dpo_driver.core.records import (
    Message,
    Observation,
    Preference,
    Step,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
)
from dpo_driver.core.store import RunStore
from dpo_driver.core.tool_calls import split_calls, write_calls
from dpo_driver.preferences.decisions import digest
from dpo_driver.preferences.formats import (
    export_preferences,
    export_samples,
    import_preferences,
    import_samples,
    preference_row,
)
from dpo_driver.preferences.readers import detect_format, read_preferences, read_samples
from tool_rows import ASKED, CALLED, GUESSED, LOOKED, TOOLS, call, lines, say, tokenizer_of

datasets = pytest.importorskip("datasets")
data_utils = pytest.importorskip("trl.data_utils")
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


def save(target: str, rows: list[dict[str, Any]], folder: Path) -> Path:
    """The rows as somebody else would save them, with `datasets`' own functions."""
    path = folder / target
    if target.endswith(".jsonl"):
        return lines(path, *rows)
    if target.endswith(".json"):
        path.write_text(json.dumps(rows, indent=1))
        return path
    dataset = datasets.Dataset.from_list(rows, on_mixed_types="use_json")
    if target.endswith(".parquet"):
        dataset.to_parquet(str(path))
    else:
        dataset.save_to_disk(str(path))
    return path


TARGETS = ("rows.jsonl", "rows.json", "rows.parquet", "rows")


@pytest.fixture(autouse=True, scope="module")
def no_bars() -> None:
    datasets.disable_progress_bars()


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_preferences_from_every_kind_of_file(target: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": ASKED, "chosen": LOOKED, "rejected": GUESSED, "tools": TOOLS},
        {"prompt": ASKED, "chosen": CALLED, "rejected": GUESSED, "tools": TOOLS[1:]},
    ]
    path = save(target, rows, tmp_path)
    assert detect_format(path) == "trl"
    first, second = read_preferences(path)
    assert json.loads(first.messages[0].tools) == TOOLS and json.loads(second.messages[0].tools) == TOOLS[1:]
    assert [message.content for message in first.messages] == ["be brief", "rain in Köln?"]
    assert first.chosen == '<tool_call>\n{"name": "look_up", "arguments": {"city": "Köln"}}\n</tool_call>'
    (later,) = first.chosen_more
    assert later.completion == "Yes." and later.messages[:2] == first.messages
    assert later.messages[2].tool_calls == (ToolCall(name="look_up", arguments='{"city": "Köln"}'),)
    assert later.messages[3] == Message(role="tool", content="rain", name="look_up")
    assert (first.rejected, first.rejected_more, first.level, first.source) == ("No.", (), "text", "import")
    assert (
        second.chosen == 'I book.\n<tool_call>\n{"name": "book", "arguments": {"day": 3, "seat": "12a"}}\n</tool_call>'
    )
    assert first.id == digest(first.messages, first.chosen, "No.", "Yes.") and first.id != second.id


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [*ASKED, *CALLED], "rejected": [*ASKED, *GUESSED]},
        # TRL knows rows like this one too: the prompt is a text, and stands in both conversations as well.
        {"prompt": "rain in Köln?", "chosen": [*ASKED, *CALLED], "rejected": [*ASKED, *GUESSED]},
        {"chosen": [*ASKED, *LOOKED, say("user", "and Bonn?"), *CALLED],
         "rejected": [*ASKED, *LOOKED, say("user", "and Bonn?"), *GUESSED]},
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": "The sky is blue.", "rejected": "The sky isn't."},
    ],
    ids=["messages", "beside a text", "long", "text", "cut inside a word"],
)  # fmt: skip
def test_an_implicit_prompt_is_what_trl_takes_for_it(row: dict[str, Any], tmp_path: Path) -> None:
    expected = data_utils.maybe_extract_prompt(row)
    if isinstance(row["chosen"], str):
        expected = {key: [say("user" if key == "prompt" else "assistant", text)] for key, text in expected.items()}
    (implicit,) = read_preferences(lines(tmp_path / "a.jsonl", row))
    (explicit,) = read_preferences(lines(tmp_path / "b.jsonl", expected))
    assert implicit == explicit and implicit.chosen_more == ()


def test_every_answer_of_a_conversation_is_a_sample(tmp_path: Path) -> None:
    conversation = [*ASKED, *LOOKED, say("user", "and Bonn?"), *GUESSED, say("user", "thanks")]
    samples = read_samples(lines(tmp_path / "a.jsonl", {"messages": conversation, "tools": TOOLS}))
    assert [sample.completion for sample in samples] == [
        '<tool_call>\n{"name": "look_up", "arguments": {"city": "Köln"}}\n</tool_call>', "Yes.", "No.",
    ]  # fmt: skip
    assert [len(sample.messages) for sample in samples] == [2, 4, 6]
    assert all(json.loads(sample.messages[0].tools) == TOOLS for sample in samples)
    apart = {"prompt": ASKED, "completion": [*LOOKED, say("user", "and Bonn?"), *GUESSED], "tools": TOOLS}
    assert read_samples(lines(tmp_path / "b.jsonl", apart)) == samples
    assert len({sample.id for sample in samples}) == 3


def test_splits_of_a_folder_say_what_is_for_validation(tmp_path: Path) -> None:
    def one(n: int) -> Any:
        return datasets.Dataset.from_list([{"prompt": f"p{n}", "chosen": "a", "rejected": "b"}])

    datasets.DatasetDict({"train": one(1), "test": one(2)}).save_to_disk(str(tmp_path / "saved"))
    found = {row.messages[0].content: row.split for row in read_preferences(tmp_path / "saved")}
    assert found == {"p1": "train", "p2": "val"}
    # A repository of the hub, copied: Parquet files under data/, by split.
    (tmp_path / "hub" / "data").mkdir(parents=True)
    one(1).to_parquet(str(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"))
    one(2).to_parquet(str(tmp_path / "hub" / "data" / "validation-00000-of-00001.parquet"))
    assert {row.messages[0].content: row.split for row in read_preferences(tmp_path / "hub")} == found
    datasets.DatasetDict({"train_prefs": one(1), "test_prefs": one(2)}).save_to_disk(str(tmp_path / "odd"))
    with pytest.raises(DataError, match="'train_prefs' is neither for training nor for validation"):
        read_preferences(tmp_path / "odd")
    assert [row.split for row in read_preferences(tmp_path / "odd" / "test_prefs")] == ["train"]


def test_nulls_that_arrow_put_in_are_taken_out(tmp_path: Path) -> None:
    """Older `datasets` and other tools save a struct with the fields of all rows; TRL has a function against it."""
    import pyarrow
    import pyarrow.parquet
    from trl.trainer.utils import remove_none_values

    rows = [
        {"prompt": ASKED, "chosen": CALLED, "rejected": GUESSED, "tools": TOOLS, "score": 0.5},
        {"prompt": ASKED, "chosen": LOOKED[:1], "rejected": GUESSED, "tools": None, "score": None},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    filled = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert filled[0]["chosen"][0]["tool_calls"][0]["function"]["arguments"]["city"] is None
    found = import_preferences(tmp_path / "rows.parquet")
    assert found == import_preferences(lines(tmp_path / "rows.jsonl", *(remove_none_values(row) for row in filled)))
    assert split_calls(found[0].chosen)[1] == (ToolCall(name="book", arguments='{"day": 3, "seat": "12a"}'),)
    assert found[0].evidence == {"columns": {"score": 0.5}} and found[1].evidence == {}
    assert found[1].messages[0].tools == ""


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"chosen": "a", "rejected": "b"}, "do not begin alike"),
    ({"chosen": [say("user", "x"), *CALLED], "rejected": [say("user", "y"), *CALLED]}, "do not begin alike"),
    ({"chosen": [*ASKED, *CALLED], "rejected": "b"}, "two texts or two lists of messages"),
    ({"chosen": [*ASKED, *CALLED], "rejected": [*ASKED, *CALLED]}, "chosen and rejected are equal"),
    ({"chosen": [*ASKED, *CALLED], "rejected": [*ASKED, say("user", "z")]}, "begin and end with an assistant message"),
    ({"prompt": "p", "chosen": LOOKED[:2], "rejected": GUESSED}, "begin and end with an assistant message"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "images": ["x"]}, "the column 'images' is not read"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "tools": "[{]"}, "'tools' must be JSON"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "tools": [{"type": "function"}]}, "schemas with a name"),
    ({"prompt": [say("user", "u", tool_calls=[call("f")])], "chosen": "a", "rejected": "b"}, "only an assistant"),
    *(
        ({"prompt": "p", "chosen": [say("assistant", "a") | part], "rejected": "b"}, message)
        for part, message in (
            ({"reasoning_content": "hm"}, "'reasoning_content' cannot be kept"),
            ({"content": [{"type": "image"}]}, "it holds 'image'"),
            ({"tool_calls": [{"type": "function"}]}, "must say which function it calls"),
            ({"tool_calls": [{"name": "f", "arguments": "["}]}, "arguments must be JSON"),
            ({"tool_calls": [{"name": "f", "arguments": [1]}]}, "arguments must be an object"),
        )
    ),
]


@pytest.mark.parametrize(("row", "message"), REFUSED)
def test_what_cannot_be_kept_is_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    with pytest.raises(DataError) as caught:
        read_preferences(lines(tmp_path / "a.jsonl", good, row), "trl")
    assert message in caught.value.what and caught.value.where == f"{tmp_path / 'a.jsonl'}, line 2"


def test_sft_rows_that_teach_nothing_are_named(tmp_path: Path) -> None:
    rows = [
        {"messages": ASKED}, {"messages": GUESSED}, {"messages": 3}, {"prompt": "p", "completion": "c", "label": False},
        {"prompt": "p", "completion": [say("assistant", " ")]},
    ]  # fmt: skip
    with pytest.raises(DataError) as caught:
        read_samples(lines(tmp_path / "a.jsonl", *rows))
    for message in ("no assistant message", "there is no prompt", "a list of messages, not a number",
                    "an unpaired preference", "'completion' is empty"):  # fmt: skip
        assert message in str(caught.value)


def test_broken_rows_of_a_table_are_named_and_damage_is_said(tmp_path: Path) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = save("rows.parquet", [good, good | {"chosen": " "}, good, good | {"rejected": "a"}], tmp_path)
    with pytest.raises(DataError, match="2 broken rows") as caught:
        read_preferences(path)
    assert caught.value.where == f"{path}, rows 2, 4" and "row 4: chosen and rejected are equal" in str(caught.value)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot read"):
        read_preferences(path)
    with pytest.raises(DataError, match="no such file"):
        read_preferences(tmp_path / "none.parquet")
    empty = datasets.Dataset.from_dict({"prompt": []})
    empty.save_to_disk(str(tmp_path / "empty"))
    with pytest.raises(DataError, match="is empty"):
        read_preferences(tmp_path / "empty")
    pictures = datasets.Dataset.from_list([good | {"picture": b"\xff\xd8"}])
    pictures.save_to_disk(str(tmp_path / "pictures"))
    with pytest.raises(DataError, match="a value of type bytes cannot be read"):
        read_preferences(tmp_path / "pictures")


# -- what is written ---------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
values = st.none() | st.integers(0, 9) | st.floats(-1e9, 1e9) | st.lists(texts)
arguments = st.dictionaries(texts, values, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False))
calls = st.builds(ToolCall, name=texts, arguments=arguments)
answers = st.builds(write_calls, texts, st.lists(calls, max_size=2))
prompts = st.lists(st.builds(Message, role=st.sampled_from(["system", "user", "tool"]), content=texts), min_size=1).map(
    tuple
)
tooled = st.builds(
    lambda prompt, tools: (prompt[0].model_copy(update={"tools": json.dumps(tools) if tools else ""}), *prompt[1:]),
    prompts,
    st.lists(st.sampled_from(TOOLS), max_size=2),
)
pairs = st.builds(
    Preference,
    id=texts,
    messages=tooled,
    chosen=answers.map(lambda text: "good " + text),
    rejected=answers.map(lambda text: "bad " + text),
    level=st.sampled_from(["step", "outcome"]),
    source=texts,
    seed=st.none() | st.integers(0, 10**9),
    margin=st.floats(-5, 5),
    split=st.sampled_from(["train", "val"]),
    evidence=st.dictionaries(texts, st.none() | st.floats(-9, 9) | texts | st.lists(st.integers()), max_size=3),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(pairs, min_size=1, max_size=4))
@pytest.mark.parametrize("target", ["rows.jsonl", "rows.parquet", "rows"])
def test_preferences_come_back_equal_from_every_kind_of_file(
    target: str, tmp_path: Path, rows: list[Preference]
) -> None:
    path = tmp_path / target
    assert export_preferences(path, rows) == len(rows)
    kept = sorted(rows, key=lambda row: row.split) if target == "rows" else rows  # a folder keeps the splits apart
    assert read_preferences(path) == kept
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_whole_conversations_and_samples_come_back_equal(tmp_path: Path) -> None:
    row = {"prompt": ASKED, "chosen": LOOKED, "rejected": GUESSED, "tools": TOOLS}
    (found,) = import_preferences(lines(tmp_path / "a.jsonl", row))
    written = preference_row(found)
    assert {key: written[key] for key in row} == row and "chosen_more" not in written["metadata"]
    samples = import_samples(lines(tmp_path / "b.jsonl", {"messages": [*ASKED, *LOOKED], "tools": TOOLS}))
    for target in ("rows.jsonl", "rows.parquet", "rows"):
        export_preferences(tmp_path / target, [found])
        assert import_preferences(tmp_path / target) == [found]
        export_samples(tmp_path / target, samples)
        assert import_samples(tmp_path / target) == samples
    # An agent's later prompts are pages seen anew: no conversation, so they stay beside TRL's columns, and come back.
    anew = found.model_copy(
        update={"chosen_more": (found.chosen_more[0].model_copy(update={"messages": found.messages}),)}
    )
    assert len(preference_row(anew)["chosen"]) == 1
    export_preferences(tmp_path / "anew", [anew])
    assert import_preferences(tmp_path / "anew") == [anew]


@pytest.mark.parametrize("target", ["rows.parquet", "rows"])
def test_trl_reads_what_is_written(target: str, tmp_path: Path) -> None:
    """Through `datasets` and TRL's own rendering, tools and calls give the text that the rows gave before."""
    rows = [
        {"prompt": ASKED, "chosen": CALLED, "rejected": GUESSED, "tools": TOOLS},
        {"prompt": ASKED, "chosen": LOOKED, "rejected": GUESSED},
    ]
    found = import_preferences(lines(tmp_path / "a.jsonl", *rows))
    export_preferences(tmp_path / target, found)
    if target == "rows":
        loaded = datasets.load_from_disk(str(tmp_path / target))["train"]
    else:
        loaded = datasets.Dataset.from_parquet(str(tmp_path / target), cache_dir=str(tmp_path / "cache"))
    tokenizer = tokenizer_of("llama3_1")
    for before, after in zip(rows, loaded, strict=True):
        tools = json.loads(after.pop("tools") or "null")
        after.pop("metadata")
        assert tools == before.get("tools")
        plain = {key: value for key, value in before.items() if key != "tools"}
        assert data_utils.apply_chat_template(after, tokenizer, tools=tools) == data_utils.apply_chat_template(
            plain, tokenizer, tools=tools
        )


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    good = import_preferences(lines(tmp_path / "a.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}))
    half = [good[0].model_copy(update={"chosen": "half \ud83d"})]
    for target in ("rows.parquet", "rows"):
        export_preferences(tmp_path / target, good)
        with pytest.raises(DataError, match="half a character"):
            export_preferences(tmp_path / target, half)
        assert import_preferences(tmp_path / target) == good
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="no dataset"):
        export_preferences(tmp_path / "mine", good)
    with pytest.raises(DataError, match=r"\.csv is no format"):
        export_preferences(tmp_path / "rows.csv", good)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.jsonl", "mine", "rows", "rows.parquet"]


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_commands_take_tables(cli: CommandLine, tmp_path: Path) -> None:
    row = {"prompt": ASKED, "chosen": LOOKED, "rejected": GUESSED, "tools": TOOLS}
    save("given.parquet", [row, row, row | {"chosen": CALLED}], tmp_path)
    (tmp_path / "run.yaml").write_text("project: {name: tried}\n")
    done = cli("prefs", "import", "given.parquet", "run.yaml", "--round", "2")
    assert done.returncode == 0 and "3 preferences" in done.stderr, done.stderr
    done = cli("prefs", "export", "taken", "runs/tried")
    assert done.returncode == 0 and "3 preferences" in done.stderr, done.stderr
    with RunStore(tmp_path / "runs" / "tried", mode="read") as store:
        kept = store.preferences(2)
    assert len(kept) == 3 and kept[0].chosen_more and import_preferences(tmp_path / "taken") == kept
    broken = save("broken", [row, {**row, "chosen": []}], tmp_path)
    done = cli("prefs", "import", "broken", "run.yaml", "--round", "2")
    assert done.returncode == 2 and f"{broken.name}, row 2" in done.stderr and "Traceback" not in done.stderr
    with RunStore(tmp_path / "runs" / "tried", mode="read") as store:
        assert store.preferences(2) == kept


def test_demonstrations_are_written_for_sft(cli: CommandLine, tmp_path: Path) -> None:
    prompt = (Message(role="user", content="press Save"),)
    step = Step(
        observation=Observation(goal="g"), messages=prompt, completion='action: click("1")', action=Click(ref="1")
    )
    task = Task(id="toy.press/1", env="toy", name="press", seed=1, split="demo")
    won = Trajectory(
        id="t", task=task, agent="a", steps=(step,), stop_reason=StopReason.SUCCESS, reward=1, success=True
    )
    with RunStore(tmp_path / "runs" / "played") as store:
        store.add_trajectory("demos", won)
    done = cli("prefs", "export", "demos.parquet", "runs/played", "--demos")
    assert done.returncode == 0 and "1 demonstrated steps" in done.stderr, done.stderr
    (sample,) = read_samples(tmp_path / "demos.parquet")
    assert (sample.messages, sample.completion, sample.source) == (prompt, step.completion, "oracle")


def test_without_datasets_the_remedy_is_named(tmp_path: Path) -> None:
    """A fresh interpreter in which the package cannot be imported, as on a base installation."""
    import sys

    lines(tmp_path / "a.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"})
    save("a.parquet", [{"prompt": "p", "chosen": "a", "rejected": "b"}], tmp_path)
    program = f"""
import sys
sys.modules["datasets"] = None
from dpo_driver.core.errors import DataError
from dpo_driver.preferences.readers import read_preferences

assert len(read_preferences({str(tmp_path / "a.jsonl")!r})) == 1
assert "pyarrow" not in sys.modules
try:
    read_preferences({str(tmp_path / "a.parquet")!r})
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "need the package datasets" in done.stdout and "pip install 'dpo-driver[data]'" in done.stdout
