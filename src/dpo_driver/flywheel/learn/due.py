"""When a turn is due: enough that is new, time, or answers that succeed less often than they did. Called by loop.py."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpo_driver.core.records import Interaction, Rate
from dpo_driver.core.stats import rate
from dpo_driver.flywheel.inbox import FILE, Inbox
from dpo_driver.flywheel.jobs import Jobs
from dpo_driver.flywheel.learn.settings import DueSettings
from dpo_driver.preferences.interactions import pairs_of_interactions

RECENT, LEAST = 100, 20  # outcomes of one model that are compared with those before them, and how many there must be


@dataclass(frozen=True)
class Due:
    """Whether a turn is due and why, or why not. ``new``: pairs of a text role, outcomes of the browser agent."""

    due: bool
    reason: str
    new: int


def due(root: Path, role: str, settings: DueSettings, now: float | None = None) -> Due:
    """Whether a role should take a turn.

    Args:
        root: folder of the runs: its inbox and its jobs are looked at.
        role: empty for the browser agent.
        settings: the thresholds.
        now: seconds since 1970.
    """
    last = Jobs(root).last(role)
    after = Jobs(root).seen(role)
    rows = _rows(root, role)
    fresh = [row for number, row in rows if number > after]
    new = len(pairs_of_interactions(fresh, role)) if role else sum(_outcome(row) is not None for row in fresh)
    unit = "pairs" if role else "outcomes"
    if new >= settings.pairs:
        return Due(True, f"{new} new {unit}, and {settings.pairs} are enough", new)
    began = last.ended if last is not None and last.ended is not None else fresh[0].at if fresh else None
    hours = ((now or time.time()) - began) / 3600 if began is not None else 0.0
    if settings.hours is not None and new and hours >= settings.hours:
        return Due(True, f"{hours:.1f} h since the last turn, and {new} new {unit}", new)
    if settings.drift and fresh and (words := drift([row for _, row in rows])):
        return Due(True, words, new)
    return Due(False, f"{new} of {settings.pairs} new {unit}", new)


def drift(rows: Sequence[Interaction]) -> str:
    """How the model that answered last does against itself before, in words; "" where nothing is shown.

    The 95 % interval of its last ``RECENT`` outcomes must lie wholly below that of those before.
    """
    known = [(row.model, outcome) for row in rows if row.model and (outcome := _outcome(row)) is not None]
    if not known:
        return ""
    model = known[-1][0]
    outcomes = [outcome for name, outcome in known if name == model]
    recent = min(RECENT, len(outcomes) // 2)
    before, after = rate(outcomes[:-recent] if recent else outcomes), rate(outcomes[-recent:] if recent else [])
    if min(before.n, after.n) < LEAST or after.high is None or before.low is None or after.high >= before.low:
        return ""
    return f"{model} succeeds less often than before: {_shown(after)}, after {_shown(before)}"


def _rows(root: Path, role: str) -> list[tuple[int, Interaction]]:
    if not (root / FILE).is_file():
        return []
    found: list[tuple[int, Interaction]] = []
    with Inbox(root) as inbox:
        while rows := inbox.since(found[-1][0] if found else 0, role=role):
            found += rows
    return found


def _outcome(row: Interaction) -> bool | None:
    if row.success is not None:
        return row.success
    return row.trajectory.success if row.trajectory is not None else None


def _shown(found: Rate) -> str:
    return f"{found.success:.0%} [{found.low:.0%}, {found.high:.0%}] of {found.n}"
