"""Failures by type: what the agent did wrong, and what the world broke. Called by app.py.

The second never counts as a score (core/records.py, ``StopReason``); the two are told apart here too.
"""

from __future__ import annotations

from typing import Any

from dpo_driver.core.records import StopReason
from dpo_driver.dashboard.reader import Reader

MOST_DETAILS = 12
_WORLD = frozenset(reason.value for reason in StopReason if reason.is_failure)
# What each means, for a person.
MEANING = {
    "success": "solved",
    "wrong": "the page ended the episode without full reward",
    "max_steps": "steps ran out",
    "infeasible": "the agent said that it cannot be done",
    "answered": "the agent said that it is done; nobody has judged",
    "parse_errors": "too many unreadable actions in a row",
    "context_overflow": "the prompt no longer fits the model",
    "renderer_crash": "the page's process died",
    "browser_lost": "the browser died",
    "page_hung": "the page did not answer in time",
    "navigated_away": "the page left the task",
    "server_error": "the task's server failed",
    "policy_error": "the model failed",
    "start_mismatch": "siblings began in different states",
    "cancelled": "stopped by a person",
}


def failures(reader: Reader, stage: str = "") -> dict[str, Any]:
    """Counts by stop reason, task and stage.

    ``{"total": 640, "reasons": [{"stop": "wrong", "ours": true, "count": 9, "example": "collect/1/..."}], "tasks":
    [{"task": "login", "episodes": 40, "success": 31, "failed": 1, "stops": {"wrong": 8}}], "details": [...]}``.
    ``ours`` is False where the world broke; ``details`` are the commonest texts of such failures.
    """
    return reader.kept(("failures", stage), lambda: _failures(reader, stage))


def _failures(reader: Reader, stage: str) -> dict[str, Any]:
    where, values = ("WHERE stage=?", (stage,)) if stage else ("", ())
    rows = reader.rows(
        f"""SELECT task_name, stop_reason, count(*), total(success), count(failure), min(id) FROM trajectories {where}
            GROUP BY task_name, stop_reason""",
        values,
    )
    reasons: dict[str, dict[str, Any]] = {}
    tasks: dict[str, dict[str, Any]] = {}
    for task, stop, count, won, failed, example in rows:
        reason = reasons.setdefault(
            stop, {"stop": stop, "ours": not _is_failure(stop), "meaning": MEANING.get(stop, ""), "count": 0,
                   "example": example},
        )  # fmt: skip
        reason["count"] += count
        told = tasks.setdefault(task, {"task": task, "episodes": 0, "success": 0, "failed": 0, "stops": {}})
        told["episodes"] += count
        told["success"] += int(won)
        told["failed"] += failed
        told["stops"][stop] = count
    details = reader.rows(
        f"""SELECT failure, count(*), min(id) FROM trajectories {where or "WHERE 1"} AND failure IS NOT NULL
            GROUP BY failure ORDER BY count(*) DESC, failure LIMIT ?""",
        (*values, MOST_DETAILS),
    )
    return {
        "total": sum(reason["count"] for reason in reasons.values()),
        "reasons": sorted(reasons.values(), key=lambda reason: (-reason["count"], reason["stop"])),
        "tasks": sorted(tasks.values(), key=_worst_first),
        "details": [{"text": text, "count": count, "example": example} for text, count, example in details],
    }  # fmt: skip


def _worst_first(task: dict[str, Any]) -> tuple[float, str]:
    judged = task["episodes"] - task["failed"]
    return (task["success"] / judged if judged else -1.0), task["task"]


def _is_failure(stop: str) -> bool:
    return stop in _WORLD
