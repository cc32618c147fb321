"""The preference log: whatever somebody does to the file behind its back is found, and nothing acknowledged is lost."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dpo_driver.core.errors import StoreError
from dpo_driver.preferences.log import EMPTY, WITNESS, Head, PreferenceLog

ENTRIES = 12


def filled(path: Path, count: int = ENTRIES) -> Path:
    with PreferenceLog(path) as log:
        log.append("label", ({"comparison": f"c{n}", "preferred": "first"} for n in range(count)))
    return path


def behind_its_back(path: Path, *statements: str) -> None:
    """Whoever can write the file can drop its triggers, too."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DROP TRIGGER no_update")
        database.execute("DROP TRIGGER no_delete")
        for statement in statements:
            database.execute(statement)


def problems(path: Path, *noted: Head) -> tuple[str, ...]:
    with PreferenceLog(path, "read") as log:
        return log.verify(noted).problems


def test_what_is_appended_is_read_in_its_order_and_the_chain_is_whole(tmp_path: Path) -> None:
    path = filled(tmp_path / "log.db")
    with PreferenceLog(path) as log:
        written = log.append_all([("comparison", {"id": "é\n\"'"}), ("withdrawn", {"seq": 3, "why": "undo"})])
        assert [(entry.seq, entry.kind) for entry in written] == [(13, "comparison"), (14, "withdrawn")]
        assert [entry.body["comparison"] for entry in log.standing("label")] == [f"c{n}" for n in range(12) if n != 2]
        assert [entry.seq for entry in log.entries(after=12)] == [13, 14]
        assert next(log.entries("comparison")).body == {"id": "é\n\"'"}
        verdict = log.verify()
        assert verdict.whole and verdict.head == log.head == Head(14, written[-1].hash)
    assert (tmp_path / f"log.db{WITNESS}").read_text() == f"14 {written[-1].hash}\n"


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    with PreferenceLog(tmp_path / "log.db") as log:
        assert log.head == Head(0, EMPTY)
        assert log.verify().whole
        assert log.append("label", []) == []


def test_the_file_itself_refuses_changes(tmp_path: Path) -> None:
    path = filled(tmp_path / "log.db")
    with closing(sqlite3.connect(path)) as database:
        for statement in ("UPDATE entries SET kind='label' WHERE seq=1", "DELETE FROM entries WHERE seq=12"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)


BODY = 'CAST(\'{"comparison":"c4","preferred":"second"}\' AS BLOB)'
TAMPERING = {
    "a body is edited": [f"UPDATE entries SET body={BODY} WHERE seq=5"],
    "a kind is edited": ["UPDATE entries SET kind='comparison' WHERE seq=5"],
    "a time is edited": ["UPDATE entries SET at=at-3600 WHERE seq=5"],
    "a hash is edited": ["UPDATE entries SET hash=(SELECT hash FROM entries WHERE seq=4) WHERE seq=5"],
    "one is deleted": ["DELETE FROM entries WHERE seq=5"],
    "the first is deleted": ["DELETE FROM entries WHERE seq=1"],
    "one is deleted and the rest moves up": [
        "DELETE FROM entries WHERE seq=5",
        *(f"UPDATE entries SET seq={n - 1} WHERE seq={n}" for n in range(6, ENTRIES + 1)),
    ],
    "two change places": [
        "UPDATE entries SET seq=99 WHERE seq=5",
        "UPDATE entries SET seq=5 WHERE seq=6",
        "UPDATE entries SET seq=6 WHERE seq=99",
    ],
    "two bodies change places": [
        "CREATE TABLE kept AS SELECT seq, body FROM entries WHERE seq IN (5, 6)",
        "UPDATE entries SET body=(SELECT body FROM kept WHERE seq=6) WHERE seq=5",
        "UPDATE entries SET body=(SELECT body FROM kept WHERE seq=5) WHERE seq=6",
    ],
    "the end is cut off": ["DELETE FROM entries WHERE seq>=11"],
    "all are deleted": ["DELETE FROM entries"],
    "one is put in between": [
        *(f"UPDATE entries SET seq={n + 1} WHERE seq={n}" for n in range(ENTRIES, 4, -1)),
        f"INSERT INTO entries VALUES (5, 1.0, 'label', {BODY}, '{'a' * 64}')",
    ],
    "one is put at the end": [f"INSERT INTO entries VALUES (13, 1.0, 'label', {BODY}, '{'a' * 64}')"],
}


@pytest.mark.parametrize("statements", TAMPERING.values(), ids=TAMPERING)
def test_tampering_is_found(tmp_path: Path, statements: list[str]) -> None:
    path = filled(tmp_path / "log.db")
    assert problems(path) == ()
    behind_its_back(path, *statements)
    assert problems(path)


def test_the_place_is_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "log.db")
    behind_its_back(path, "DELETE FROM entries WHERE seq IN (5, 6)")
    gone, broken = problems(path)[:2]
    assert (gone, broken[:26]) == ("entries 5 to 6 are missing", "entry 7 does not follow fr")


def test_a_log_that_was_written_anew_with_its_witness_is_found_by_a_head_noted_elsewhere(tmp_path: Path) -> None:
    """The limit of what a file can say of itself, and what helps."""
    path = filled(tmp_path / "log.db")
    with PreferenceLog(path) as log:
        noted, early = log.head, list(log.entries())[3]
    for file in tmp_path.glob("log.db*"):
        file.unlink()
    with PreferenceLog(path) as log:
        log.append("label", ({"comparison": f"c{n}", "preferred": "second"} for n in range(ENTRIES)))
    assert problems(path) == ()
    assert "another hash stands there" in problems(path, noted)[0]
    assert "another hash stands there" in problems(path, Head(4, early.hash[:12]))[0]


def test_a_cut_off_end_is_found_by_the_witness_and_a_missing_witness_is_said(tmp_path: Path) -> None:
    path = filled(tmp_path / "log.db")
    with PreferenceLog(path) as log:
        noted = log.head
    behind_its_back(path, "DELETE FROM entries WHERE seq>=11")
    assert "once held entry 12" in problems(path)[0] and "it ends at 10" in problems(path)[0]
    (tmp_path / f"log.db{WITNESS}").unlink()
    assert "witness" in problems(path)[0]
    assert any("once held entry 12" in problem for problem in problems(path, noted))


def test_a_witness_that_is_behind_accuses_nobody(tmp_path: Path) -> None:
    path = filled(tmp_path / "log.db")
    witness = tmp_path / f"log.db{WITNESS}"
    before = witness.read_text()
    filled(path, 3)
    witness.write_text(before)
    assert problems(path) == ()
    witness.write_text("nonsense")
    assert "cannot be read" in problems(path)[0]


def test_an_entry_that_cannot_be_read_is_named_or_passed_over(tmp_path: Path) -> None:
    path = filled(tmp_path / "log.db")
    behind_its_back(path, "UPDATE entries SET body=CAST('no json' AS BLOB) WHERE seq=5")
    with PreferenceLog(path, "read") as log:
        with pytest.raises(StoreError, match="entry 5"):
            list(log.entries())
        broken: list[tuple[int, str]] = []
        assert len(list(log.entries(broken=broken))) == ENTRIES - 1
        assert broken == [(5, "label")]


def test_secrets_of_the_surroundings_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPO_DRIVER_SECRETS", '{"shop": "tr0ub4dor"}')
    path = tmp_path / "log.db"
    with PreferenceLog(path) as log:
        entry = log.append("label", [{"comparison": "c", "evidence": {"why": "it typed tr0ub4dor"}}])[0]
        assert entry.body["evidence"] == {"why": "it typed [secret:shop]"}
    assert b"tr0ub4dor" not in path.read_bytes()


# -- several processes, and their end ----------------------------------------------------------------------------------

WRITER = """
import sys
from dpo_driver.preferences.log import PreferenceLog
name, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with PreferenceLog(path) as log:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        entry = log.append("label", [{"rater": name, "number": number}])[0]
        print(number, entry.hash, flush=True)
"""
Start = Callable[..., "subprocess.Popen[str]"]


def start(name: str, path: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, name, str(path), str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def test_two_processes_that_append_500_each_at_once_give_one_whole_chain(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    writers = [start(name, path, 500) for name in ("ann", "ben")]
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        told = [writer.communicate(timeout=90)[0].splitlines() for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
    assert [writer.returncode for writer in writers] == [0, 0]
    with PreferenceLog(path, "read") as log:
        entries = list(log.entries())
        assert log.verify().whole
    assert [entry.seq for entry in entries] == list(range(1, 1001))
    for name, lines in zip(("ann", "ben"), told, strict=True):
        own = [entry for entry in entries if entry.body["rater"] == name]
        assert [entry.body["number"] for entry in own] == list(range(500))
        assert [f"{entry.body['number']} {entry.hash}" for entry in own] == lines
    changes = sum(one.body["rater"] != other.body["rater"] for one, other in itertools.pairwise(entries))
    assert changes > 1, "they took turns"


def test_kill_9_in_the_middle_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    writer = start("ann", path, 100_000)
    assert writer.stdout is not None and writer.stdin is not None and writer.stdout.readline() == "ready\n"
    writer.stdin.write("\n")
    writer.stdin.flush()
    lines = [writer.stdout.readline() for _ in range(40)]
    time.sleep(0.005)
    writer.send_signal(signal.SIGKILL)
    lines += writer.stdout.readlines()
    writer.wait(10)
    acknowledged = [line.split() for line in lines if line.endswith("\n")]
    with PreferenceLog(path) as log:
        kept = [[str(entry.body["number"]), entry.hash] for entry in log.entries()]
        assert kept[: len(acknowledged)] == acknowledged
        assert len(kept) - len(acknowledged) in (0, 1)
        # The witness may be one behind; it never says more than there is.
        assert log.verify().whole
        log.append("label", [{"rater": "ben", "number": 0}])
        assert log.verify().whole
