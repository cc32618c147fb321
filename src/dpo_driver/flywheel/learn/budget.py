"""What learning has cost so far, and whether more may be spent. Called by turn.py and roles.py.

Seconds are those that the run's stages took; a stage that has begun is not cut off, so the last one may go beyond.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from typing import Any

from dpo_driver.core.prices import HOUR, Prices
from dpo_driver.core.records import Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.learn.settings import BudgetSettings

BROWSER = ("demos", "collect/", "evaluate/", "gate/", "final/")
TRAINING = ("sft", "dpo/", "control/", "held_out/")


class BudgetSpent(Exception):
    """No more may be spent; says what was."""


@dataclass(frozen=True)
class Spent:
    """Seconds of browsers and of training, and tokens that the model read and wrote."""

    browser_s: float = 0.0
    training_s: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def money(self, prices: Prices) -> float:
        """In the prices' currency."""
        return prices.money(self.browser_s, self.training_s, self.input_tokens, self.output_tokens)

    def told(self, prices: Prices) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "tokens": self.tokens, "money": self.money(prices)}


def spent(store: RunStore) -> Spent:
    """What a run has cost so far."""
    browser = training = 0.0
    read = written = 0
    for stage in store.stages():
        if stage.stage.startswith(BROWSER):
            browser += stage.seconds
            more = _tokens(store, stage.stage, done=stage.done)
            read, written = read + more[0], written + more[1]
        elif stage.stage.startswith(TRAINING):
            training += stage.seconds
    return Spent(browser, training, read, written)


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


def _tokens(store: RunStore, stage: str, *, done: bool) -> tuple[int, int]:
    """Read and written; counted once per finished stage."""
    key = f"tokens_by_kind/{stage}"
    if done and (kept := store.get_fact(key)) is not None:
        return int(kept[0]), int(kept[1])
    count = tokens_of(store.iterate(stage))
    if done:
        store.set_fact(key, count)
    return count


def tokens_of(trajectories: Iterable[Trajectory]) -> tuple[int, int]:
    """Tokens that were read and written in trajectories."""
    made = [step.generation for one in trajectories for step in one.steps if step.generation is not None]
    return sum(one.prompt_tokens for one in made), sum(len(one.token_ids) for one in made)
