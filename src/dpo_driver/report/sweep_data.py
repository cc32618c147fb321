"""Everything that the report of a sweep shows, gathered from the records of its points; nothing is made up.

One row for each combination of the swept keys, all its training seeds together. ``sweep.py`` draws it, ``sweep_text``
prints it, ``sweep.json`` holds it for programs. Called by cli/sweep.py. Must not import torch, playwright or mlflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from dpo_driver.core.records import PairedDifference, Rate, Record
from dpo_driver.core.stats import rate
from dpo_driver.core.store import DATABASE, RunStore
from dpo_driver.flywheel.sweep_plan import SHARED, Plan, Point, States, written
from dpo_driver.report.data import TEST_STAGE
from dpo_driver.report.sweep_stats import Outcomes, holm, pooled_difference, pooled_rate

SIGNIFICANCE = 0.05
Verdict = Literal["base", "better", "worse", "open", "missing"]


class SweepPoint(Record):
    """One run: its folder's name, its training seed, how far it came, its own figures once it is done, and its working
    seconds; those of ``shared`` stages were spent in another point."""

    slug: str
    seed: int
    state: Literal["waiting", "done", "failed"]
    reason: str = ""
    success: Rate | None = None
    sft: Rate | None = None
    gain: PairedDifference | None = None
    seconds: float = 0.0
    shared_seconds: float = 0.0
    shared: tuple[str, ...] = ()


class SweepRow(Record):
    """A combination of values over all its training seeds that are done.

    ``success`` is strict, of the run's last model on the test seeds; ``gain`` is over its SFT parent, ``against_base``
    over the base row, both paired by page and training seed; ``p_holm`` is the exact test's p-value of the latter,
    adjusted for the number of rows that are compared. ``seconds`` are those of one run, as if it had shared nothing."""

    values: dict[str, Any]
    label: str
    is_base: bool
    points: tuple[SweepPoint, ...]
    success: Rate | None = None
    sft: Rate | None = None
    gain: PairedDifference | None = None
    against_base: PairedDifference | None = None
    p_holm: float | None = None
    seconds: float | None = None

    @property
    def done(self) -> tuple[SweepPoint, ...]:
        return tuple(point for point in self.points if point.state == "done")

    @property
    def verdict(self) -> Verdict:
        """What the comparison with the base allows to be said: its interval lies on one side of 0 and the adjusted test
        agrees, or nothing is shown."""
        if self.is_base:
            return "base"
        found = self.against_base
        if found is None or found.low is None or found.high is None:
            return "missing"
        if self.p_holm is None or self.p_holm >= SIGNIFICANCE or found.low <= 0 <= found.high:
            return "open"
        return "better" if found.low > 0 else "worse"


class SweepReport(Record):
    """A whole sweep, finished or not: ``values`` are those of every swept key, ``base`` those compared with."""

    schema_version: Literal[1] = 1
    sweep: str
    agent: Literal["dpo", "grpo"]  # the last model of every run
    about: str
    written: str  # UTC
    values: dict[str, tuple[Any, ...]]
    base: dict[str, Any]
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    rows: tuple[SweepRow, ...]

    @property
    def points(self) -> tuple[SweepPoint, ...]:
        return tuple(point for row in self.rows for point in row.points)

    @property
    def failed(self) -> tuple[SweepPoint, ...]:
        return tuple(point for point in self.points if point.state == "failed")

    @property
    def base_label(self) -> str:
        return label(self.base)

    @property
    def seconds(self) -> float:
        """Spent on all points, shared stages once."""
        return sum(point.seconds - point.shared_seconds for point in self.points)

    @property
    def saved_seconds(self) -> float:
        """What the shared stages would have taken again."""
        return sum(point.shared_seconds for point in self.points)


def label(values: Mapping[str, Any]) -> str:
    """A combination for people: the value alone where one key is swept, ``beta 0.1, r 8`` where several are."""
    if len(values) == 1:
        return written(next(iter(values.values())))
    return ", ".join(f"{key.rpartition('.')[2]} {written(value)}" for key, value in values.items())


def collect_sweep(plan: Plan, states: States) -> SweepReport:
    """The report of a sweep as far as it has come.

    Raises:
        StoreError: a point's run cannot be read.
    """
    rows: dict[str, list[Point]] = {}
    for point in plan.points:
        rows.setdefault(point.row, []).append(point)
    tested: dict[str, dict[str, Outcomes]] = {}  # agent -> row -> outcomes
    made = []
    for name, members in rows.items():
        outcomes: dict[str, dict[tuple[str, int, int], bool | None]] = {"sft": {}, plan.agent: {}}
        points = tuple(_point(point, states, outcomes) for point in members)
        for agent, found in outcomes.items():
            tested.setdefault(agent, {})[name] = found
        values = {key: members[0].values[key] for key in plan.keys}
        row = SweepRow(values=values, label=label(values), is_base=values == plan.base, points=points)
        made.append(row.model_copy(update=_figures(row, outcomes, plan.agent)) if row.done else row)
    base = next((name for name, row in zip(rows, made, strict=True) if row.is_base), None)
    compared = _compared(list(zip(rows, made, strict=True)), base, tested.get(plan.agent, {}))
    return SweepReport(
        sweep=plan.folder.name,
        agent=plan.agent,
        about=plan.about,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        values=plan.values,
        base=plan.base,
        seeds=tuple(dict.fromkeys(point.seed for point in plan.points)),
        tasks=tuple(dict.fromkeys(task for point in plan.points for task in point.config.env.tasks)),
        rows=tuple(compared),
    )


def _point(point: Point, states: States, outcomes: Mapping[str, dict[tuple[str, int, int], bool | None]]) -> SweepPoint:
    """A point's figures; its outcomes are added to its row's."""
    state = states[point.slug]
    found = SweepPoint(slug=point.slug, seed=point.seed, state=state.state, reason=state.reason)
    if not (point.config.run_dir / DATABASE).is_file():
        return found
    with RunStore(point.config.run_dir, mode="read") as store:
        stages = store.stages()
        shared = [stage for stage in stages if stage.done and store.get_fact(SHARED.format(stage.stage))]
        seconds = {"seconds": sum(stage.seconds for stage in stages),
                   "shared_seconds": sum(stage.seconds for stage in shared),
                   "shared": tuple(stage.stage for stage in shared)}  # fmt: skip
        found = found.model_copy(update=seconds)
        if state.state != "done":
            return found
        own = {agent: _outcomes(store, agent, point.seed) for agent in outcomes}
    for agent, table in own.items():
        outcomes[agent].update(table)
    last = next(agent for agent in own if agent != "sft")
    return found.model_copy(update={"success": rate(own[last].values()), **_parent(own, last)})


def _outcomes(store: RunStore, agent: str, seed: int) -> dict[tuple[str, int, int], bool | None]:
    kept = store.outcomes(TEST_STAGE.format(agent))
    return {(family, page, seed): success for (family, page), (_, success) in kept.items()}


def _parent(outcomes: Mapping[str, Outcomes], last: str) -> dict[str, Any]:
    """The SFT parent's success and the gain of the last model over it, where it was tested."""
    if not outcomes["sft"]:
        return {}
    return {"sft": pooled_rate(outcomes["sft"]), "gain": pooled_difference(outcomes["sft"], outcomes[last])}


def _figures(row: SweepRow, outcomes: Mapping[str, Outcomes], last: str) -> dict[str, Any]:
    seconds = sum(point.seconds for point in row.done) / len(row.done)
    return {"success": pooled_rate(outcomes[last]), "seconds": seconds, **_parent(outcomes, last)}


def _compared(
    rows: Sequence[tuple[str, SweepRow]], base: str | None, outcomes: Mapping[str, Outcomes]
) -> list[SweepRow]:
    """The rows with their differences to the base row, as far as both are measured."""
    found: dict[str, PairedDifference] = {}
    for name, row in rows:
        if base is not None and name != base and row.done and outcomes[base]:
            difference = pooled_difference(outcomes[base], outcomes[name])
            if difference.mean is not None:
                found[name] = difference
    adjusted = dict(zip(found, holm([difference.p_mcnemar or 0.0 for difference in found.values()]), strict=True))
    return [
        row.model_copy(update={"against_base": found[name], "p_holm": adjusted[name]}) if name in found else row
        for name, row in rows
    ]
