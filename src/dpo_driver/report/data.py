"""Everything a report shows, gathered from the records of one run directory. Nothing is computed twice and nothing is
made up: what is not in the records is listed as missing.

``page.py`` draws it, ``text.py`` prints it, ``report_json`` is its face for programs (``dpo-driver report --json``).
Must not import torch, playwright, mlflow or the flywheel: a report needs the run directory and nothing else.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from dpo_driver.core.errors import StoreError
from dpo_driver.core.records import Decision, EvalReport, PairedDifference, Preference, Rate, Record, Trajectory
from dpo_driver.core.store import RunStore

# In the order of the story: floor, start, parent, its best, the control, the candidate, ceiling.
AGENTS = ("random", "base", "sft", "memory", "sft_best", "control", "dpo", "grpo", "oracle")
OPTIONAL = ("memory", "grpo")  # only in runs that ask for it
GAINS = ("gain", "gain_over_control", "gain_over_sft_best", "gain_unsaturated", "gain_memory", "gain_online")
SATURATED = 0.95
SAMPLE_PAIRS = 24
REPLAYS = 12  # of each kind, unless the run's configuration says otherwise
TEST_STAGE, REPLAY_STAGE = "evaluate/test/{}", "replay/{}"

Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item")


class Curve(Record):
    """One metric of one training stage: ``Curve(stage="dpo/1", name="loss", points=((1, 0.693), (2, 0.688)))``."""

    stage: str
    name: str
    points: tuple[tuple[int, float], ...]


class StageTime(Record):
    """Working seconds of a stage and how far it came: "running" or "done"."""

    stage: str
    state: str
    seconds: float


class Replay(Record):
    """One held-out episode that the two agents ended differently. ``kind`` is "won" (only the candidate solved it) or
    "lost" (only the parent did)."""

    kind: Literal["won", "lost"]
    before: Trajectory
    after: Trajectory


class HeldOut(Record):
    """A group of families that were never trained on: what each agent makes of it, and DPO's gain over SFT there."""

    title: str
    agents: dict[str, EvalReport]
    gain: PairedDifference | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Its families."""
        return tuple(sorted({task for report in self.agents.values() for task in report.tasks}))


class RunReport(Record):
    """What is known of one run. ``missing`` says in words what is not (yet)."""

    run: str
    written: str  # when this report was made, UTC
    agents: dict[str, EvalReport]
    gain: PairedDifference | None
    gain_over_control: PairedDifference | None
    gain_over_sft_best: PairedDifference | None
    gain_unsaturated: PairedDifference | None
    gain_memory: PairedDifference | None  # of the SFT model with solved tasks in its prompt over itself without
    gain_online: PairedDifference | None  # of online training over the model that it started from
    online: bool  # whether the run asks for online training
    saturated: tuple[str, ...]  # families that SFT already solves; the third gain leaves them out
    decision: Decision | None
    decision_online: Decision | None
    power: str | None
    pair_stats: dict[str, dict[str, Any]]  # by round
    pairs: tuple[Preference, ...]  # a sample, spread over the tasks
    pair_count: int
    replays: tuple[Replay, ...]
    won: int  # held-out episodes that only the candidate solved; of these and the lost ones, replays are a sample
    lost: int
    curves: tuple[Curve, ...]
    stages: tuple[StageTime, ...]
    config: str | None
    environment: dict[str, str]
    seed_blocks: dict[str, tuple[int, int]]
    held_out: tuple[HeldOut, ...]
    missing: tuple[str, ...]

    def rate(self, agent: str, task: str | None = None) -> Rate | None:
        """An agent's strict success overall or on one task; None when it was not measured."""
        report = self.agents.get(agent)
        if report is None:
            return None
        return report.strict if task is None else report.tasks.get(task)

    @property
    def shown(self) -> tuple[str, ...]:
        """The agents that this run is about, in the order of the story."""
        asked = {"grpo"} if self.online else set()
        return tuple(name for name in AGENTS if name not in OPTIONAL or name in {*asked, *self.agents})

    @property
    def tasks(self) -> tuple[str, ...]:
        """All task families that any agent was measured on."""
        return tuple(sorted({task for report in self.agents.values() for task in report.tasks}))


def collect_report(store: RunStore, run_dir: str | Path, *, replays: int | None = None) -> RunReport:
    """Gather a run's report; an unfinished run gives one too.

    Args:
        store: the run's store; mode "read" is enough, also while the run is going.
        run_dir: names the run.
        replays: how many of each kind; the run's configuration decides when None.

    Raises:
        StoreError: a fact in the store is not what its key promises.
    """
    agents = {name: agent for name in AGENTS if (agent := _fact(store, f"eval/{name}", EvalReport)) is not None}
    gains = {name: _fact(store, name, PairedDifference, besides={"left_out"}) for name in GAINS}
    config = store.get_fact("config")
    settings = _settings(config)
    wanted = settings.get("report", {}).get("replays", REPLAYS) if replays is None else replays
    won, lost = _discordant(store)
    pairs = store.preferences()
    report = RunReport(
        run=Path(run_dir).resolve().name,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        agents=agents,
        **gains,
        saturated=_saturated(store, agents.get("sft")),
        online=bool(settings.get("grpo", {}).get("episodes", 0)),
        decision=_fact(store, "decision", Decision),
        decision_online=_fact(store, "decision_online", Decision),
        power=store.get_fact("power"),
        pair_stats=_pair_stats(store),
        pairs=tuple(_spread(pairs, SAMPLE_PAIRS, lambda row: row.task_name, lambda row: (-row.margin, row.id))),
        pair_count=len(pairs),
        replays=(*_replays(store, "won", won, wanted), *_replays(store, "lost", lost, wanted)),
        won=len(won),
        lost=len(lost),
        curves=_curves(store),
        stages=tuple(StageTime(stage=s.stage, state=s.state, seconds=s.seconds) for s in store.stages()),
        config=config,
        environment={str(key): str(value) for key, value in (store.get_fact("environment") or {}).items()},
        seed_blocks={name: tuple(block) for name, block in settings.get("seeds", {}).items()},
        held_out=_held_out(store, settings.get("evaluate", {}).get("held_out", {})),
        missing=(),
    )
    return report.model_copy(update={"missing": tuple(_missing(report))})


def report_json(run_dir: str | Path) -> dict[str, Any]:
    """The figures of a run as plain JSON: see :func:`to_json`."""
    with RunStore(run_dir, mode="read") as store:
        return to_json(collect_report(store, run_dir, replays=0))


def to_json(report: RunReport) -> dict[str, Any]:
    """Figures by agent (rates as fractions, null where not measured), gains, seconds, tasks, what is missing."""
    figures: dict[str, Any] = {}
    optional = [name for name in OPTIONAL if name in report.shown]
    for name in ("random", "oracle", "base", "sft", "sft_best", "dpo", "control", *optional):
        rate = report.rate(name)
        figures[name] = rate.model_dump() if rate else None
    for name in GAINS:
        figures[name] = _plain(getattr(report, name))
    figures["seconds"] = {stage.stage: round(stage.seconds, 3) for stage in report.stages}
    figures["tasks"] = {
        task: {name: rate.success for name in report.agents if (rate := report.rate(name, task)) is not None}
        for task in report.tasks
    }
    figures["by_task"] = {task: _rates(report.agents, task) for task in report.tasks}
    figures["held_out"] = {
        group.title: {
            "agents": {name: agent.strict.model_dump() for name, agent in group.agents.items()},
            "gain": _plain(group.gain),
            "by_task": {task: _rates(group.agents, task) for task in group.tasks},
        }
        for group in report.held_out
    }
    figures["positive"] = {name: agent.positive.model_dump() for name, agent in report.agents.items()}
    figures["stop_reasons"] = {name: agent.stop_reasons for name, agent in report.agents.items()}
    figures["saturated"] = list(report.saturated)
    figures["discordant"] = {"won": report.won, "lost": report.lost}
    for name in ("decision", "decision_online"):
        decision: Decision | None = getattr(report, name)
        figures[name] = decision.model_dump(mode="json") if decision else None
    figures["power"] = report.power
    figures["pairs"] = report.pair_stats
    figures["seeds"] = {name: list(block) for name, block in report.seed_blocks.items()}
    figures["missing"] = list(report.missing)
    return figures


def _plain(gain: PairedDifference | None) -> dict[str, Any] | None:
    return gain.model_dump(include={"mean", "low", "high", "n", "p_mcnemar"}) if gain else None


def _rates(agents: Mapping[str, EvalReport], task: str) -> dict[str, Any]:
    """What each agent reached on a family, with interval, n and how many were excluded."""
    return {name: agent.tasks[task].model_dump() for name, agent in agents.items() if task in agent.tasks}


# -- reading the records ---------------------------------------------------------------------------------------------


def _fact(
    store: RunStore, key: str, kind: type[Model], besides: Collection[str] = (), part: str | None = None
) -> Model | None:
    """The record kept under a key, or None; ``besides`` are entries of the fact that are not the record's. Where a fact
    holds several records by name, ``part`` says which."""
    value = store.get_fact(key)
    if value is not None and part is not None:
        value = value.get(part)
    if value is None:
        return None
    if isinstance(value, dict):
        value = {name: entry for name, entry in value.items() if name not in besides}
    try:
        return kind.model_validate_json(value if isinstance(value, str) else json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        raise StoreError(
            f"the fact {key!r} is no {kind.__name__}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            where=str(store.run_dir),
            remedy="run the stage that writes it again: dpo-driver evaluate",
        ) from None


def _held_out(store: RunStore, groups: Mapping[str, Any]) -> tuple[HeldOut, ...]:
    """The groups that the configuration names, with what has been measured of them so far."""
    found = []
    for title in groups:
        reports = {name: _fact(store, f"eval_held_out/{name}", EvalReport, part=title) for name in AGENTS}
        gain = _fact(store, "gain_held_out", PairedDifference, part=title)
        agents = {name: report for name, report in reports.items() if report is not None}
        found.append(HeldOut(title=title, agents=agents, gain=gain))
    return tuple(found)


def _saturated(store: RunStore, sft: EvalReport | None) -> tuple[str, ...]:
    """The families that the third gain leaves out: as recorded with it, otherwise by the same rule."""
    fact = store.get_fact("gain_unsaturated") or {}
    if "left_out" in fact:
        return tuple(fact["left_out"])
    tasks = sft.tasks.items() if sft else ()
    return tuple(name for name, rate in sorted(tasks) if rate.success is not None and rate.success >= SATURATED)


def _settings(config: str | None) -> dict[str, Any]:
    settings = yaml.safe_load(config) if config else None
    return settings if isinstance(settings, dict) else {}


def _pair_stats(store: RunStore) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    number = 1
    while (stats := store.get_fact(f"pair_stats/{number}")) is not None:
        found[str(number)] = stats
        number += 1
    return found


def _curves(store: RunStore) -> tuple[Curve, ...]:
    stages = ["sft"]
    for head in ("dpo", "control"):
        number = 1
        while store.metrics(f"{head}/{number}"):
            stages.append(f"{head}/{number}")
            number += 1
    if store.metrics("grpo"):
        stages.append("grpo")
    return tuple(
        Curve(stage=stage, name=name, points=tuple(points))
        for stage in stages
        for name, points in sorted(store.metrics(stage).items())
    )


def _discordant(store: RunStore) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(task, seed) of held-out episodes that only the candidate solved, and that only the parent solved."""
    before, after = (store.outcomes(TEST_STAGE.format(agent)) for agent in ("sft", "dpo"))
    both = [key for key in before if before[key][1] is not None and after.get(key, ("", None))[1] is not None]
    won = [key for key in both if after[key][1] and not before[key][1]]
    return won, [key for key in both if before[key][1] and not after[key][1]]


def _replays(
    store: RunStore, kind: Literal["won", "lost"], keys: Sequence[tuple[str, int]], wanted: int
) -> Iterable[Replay]:
    chosen = _spread(keys, wanted, lambda key: key[0], lambda key: key[1])
    for key in chosen:
        before, after = (_trajectory(store, agent, key) for agent in ("sft", "dpo"))
        yield Replay(kind=kind, before=before, after=after)


def _trajectory(store: RunStore, agent: str, key: tuple[str, int]) -> Trajectory:
    """The tested trajectory, or the same one rolled out again for its pictures if that ended the same way."""
    tested = store.trajectory(store.outcomes(TEST_STAGE.format(agent))[key][0])
    again = store.outcomes(REPLAY_STAGE.format(agent)).get(key)
    return store.trajectory(again[0]) if again is not None and again[1] == tested.success else tested


def _spread(items: Sequence[Item], wanted: int, group: Any, order: Any) -> list[Item]:
    """Up to ``wanted`` items, one of each group in turn, so that no task crowds out the others."""
    by_group: dict[Any, list[Item]] = defaultdict(list)
    for item in sorted(items, key=order):
        by_group[group(item)].append(item)
    ranked = [(rank, name, item) for name, members in by_group.items() for rank, item in enumerate(members)]
    return [item for _, _, item in sorted(ranked, key=lambda entry: entry[:2])[:wanted]]


def _missing(report: RunReport) -> Iterable[str]:
    for name in report.shown:
        if name not in report.agents:
            yield f"the evaluation of {name}"
    words = {
        "gain": "the paired gain of DPO over SFT",
        "gain_over_control": "the paired gain of DPO over the control",
        "gain_over_sft_best": "the paired gain of DPO over SFT at its best",
        "gain_unsaturated": "the gain without families that SFT already solves",
        "decision": "the promotion decision",
    }
    if report.online:
        words |= {"gain_online": "the paired gain of GRPO over DPO", "decision_online": "the decision about GRPO"}
    yield from (text for name, text in words.items() if getattr(report, name) is None)
    yield from (f"what was held out: {group.title}" for group in report.held_out if not group.agents)
    for stage, name in (("sft", "SFT"), ("dpo", "DPO"), ("control", "the control")):
        if not any(curve.stage.partition("/")[0] == stage for curve in report.curves):
            yield f"the training curves of {name}"
    if not report.pair_count:
        yield "preference pairs"
