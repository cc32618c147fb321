"""Rollouts as they happen: which episodes came since we first looked. Called by app.py.

Records carry no time of their end, so the order of arrival is what this process saw: ``seen`` is when it noticed them.
Those that were there before are told without a time, the last stage's first.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import StoreError
from dpo_driver.dashboard import episodes
from dpo_driver.dashboard.reader import Reader

KEPT = 200
MOST_CARDS = 500  # thumbnails in memory


class Arrivals:
    """Of one run: ``Arrivals(reader).latest(24)``.

    Args:
        reader: of its database.
        clock: seconds since 1970.
    """

    def __init__(self, reader: Reader, clock: Callable[[], float] = time.time) -> None:
        self._reader, self._clock = reader, clock
        self._mutex = threading.Lock()
        self._counts: dict[str, int] | None = None
        self._known: dict[str, set[str]] = {}
        self._came: deque[tuple[str, float]] = deque(maxlen=KEPT)
        self._cards: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """The newest episodes, the last to come first: thumbnails with ``seen`` in seconds since 1970, or None."""
        with self._mutex:
            self._look()
            chosen: dict[str, float | None] = {}
            for identity, at in reversed(self._came):
                chosen.setdefault(identity, at)
            for identity in self._before(limit):
                chosen.setdefault(identity, None)
            shown = list(chosen.items())[:limit]
            cards = self._of([identity for identity, _ in shown])
            return [{**cards[identity], "seen": at} for identity, at in shown if identity in cards]

    def _look(self) -> None:
        """Notice what is new. Only stages whose counts changed are gone through, and there the index alone."""
        counts: dict[str, int] = self._reader.kept(
            "arrivals", lambda: dict(self._reader.rows("SELECT stage, count(*) FROM trajectories GROUP BY stage"))
        )
        first, self._counts, before = self._counts is None, counts, self._counts or {}
        for stage, count in counts.items():
            if before.get(stage) == count:
                continue
            rows = self._reader.rows("SELECT id FROM trajectories WHERE stage=? ORDER BY task_name, seed, id", (stage,))
            known = self._known.setdefault(stage, set())
            if count < before.get(stage, 0):  # begun again
                known.clear()
            fresh = [identity for (identity,) in rows if identity not in known]
            known.update(fresh)
            if not first:
                at = self._clock()
                self._came.extend((identity, at) for identity in fresh)

    def _before(self, limit: int) -> list[str]:
        """Episodes of the stages that began last."""
        began = self._reader.kept("began", lambda: dict(self._reader.rows("SELECT stage, started FROM stages")))
        found: list[str] = []
        for stage in sorted(self._known, key=lambda name: (-(began.get(name) or 0.0), name)):
            rows = self._reader.rows(
                "SELECT id FROM trajectories WHERE stage=? ORDER BY task_name DESC, seed DESC, id DESC LIMIT ?",
                (stage, limit),
            )
            found += [identity for (identity,) in rows]
            if len(found) >= limit:
                break
        return found[:limit]

    def _of(self, identities: list[str]) -> dict[str, dict[str, Any]]:
        """Thumbnails by id. One that was rolled out again has another body, and is made anew."""
        marks = ",".join("?" * len(identities))
        found = {}
        for size, *row in self._reader.rows(
            f"SELECT length(body), {episodes.COLUMNS} FROM trajectories WHERE id IN ({marks})", identities
        ):
            told = episodes.as_row(tuple(row))
            key = f"{told['id']} {told['stop']} {size}"
            if key not in self._cards:
                self._cards[key] = self._made(self._reader.path.parent, told)
                while len(self._cards) > MOST_CARDS:
                    self._cards.popitem(last=False)
            found[told["id"]] = self._cards[key]
        return found

    def _made(self, folder: Path, told: dict[str, Any]) -> dict[str, Any]:
        try:
            return episodes.card(folder, told["id"])
        except StoreError as error:  # sealed: its columns are in the clear
            return {**told, "goal": "", "page": None, "final": None, "count": None, "unread": error.what}
