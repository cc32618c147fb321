"""Training curves: the numbers of every step, thinned so that a chart stays light. Called by app.py.

Numbers come from the run's ``metrics`` rows, which the flywheel writes at every step that is logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpo_driver.dashboard.reader import Reader

MOST_POINTS = 600  # of one line; a chart is narrower than that
Point = tuple[int, float | None]

# Goes from one stage to the next by the primary key, however many rows each has.
_STAGES = """WITH RECURSIVE found(stage) AS (
    SELECT min(stage) FROM metrics
    UNION ALL SELECT (SELECT min(stage) FROM metrics WHERE stage > found.stage) FROM found WHERE found.stage NOT NULL)
    SELECT stage FROM found WHERE stage NOT NULL"""


def stages(reader: Reader) -> list[str]:
    """Stages that logged numbers, in the order they began."""
    began = dict(reader.rows("SELECT stage, started FROM stages"))
    found = [str(stage) for (stage,) in reader.rows(_STAGES)]
    return sorted(found, key=lambda stage: (began.get(stage, float("inf")), stage))


def curves(reader: Reader, stage: str | None = None) -> dict[str, Any]:
    """``{"stages": [...], "stage": "dpo/1", "steps": 60, "series": {"loss": [[1, 0.69], ...]}}``.

    Args:
        reader: of the run.
        stage: the one that began last when None. A number that is not finite is None.
    """
    return reader.kept(("curves", stage), lambda: _curves(reader, stage))


def _curves(reader: Reader, stage: str | None) -> dict[str, Any]:
    known = stages(reader)
    chosen = stage if stage in known else known[-1] if known else None
    series: dict[str, list[Point]] = {}
    for name, step, value in reader.rows(
        "SELECT name, step, value FROM metrics WHERE stage=? ORDER BY step, name", (chosen,)
    ):
        # SQLite keeps NaN as NULL; infinities are no JSON.
        finite = value is not None and abs(value) != float("inf")
        series.setdefault(name, []).append((step, value if finite else None))
    last = max((points[-1][0] for points in series.values()), default=0)
    return {"stages": known, "stage": chosen, "steps": last,
            "series": {name: thin(points) for name, points in series.items()}}  # fmt: skip


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most ``most`` of the points, first and last among them, and of each stretch its lowest and highest value, so
    that no spike is lost."""
    if len(points) <= most:
        return list(points)
    stretches = (most - 2) // 2
    inner = points[1:-1]
    kept = [points[0]]
    for index in range(stretches):
        part = inner[index * len(inner) // stretches : (index + 1) * len(inner) // stretches]
        told = [point for point in part if point[1] is not None]
        if not told:
            kept += part[:1]
            continue
        ends = {min(told, key=lambda point: point[1] or 0.0), max(told, key=lambda point: point[1] or 0.0)}
        kept += sorted(ends)
    return [*kept, points[-1]]
