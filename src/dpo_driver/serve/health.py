"""When a version is passed over: too many of its answers failed, or it is shown to be worse than the one before.

A version is judged by its last answers and by the outcomes that were reported for them. Both rules look at 95 %
intervals, so that a few unlucky requests trip nothing. A version that tripped stays out until somebody restores it, or
another takes its place. Called by routing.py; knows no HTTP.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from dpo_driver.core.records import Rate
from dpo_driver.core.stats import rate

WINDOW = 200  # answers and outcomes that count
LEAST = 10  # fewer say nothing
MOST_ERRORS = 0.1  # the interval of the share of failures must lie above this


@dataclass
class Standing:
    """How a version has been doing."""

    answered: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    succeeded: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    tripped: str = ""  # why it is passed over

    @property
    def errors(self) -> Rate:
        """Share of answers that failed."""
        return rate([not fine for fine in self.answered])

    @property
    def success(self) -> Rate:
        """Share of reported outcomes that were a success."""
        return rate(list(self.succeeded))


class Health:
    """Standings by version."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}

    def of(self, version: str) -> Standing:
        """A version's standing."""
        return self._standings.setdefault(version, Standing())

    def all(self) -> dict[str, Standing]:
        """All standings."""
        return dict(self._standings)

    def answered(self, version: str, fine: bool) -> str:
        """An answer was given, or failed; returns why the version has just tripped, or "" ."""
        standing = self.of(version)
        standing.answered.append(fine)
        errors = standing.errors
        if errors.n < LEAST or errors.low is None or errors.low <= MOST_ERRORS:
            return ""
        return self._trip(standing, f"{errors.success:.0%} of its last {errors.n} answers failed")

    def reported(self, version: str, success: bool, before: str | None) -> str:
        """An outcome was reported; ``before`` is who answered before this version. Returns why it has just tripped."""
        standing = self.of(version)
        standing.succeeded.append(success)
        if before is None or before == version:
            return ""
        mine, theirs = standing.success, self.of(before).success
        if min(mine.n, theirs.n) < LEAST or mine.high is None or theirs.low is None or mine.high >= theirs.low:
            return ""
        return self._trip(
            standing,
            f"success {mine.success:.0%} [{mine.low:.0%}, {mine.high:.0%}] of {mine.n} against {theirs.success:.0%} "
            f"[{theirs.low:.0%}, {theirs.high:.0%}] of {theirs.n} of {before}",
        )

    def restore(self, version: str) -> None:
        """Begin anew with a version: its answers and outcomes are forgotten."""
        self._standings.pop(version, None)

    def _trip(self, standing: Standing, why: str) -> str:
        if standing.tripped:
            return ""
        standing.tripped = why
        return why
