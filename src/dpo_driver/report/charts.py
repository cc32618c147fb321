"""Line charts as inline SVG, drawn in Python: no script, no library, colours from the page's style sheet.

Called by page.py. Everything that is text goes through ``escape``; the returned Markup is safe to insert.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]
Scale = Callable[[float], float]
WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 26
SMOOTH_FROM = 24  # points from which a noisy line is drawn faintly behind its smoothed self


@dataclass(frozen=True)
class Series:
    """One line. ``tone`` is a colour name of the style sheet; ``dotted`` marks few, certain values (validation);
    ``exact`` values are drawn as they are, without smoothing; no line crosses an edge, where another round begins."""

    name: str
    tone: str
    points: Points
    dotted: bool = False
    exact: bool = False
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A titled chart. ``level`` is a value worth a dashed line, with its name; ``breaks`` are steps that end one."""

    title: str
    note: str
    series: tuple[Series, ...]
    level: tuple[float, str] | None = None
    breaks: tuple[float, ...] = ()

    @property
    def svg(self) -> Markup:
        """The drawing, 360 x 200 units, scaling with its container."""
        return draw(self)


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers that span ``low`` to ``high``: ``ticks(0.1, 0.74)`` is [0, 0.2, 0.4, 0.6, 0.8]."""
    if not high > low:
        low, high = low - (abs(low) or 1.0) / 2, low + (abs(low) or 1.0) / 2
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def smooth(points: Points) -> list[tuple[float, float]]:
    """Centred moving average over about a tenth of the points: unlike exponential smoothing it does not lag behind."""
    reach = max(2, len(points) // 20)
    smoothed = []
    for index, (step, _) in enumerate(points):
        # Symmetric also near the ends, where a longer arm on one side would bend a slope.
        arm = min(reach, index, len(points) - 1 - index)
        window = [value for _, value in points[index - arm : index + arm + 1]]
        smoothed.append((step, sum(window) / len(window)))
    return smoothed


def label(value: float) -> str:
    """A tick's text, short: ``0.05``, ``1e-4``, ``1200``."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "\u2212", int(value < 0))
    return f"{value:g}".replace("-", "\u2212")


def draw(chart: Chart) -> Markup:
    """The chart as an ``<svg>``; points that are not finite are left out, and a chart without any says so."""
    series = [replace(line, points=[(x, y) for x, y in line.points if math.isfinite(y)]) for line in chart.series]
    everything = [point for line in series for point in line.points]
    if not everything:
        return Markup('<p class="none">no values</p>')
    values = [y for _, y in everything] + ([chart.level[0]] if chart.level else [])
    rows = ticks(min(values), max(values))
    steps = [x for x, _ in everything]
    left, right = min(steps), max(steps)
    columns = [tick for tick in ticks(left, right) if left <= tick <= right]

    def at_x(step: float) -> float:
        share = (step - left) / (right - left) if right > left else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def at_y(value: float) -> float:
        return round(TOP + (rows[-1] - value) / (rows[-1] - rows[0]) * (HEIGHT - TOP - BOTTOM), 1)

    parts = [_grid(rows, columns, at_x, at_y)]
    parts += [
        Markup('<line class="break" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(at_x(x), TOP, HEIGHT - BOTTOM)
        for x in chart.breaks
    ]
    if chart.level:
        height = at_y(chart.level[0])
        parts.append(
            Markup('<line class="level" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, height, height)
        )
        parts.append(
            Markup('<text class="level" x="{}" y="{}">{}</text>').format(WIDTH - RIGHT, height - 4, chart.level[1])
        )
    for line in series:
        for start, end in itertools.pairwise((-math.inf, *line.edges, math.inf)):
            part = replace(line, points=[point for point in line.points if start < point[0] <= end])
            parts.append(_line(part, at_x, at_y))
    description = f"{chart.title}: " + "; ".join(_describe(line) for line in series if line.points)
    body = Markup("").join(parts)
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, description, body
    )


def _grid(rows: Sequence[float], columns: Sequence[float], at_x: Scale, at_y: Scale) -> Markup:
    parts = []
    for value in rows:
        y = at_y(value)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y))
        parts.append(Markup('<text class="y" x="{}" y="{}">{}</text>').format(LEFT - 8, y + 3.5, label(value)))
    for step in columns:
        parts.append(Markup('<text class="x" x="{}" y="{}">{}</text>').format(at_x(step), HEIGHT - 8, label(step)))
    return Markup("").join(parts)


def _line(line: Series, at_x: Scale, at_y: Scale) -> Markup:
    def path(points: Points) -> str:
        return " ".join(f"{at_x(x)},{at_y(y)}" for x, y in points)

    tone = escape(line.tone)
    noisy = not line.dotted and not line.exact and len(line.points) >= SMOOTH_FROM
    parts = []
    if noisy:
        parts.append(Markup('<polyline class="raw {}" points="{}"/>').format(tone, path(line.points)))
    shown = smooth(line.points) if noisy else line.points
    style = "line dotted" if line.dotted else "line"
    parts.append(Markup('<polyline class="{} {}" points="{}"/>').format(style, tone, path(shown)))
    if line.dotted or len(line.points) == 1:
        parts += [
            Markup('<circle class="{}" cx="{}" cy="{}" r="2.6"/>').format(tone, at_x(x), at_y(y))
            for x, y in line.points
        ]
    return Markup("").join(parts)


def _describe(line: Series) -> str:
    first, last = line.points[0][1], line.points[-1][1]
    return f"{line.name} from {first:.3g} to {last:.3g}"
