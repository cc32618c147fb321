"""Labels and feedback: what people and models judged, and what came of answers that were served. Called by app.py.

Labels come from preference logs (a run's, or the root's), feedback from the root's inbox. Both only grow, so counts
go on from where they stood.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import StoreError
from dpo_driver.core.records import Interaction
from dpo_driver.dashboard.reader import Reader
from dpo_driver.flywheel.inbox import FILE
from dpo_driver.preferences.log import LOG, PreferenceLog

PAGE = 100
SHORT = 240


class Labels:
    """Of one preference log: ``Labels("runs/pocket/preferences.db").page()``.

    Args:
        path: the log's file; one that is not there is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = Reader(path)
        self._mutex = threading.Lock()
        self._upto, self._inode = 0, -1
        self._kinds: Counter[str] = Counter()
        self._raters: dict[tuple[str, str], Counter[str]] = {}
        self._withdrawn: set[int] = set()

    def page(self, before: int | None = None, limit: int = PAGE) -> dict[str, Any]:
        """Labels, the newest first, and the account of all of them.

        ``{"rows": [{"seq", "at", "rater", "source", "preferred", "comparison", "withdrawn"}], "next": 12, "kinds":
        {"label": 9}, "raters": [{"rater", "source", "labels", "first", "second", "tie", "both_bad"}]}``; those that
        were taken back are listed and not counted for their rater.

        Args:
            before: ``next`` of the page before.
            limit: rows at most.
        """
        if not self.path.is_file():
            return {"rows": [], "next": None, "kinds": {}, "raters": []}
        with self._mutex:
            self._count()
            limit = max(1, min(limit, PAGE))
            seqs = [
                seq for (seq,) in self._reader.rows(
                    "SELECT seq FROM entries WHERE kind='label' AND seq < ? ORDER BY seq DESC LIMIT ?",
                    (before if before is not None else 2**62, limit),
                )
            ]  # fmt: skip
            rows = []
            if seqs:
                with PreferenceLog(self.path, mode="read") as log:
                    found = log.entries("label", after=seqs[-1] - 1, upto=seqs[0])
                    rows = [self._row(entry.seq, entry.at, entry.body) for entry in found][::-1]
            return {
                "rows": rows, "next": seqs[-1] if len(seqs) == limit else None, "kinds": dict(self._kinds),
                "raters": [
                    {"rater": rater, "source": source, "labels": count.total(), **count}
                    for (rater, source), count in sorted(self._raters.items())
                ],
            }  # fmt: skip

    def _row(self, seq: int, at: float, body: dict[str, Any]) -> dict[str, Any]:
        return {"seq": seq, "at": at, "rater": body.get("rater", ""), "source": body.get("source", ""),
                "preferred": body.get("preferred", ""), "comparison": body.get("comparison", ""),
                "confidence": body.get("confidence"), "withdrawn": seq in self._withdrawn}  # fmt: skip

    def _count(self) -> None:
        """Take in what was appended since."""
        inode = self.path.stat().st_ino
        if inode != self._inode:
            self._upto, self._inode = 0, inode
            self._kinds, self._raters, self._withdrawn = Counter(), {}, set()
        counted = self._reader.rows(
            "SELECT kind, count(*), max(seq) FROM entries WHERE seq > ? GROUP BY kind", (self._upto,)
        )
        if not counted:
            return
        upto = max(last for _, _, last in counted)
        with PreferenceLog(self.path, mode="read") as log:
            for entry in log.entries("label", "withdrawn", after=self._upto, upto=upto):
                if entry.kind == "label":
                    self._rater(entry.body)[str(entry.body.get("preferred", ""))] += 1
                    continue
                gone = int(entry.body.get("seq", 0))
                for taken in log.entries("label", after=gone - 1, upto=gone) if gone not in self._withdrawn else ():
                    self._rater(taken.body)[str(taken.body.get("preferred", ""))] -= 1
                self._withdrawn.add(gone)
        self._kinds.update({kind: count for kind, count, _ in counted})
        self._upto = upto

    def _rater(self, body: dict[str, Any]) -> Counter[str]:
        return self._raters.setdefault((str(body.get("rater", "")), str(body.get("source", ""))), Counter())


def logs(root: Path, runs: list[str]) -> list[str]:
    """The preference logs below a root, as ids: a run's, or "" for the root's own."""
    return [run for run in ("", *runs) if (root / run / LOG).is_file()]


class Feedback:
    """Of the inbox below a root. ``Feedback("runs").page()``.

    Args:
        root: folder of runs; without an inbox there is nothing.
    """

    def __init__(self, root: Path) -> None:
        self._reader = Reader(root / FILE)

    def page(self, before: int | None = None, limit: int = PAGE) -> dict[str, Any]:
        """Interactions, the newest first: ``{"rows": [...], "total": 12, "roles": {"support": 12}, "next": None}``.

        Raises:
            StoreError: the inbox cannot be read.
        """
        if not self._reader.path.is_file():
            return {"rows": [], "total": 0, "roles": {}, "next": None}
        limit = max(1, min(limit, PAGE))
        found = self._reader.rows(
            "SELECT seq, body FROM interactions WHERE seq < ? ORDER BY seq DESC LIMIT ?",
            (before if before is not None else 2**62, limit),
        )
        roles = self._reader.kept(
            "roles", lambda: dict(self._reader.rows("SELECT role, count(*) FROM interactions GROUP BY role"))
        )
        return {"rows": [_interaction(seq, body) for seq, body in found], "total": sum(roles.values()), "roles": roles,
                "next": found[-1][0] if len(found) == limit else None}  # fmt: skip


def _interaction(seq: int, body: str) -> dict[str, Any]:
    try:
        found = Interaction.model_validate_json(body)
    except ValueError as error:
        raise StoreError(f"row {seq} of the inbox cannot be read", where=FILE) from error
    asked = next((each.content for each in reversed(found.messages) if each.role == "user"), "")
    if found.trajectory is not None:
        asked = found.trajectory.task.goal or found.trajectory.task.name
    return {"seq": seq, "id": found.id, "at": found.at, "role": found.role, "source": found.source,
            "model": found.model, "success": found.success, "reward": found.reward, "rating": found.rating,
            "asked": asked[:SHORT], "response": found.response[:SHORT], "better": found.preferred[:SHORT],
            "steps": len(found.trajectory.steps) if found.trajectory else None}  # fmt: skip
