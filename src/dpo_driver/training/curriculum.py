"""Which tasks the next rollouts are of: the horizon opens as success allows, and families go first where siblings
differ.

A family is *open* when its step limit is within the horizon. The horizon grows when the mean of the last rewards passes
a threshold. Among open families one is drawn in proportion to p (1 - p), p being its success of late: where the agent
always or never succeeds there is nothing to compare. Called by training/online.py; numbers and names only, so a state
can be written to disk and taken up again exactly.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpo_driver.core.schema_training import CurriculumConfig

LEAST_SHARE = 0.1  # of the weight of a family at even odds, however easy or hopeless it is


@dataclass(frozen=True)
class Draw:
    """One start state: the family, and which of its seeds, counted from 0."""

    family: str
    number: int


class Curriculum:
    """See the module.

    Args:
        limits: step limit of each family.
        config: where the horizon starts and when it opens; ``start_steps`` 0 opens everything at once.
        seed: of the draws.
        success: what is known of each family's success before the first rollout; half where nothing is.
    """

    def __init__(
        self, limits: Mapping[str, int], config: CurriculumConfig, seed: int, success: Mapping[str, float] | None = None
    ) -> None:
        self._limits, self._config = dict(limits), config
        longest = max(limits.values())
        shortest = min(limits.values())
        self.horizon = longest if config.start_steps == 0 else min(longest, max(shortest, config.start_steps))
        self._seed, self._drawn = seed, 0
        self._recent: deque[float] = deque(maxlen=config.window)
        self._known = {name: (success or {}).get(name, 0.5) for name in limits}
        self._of_family: dict[str, deque[float]] = {name: deque(maxlen=config.window) for name in limits}
        self._used = dict.fromkeys(limits, 0)

    @property
    def open(self) -> list[str]:
        """Families that may be drawn."""
        return [name for name, limit in self._limits.items() if limit <= self.horizon]

    def success(self, family: str) -> float:
        """Of late, shrunk towards what was known before as long as little has been seen."""
        seen = self._of_family[family]
        return (sum(seen) + 2 * self._known[family]) / (len(seen) + 2)

    def draw(self, count: int) -> list[Draw]:
        """``count`` start states, none that was drawn before."""
        names = self.open
        weights = [max(LEAST_SHARE, 4 * (p := self.success(name)) * (1 - p)) for name in names]
        draws = []
        # A generator of its own for each call: where it stands is a number, not a state.
        choices = random.Random(f"curriculum/{self._seed}/{self._drawn}").choices(names, weights, k=count)
        self._drawn += 1
        for name in choices:
            draws.append(Draw(name, self._used[name]))
            self._used[name] += 1
        return draws

    def record(self, family: str, rewards: Sequence[float]) -> bool:
        """Take note of a group's rewards (success as 0 or 1, or a share of the horizon); True when the horizon
        opens."""
        self._of_family[family].extend(rewards)
        self._recent.extend(rewards)
        config = self._config
        full = len(self._recent) == config.window
        if self.horizon >= max(self._limits.values()) or not full:
            return False
        if sum(self._recent) / len(self._recent) < config.threshold:
            return False
        self.horizon += config.open_by
        self._recent.clear()  # the next opening needs as many rewards of the new horizon
        return True

    def state(self) -> dict[str, Any]:
        """Everything that later draws depend on, as JSON."""
        return {
            "horizon": self.horizon,
            "drawn": self._drawn,
            "recent": list(self._recent),
            "of_family": {name: list(seen) for name, seen in self._of_family.items()},
            "used": self._used,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.horizon = state["horizon"]
        self._drawn = state["drawn"]
        self._recent = deque(state["recent"], maxlen=self._config.window)
        self._of_family = {name: deque(seen, maxlen=self._config.window) for name, seen in state["of_family"].items()}
        self._used = dict(state["used"])
