"""``dpo-driver prefs`` as a user meets it: add, list, stats, import, export, and what each refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from dpo_driver.cli.main import app
from dpo_driver.core.errors import DriverError
from dpo_driver.core.records import Message, Preference
from dpo_driver.core.store import RunStore
from dpo_driver.preferences.jsonl import write_jsonl
from dpo_driver.preferences.log import LOG, PreferenceLog

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
ROW = {"prompt": "Open?", "chosen": "Yes.", "rejected": "Perhaps."}


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Prefs = Callable[..., Done]


@pytest.fixture
def prefs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prefs:
    """``prefs("list", "--json")``: the command in this process, in a folder of its own. What main() would print and
    exit with is the error itself here; tests with ``cli`` go through main()."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, text: str = "") -> Done:
        done = CliRunner().invoke(app, ["prefs", *arguments], input=text)
        if isinstance(done.exception, DriverError):
            return Done(done.exception.exit_code, done.stdout, done.stderr + str(done.exception))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


def refused(done: Done | subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    for part in parts:
        assert part in done.stderr, done.stderr


def bodies(path: Path, kind: Any) -> list[dict[str, Any]]:
    with PreferenceLog(path, "read") as log:
        assert log.verify().whole
        return [entry.body for entry in log.entries(kind)]


def shown(prefs: Prefs, *arguments: str) -> Any:
    done = prefs(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_pair_by_options_is_listed_and_counted(prefs: Prefs, tmp_path: Path) -> None:
    words = ("--role", "CEO", "--prompt", "Open?", "--chosen", "Yes.", "--rejected", "Perhaps.", "--rater", "ann",
             "--confidence", "0.8")  # fmt: skip
    done = prefs("add", *words, "--json")
    assert done.returncode == 0 and "1 judgements added to runs/preferences.db" in done.stderr
    added = json.loads(done.stdout)
    assert added["labels"] == [2] and added["head"]["count"] == 2 and len(added["head"]["hash"]) == 64
    [label] = bodies(tmp_path / "runs" / LOG, "label")
    assert (label["source"], label["rater"], label["confidence"]) == ("human", "ann", 0.8)
    [pair] = shown(prefs, "list")
    assert (pair["role"], pair["chosen"], pair["weight"]) == ("CEO", "Yes.", 0.8)
    stats = shown(prefs, "stats")
    assert (stats["pairs"], stats["by_role"], stats["raters"]["ann"]["labels"]) == (1, {"CEO": 1}, 1)
    table = prefs("list").stdout
    assert "CEO" in table and "Perhaps." in table
    account = prefs("stats").stdout
    assert "1 pairs in runs/preferences.db" in account and "ann (human): 1 labels" in account


def test_without_a_run_the_log_beside_runs_is_audited(prefs: Prefs, tmp_path: Path) -> None:
    refused(prefs("audit"), "there is no run yet")
    prefs("add", "--prompt", "Open?", "--chosen", "Yes.", "--rejected", "Perhaps.", "--rater", "ann")
    done = prefs("audit", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["whole"], found["run"]) == (0, True, None)


def test_rows_from_a_file_and_from_stdin(prefs: Prefs, tmp_path: Path) -> None:
    side_by_side = {"prompt": "Hire?", "response_a": "No.", "response_b": "Well.", "preference": "tie"}
    write_jsonl(tmp_path / "rows.jsonl", [
        {**ROW, "metadata": {"role": "CTO", "source": "teacher", "rater": "gpt", "note": 1}},
        side_by_side,
    ])  # fmt: skip
    done = prefs("add", "--file", "rows.jsonl", "--role", "CEO", "--rater", "ann", "--log", "a.db")
    assert done.returncode == 0 and "2 judgements added to a.db" in done.stderr
    first, second = bodies(tmp_path / "a.db", "label")  # what a row says goes before what the options say
    assert (first["source"], first["rater"], first["evidence"]) == ("teacher", "gpt", {"metadata": {"note": 1}})
    assert (second["preferred"], second["rater"], second["evidence"]) == ("tie", "ann", {"swapped": False})
    assert [one["role"] for one in bodies(tmp_path / "a.db", "comparison")] == ["CTO", "CEO"]
    for text in (json.dumps(ROW), json.dumps(ROW, indent=2), json.dumps([ROW, ROW]), f"{json.dumps(ROW)}\n\n"):
        done = prefs("add", "--log", "b.db", "--rater", "bob", text=text)
        assert done.returncode == 0, done.stderr
    assert len(bodies(tmp_path / "b.db", "label")) == 5


def test_broken_rows_are_named_by_line_and_nothing_is_added(prefs: Prefs, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join([
        json.dumps(ROW),
        json.dumps({**ROW, "rejected": "Yes."}),
        "{broken",
        json.dumps({**ROW, "metadata": {"confidence": 2}}),
        json.dumps({**ROW, "metadata": {"source": "humn"}}),
        json.dumps({**ROW, "score": 3}),
    ]))  # fmt: skip
    done = prefs("add", "--file", "rows.jsonl")
    refused(done, "5 broken rows (rows.jsonl, lines 2, 3, 4, 5, 6)", "line 2: chosen and rejected are equal",
            "line 4: metadata 'confidence' must be a number from 0 to 1, not 2", "line 5: unknown preference source",
            "line 6: unknown column 'score'")  # fmt: skip
    assert not (tmp_path / "runs").exists()
    refused(prefs("add", text='[{"prompt": "x"}]'), "stdin, line 1", "missing key 'chosen'")
    refused(prefs("add", text=""), "stdin is empty")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["add", "--prompt", "x"], ["--chosen and --rejected is missing"]),
        (["add", "--prompt", "x", "--file", "rows.jsonl"], ["are two things"]),
        (["add", "--prompt", "x", "--chosen", "a", "--rejected", "b", "--source", "humn"], ["known: environment"]),
        (["list"], ["there is no preference log", "prefs add"]),
        (["stats", "--log", "a.db", "--run", "x"], ["both name a preference log"]),
        (["list", "--run", "nowhere"], ["there is no such configuration"]),
        (["export", "out.jsonl", "--log", "a.db", "--round", "1"], ["a log has no rounds"]),
        (["import", "rows.jsonl", "x.yaml", "--log", "a.db"], ["a log has no rounds"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_is_refused(prefs: Prefs, tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [ROW])
    refused(prefs(*arguments), *parts)


def test_filters_and_limits(prefs: Prefs, tmp_path: Path) -> None:
    rows = [{**ROW, "prompt": f"Open {n}?", "metadata": {"role": "CEO" if n < 4 else "CTO", "source": "human",
            "task_name": "login" if n == 5 else "", "seed": n}} for n in range(6)]  # fmt: skip
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert prefs("import", "rows.jsonl", "--log", "a.db").returncode == 0
    log = ("--log", "a.db")
    assert len(shown(prefs, "list", *log)) == 6
    last = shown(prefs, "list", "--role", "CEO", "--limit", "2", *log)
    assert [row["messages"][0]["content"] for row in last] == ["Open 2?", "Open 3?"]
    assert [row["seed"] for row in shown(prefs, "list", "--task", "login", *log)] == [5]
    assert shown(prefs, "list", "--source", "teacher", *log) == []
    assert "no pair of 6 in a.db is like that" in prefs("list", "--role", "COO", *log).stderr
    assert shown(prefs, "stats", "--role", "CTO", *log)["pairs"] == 2
    refused(prefs("list", "--source", "humn", *log), "unknown preference source 'humn'", "human")


def test_a_log_goes_out_and_comes_back(prefs: Prefs, tmp_path: Path) -> None:
    foreign = {**ROW, "metadata": {"confidence": 0.5, "source": "ultrafeedback", "note": "x"}}
    write_jsonl(tmp_path / "rows.jsonl", [foreign, {**ROW, "prompt": "Hire?"}])
    done = prefs("import", "rows.jsonl", "--log", "a.db", "--role", "CEO")
    assert "2 preferences added to a.db" in done.stderr
    done = prefs("import", "rows.jsonl", "--log", "a.db", "--role", "CEO")
    assert "0 preferences added to a.db, 2 are there already" in done.stderr
    first, second = shown(prefs, "list", "--log", "a.db")
    assert (first["source"], first["role"], first["weight"]) == ("import", "CEO", 0.5)
    assert first["evidence"]["metadata"]["source"] == "ultrafeedback" and second["weight"] == 1.0
    assert prefs("add", "--log", "a.db", text=json.dumps({**ROW, "prompt": "Sell?"})).returncode == 0
    done = prefs("export", "out.jsonl", "--log", "a.db", "--role", "CEO")
    assert "2 preferences written to out.jsonl" in done.stderr
    assert "1 preferences written" in prefs("export", "h.jsonl", "--log", "a.db", "--source", "human").stderr
    assert prefs("import", "out.jsonl", "--log", "b.db").returncode == 0
    assert shown(prefs, "list", "--log", "b.db") == [first, second]


def test_a_runs_own_pairs_count_with_its_log(prefs: Prefs, tmp_path: Path) -> None:
    message = (Message(role="user", content="page"),)
    own = Preference(id="1", messages=message, chosen="a", rejected="b", level="step", source="environment")
    with RunStore(tmp_path / "runs" / "small") as store:
        store.add_preferences(1, [own])
    assert [row["id"] for row in shown(prefs, "list", "--run", "runs/small")] == ["1"]  # from before there was a log
    done = prefs("add", "--run", "runs/small", text=json.dumps(ROW))
    assert done.returncode == 0 and "runs/small/preferences.db" in done.stderr
    stats = shown(prefs, "stats", "--run", "runs/small")
    assert (stats["pairs"], stats["by_source"]) == (2, {"environment": 1, "human": 1})
    with PreferenceLog(tmp_path / "runs" / "small" / LOG) as log:
        log.append("preference", [own.model_dump(mode="json")])
    assert shown(prefs, "stats", "--run", "runs/small")["pairs"] == 2  # noted in both is still one
    assert "1 preferences written" in prefs("export", "own.jsonl", "runs/small").stderr
    assert "1 preferences written" in prefs("export", "e.jsonl", "--run", "runs/small", "--source",
                                          "environment").stderr  # fmt: skip


def test_the_real_command_exits_with_2_and_says_where(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n{broken\n")
    refused(cli("prefs", "add", "--file", "rows.jsonl"), "broken JSON", "rows.jsonl, line 2")
    assert not (tmp_path / "runs").exists()
    assert cli("prefs", "add", "--prompt", "x", "--chosen", "a", "--rejected", "b").returncode == 0
    done = cli("prefs", "stats", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["pairs"] == 1
