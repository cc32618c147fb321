"""Training reward rises while held-out success falls: the training seeds were learned, or a weakness of the reward."""

from __future__ import annotations

from dpo_driver.core.records import Rate
from dpo_driver.flywheel.monitors.evidence import Alarm, Evidence


def check(evidence: Evidence) -> Alarm | None:
    """Between some policy and a later one the intervals of both figures lie apart, in opposite directions."""
    for number, (first, trained, held) in enumerate(evidence.trend):
        for later, trained_later, held_later in evidence.trend[number + 1 :]:
            if _below(trained, trained_later) and _below(held_later, held):
                return Alarm(
                    monitor="diverging",
                    why=f"from {first} to {later} success rose on training seeds ({_shown(trained)} to "
                    f"{_shown(trained_later)}) and fell on held-out ones ({_shown(held)} to {_shown(held_later)})",
                    numbers={"training": [trained.success, trained_later.success],
                             "held_out": [held.success, held_later.success]},
                )  # fmt: skip
    return None


def _below(one: Rate, other: Rate) -> bool:
    return one.high is not None and other.low is not None and one.high < other.low


def _shown(found: Rate) -> str:
    return f"{found.success:.1%} [{found.low:.1%}, {found.high:.1%}]"
