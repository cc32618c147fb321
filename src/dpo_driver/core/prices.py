"""The user's prices, one table for everything that tells money: ``configs/prices.example.yaml`` shows the form.

Called by flywheel/learn, dashboard and cloud. What is not given is free.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dpo_driver.core.config import load_settings
from dpo_driver.core.section import NotNegative, Positive, Section

HOUR = 3600.0  # seconds


class Machine(Section):
    """A machine to rent: price an hour in the table's currency, and what it computes."""

    hour: NotNegative
    spot_hour: NotNegative | None = None  # low priority; None: there is none
    tflops: Positive | None = None  # of the data sheet, for the numbers that are trained in
    reached: Annotated[float, Field(gt=0, le=1)] = 0.35  # of that; stated, not measured


class Prices(Section):
    """All in one currency."""

    currency: str = "EUR"
    browser_hour: NotNegative = 0.0  # of one browser at work
    training_hour: NotNegative = 0.0  # of the machine that trains
    million_input_tokens: NotNegative = 0.0
    million_output_tokens: NotNegative = 0.0
    machines: dict[str, Machine] = {}

    def money(self, browser_s: float, training_s: float, input_tokens: int, output_tokens: int) -> float:
        """What seconds and tokens cost, rounded to a millionth."""
        hours = browser_s / HOUR * self.browser_hour + training_s / HOUR * self.training_hour
        tokens = input_tokens * self.million_input_tokens + output_tokens * self.million_output_tokens
        return round(hours + tokens / 1e6, 6)


def load_prices(path: Path | None) -> Prices:
    """The user's table; without one everything is free. ConfigError as for any configuration."""
    return load_settings(Prices, path)
