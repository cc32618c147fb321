"""Errors, named by the boundary that was crossed. Imported by every layer; imports nothing of ours.

``DriverError`` is what a person is told: what is wrong, where, and what to do about it. The command line prints
it without a traceback and exits with ``exit_code``. ``RolloutFailure`` never reaches a person directly: it is
recorded as the typed cause of a trajectory that could not be scored.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DriverError(Exception):
    """A problem that the user can mend.

    Args:
        what: what is wrong, in one sentence.
        where: the file, line, key or address at fault.
        remedy: what to do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f"\n  -> {self.remedy}" if self.remedy else ""
        return f"{self.what}{place}{advice}"


class ConfigError(DriverError):
    """A configuration file or override that cannot be used."""


class UnknownNameError(DriverError):
    """A task, environment, agent or algorithm that no table lists."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        remedy = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known[:40])}"
        super().__init__(f"unknown {kind} {name!r}", where=where, remedy=remedy)


class DataError(DriverError):
    """A data file whose content is broken; ``where`` names file and line."""


class ModelError(DriverError):
    """A model folder that is missing, incomplete, unsafe or does not fit."""


class BrowserMissingError(DriverError):
    """No Chromium could be found or started."""


class TrainingError(DriverError):
    """Training that cannot start or had to stop (self-check failed, loss not finite)."""


class StoreError(DriverError):
    """The run directory cannot be read or written."""


class RolloutFailure(Exception):
    """The world broke, not the agent: recorded as a trajectory's failure, retried, counted, never a reward.

    ``kind`` is one of the failure values of :class:`dpo_driver.core.records.StopReason`.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        self.kind, self.detail = kind, detail
        super().__init__(f"{kind}: {detail}" if detail else kind)


class ActionError(Exception):
    """An action that cannot be parsed or carried out. The text goes back to the agent as ``last_error``."""
