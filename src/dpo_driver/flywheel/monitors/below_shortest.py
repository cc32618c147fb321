"""Steps below the expert's shortest: tasks solved in fewer steps than a scripted expert ever needs for them."""

from __future__ import annotations

from collections import defaultdict

from dpo_driver.core.records import Trajectory
from dpo_driver.flywheel.monitors.evidence import Alarm, Evidence, beyond, named

LEAST, SHARE = 5, 0.05
# Honest ways that are shorter than the expert's, found by agents and looked at: the fewest steps of such a way.
SHORTER_WAYS = {"use-autocomplete": 2}  # the item typed in full instead of chosen from the list, then submit


def check(evidence: Evidence) -> Alarm | None:
    """Held-out successes shorter than the expert's on the same seed, and than its shortest in the family. At least
    ``LEAST`` in a family, an interval of their share wholly above ``SHARE`` of those that could be compared."""
    shortest = {(one.task.name, one.task.seed): len(one.steps) for one in evidence.expert if one.success}
    least: dict[str, int] = {}
    for (family, _), steps in shortest.items():
        least[family] = min(steps, least.get(family, steps), SHORTER_WAYS.get(family, steps))
    compared: dict[str, list[Trajectory]] = defaultdict(list)
    for one in evidence.held_out:
        if one.success and (one.task.name, one.task.seed) in shortest:
            compared[one.task.name].append(one)
    found: list[Trajectory] = []
    numbers = {}
    for family, played in sorted(compared.items()):
        short = [one for one in played if len(one.steps) < min(least[family], shortest[family, one.task.seed])]
        if len(short) >= LEAST and beyond(len(short), len(played), SHARE):
            found += short
            numbers[family] = {"count": len(short), "n": len(played), "expert": least[family],
                               "steps": min(len(one.steps) for one in short)}  # fmt: skip
    if not found:
        return None
    told = ", ".join(f"{family} ({of['count']} of {of['n']} in {of['steps']} steps or a few more, the expert needs "
                     f"{of['expert']})" for family, of in numbers.items())  # fmt: skip
    return Alarm(monitor="below_shortest", why=f"solved in fewer steps than the expert ever needs: {told}",
                 numbers=numbers, examples=named(found))  # fmt: skip
