"""Numbers and verdicts in plain words: one place decides what may be called an improvement. Called by page and text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dpo_driver.core.records import PairedDifference, Rate, StopReason

MINUS, THIN, HARD = "\u2212", "\u202f", "\u00a0"  # thin and hard spaces keep numbers on one line

AGENT_NAMES = {
    "random": "Random",
    "base": "Base",
    "sft": "SFT",
    "memory": "SFT with memory",
    "sft_best": "SFT at its best",
    "control": "Control",
    "dpo": "DPO",
    "grpo": "GRPO",
    "oracle": "Oracle",
}
AGENT_NOTES = {
    "random": "any action on any visible element",
    "base": "the model before it saw this site",
    "sft": "imitates a few demonstrations; the parent",
    "memory": "the SFT model, shown how tasks like it were solved",
    "sft_best": "the same demonstrations, for as long as serves it best",
    "control": "imitates the successes of the same rollouts, same steps, no comparison",
    "dpo": "learns from success against failure; the candidate",
    "grpo": "goes on learning from its own episodes on live pages",
    "oracle": "a script that knows each task; the ceiling",
}
STOP_NAMES = {
    StopReason.SUCCESS: "solved",
    StopReason.WRONG: "wrong answer",
    StopReason.MAX_STEPS: "out of steps",
    StopReason.INFEASIBLE: "gave up",
    StopReason.ANSWERED: "answered",
    StopReason.PARSE_ERRORS: "unreadable actions",
    StopReason.CONTEXT_OVERFLOW: "page too long",
}


@dataclass(frozen=True)
class Verdict:
    """What a paired difference allows to be said. ``figure`` is for large print: the difference in points, or its
    interval where that contains 0 and a single number would say too much."""

    kind: Literal["better", "worse", "open", "missing"]
    figure: str
    headline: str
    detail: str


def percent(value: float | None, digits: int = 1) -> str:
    """``0.634`` -> ``63.4 %``; a dash for what was not measured."""
    return "–" if value is None else f"{100 * value:.{digits}f}{THIN}%"


def points(value: float | None) -> str:
    """A difference of rates in percentage points, always signed: ``+18.3``."""
    if value is None:
        return "–"
    rounded = round(100 * value, 1)
    sign = "+" if rounded > 0 else MINUS if rounded < 0 else "±"
    return f"{sign}{abs(rounded):.1f}"


def interval(rate: Rate | None) -> str:
    """``60.5 – 66.2 %``."""
    if rate is None or rate.low is None or rate.high is None:
        return "–"
    return f"{100 * rate.low:.1f} – {100 * rate.high:.1f}{THIN}%"


def p_value(p: float | None) -> str:
    """``p = 0.012``, ``p < 0.001``."""
    if p is None:
        return "p –"
    return f"p{HARD}<{HARD}0.001" if p < 0.001 else f"p{HARD}={HARD}{p:.3f}"


def duration(seconds: float) -> str:
    """``4 min 12 s``; tenths below ten seconds."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def stop_name(reason: str) -> str:
    """A stop reason in words; failures of the world keep their names."""
    return STOP_NAMES[StopReason(reason)] if reason in set(STOP_NAMES) else reason.replace("_", " ")


def verdict(gain: PairedDifference | None, one: str, other: str) -> Verdict:
    """What may be said about ``one`` against ``other``. With 0 in the interval it is never called a gain."""
    if gain is None or gain.mean is None or gain.low is None or gain.high is None:
        headline = f"{one} against {other} has not been measured"
        return Verdict("missing", "–", headline, "There are no paired episodes yet.")
    span = f"95{THIN}% interval {points(gain.low)} to {points(gain.high)} points"
    basis = f"{span}, n{HARD}={HARD}{gain.n} paired episodes, exact McNemar {p_value(gain.p_mcnemar)}"
    size = f"{abs(100 * gain.mean):.1f}"
    if gain.low > 0:
        headline = f"{one} solves {size} more of every 100 held-out episodes than {other}"
        return Verdict("better", points(gain.mean), headline, f"{basis}. The interval lies above 0.")
    if gain.high < 0:
        headline = f"{one} solves {size} fewer of every 100 held-out episodes than {other}"
        return Verdict("worse", points(gain.mean), headline, f"{basis}. The interval lies below 0.")
    headline = f"No difference between {one} and {other} is shown"
    detail = f"Measured {points(gain.mean)} points, but the interval contains 0: {basis}."
    return Verdict("open", f"{points(gain.low)} … {points(gain.high)}", headline, detail)
