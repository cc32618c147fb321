"""What the loop that keeps learning is asked for: a file such as configs/learn.yaml. Called by loop.py and the CLI."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dpo_driver.core.config import load_settings
from dpo_driver.core.prices import Prices, load_prices
from dpo_driver.core.section import Count, CountOrNone, Positive, Section


class DueSettings(Section):
    """When a turn is due: any of these is enough."""

    pairs: Count = 500  # new pairs of a text role, or new outcomes of the browser agent
    hours: Positive | None = None  # since the last turn, as long as there is something new
    drift: bool = True  # what is served succeeds less often than it did, beyond chance


class BudgetSettings(Section):
    """What all turns together may cost; None: without limit."""

    browser_hours: Positive | None = None
    training_hours: Positive | None = None
    tokens: Count | None = None  # read and written by the model
    money: Positive | None = None
    prices: Prices = Prices()  # or the file that they stand in

    @field_validator("prices", mode="before")
    @classmethod
    def _from_a_file(cls, given: Any) -> Any:
        return load_prices(Path(given)) if isinstance(given, str) else given


class RoleSettings(Section):
    """A role that answers in text: where its configuration is, and overrides of it."""

    config: Path | None = None
    overrides: tuple[str, ...] = ()


class LearnSettings(Section):
    """Everything about learning that is not about a run."""

    agent: Path | None = None  # configuration of the browser agent's run; without one only text roles learn
    start: Literal["sft", "base"] = "sft"  # the first champion: after demonstrations, or the model as it is
    roles: dict[str, RoleSettings] = {}
    gate_per_task: Count = 20  # held-out episodes of a family by which a turn is judged; every turn has its own
    final_per_task: CountOrNone = 40  # held-out episodes that no turn is judged by, for the account at the end
    human_share: Annotated[float, Field(gt=0, lt=1)] | None = 0.8  # of the weight, where people and others both speak
    filter: str = ""  # "package.module:function": Interaction in, Interaction or None out
    due: DueSettings = DueSettings()
    window: str = ""  # "22:00-06:00", local time: turns begin only then
    budget: BudgetSettings = BudgetSettings()
    look_every: Positive = 60.0  # seconds between two looks, when it goes on by itself

    @field_validator("window")
    @classmethod
    def _two_times(cls, value: str) -> str:
        parse_window(value)
        return value

    @field_validator("filter")
    @classmethod
    def _a_function(cls, value: str) -> str:
        module, colon, name = value.partition(":")
        if value and not (colon and module and name.isidentifier()):
            raise ValueError(f"{value!r} names no function; write package.module:function")
        return value


def load_learn(path: Path | None, overrides: Sequence[str] = ()) -> LearnSettings:
    """The settings of a file with ``section.key=value`` overrides; ConfigError as for any configuration."""
    return load_settings(LearnSettings, path, overrides)


def parse_window(text: str) -> tuple[datetime.time, datetime.time] | None:
    """``"22:00-06:00"`` as two times of the day; None for "".

    Raises:
        ValueError: it is none.
    """
    if not text:
        return None
    first, dash, last = text.partition("-")
    try:
        if not dash:
            raise ValueError
        begin, end = (datetime.time.fromisoformat(each.strip()) for each in (first, last))
    except ValueError:
        raise ValueError(f"{text!r} is no window; write 22:00-06:00") from None
    if begin == end:
        raise ValueError(f"the window {text!r} is empty; leave it out to allow every hour")
    return begin, end


def inside(window: str, now: datetime.datetime) -> bool:
    """Whether a turn may begin now."""
    found = parse_window(window)
    if found is None:
        return True
    (begin, end), at = found, now.time()
    return begin <= at < end if begin < end else at >= begin or at < end
