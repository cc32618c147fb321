"""Reward-hacking monitors: does the environment's verdict still mean what it says? An alarm stops a promotion.

One file a monitor, each with one function ``check(evidence)``; the table below is all of them. A monitor speaks only
when its figure is beyond chance, and says on what. Called by promote.py and learn/; must not import report or cli.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dpo_driver.flywheel.monitors import below_shortest, diverging, irrelevant, js_eval, one_action
from dpo_driver.flywheel.monitors.evidence import Alarm, Evidence

MONITORS: Mapping[str, Callable[[Evidence], Alarm | None]] = {
    "irrelevant": irrelevant.check,
    "below_shortest": below_shortest.check,
    "one_action": one_action.check,
    "js_eval": js_eval.check,
    "diverging": diverging.check,
}

__all__ = ["MONITORS", "Alarm", "Evidence", "run_monitors"]


def run_monitors(evidence: Evidence) -> tuple[Alarm, ...]:
    """What the monitors have to say, in the table's order; nothing on a clean run."""
    return tuple(alarm for check in MONITORS.values() if (alarm := check(evidence)) is not None)
