"""The one plot of a sweep as inline SVG: success over the swept values, with intervals, one line for each combination
of the other keys. Called by sweep.py.

Values stand at equal distances, as they were given: grids are mostly geometric, and names have no place on a scale.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dpo_driver.core.records import Rate
from dpo_driver.flywheel.sweep_plan import SEED, written
from dpo_driver.report import words
from dpo_driver.report.charts import label, ticks
from dpo_driver.report.sweep_data import SweepReport, SweepRow

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 52
TONES = ("dpo", "control", "best", "sft", "bad", "ink")  # of the style sheet, told apart in light and dark
DODGE = 14.0  # units between neighbours at one value


@dataclass(frozen=True)
class Mark:
    """A rate at one of the x values; ``seeds`` are the success of each training by itself."""

    at: int
    rate: Rate
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Line:
    """Marks of one tone; a ``hollow`` line is the SFT parent's."""

    name: str
    tone: str
    marks: tuple[Mark, ...]
    hollow: bool = False


@dataclass(frozen=True)
class Plot:
    """The drawing, its legend, and the key along its x axis."""

    svg: Markup
    lines: tuple[Line, ...]
    key: str


def draw(report: SweepReport) -> Plot | None:
    """The plot; None while nothing is measured."""
    keys = [key for key in report.values if key != SEED]
    if not keys or not any(row.success for row in report.rows):
        return None
    along = max(keys, key=lambda key: len(report.values[key]))
    lines = _lines(report, along)
    svg = _svg(report, along, lines)
    return Plot(svg, lines, along)


def _lines(report: SweepReport, along: str) -> tuple[Line, ...]:
    """The last model's success by the other keys' values; beside a single line also the SFT parent's."""
    groups: dict[str, list[SweepRow]] = {}
    for row in report.rows:
        others = {key: value for key, value in row.values.items() if key != along}
        groups.setdefault(json.dumps(others), []).append(row)
    lines = []
    for number, (text, rows) in enumerate(groups.items()):
        fixed = json.loads(text)
        named = ", ".join(f"{key.rpartition('.')[2]} {written(value)}" for key, value in fixed.items())
        marks = _marks(report, along, rows, lambda row: row.success, lambda row: [p.success for p in row.done])
        lines.append(Line(named or report.agent.upper(), TONES[number % len(TONES)], marks))
    if len(lines) == 1:
        marks = _marks(report, along, report.rows, lambda row: row.sft, lambda row: [p.sft for p in row.done])
        if marks:
            lines.append(Line("its SFT parent", "sft", marks, hollow=True))
    return tuple(lines)


def _marks(
    report: SweepReport, along: str, rows: Sequence[SweepRow],
    whole: Callable[[SweepRow], Rate | None], single: Callable[[SweepRow], Sequence[Rate | None]],
) -> tuple[Mark, ...]:  # fmt: skip
    found = []
    for row in rows:
        rate = whole(row)
        if rate is not None and rate.success is not None:
            seeds = tuple(one.success for one in single(row) if one is not None and one.success is not None)
            at = list(report.values[along]).index(_plain(row.values[along], report.values[along]))
            found.append(Mark(at, rate, seeds if len(seeds) > 1 else ()))
    return tuple(sorted(found, key=lambda mark: mark.at))


def _plain(value: Any, known: Sequence[Any]) -> Any:
    """The value as it stands among the known ones: JSON has lists where records have tuples."""
    return next(other for other in known if json.dumps(other) == json.dumps(value))


def _svg(report: SweepReport, along: str, lines: Sequence[Line]) -> Markup:
    shown = [mark for line in lines for mark in line.marks]
    lows = [mark.rate.low for mark in shown if mark.rate.low is not None] + [s for m in shown for s in m.seeds]
    highs = [mark.rate.high for mark in shown if mark.rate.high is not None] + [s for m in shown for s in m.seeds]
    rows = [tick for tick in ticks(100 * min(lows), 100 * max(highs), 5) if -1e-6 <= tick <= 100 + 1e-6]
    values = report.values[along]
    step = (WIDTH - LEFT - RIGHT) / len(values)

    def at_x(index: int, line: int) -> float:
        return round(
            LEFT + step * (index + 0.5) + (line - (len(lines) - 1) / 2) * min(DODGE, step / len(lines) / 1.5), 1
        )

    def at_y(share: float) -> float:
        low, high = rows[0], max(rows[-1], rows[0] + 1e-9)
        return round(TOP + (high - 100 * share) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    parts = []
    for tick in rows:
        y = at_y(tick / 100)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y))
        parts.append(Markup('<text class="y" x="{}" y="{}">{}</text>').format(LEFT - 8, y + 3.5, label(tick)))
    for index, value in enumerate(values):
        middle = round(LEFT + step * (index + 0.5), 1)
        parts.append(Markup('<text class="x" x="{}" y="{}">{}</text>').format(middle, HEIGHT - 32, written(value)))
        if json.dumps(value) == json.dumps(report.base.get(along)):
            parts.append(Markup('<text class="x base" x="{}" y="{}">base</text>').format(middle, HEIGHT - 19))
    parts.append(
        Markup('<text class="x" x="{}" y="{}">{}</text>').format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, along)
    )
    ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    for number, line in enumerate(lines):
        if ordered:  # between names there is no way to go along
            places = " ".join(f"{at_x(mark.at, number)},{at_y(mark.rate.success or 0.0)}" for mark in line.marks)
            parts.append(Markup('<polyline class="thread {}" points="{}"/>').format(line.tone, places))
        parts.append(_drawn(line, number, at_x, at_y))
    said = "; ".join(
        f"{line.name} at {written(values[mark.at])}: {words.percent(mark.rate.success)}, {words.interval(mark.rate)}"
        for line in lines
        for mark in line.marks
    )
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, f"Success by {along}, in percent, with 95 % intervals. {said}", Markup("").join(parts)
    )


def _drawn(line: Line, number: int, at_x: Callable[[int, int], float], at_y: Callable[[float], float]) -> Markup:
    """For each mark an interval bar, a dot on it, and small ones beside it for single trainings."""
    parts = []
    for mark in line.marks:
        x, y = at_x(mark.at, number), at_y(mark.rate.success or 0.0)
        if mark.rate.low is not None and mark.rate.high is not None:
            low, high = at_y(mark.rate.low), at_y(mark.rate.high)
            path = f"M{x} {low}V{high}M{x - 4} {low}h8M{x - 4} {high}h8"
            parts.append(Markup('<path class="bar {}" d="{}"/>').format(line.tone, path))
        for share in mark.seeds:
            parts.append(Markup('<circle class="one {}" cx="{}" cy="{}" r="2"/>').format(line.tone, x + 7, at_y(share)))
        kind = "mark hollow" if line.hollow else "mark"
        parts.append(Markup('<circle class="{} {}" cx="{}" cy="{}" r="4.5"/>').format(kind, line.tone, x, y))
    return Markup("").join(parts)
