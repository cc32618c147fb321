"""Decodes what waits, together: one thread, one model at a time, rows of the same model side by side.

A request is one row for each of its choices. Rows join those that are being decoded before their next token and are
answered as soon as they have ended, so a short answer waits for no long one. Prompts that begin alike share that
beginning (policies/prefixes.py). What a row draws does not depend on its neighbours. Called by app.py; knows no HTTP.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dpo_driver.core.errors import DriverError, ModelError
from dpo_driver.core.records import Generation, Message, Sampling

if TYPE_CHECKING:
    from dpo_driver.policies.hf import Asked, Watch

MOST_ROWS = 32
# Seconds in which rows may join a run; it then ends, and who waits to put an adapter on the model has its turn.
JOINING = 2.0
UNFINISHED = "\ufffd"  # what a decoder writes for a character whose bytes are not all there


class Decoder(Protocol):
    """A model in memory: what models.py keeps."""

    def encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]: ...

    def decode(self, ids: list[int]) -> str: ...

    def generate_joining(
        self, joining: Callable[[int], Sequence[Asked]], watch: Watch, done: Callable[[int, Generation], None]
    ) -> None: ...


@dataclass
class Row:
    """One answer in the making. ``told``: called in the event loop with each further piece of text."""

    model: Decoder
    messages: tuple[Message, ...]
    sampling: Sampling
    stop: tuple[str, ...]
    deadline: float  # time.monotonic()
    told: Callable[[str], None] | None
    done: asyncio.Future[tuple[str, Generation]]
    cancelled: bool = False
    text: str = field(default="", init=False)  # what was told so far
    cut: str | None = field(default=None, init=False)  # the whole text, where a stop ended it
    late: bool = field(default=False, init=False)


class TooLate(Exception):
    """A request was not answered before its deadline."""


class Engine:
    """``text, generation = await engine.submit(...)``. To be closed.

    Args:
        on_batch: told how many rows are decoded together each time that some join, in the decoding thread.
    """

    def __init__(self, on_batch: Callable[[int], None] = lambda rows: None) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_batch = on_batch
        self._waiting: deque[Row] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that have not begun."""
        return len(self._waiting)

    def submit(
        self,
        model: Decoder,
        messages: tuple[Message, ...],
        sampling: Sampling,
        *,
        stop: tuple[str, ...] = (),
        timeout: float = 60.0,
        told: Callable[[str], None] | None = None,
    ) -> Row:
        """Queue an answer; ``row.done`` gives it, raises :class:`TooLate` or a ModelError, and ``row.cancelled = True``
        ends it at the next token."""
        row = Row(model, messages, sampling, stop, time.monotonic() + timeout, told, self._loop.create_future())
        with self._changed:
            self._waiting.append(row)
            self._changed.notify()
        return row

    def close(self) -> None:
        """End what is being decoded at its next token; what waits is cancelled."""
        with self._changed:
            self._ending = True
            for row in self._waiting:
                row.cancelled = True
            self._changed.notify()
        self._thread.join()

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ending:
                    self._changed.wait()
                if self._ending and not self._waiting:
                    return
                model = self._waiting[0].model
            self._decode(model)

    def _begins(self, row: Row) -> bool:
        if row.cancelled:
            self._settle(row, asyncio.CancelledError())
        elif time.monotonic() > row.deadline:
            self._settle(row, TooLate())
        else:
            return True
        return False

    def _decode(self, model: Decoder) -> None:
        """A run of one model: whoever waits for it, and whoever comes while nobody waits for another."""
        rows: dict[int, Row] = {}  # by number; those that are not answered yet
        begun = 0
        until = time.monotonic() + JOINING

        def joining(room: int) -> list[Asked]:
            nonlocal begun
            asked: list[Asked] = []
            if begun and (time.monotonic() > until or self._waited_for_others(model)):
                return asked
            for row in self._next(model, min(room, MOST_ROWS - len(rows))):
                begun += 1
                if self._begins(row):
                    try:
                        ids = model.encode(row.messages)
                    except (DriverError, ValueError) as error:
                        self._settle(row, _problem(error))
                        continue
                    rows[begun] = row
                    asked.append((begun, ids, row.sampling))
            if asked:
                self._on_batch(len(rows))
            return asked

        try:
            model.generate_joining(
                joining, lambda i, ids: self._on(rows[i], ids), lambda i, one: self._finish(rows.pop(i), one)
            )
        except (DriverError, RuntimeError, ValueError) as error:  # RuntimeError: torch's, out of memory among them
            for row in rows.values() if begun else self._next(model, MOST_ROWS):  # it failed before anybody could join
                self._settle(row, _problem(error))

    def _waited_for_others(self, model: Decoder) -> bool:
        with self._changed:
            return any(row.model is not model for row in self._waiting)

    def _next(self, model: Decoder, most: int) -> list[Row]:
        """The oldest that wait for a model."""
        found: list[Row] = []
        kept: deque[Row] = deque()
        with self._changed:
            for row in self._waiting:
                (found if row.model is model and len(found) < most else kept).append(row)
            self._waiting = kept
        return found

    def _on(self, row: Row, ids: list[int]) -> bool:
        """Tell what is new; whether the row goes on."""
        if row.cancelled or self._ending:
            return False
        if time.monotonic() > row.deadline:
            row.late = True
            return False
        if row.told is None and not row.stop:
            return True
        return self._tell(row, row.model.decode(ids), last=False)

    def _tell(self, row: Row, text: str, *, last: bool) -> bool:
        ends = [at for stop in row.stop if (at := text.find(stop)) >= 0]
        if ends:
            row.cut = text = text[: min(ends)]
        safe = len(text) if last or ends else _safe(text, row.stop)
        if row.told is not None and safe > len(row.text):
            self._loop.call_soon_threadsafe(row.told, text[len(row.text) : safe])
        row.text = text[: max(safe, len(row.text))]
        return not ends

    def _finish(self, row: Row, answer: Generation) -> None:
        if row.cancelled or (self._ending and not answer.text):
            self._settle(row, asyncio.CancelledError())
        elif row.late:
            self._settle(row, TooLate())
        elif answer.finish_reason == "error":
            what = f"the prompt of {answer.prompt_tokens} tokens leaves no room for an answer"
            self._settle(row, ModelError(what, remedy="shorten it"))
        else:
            if row.cut is None:
                self._tell(row, answer.text, last=True)
            text = answer.text if row.cut is None else row.cut
            if row.cut is not None:
                answer = answer.model_copy(update={"finish_reason": "stop", "text": text})
            self._settle(row, (text, answer))

    def _settle(self, row: Row, result: tuple[str, Generation] | BaseException) -> None:
        def settle() -> None:
            if row.done.done():
                return
            if isinstance(result, asyncio.CancelledError):
                row.done.cancel()
            elif isinstance(result, BaseException):
                row.done.set_exception(result)
            else:
                row.done.set_result(result)

        self._loop.call_soon_threadsafe(settle)


def _problem(error: Exception) -> DriverError:
    return error if isinstance(error, DriverError) else ModelError(f"decoding failed: {error}")


def _safe(text: str, stops: tuple[str, ...]) -> int:
    """How much of a text can be told: not half a character, and nothing that may yet become a stop."""
    safe = len(text)
    while safe and text[safe - 1] == UNFINISHED:
        safe -= 1
    for stop in stops:
        for length in range(min(len(stop) - 1, safe), 0, -1):
            if text[:safe].endswith(stop[:length]):
                safe -= length
                break
    return safe
