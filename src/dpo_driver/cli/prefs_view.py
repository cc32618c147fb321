"""How preferences look in a terminal: the table of ``prefs list``, the account of ``prefs stats``. Called by
cli/prefs.py; only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from dpo_driver.cli.options import results

if TYPE_CHECKING:
    from dpo_driver.core.records import Preference, Rate
    from dpo_driver.preferences.summary import Agreement, Mean, Summary

WIDE = 40  # characters of a text in a table
SURE = 0.5  # what a share without a bias would be


def table_of(rows: Sequence[Preference]) -> Table:
    """Pairs, one a line, with the beginnings of their texts."""
    table = Table("source", "role or task", "weight", "prompt", "chosen", "rejected", box=None, header_style="bold")
    for row in rows:
        whose = row.role or (f"{row.task_name}/{row.seed}" if row.seed is not None else row.task_name)
        texts = [_short(text) for text in (row.messages[-1].content if row.messages else "", row.chosen, row.rejected)]
        table.add_row(row.source, whose, f"{row.weight:g}", *texts)
    return table


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDE else line[: WIDE - 1] + "…"


def show(found: Summary, path: Path) -> None:
    """The account, line by line; what was not measured is left out."""
    say = results.print
    say(f"{found.pairs} pairs in {path}", highlight=False)
    for title, counts in (("source", found.by_source), ("role", found.by_role), ("level", found.by_level),
                          ("split", found.by_split), ("task", found.by_task)):  # fmt: skip
        named = {name or "none": count for name, count in counts.items()}
        if named and set(named) != {"none"}:
            say(f"by {title}: {_listed(named)}", highlight=False)
    weights = found.weights
    if weights.mean is not None:
        sums = {name: f"{value:g}" for name, value in weights.by_source.items()}
        say(f"weight: mean {weights.mean:.2f}, {weights.least:g} to {weights.most:g}; in all {_listed(sums)}",
            highlight=False)  # fmt: skip
    say(f"{found.duplicates} duplicates, {found.contradictions} contradict another", highlight=False)
    if found.labels:
        say(f"{found.labels} labels of {found.comparisons} comparisons ({_listed(found.verdicts)}; "
            f"{found.withdrawn} withdrawn); tie or both bad: {_rate(found.tie_share)}", highlight=False)  # fmt: skip
    for name, rater in found.raters.items():
        steady = f"; repeats judged alike: {_rate(rater.steady)}" if rater.repeats else ""
        say(f"  {name or 'without a name'} ({rater.source}): {rater.labels} labels, {rater.ties} ties{steady}",
            highlight=False)  # fmt: skip
    for source, agreement in found.agreement.items():
        if agreement.comparisons:
            say(f"raters agree ({source}): {_agreed(agreement)}", highlight=False)
    if found.longer.mean is not None:
        say(f"length of chosen minus rejected: {_mean(found.longer)} characters; the longer one is chosen in "
            f"{_rate(found.longer_chosen)}{_leaning(found.longer_chosen)}", highlight=False)  # fmt: skip
    if found.shown_first.n:
        say(f"the answer shown first is preferred in {_rate(found.shown_first)}{_leaning(found.shown_first)}",
            highlight=False)  # fmt: skip


def _listed(counts: Mapping[str, object]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _rate(rate: Rate) -> str:
    if rate.success is None or rate.low is None or rate.high is None:
        return "not measured"
    return f"{rate.success:.0%} [{rate.low:.0%}, {rate.high:.0%}] of {rate.n}"


def _mean(mean: Mean) -> str:
    interval = "" if mean.low is None or mean.high is None else f" [{mean.low:+.1f}, {mean.high:+.1f}]"
    return f"{mean.mean:+.1f}{interval}"


def _leaning(rate: Rate) -> str:
    """A warning where the whole interval lies on one side of a half."""
    if rate.low is None or rate.high is None or rate.low <= SURE <= rate.high:
        return ""
    return ": a bias" if rate.low > SURE else ": a bias the other way"


def _agreed(found: Agreement) -> str:
    kappa = "" if found.kappa is None else f", Cohen's kappa {found.kappa:.2f}"
    return f"{_rate(found.same)} judgements two by two, over {found.comparisons} comparisons{kappa}"
