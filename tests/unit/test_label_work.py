"""Labels on disk: many in one commit, each once, taken back, taken in from other processes, there after a restart; and
the password's limits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dpo_driver.core.errors import ConfigError, StoreError
from dpo_driver.core.records import Comparison, Message
from dpo_driver.label.work import LabelError, Labelling, preferred_of, put_up
from dpo_driver.label.writer import LabelWriter
from dpo_driver.preferences.log import PreferenceLog
from dpo_driver.web.password import GUESSES, Password, TooManyGuesses


def comparisons(count: int) -> list[Comparison]:
    return [
        Comparison(id=f"c{number}", messages=(Message(role="user", content=f"{number}?"),), first="x", second="y")
        for number in range(count)
    ]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "preferences.db"
    assert put_up(path, comparisons(20)) == (20, 0)
    assert put_up(path, comparisons(21)) == (1, 20)
    return path


async def answer(work: Labelling, rater: str, verdict: str = "a", submission: str | None = None) -> int:
    showing = work.next(rater)
    assert showing is not None
    receipt = await work.label(
        rater, showing.id, verdict, submission=submission or f"s-{rater}-{showing.id}", session="e1", seconds=2.0
    )
    return receipt.seq


async def test_many_rows_share_a_commit_and_each_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    writer = LabelWriter(PreferenceLog(tmp_path / "log.db"))
    futures = [writer.put("label", {"number": number}) for number in range(300)]
    entries = await asyncio.gather(*futures)
    with PreferenceLog(tmp_path / "log.db", mode="read") as log:
        assert [entry.body["number"] for entry in log.entries()] == list(range(300))
        assert [entry.seq for entry in entries] == list(range(1, 301)) and log.verify().whole
    await asyncio.to_thread(writer.close)
    with pytest.raises(StoreError, match="closing"):
        await writer.put("label", {})


async def test_a_row_that_cannot_be_written_is_an_error_and_the_next_one_is_written(tmp_path: Path) -> None:
    writer = LabelWriter(log := PreferenceLog(tmp_path / "log.db"))
    log.close()
    with pytest.raises(StoreError):
        await writer.put("label", {"lost": True})
    await asyncio.to_thread(writer.close)
    with PreferenceLog(tmp_path / "log.db", mode="read") as opened:
        assert opened.head.count == 0


async def test_a_label_counts_once_however_often_it_is_sent(log: Path) -> None:
    async with Labelling(log, repeats=0.0) as work:
        showing = work.next("ann")
        assert showing is not None

        async def send(submission: str) -> tuple[int, bool]:
            receipt = await work.label("ann", showing.id, "b", submission=submission, session="e1")
            return receipt.seq, receipt.before

        # The same submission twice at once, and another tab that answers the same comparison meanwhile.
        at_once = await asyncio.gather(send("submission-1"), send("submission-1"), send("submission-2"))
        later = [await send("submission-1"), await send("submission-3")]
        assert {seq for seq, _ in at_once} | {seq for seq, _ in later} == {at_once[0][0]}
        assert [before for _, before in later] == [True, True]
    with PreferenceLog(log, mode="read") as opened:
        assert len(list(opened.entries("label"))) == 1


async def test_undo_takes_back_what_it_names_and_again_what_came_before(log: Path) -> None:
    async with Labelling(log, repeats=0.0) as work:
        seqs = [await answer(work, "ann") for _ in range(3)]
        assert work.last_act("ann").token == f"label-{seqs[2]}"  # type: ignore[union-attr]
        taken = await work.undo("ann", f"label-{seqs[1]}", "e1")
        assert taken is not None and taken.seq == seqs[1] and work.next("ann") == taken.showing
        assert await work.undo("ann", f"label-{seqs[1]}", "e1") is None
        assert await work.undo("bob", f"label-{seqs[0]}", "e1") is None
        assert (await work.undo("ann", None, "e1")).seq == seqs[2]  # type: ignore[union-attr]
        assert work.progress("ann").done == 1
        again = await work.label("ann", taken.showing.id, "tie", submission=f"s-ann-{taken.showing.id}", session="e1")
        assert not again.before  # the same submission may say it anew
    with PreferenceLog(log, mode="read") as opened:
        assert [entry.body["preferred"] for entry in opened.standing("label")][1] == "tie" and opened.verify().whole


async def test_everything_is_there_after_a_restart(log: Path) -> None:
    settings = {"repeats": 0.3, "overlap": 0.5}
    async with Labelling(log, **settings) as work:
        for number in range(12):
            await answer(work, "ann", ("a", "tie", "b")[number % 3])
            if number % 2:
                await answer(work, "bob", "a")
        before = (work.progress("ann"), work.progress("bob"), work.results(), work.last_act("ann"))
        showing = work.next("ann")
    async with Labelling(log, **settings) as work:
        assert (work.progress("ann"), work.progress("bob"), work.results(), work.last_act("ann")) == before
        assert work.next("ann") == showing


async def test_what_other_processes_write_is_taken_in(log: Path) -> None:
    async with Labelling(log, repeats=0.0, overlap=0.0) as work, Labelling(log, repeats=0.0, overlap=0.0) as other:
        seq = await answer(other, "bob")
        put_up(log, comparisons(25))
        async with asyncio.timeout(20):
            while work.results().labels != 1 or work.results().comparisons != 25:
                await asyncio.sleep(0.05)
            with PreferenceLog(log) as opened:
                opened.withdraw(seq, "mistake")
                opened.withdraw(1, "a bad comparison")
            while work.results().labels or work.results().comparisons != 24:
                await asyncio.sleep(0.05)
        assert work.progress("ann").total == 24


async def test_sides_become_first_and_second_and_nonsense_is_refused(log: Path) -> None:
    assert [preferred_of(verdict, swapped) for verdict in ("a", "b", "tie") for swapped in (False, True)] == [
        "first", "second", "second", "first", "tie", "tie",
    ]  # fmt: skip
    async with Labelling(log) as work:
        showing = work.next("ann")
        assert showing is not None
        for rater, showing_id, verdict in (("ann", "nothing", "a"), ("bob", showing.id, "a"), ("ann", showing.id, "c")):
            with pytest.raises(LabelError):
                await work.label(rater, showing_id, verdict, submission="s" * 10, session="e1")
        with PreferenceLog(log, mode="read") as opened:
            assert list(opened.entries("label")) == []


async def test_the_password_and_its_limits() -> None:
    now = [0.0]
    password = Password("correct horse battery", clock=lambda: now[0])
    assert await password.check("correct horse battery", "10.0.0.1")
    guesses = [password.check(f"guess {number}", "10.0.0.2") for number in range(GUESSES)]
    assert await asyncio.gather(*guesses) == [False] * GUESSES
    with pytest.raises(TooManyGuesses):
        await password.check("correct horse battery", "10.0.0.2")
    assert await password.check("correct horse battery", "10.0.0.1")  # others are not locked out by it
    now[0] = 61.0
    assert await password.check("correct horse battery", "10.0.0.2")
    with pytest.raises(ConfigError, match="fewer than"):
        Password("short")


async def test_guesses_from_many_addresses_are_limited_together() -> None:
    password = Password("correct horse battery", clock=lambda: 0.0, guesses=1)
    for number in range(10):
        assert not await password.check("guess", f"10.0.1.{number}")
    with pytest.raises(TooManyGuesses):
        await password.check("guess", "10.0.2.1")
