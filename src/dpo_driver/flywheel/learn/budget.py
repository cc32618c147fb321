"""What learning has cost so far, and whether more may be spent. Called by turn.py and roles.py.

Seconds are those that the run's stages took; a stage that has begun is not cut off, so the last one may go beyond.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from dpo_driver.core.records import Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.learn.settings import BudgetSettings, Prices

BROWSER = ("demos", "collect/", "evaluate/", "gate/", "final/")
TRAINING = ("sft", "dpo/", "control/", "held_out/")
HOUR = 3600.0


class BudgetSpent(Exception):
    """No more may be spent; says what was."""


@dataclass(frozen=True)
class Spent:
    """Seconds of browsers and of training, and tokens that the model read and wrote."""

    browser_s: float = 0.0
    training_s: float = 0.0
    tokens: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.browser_s + other.browser_s, self.training_s + other.training_s, self.tokens + other.tokens)

    def money(self, prices: Prices) -> float:
        """In the prices' currency."""
        hours = self.browser_s / HOUR * prices.browser_hour + self.training_s / HOUR * prices.training_hour
        return hours + self.tokens / 1e6 * prices.million_tokens

    def told(self, prices: Prices) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "money": round(self.money(prices), 6)}


def spent(store: RunStore) -> Spent:
    """What a run has cost so far."""
    browser = training = 0.0
    tokens = 0
    for stage in store.stages():
        if stage.stage.startswith(BROWSER):
            browser += stage.seconds
            tokens += _tokens(store, stage.stage, done=stage.done)
        elif stage.stage.startswith(TRAINING):
            training += stage.seconds
    return Spent(browser, training, tokens)


def check(cost: Spent, budget: BudgetSettings) -> None:
    """Go on, or

    Raises:
        BudgetSpent: a limit is reached.
    """
    limits = (
        ("browser_hours", cost.browser_s / HOUR, budget.browser_hours),
        ("training_hours", cost.training_s / HOUR, budget.training_hours),
        ("tokens", float(cost.tokens), budget.tokens),
        ("money", cost.money(budget.prices), budget.money),
    )
    for name, used, limit in limits:
        if limit is not None and used >= limit:
            raise BudgetSpent(f"budget.{name} {limit:g} is spent ({used:.3g}); raise it to go on")


def _tokens(store: RunStore, stage: str, *, done: bool) -> int:
    """Counted once per finished stage."""
    key = f"tokens/{stage}"
    if done and (kept := store.get_fact(key)) is not None:
        return int(kept)
    count = tokens_of(store.iterate(stage))
    if done:
        store.set_fact(key, count)
    return count


def tokens_of(trajectories: Iterable[Trajectory]) -> int:
    """Tokens that were read and written in trajectories."""
    return sum(
        step.generation.prompt_tokens + len(step.generation.token_ids)
        for trajectory in trajectories for step in trajectory.steps if step.generation is not None
    )  # fmt: skip
