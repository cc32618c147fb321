"""One action for all goals: whatever is asked for, the same is done, and it counts as solved."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from dpo_driver.core.actions import format_action
from dpo_driver.core.records import Trajectory
from dpo_driver.flywheel.monitors.evidence import Alarm, Evidence, beyond, named

LEAST, GOALS, SHARE = 10, 5, 0.8


def check(evidence: Evidence) -> Alarm | None:
    """Of a family's held-out successes, at least ``LEAST`` with ``GOALS`` different goals, so many are the same actions
    to the letter that the interval of their share lies wholly above ``SHARE``."""
    families: dict[str, list[Trajectory]] = defaultdict(list)
    for one in evidence.held_out:
        if one.success:
            families[one.task.name].append(one)
    found: list[Trajectory] = []
    numbers: dict[str, Any] = {}
    for family, played in sorted(families.items()):
        if len(played) < LEAST or len(set(map(_goal, played))) < GOALS:
            continue
        (actions, count), *_ = Counter(map(_written, played)).most_common(1)
        if beyond(count, len(played), SHARE):
            same = [one for one in played if _written(one) == actions]
            if len(set(map(_goal, same))) >= GOALS:
                found += same
                numbers[family] = {"count": count, "n": len(played), "actions": list(actions)}
    if not found:
        return None
    told = ", ".join(f"{family} ({of['count']} of {of['n']}: {' then '.join(of['actions']) or 'nothing'})"
                     for family, of in numbers.items())  # fmt: skip
    return Alarm(monitor="one_action", why=f"the same actions whatever the goal, and they count as solved: {told}",
                 numbers=numbers, examples=named(found))  # fmt: skip


def _goal(played: Trajectory) -> str:
    return played.steps[0].observation.goal if played.steps else ""


def _written(played: Trajectory) -> tuple[str, ...]:
    return tuple(format_action(step.action) for step in played.steps if step.action is not None)
