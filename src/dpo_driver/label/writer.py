"""Labels onto the disk, many in one commit. Called by work.py.

Every row waits in a queue; one thread takes all that wait, appends them to the log in one transaction and only then
lets those who wait know. Under load a commit carries many labels, with one rater it carries one. Knows no web.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dpo_driver.core.errors import StoreError
from dpo_driver.preferences.log import Entry, Kind, PreferenceLog

MOST = 512  # rows of one commit: other processes wait for the log while it is written
# A commit costs a millisecond of processor time, a row in it 30 microseconds. After one that carried several, the next
# waits a moment for company; a rater who labels alone never waits.
LINGER_S = 0.006


class LabelWriter:
    """``entry = await writer.put("label", {...})``: on disk when it returns.

    Args:
        log: open for writing; closed by :meth:`close`.
        on_written: called in the loop with the entries of a commit, before those who wait go on; also for rows whose
            askers are gone.
    """

    def __init__(self, log: PreferenceLog, on_written: Callable[[list[Entry]], None] = lambda _: None) -> None:
        self._log, self._on_written = log, on_written
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Kind, dict[str, Any], asyncio.Future[Entry]]] = deque()
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="label-writer", daemon=True)
        self._thread.start()

    def put(self, kind: Kind, body: dict[str, Any]) -> asyncio.Future[Entry]:
        """Queue a row. The future gives its entry, or raises StoreError: then nothing was written."""
        future: asyncio.Future[Entry] = self._loop.create_future()
        if self._ending:
            future.set_exception(StoreError("the label server is closing", where=str(self._log.path)))
            return future
        self._waiting.append((kind, body, future))
        self._wake.set()
        return future

    def close(self) -> None:
        """Write what waits and close the log. May be called twice; blocks for one commit."""
        self._ending = True
        self._wake.set()
        self._thread.join()
        self._log.close()

    def _run(self) -> None:
        while not (self._ending and not self._waiting):
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
                self._commit(batch)
                if len(batch) > 1 and not self._ending:
                    time.sleep(LINGER_S)

    def _commit(self, batch: list[tuple[Kind, dict[str, Any], asyncio.Future[Entry]]]) -> None:
        try:
            written: list[Entry] | StoreError = self._log.append_all((kind, body) for kind, body, _ in batch)
        except StoreError as error:
            written = error
        self._loop.call_soon_threadsafe(self._settle, [future for _, _, future in batch], written)

    def _settle(self, futures: list[asyncio.Future[Entry]], written: list[Entry] | StoreError) -> None:
        if isinstance(written, StoreError):
            for future in futures:
                if not future.cancelled():
                    future.set_exception(written)
            return
        self._on_written(written)
        for future, entry in zip(futures, written, strict=True):
            if not future.cancelled():
                future.set_result(entry)
