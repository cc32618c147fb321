"""Episodes: pages of a long list, one in full, and the pictures of either. Called by app.py and arrivals.py.

Lists read only the columns beside the bodies, page by page behind a key, so that the ten-thousandth row costs what the
first does. Bodies are read one at a time, by the store.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.core.records import PICTURE_SCALES, Observation, Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.dashboard.reader import Reader

PAGE = 500
FEW = 2000
MOST_ELEMENTS = 150  # of a page that are drawn or listed
COLUMNS = "stage, task_name, seed, id, stop_reason, success, reward, failure"
OUTCOMES = {
    "": "", "success": " AND success=1", "miss": " AND success=0", "failure": " AND failure IS NOT NULL",
}  # fmt: skip


def page(
    reader: Reader,
    *,
    stage: str = "",
    outcome: str = "",
    text: str = "",
    stop: str = "",
    after: str = "",
    limit: int = PAGE,
) -> dict[str, Any]:
    """Rows behind a key, by stage, task, seed and id: ``{"rows": [...], "total": 10000, "next": "[...]"}``.

    Args:
        reader: of the run.
        stage: only this one.
        outcome: "success", "miss" (the agent's own) or "failure" (the world's); all when empty.
        text: somewhere in the task's name or the id.
        stop: only with this stop reason.
        after: ``next`` of the page before.
        limit: rows at most, up to ``PAGE``.

    Raises:
        DataError: an outcome or a key that is none.
    """
    if outcome not in OUTCOMES:
        raise DataError(f"{outcome!r} is no outcome", remedy=f"known: {', '.join(filter(None, OUTCOMES))}")
    where, values = "1" + OUTCOMES[outcome], list[Any]()
    for clause, value in ((" AND stage=?", stage), (" AND stop_reason=?", stop)):
        if value:
            where, values = where + clause, [*values, value]
    if text:
        like = "%" + text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_") + "%"
        where, values = where + r" AND (task_name LIKE ? ESCAPE '\' OR id LIKE ? ESCAPE '\')", [*values, like, like]
    total = reader.kept(
        ("episodes", where, *values),
        lambda: int(reader.rows(f"SELECT count(*) FROM trajectories WHERE {where}", values)[0][0]),
    )
    if not total:
        return {"rows": [], "total": 0, "next": ""}
    if after:
        where, values = where + " AND (stage, task_name, seed, id) > (?,?,?,?)", [*values, *_key(after)]
    limit = max(1, min(limit, PAGE))
    # Few matches among many rows are found by one pass over the table; many, by walking along the index.
    first = "+stage" if total <= FEW and (outcome or text or stop) else "stage"  # the plus keeps SQLite off the index
    rows = reader.rows(
        f"SELECT {COLUMNS} FROM trajectories WHERE {where} ORDER BY {first}, task_name, seed, id LIMIT ?",
        (*values, limit),
    )
    following = json.dumps(rows[-1][:4]) if len(rows) == limit else ""
    return {"rows": [as_row(row) for row in rows], "total": total, "next": following}


def as_row(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row of ``COLUMNS`` by name; ``success`` is None where the world failed."""
    stage, task, seed, identity, stop, success, reward, failure = row
    return {"id": identity, "stage": stage, "task": task, "seed": seed, "stop": stop,
            "success": None if success is None else bool(success), "reward": reward,
            "failure": failure or ""}  # fmt: skip


def _key(text: str) -> tuple[str, str, int, str]:
    try:
        stage, task, seed, identity = json.loads(text)
        return str(stage), str(task), int(seed), str(identity)
    except (ValueError, TypeError):
        raise DataError("this is no key of a page", where=text[:60]) from None


def stages(reader: Reader) -> list[dict[str, Any]]:
    """Stages that have episodes, in the order they began, with counts: ``{"name", "episodes", "success", "failed"}``;
    ``success`` is a count, of those that the world did not break."""

    def work() -> list[dict[str, Any]]:
        began = dict(reader.rows("SELECT stage, started FROM stages"))
        rows = reader.rows(
            "SELECT stage, count(*), total(success), count(failure) FROM trajectories GROUP BY stage ORDER BY stage"
        )
        found = [{"name": stage, "episodes": count, "success": int(won), "failed": failed}
                 for stage, count, won, failed in rows]  # fmt: skip
        return sorted(found, key=lambda each: (began.get(each["name"], float("inf")), each["name"]))

    return reader.kept("stages", work)


def one(folder: Path, identity: str) -> dict[str, Any]:
    """An episode in full, for a person: every step with its page, thought, action, reward and seconds.

    Raises:
        StoreError: there is none; VaultError: the run is sealed and there is no key.
    """
    with RunStore(folder, mode="read") as store:
        found = store.trajectory(identity)
    env = found.task.env
    steps = [
        {"page": seen(step.observation, env), "thought": step.thought,
         "action": step.action.model_dump(mode="json", exclude_none=True) if step.action else None,
         "completion": step.completion, "parse_error": step.parse_error or "", "reward": step.reward,
         "policy_s": step.timing.policy, "browser_s": step.timing.browser}
        for step in found.steps
    ]  # fmt: skip
    return {**brief(found), "steps": steps, "final": found.final_screenshot, "agent": found.agent,
            "version": found.policy_version, "attempts": found.attempts, "seconds": found.seconds,
            "split": found.task.split, "max_steps": found.task.max_steps}  # fmt: skip


def card(folder: Path, identity: str) -> dict[str, Any]:
    """An episode as a thumbnail: what it was about, what came of it, and its last page."""
    with RunStore(folder, mode="read") as store:
        found = store.trajectory(identity)
    last = found.steps[-1] if found.steps else None
    return {**brief(found), "count": len(found.steps), "agent": found.agent, "seconds": found.seconds,
            "final": found.final_screenshot,
            "page": seen(last.observation, found.task.env, 60) if last else None}  # fmt: skip


def brief(found: Trajectory) -> dict[str, Any]:
    """What every view of an episode begins with."""
    goal = found.task.goal or (found.steps[0].observation.goal if found.steps else "")
    return {"id": found.id, "task": found.task.name, "env": found.task.env, "seed": found.task.seed, "goal": goal,
            "stop": found.stop_reason.value, "success": found.success, "reward": found.reward,
            "failure": found.failure or ""}  # fmt: skip


def seen(page: Observation, env: str, most: int = MOST_ELEMENTS) -> dict[str, Any]:
    """A page for drawing and listing. What is typed into secret fields is left out."""
    elements = [
        {"ref": each.ref, "role": each.role, "name": each.name, "value": "" if each.secret else each.value or "",
         "states": list(each.states), "box": each.box}
        for each in page.elements[:most]
    ]  # fmt: skip
    return {"url": page.url, "title": page.title, "screenshot": page.screenshot, "error": page.last_error or "",
            "elements": elements, "left_out": page.truncated + max(0, len(page.elements) - most),
            "scale": PICTURE_SCALES.get(env, 1.0)}  # fmt: skip
