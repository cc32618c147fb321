"""What calls cost, and the budget that stops a run before it is overspent. Called by policies/endpoint.py.

A call reserves the most that it can take before it begins and settles afterwards, so that calls which run at once do
not overspend together. All of it happens on one event loop, so nothing is locked. Imports core only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dpo_driver.core.errors import ConfigError, DriverError
from dpo_driver.core.records import Usage

CHARS_PER_TOKEN = 4  # where a server does not count


class BudgetError(DriverError):
    """The budget of tokens or money is used up."""


@dataclass(frozen=True)
class Price:
    """US dollars a million tokens."""

    input: float
    output: float

    def __post_init__(self) -> None:
        if not (0 <= self.input < float("inf") and 0 <= self.output < float("inf")):
            raise ConfigError("a price is a number of dollars, not less than 0", remedy="write INPUT,OUTPUT: 0.5,3")

    @classmethod
    def parse(cls, text: str) -> Price:
        """``"0.5,3"``: input and output. ConfigError says how it is written."""
        parts = text.split(",")
        try:
            given, made = (float(part) for part in parts)
        except ValueError:
            remedy = "dollars a million tokens, input and output: 0.5,3"
            raise ConfigError(f"{text!r} is no price", where="--price", remedy=remedy) from None
        return cls(given, made)

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """Dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


# As listed in November 2026; `--price` and EndpointPolicy(price=...) go before it.
PRICES: dict[str, Price] = {
    "gemini-3-flash-preview": Price(0.50, 3.00),
    "gemini-2.5-flash": Price(0.30, 2.50),
    "gemini-2.5-pro": Price(1.25, 10.00),
    "claude-sonnet-4-20250514": Price(3.00, 15.00),
    "claude-sonnet-4-5": Price(3.00, 15.00),
    "claude-haiku-4-5": Price(1.00, 5.00),
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-mini": Price(0.15, 0.60),
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
}
FREE = Price(0.0, 0.0)


@dataclass(frozen=True)
class Budget:
    """Most tokens (input and output together) and most US dollars of a run; None: no limit."""

    tokens: int | None = None
    dollars: float | None = None

    def __post_init__(self) -> None:
        if (self.tokens is not None and self.tokens <= 0) or (self.dollars is not None and not self.dollars > 0):
            raise ConfigError("a budget is more than 0", remedy="leave it out for no limit")


def tokens_in(text_length: int) -> int:
    """A guess at the tokens of a text."""
    return -(-text_length // CHARS_PER_TOKEN)


class Meter:
    """Adds up what calls took and holds it against a budget. Several policies may share one.

    Raises:
        ConfigError: a budget in money for a model whose price is not known.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.total = Usage(cost=0.0)
        self.calls = 0  # that took something
        self._reserved: list[Usage] = []
        self._settled = asyncio.Event()

    def check_price(self, price: Price | None, model: str) -> None:
        """Refuse to begin what could not be stopped."""
        if self.budget.dollars is not None and price is None:
            raise ConfigError(f"the price of {model} is not known, so a budget in money cannot be kept",
                              remedy="give it with --price INPUT,OUTPUT (dollars a million tokens)")  # fmt: skip

    async def reserve(self, worst: Usage) -> Usage:
        """Begin a call that takes ``worst`` at most. Waits while only calls that are under way stand in between.

        Raises:
            BudgetError: there is not enough left for it.
        """
        while problem := self._beyond(worst, [*self._reserved]):
            if not self._reserved or self._beyond(worst, []):
                raise BudgetError(problem, where="budget", remedy="give a larger one, or go on with what there is")
            self._settled.clear()
            await self._settled.wait()
        self._reserved.append(worst)
        return worst

    def settle(self, reserved: Usage, took: Usage | None) -> None:
        """The call has ended; None: it took nothing."""
        self._reserved.remove(reserved)
        if took is not None:
            self.calls += 1
            known = self.total.cost is not None and took.cost is not None
            self.total = Usage(
                input_tokens=self.total.input_tokens + took.input_tokens,
                output_tokens=self.total.output_tokens + took.output_tokens,
                cost=(self.total.cost or 0.0) + (took.cost or 0.0) if known else None,
                estimated=self.total.estimated or took.estimated,
            )
        self._settled.set()

    def _beyond(self, worst: Usage, reserved: list[Usage]) -> str | None:
        """In words what a call would overspend, or None."""
        budget, spent, calls = self.budget, self.total, [*reserved, worst]
        tokens = spent.input_tokens + spent.output_tokens
        most = tokens + sum(call.input_tokens + call.output_tokens for call in calls)
        if budget.tokens is not None and most > budget.tokens:
            return f"the budget of {budget.tokens:,} tokens does not allow another call: {tokens:,} are used"
        dollars = spent.cost or 0.0
        cost = dollars + sum(call.cost or 0.0 for call in calls)
        if budget.dollars is not None and cost > budget.dollars * (1 + 1e-9):
            return f"the budget of ${budget.dollars:.4g} does not allow another call: ${dollars:.4g} are used"
        return None
