"""The report in a terminal: one table of agents, the verdicts, where the time went. Called by the command line.

Must not import anything but rich and the report's own data.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dpo_driver.core.records import EvalReport
from dpo_driver.report import words
from dpo_driver.report.data import HeldOut, RunReport

_BAR = 12
_STYLES = {"better": "bold green", "worse": "bold red", "open": "yellow", "missing": "dim"}


def summary(report: RunReport) -> RenderableType:
    """A rich renderable: ``console.print(summary(report))``."""
    measured = [(name, report.agents.get(name)) for name in report.shown]
    parts: list[RenderableType] = [Text(f"{report.run}", style="bold"), _agents(measured)]
    compared = [(report.gain, "DPO", "its SFT parent"), (report.gain_over_control, "DPO", "the control")]
    if report.gain_over_sft_best:
        compared.append((report.gain_over_sft_best, "DPO", "SFT at its best"))
    if report.gain_memory:
        compared.append((report.gain_memory, "SFT with memory", "SFT without"))
    if report.online:
        compared.append((report.gain_online, "GRPO", "the DPO model that it started from"))
    for gain, one, other in compared:
        verdict = words.verdict(gain, one, other)
        parts += [Text(f"{verdict.headline}.", style=_STYLES[verdict.kind]), Text(verdict.detail, style="dim")]
    if report.saturated:
        verdict = words.verdict(report.gain_unsaturated, "DPO", "its SFT parent")
        left_out = ", ".join(report.saturated)
        parts.append(Text(f"Without {left_out}: {verdict.headline}. {verdict.detail}", style="dim"))
    for group in report.held_out:
        parts += _held_out(group)
    for decision in filter(None, (report.decision, report.decision_online)):
        state = "promoted" if decision.promoted else "refused"
        parts.append(Text(f"{decision.candidate}: {state}. {'; '.join(decision.reasons)}", style="bold"))
    if report.power:
        parts.append(Text(report.power, style="dim"))
    if report.stages:
        times = ", ".join(f"{stage.stage} {words.duration(stage.seconds)}" for stage in report.stages)
        total = words.duration(sum(stage.seconds for stage in report.stages))
        parts.append(Text(f"{total} in all: {times}", style="dim"))
    if report.missing:
        parts.append(Text(f"Not in the records: {', '.join(report.missing)}", style="yellow"))
    return Padding(Group(*parts), (1, 0))


def print_summary(report: RunReport, console: Console | None = None) -> None:
    """Print :func:`summary`."""
    (console or Console()).print(summary(report))


def _held_out(group: HeldOut) -> list[RenderableType]:
    """What was never trained on: each agent, and DPO against SFT."""
    parts: list[RenderableType] = [
        Text(f"Never trained on: {group.title}", style="bold"),
        _agents(group.agents.items()),
    ]
    if group.gain:
        verdict = words.verdict(group.gain, "DPO", "its SFT parent")
        parts.append(Text(f"{verdict.headline}. {verdict.detail}", style="dim"))
    return parts


def _agents(measured: Iterable[tuple[str, EvalReport | None]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("agent", no_wrap=True)
    for name in ("strict", "95 % interval", "n", "excluded", "positive"):
        table.add_column(name, justify="right")
    table.add_column("0 – 100 %")
    for name, agent in measured:
        if agent is None:
            table.add_row(words.AGENT_NAMES[name], "–", style="dim")
            continue
        rate = agent.strict
        table.add_row(
            words.AGENT_NAMES[name],
            words.percent(rate.success),
            words.interval(rate),
            str(rate.n),
            str(rate.excluded),
            words.percent(agent.positive.success),
            "█" * round(_BAR * (rate.success or 0.0)),
            style="bold" if name == "dpo" else None,
        )
    return table
