"""The work of labelling: the queue of comparisons, the log they and their labels stand in, and what came of it.

Called by app.py, one object per server, from one event loop. What is acknowledged is on disk; everything else here is
rebuilt from the log when a server starts. Other processes may write to the same log: their entries are taken in as they
appear. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dpo_driver.core.errors import DriverError
from dpo_driver.core.records import Comparison, Label
from dpo_driver.label.agreement import Consistency, Kappa, agreements, consistency
from dpo_driver.label.queue import LEASE_S, Progress, Queue, Showing
from dpo_driver.label.writer import LabelWriter
from dpo_driver.preferences.log import Entry, PreferenceLog

SOURCE = "human"
REFRESH_S = 1.0  # how often other processes' entries are looked for
Verdict = Literal["a", "b", "tie", "both_bad"]
VERDICTS: tuple[Verdict, ...] = ("a", "b", "tie", "both_bad")


class LabelError(DriverError):
    """A label that cannot be taken; the text is for the rater."""


@dataclass(frozen=True)
class Receipt:
    """What became of a label: its entry's number, and whether it stood there before (a double click, another tab)."""

    seq: int
    showing: Showing
    preferred: str
    before: bool = False


@dataclass(frozen=True)
class Act:
    """Something a rater did and can take back: a label (``seq``) or a skip (``seq`` 0)."""

    showing: Showing
    seq: int = 0

    @property
    def token(self) -> str:
        """How pages name it."""
        return f"label-{self.seq}" if self.seq else f"skip-{self.showing.id}"


@dataclass
class RaterBook:
    """What stands of one rater."""

    firsts: dict[str, str] = field(default_factory=dict)  # comparison -> preferred
    repeats: dict[str, str] = field(default_factory=dict)
    sides: dict[int, bool] = field(default_factory=dict)  # seq -> side A won, of labels in which a side did
    acts: list[Act] = field(default_factory=list)
    seconds: dict[int, float] = field(default_factory=dict)  # seq -> how long it took, in this server's time


@dataclass(frozen=True)
class Results:
    """What the results page shows."""

    comparisons: int
    labels: int
    counts: dict[str, int]
    raters: tuple[Consistency, ...]
    kappas: tuple[Kappa, ...]


class Labelling:
    """``async with Labelling("runs/pocket/preferences.db") as work: showing = work.next("ann")``.

    Args:
        path: the log; made where it is missing.
        seed, repeats, overlap, lease_s: see :class:`Queue`.
        clock: seconds since 1970 or anything else that goes on evenly.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        seed: int = 0,
        repeats: float = 0.1,
        overlap: float = 0.2,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self.queue = Queue(seed=seed, repeats=repeats, overlap=overlap, lease_s=lease_s, clock=clock)
        self.comparisons: dict[str, Comparison] = {}
        self._books: dict[str, RaterBook] = {}
        self._labels: dict[int, dict[str, Any]] = {}  # standing labels by sequence number
        self._receipts: dict[tuple[str, str], Receipt] = {}  # (rater, submission)
        self._writing: dict[tuple[str, str], asyncio.Future[Entry]] = {}
        self._answering: dict[str, tuple[str, str]] = {}  # id of a showing -> who writes its label just now
        self._put_up_at: dict[int, str] = {}  # sequence number -> comparison
        self._ahead: set[int] = set()  # own entries beyond `_seen`
        self._seen = 0  # every entry up to here was taken in
        self._reader: PreferenceLog | None = None
        self._writer: LabelWriter | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Labelling:
        self._writer = LabelWriter(PreferenceLog(self.path), self._take_in)
        self._reader = PreferenceLog(self.path, mode="read")
        self._take_in(self._reader.entries())
        self._watch = asyncio.create_task(self._look_for_others())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watch is not None and self._writer is not None and self._reader is not None
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        await asyncio.gather(*self._writing.values(), return_exceptions=True)
        await asyncio.to_thread(self._writer.close)
        self._reader.close()

    # -- what a rater does ---------------------------------------------------------------------------------------------

    def next(self, rater: str) -> Showing | None:
        """The next comparison for a rater, or None."""
        return self.queue.next(rater)

    def open(self, rater: str, showing_id: str) -> Showing | None:
        """A showing that this rater has to answer, leased anew; None where it is answered, or none of theirs."""
        showing = self.queue.find(rater, showing_id)
        if showing is None or self.queue.is_done(showing):
            return None
        self.queue.renew(showing)
        return showing

    async def label(
        self, rater: str, showing_id: str, verdict: str, *, submission: str, session: str, seconds: float | None = None
    ) -> Receipt:
        """Take a label. On disk when this returns; the same submission again gives the same receipt.

        Args:
            rater: who says it.
            showing_id: of what they saw.
            verdict: one of ``VERDICTS``, in terms of the sides as they were shown.
            submission: made by the client, once for each decision.
            session: where it was said, for the evidence.
            seconds: how long they looked.

        Raises:
            LabelError: no such showing or verdict.
            StoreError: it could not be written; nothing was.
        """
        key = (rater, submission)
        known = self._receipts.get(key)
        if known is not None:
            return Receipt(known.seq, known.showing, known.preferred, before=True)
        if key in self._writing:  # a double click: both wait for the one label
            await asyncio.shield(self._writing[key])
            return self._receipts[key]
        showing = self._showing(rater, showing_id)
        if verdict not in VERDICTS:
            raise LabelError(f"there is no answer {verdict!r}", remedy=f"known: {', '.join(VERDICTS)}")
        if showing.id in self._answering:  # another tab is a moment ahead
            await asyncio.shield(self._writing[self._answering[showing.id]])
        stands = self._standing(showing)
        if stands is not None:
            return stands
        return await self._write(key, showing, verdict, session, seconds)

    async def _write(
        self, key: tuple[str, str], showing: Showing, verdict: str, session: str, seconds: float | None
    ) -> Receipt:
        assert self._writer is not None
        rater, submission = key
        label = Label(
            comparison=showing.comparison,
            preferred=preferred_of(verdict, showing.swapped),
            source=SOURCE,
            rater=rater,
            evidence={
                "seconds": seconds, "swapped": showing.swapped, "repeat": showing.repeat, "session": session,
                "submission": submission,
            },
        )  # fmt: skip
        self._answering[showing.id] = key
        self._writing[key] = self._writer.put("label", label.model_dump())
        try:
            entry = await self._writing[key]
        finally:
            del self._writing[key], self._answering[showing.id]
        if seconds is not None:
            self._book(rater).seconds[entry.seq] = seconds
        return self._receipts[key]

    def skip(self, rater: str, showing_id: str) -> Act:
        """Put a comparison off, without a label."""
        showing = self._showing(rater, showing_id)
        self.queue.skip(showing)
        act = Act(showing)
        self._book(rater).acts.append(act)
        return act

    async def undo(self, rater: str, token: str | None, session: str) -> Act | None:
        """Take back what a rater did: the act named by its token, or the last one.

        Returns:
            What was taken back; it is shown next. None when there is nothing, or it was taken back before.

        Raises:
            StoreError: the withdrawal could not be written; the label stands.
        """
        acts = self._book(rater).acts
        wanted = [act for act in acts if token in (None, act.token)]
        if not wanted:
            return None
        act = wanted[-1]
        acts.remove(act)
        if act.seq:
            body = {"seq": act.seq, "why": "undo", "rater": rater, "session": session}
            try:
                assert self._writer is not None
                await self._writer.put("withdrawn", body)
            except DriverError:
                acts.append(act)
                raise
        self.queue.again(act.showing)
        return act

    def last_act(self, rater: str) -> Act | None:
        """What :meth:`undo` would take back."""
        acts = self._book(rater).acts
        return acts[-1] if acts else None

    # -- what came of it -----------------------------------------------------------------------------------------------

    def progress(self, rater: str) -> Progress:
        """How far a rater is."""
        return self.queue.progress(rater)

    def pace(self, rater: str) -> float | None:
        """Median seconds of a rater's labels since this server started; None without one."""
        seconds = self._book(rater).seconds.values()
        return statistics.median(seconds) if seconds else None

    def results(self) -> Results:
        """Counts, consistency of each rater, agreement of every two."""
        books = {name: book for name, book in sorted(self._books.items()) if book.firsts or book.repeats}
        counts = {"first": 0, "second": 0, "tie": 0, "both_bad": 0}
        for book in books.values():
            for preferred in book.firsts.values():
                counts[preferred] += 1
        return Results(
            comparisons=len(self.comparisons),
            labels=sum(counts.values()),
            counts=counts,
            raters=tuple(
                consistency(name, book.firsts, book.repeats, book.sides.values()) for name, book in books.items()
            ),
            kappas=tuple(agreements({name: book.firsts for name, book in books.items()})),
        )

    def standing(self) -> list[Entry]:
        """The log's comparisons and labels that count, read anew."""
        assert self._reader is not None
        return self._reader.standing("comparison", "label")

    # -- the log -------------------------------------------------------------------------------------------------------

    def _showing(self, rater: str, showing_id: str) -> Showing:
        showing = self.queue.find(rater, showing_id)
        if showing is None:
            raise LabelError("this comparison is not yours to label", remedy="go on with the next one")
        return showing

    def _standing(self, showing: Showing) -> Receipt | None:
        """The receipt of a label that this showing has already, from another tab."""
        if not self.queue.is_done(showing):
            return None
        for act in reversed(self._book(showing.rater).acts):
            if act.seq and act.showing.id == showing.id:
                return Receipt(act.seq, showing, self._labels[act.seq]["preferred"], before=True)
        return None  # a repeat that was skipped: a label of it is welcome

    async def _look_for_others(self) -> None:
        """Take in what other processes write to the log."""
        while True:
            await asyncio.sleep(REFRESH_S)
            assert self._reader is not None
            with contextlib.suppress(DriverError):  # the log is busy: the next look will do
                self._take_in(await asyncio.to_thread(_entries_after, self._reader, self._seen))

    def _take_in(self, entries: Iterable[Entry]) -> None:
        """Apply entries that are on disk, each once, whoever wrote them and in whatever order they are heard of."""
        for entry in entries:
            if entry.seq <= self._seen or entry.seq in self._ahead:
                continue
            self._ahead.add(entry.seq)
            if entry.kind == "comparison":
                comparison = Comparison.model_validate(entry.body)
                self.comparisons.setdefault(comparison.id, comparison)
                self._put_up_at[entry.seq] = comparison.id
                self.queue.add([comparison.id])
            elif entry.kind == "label":
                self._add_label(entry.seq, entry.body)
            elif entry.kind == "withdrawn":
                self._drop(entry.body["seq"])
        while self._seen + 1 in self._ahead:
            self._seen += 1
            self._ahead.discard(self._seen)

    def _add_label(self, seq: int, body: dict[str, Any]) -> None:
        if body["source"] != SOURCE or body["comparison"] not in self.comparisons:
            return
        rater, evidence = body["rater"], body["evidence"]
        book, comparison, repeat = self._book(rater), body["comparison"], bool(evidence.get("repeat"))
        self._labels[seq] = body
        (book.repeats if repeat else book.firsts)[comparison] = body["preferred"]
        if body["preferred"] in ("first", "second"):
            book.sides[seq] = (body["preferred"] == "second") is bool(evidence.get("swapped"))
        self.queue.took(rater, comparison, repeat)
        showing = self.queue.showing(rater, comparison, repeat)
        book.acts.append(Act(showing, seq))
        if evidence.get("submission"):
            receipt = Receipt(seq, showing, body["preferred"])
            self._receipts[rater, evidence["submission"]] = receipt

    def _drop(self, seq: int) -> None:
        """What was withdrawn no longer counts: a label, or a comparison with all its labels."""
        gone = self._put_up_at.pop(seq, None)
        if gone is not None and self.comparisons.pop(gone, None) is not None:
            for label in [number for number, body in self._labels.items() if body["comparison"] == gone]:
                self._drop(label)
            self.queue.remove(gone)
        body = self._labels.pop(seq, None)
        if body is None:
            return
        book, comparison, repeat = self._book(body["rater"]), body["comparison"], bool(body["evidence"].get("repeat"))
        (book.repeats if repeat else book.firsts).pop(comparison, None)
        # The same submission may come again: what was taken back can be said anew.
        self._receipts.pop((body["rater"], body["evidence"].get("submission", "")), None)
        book.sides.pop(seq, None)
        book.seconds.pop(seq, None)
        book.acts[:] = [act for act in book.acts if act.seq != seq]
        self.queue.gave_back(body["rater"], comparison, repeat)

    def _book(self, rater: str) -> RaterBook:
        found = self._books.get(rater)
        if found is None:
            found = self._books[rater] = RaterBook()
        return found


def _entries_after(log: PreferenceLog, seq: int) -> list[Entry]:
    return list(log.entries(after=seq))


def preferred_of(verdict: str, swapped: bool) -> str:
    """A verdict about sides in terms of the comparison: ``preferred_of("a", swapped=True)`` is "second"."""
    if verdict in ("a", "b"):
        return "first" if (verdict == "a") is not swapped else "second"
    return verdict


def put_up(path: str | Path, comparisons: Iterable[Comparison]) -> tuple[int, int]:
    """Write comparisons that a log does not have yet; withdrawn ones stay withdrawn.

    Returns:
        How many are new, and how many the log already had.

    Raises:
        StoreError: see :class:`PreferenceLog`.
    """
    with PreferenceLog(path) as log:
        known = {entry.body["id"] for entry in log.entries("comparison")}
        wanted = list(comparisons)
        new = [comparison for comparison in wanted if comparison.id not in known]
        log.append("comparison", (comparison.model_dump(mode="json") for comparison in new))
        return len(new), len(wanted) - len(new)
