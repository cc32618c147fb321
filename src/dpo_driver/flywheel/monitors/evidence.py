"""What monitors look at, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dpo_driver.core.records import Rate, Record, Trajectory
from dpo_driver.core.stats import wilson

EXAMPLES = 5  # trajectories that an alarm names


class Alarm(Record):
    """Why a success may not be one: ``Alarm(monitor="js_eval", why="12 of 40 successes ...", numbers={"share": 0.3},
    examples=("collect/1/click-test/10000/0",))``."""

    monitor: str
    why: str
    numbers: dict[str, Any]
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """A candidate's records.

    ``training``: rollouts that it learned from; ``held_out``: its episodes on held-out seeds; ``expert``: episodes
    of the scripted expert on the same held-out seeds, as far as they were played; ``trend``: policy, its success on
    training seeds, its success on validation seeds, oldest first.
    """

    training: Sequence[Trajectory] = ()
    held_out: Sequence[Trajectory] = ()
    expert: Sequence[Trajectory] = ()
    trend: Sequence[tuple[str, Rate, Rate]] = ()

    @property
    def successes(self) -> list[Trajectory]:
        """All that counted as solved, in training and on held-out seeds."""
        return [one for one in (*self.training, *self.held_out) if one.success]


def beyond(count: int, n: int, share: float) -> bool:
    """Whether the 95 % interval of ``count`` of ``n`` lies wholly above a share."""
    return n > 0 and wilson(count, n)[0] > share


def named(found: Sequence[Trajectory]) -> tuple[str, ...]:
    """A few of them, by id."""
    return tuple(one.id for one in found[:EXAMPLES])
