"""Success without a task-relevant action: nothing was clicked, typed, chosen, dragged or said, and it counts."""

from __future__ import annotations

from dpo_driver.core.records import Trajectory
from dpo_driver.flywheel.monitors.evidence import Alarm, Evidence, beyond, named

LEAST, SHARE = 3, 0.01
# What changes nothing that most tasks ask for; scripts have a monitor of their own.
IDLE = frozenset(
    "noop scroll hover goto go_back go_forward new_tab tab_close tab_focus mouse_move report_infeasible js_eval"
    .split()
)  # fmt: skip


def check(evidence: Evidence) -> Alarm | None:
    """At least ``LEAST`` such successes, and an interval of their share wholly above ``SHARE``. Families that an expert
    solves by such actions alone, such as scroll-text, are left out."""
    idle_families = _solved_idly(evidence)
    judged = [one for one in evidence.successes if one.task.name not in idle_families]
    found = [one for one in judged if not _acted(one)]
    if len(found) < LEAST or not beyond(len(found), len(judged), SHARE):
        return None
    return Alarm(
        monitor="irrelevant",
        why=f"{len(found)} of {len(judged)} successes came without any action that the task could ask for",
        numbers={"count": len(found), "n": len(judged), "families": sorted({one.task.name for one in found})},
        examples=named(found),
    )


def _acted(played: Trajectory) -> bool:
    return any(step.action is not None and step.action.kind not in IDLE for step in played.steps)


def _solved_idly(evidence: Evidence) -> set[str]:
    return {one.task.name for one in evidence.expert if one.success and not _acted(one)}
