"""The inbox: what was acknowledged is there, whoever wrote it and whoever was killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpo_driver import record_episode, record_feedback
from dpo_driver.core.errors import DataError, StoreError
from dpo_driver.core.records import Interaction
from dpo_driver.flywheel.inbox import Inbox

ASKED = [{"role": "user", "content": "Where is my order?"}]
WRITER = """
import sys
from dpo_driver.core.records import Interaction
from dpo_driver.flywheel.inbox import Inbox
root, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Inbox(root) as inbox:
    for number in range(count):
        print(inbox.append(Interaction(id=f"{name}-{number}", at=1.0, role=name, response="x")), flush=True)
"""


def row(name: str, role: str = "", **more: object) -> Interaction:
    return Interaction.model_validate({"id": name, "at": 1.0, "role": role, "response": "x", **more})


def write(root: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_numbers_rise_without_gaps_and_an_id_keeps_its_own(tmp_path: Path) -> None:
    with Inbox(tmp_path) as inbox:
        assert [inbox.append(row(name)) for name in "abc"] == [1, 2, 3]
        assert inbox.append(row("b", response="another")) == 2
        assert inbox.append_many([row("d"), row("a"), row("e")]) == [4, 1, 5]
        assert [number for number, _ in inbox.since(0)] == [1, 2, 3, 4, 5]
        assert inbox.since(1)[0][1].response == "x"  # what was first is kept
        assert inbox.get("d") == row("d") and inbox.get("z") is None


def test_roles_are_told_apart(tmp_path: Path) -> None:
    with Inbox(tmp_path) as inbox:
        inbox.append_many([row("1", "a"), row("2", "b"), row("3", "a"), row("4")])
        assert [one.id for _, one in inbox.since(0, role="a")] == ["1", "3"]
        assert [one.id for _, one in inbox.since(1, role="a", limit=1)] == ["3"]
        assert (inbox.count(), inbox.count("a"), inbox.count("a", after=1), inbox.count("")) == (4, 2, 1, 1)


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    writers = {name: write(tmp_path, name, 40) for name in ("a", "b", "c")}
    numbers = {name: [int(line) for line in one.communicate(timeout=60)[0].split()] for name, one in writers.items()}
    assert sorted(number for told in numbers.values() for number in told) == list(range(1, 121))
    with Inbox(tmp_path) as inbox:
        for name, told in numbers.items():
            assert [number for number, _ in inbox.since(0, role=name)] == told


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    writer = write(tmp_path, "a", 100_000)
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(25)]
    writer.send_signal(signal.SIGKILL)
    told += [int(line) for line in writer.stdout.read().split()]
    writer.wait(30)
    writer.stdout.close()
    with Inbox(tmp_path) as inbox:
        kept = [number for number, _ in inbox.since(0, limit=200_000)]
        assert kept[: len(told)] == told
        assert len(kept) in (len(told), len(told) + 1)  # the last one may have been kept and not told
        assert inbox.append(row("after")) == kept[-1] + 1


def test_nothing_is_changed_or_deleted(tmp_path: Path) -> None:
    with Inbox(tmp_path) as inbox:
        inbox.append(row("a"))
    database = sqlite3.connect(tmp_path / "inbox.db")
    for statement in ("DELETE FROM interactions", "UPDATE interactions SET role='b'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.close()


def test_an_episode_from_python_and_what_came_of_it_later(tmp_path: Path) -> None:
    before = time.time()
    name = record_episode(role="support", messages=ASKED, response="On its way.", model="support/dpo-1", root=tmp_path)
    assert record_feedback(name, rating=-1.0, preferred="It left Lyon this morning.", root=tmp_path) == 2
    assert record_feedback(name, success=False, root=tmp_path) == 3
    with Inbox(tmp_path) as inbox:
        first, second, third = (one for _, one in inbox.since(0))
    assert first.at >= before and first.rating is None and first.source == "python"
    assert (second.messages, second.response, second.model) == (first.messages, first.response, first.model)
    assert (second.rating, second.preferred, second.metadata["episode"]) == (-1.0, "It left Lyon this morning.", name)
    assert third.success is False and third.rating is None and not third.preferred


def test_what_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs a trajectory, or messages and a response"):
        record_episode(role="support", root=tmp_path)
    with pytest.raises(DataError, match="rating"):
        record_episode(role="support", response="x", rating=3.0, root=tmp_path)
    assert not (tmp_path / "inbox.db").exists()
    name = record_episode(response="x", root=tmp_path)
    with pytest.raises(DataError, match="nothing to record"):
        record_feedback(name, root=tmp_path)
    with pytest.raises(DataError, match="no episode 'none'"):
        record_feedback("none", success=True, root=tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "inbox.db").write_bytes(b"this is no database, and long enough to be looked at as one" * 40)
    with pytest.raises(StoreError, match="the inbox cannot be used"):
        Inbox(tmp_path)
