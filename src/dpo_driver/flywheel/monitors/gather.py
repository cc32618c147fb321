"""A run's records as evidence. Called by promote.py, learn/ and ``dpo-driver monitors``."""

from __future__ import annotations

import math

from dpo_driver.core.records import Rate, Trajectory
from dpo_driver.core.stats import mean_interval, rate
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.monitors.evidence import Evidence

ONLINE_SHARE = 5  # online training: its first fifth of updates against its last
LEAST_UPDATES = 5


def evidence_of(store: RunStore, held_out: str, expert: str | None = "evaluate/test/oracle") -> Evidence:
    """What a run holds.

    Args:
        store: of the run.
        held_out: the stage with the candidate's held-out episodes.
        expert: the stage with the scripted expert's on the same seeds, if there is one; its demonstrations count too.
    """
    rounds = sorted((each.stage for each in store.stages() if each.stage.startswith("collect/")), key=_number)
    training: list[Trajectory] = [one for stage in rounds for one in store.iterate(stage)]
    trend = [found for stage in rounds if (found := _point(store, stage)) is not None]
    shown = [*store.trajectories("demos"), *(store.trajectories(expert) if expert else ())]
    return Evidence(training=training, held_out=store.trajectories(held_out), expert=shown,
                    trend=[*trend, *_online(store)])  # fmt: skip


def _number(stage: str) -> int:
    return int(stage.rpartition("/")[2])


def _point(store: RunStore, stage: str) -> tuple[str, Rate, Rate] | None:
    """The policy of a round: how it did on training seeds, and before that on validation seeds."""
    facts = store.stage_status(stage).facts
    name = str(facts.get("parent", ""))
    report = store.stage_status(f"evaluate/val/{name}").facts.get("report")
    if report is None or facts.get("success") is None:
        return None
    return name, _counted(facts["success"], facts["n"]), Rate.model_validate(report["strict"])


def _online(store: RunStore) -> list[tuple[str, Rate, Rate]]:
    """Online training at its begin and at its end: mean reward of the updates, and the validation beside them."""
    logged = store.metrics("grpo")
    rewards = [value for _, value in logged.get("reward", ()) if not math.isnan(value)]
    validated = [value for _, value in logged.get("eval_success", ())]
    report = store.stage_status("evaluate/val/grpo").facts.get("report")
    size = len(rewards) // ONLINE_SHARE
    if size < LEAST_UPDATES or len(validated) < 2 or report is None:
        return []
    n = Rate.model_validate(report["strict"]).n
    parts = (("GRPO at its begin", rewards[:size], validated[0]), ("GRPO at its end", rewards[-size:], validated[-1]))
    return [(name, _mean(part), _counted(won, n)) for name, part, won in parts]


def _counted(share: float, n: int) -> Rate:
    return rate(number < round(share * n) for number in range(n))


def _mean(values: list[float]) -> Rate:
    low, high = mean_interval(values) or (None, None)
    return Rate(success=sum(values) / len(values), low=low, high=high, n=len(values))
