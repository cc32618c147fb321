"""Promote: the candidate becomes champion only if its gain on held-out seeds is proven. Called by the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Decision, ModelVersion, PairedDifference, Task
from dpo_driver.core.stats import paired_difference
from dpo_driver.flywheel.champion import measure_rival, registered, rival
from dpo_driver.flywheel.collect import make_tasks
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.evaluate import Outcomes, outcomes
from dpo_driver.flywheel.monitors import Alarm, run_monitors
from dpo_driver.flywheel.monitors.gather import evidence_of
from dpo_driver.registry.versions import address

SIGNIFICANCE = 0.05


def promote(ctx: RunContext) -> Decision:
    """Decide by the measured gain, move the aliases, and say why. What online training made has a gate of its own,
    against what the first gate left.

    Raises:
        DataError: parent and candidate have not both been evaluated.
    """
    chosen = ctx.store.get_fact("chosen/dpo") or "dpo-1"
    decision = _gate(ctx, "dpo", chosen, "sft", "gain")
    if not ctx.config.grpo.episodes:
        return decision
    if decision.promoted:
        return _gate(ctx, "grpo", "grpo", chosen, "gain_online", "online")
    return _gate(ctx, "grpo", "grpo", "sft", "gain_online_over_sft", "online")


def _gate(ctx: RunContext, agent: str, candidate: str, parent: str, key: str, which: str = "") -> Decision:
    """One gate: the candidate's gain over its parent, and over the project's champion where that is another model."""
    stage = f"promote/{which}" if which else "promote"
    facts = ("alarms_online", "decision_online") if which else ("alarms", "decision")

    def work() -> dict[str, Any]:
        ctx.store.set_fact(facts[0], [alarm.model_dump(mode="json") for alarm in alarms])
        ctx.store.set_fact(facts[1], decision.model_dump(mode="json"))
        return move_aliases(ctx, decision, parent, candidate)

    if ctx.store.stage_status(stage).state != "done":
        measured = ctx.store.get_fact(key)
        if measured is None:
            raise DataError(f"there is nothing to decide by: {agent} and its parent have not both been evaluated",
                            where=str(ctx.run_dir), remedy="run `dpo-driver evaluate` first")  # fmt: skip
        gain = PairedDifference.model_validate(measured)
        alarms = run_monitors(evidence_of(ctx.store, f"evaluate/test/{agent}"))
        per_task, judged = ctx.config.evaluate.episodes_per_task, f"evaluate/test/{agent}"
        decision = judge(ctx, gain, alarms, candidate, parent, judged, "evaluate/champion", per_task)
    return Decision.model_validate(ctx.stage(stage, f"promote or refuse {candidate}", work)["decision"])


def judge(
    ctx: RunContext, gain: PairedDifference, alarms: Sequence[Alarm], candidate: str, parent: str, judged: str,
    rivals: str, per_task: int, first: int = 0,
) -> Decision:  # fmt: skip
    """What a gate says: by the gain over the parent, the monitors, and the project's champion where that is another.

    Args:
        ctx: the run.
        gain: of the candidate over its parent.
        alarms: of the monitors.
        candidate: by the run's name for it, as ``parent`` is.
        parent: what it was trained from.
        judged: stage of the candidate's episodes.
        rivals: stage below which the champion's are kept.
        per_task: held-out episodes of a family that were judged.
        first: of the block's seeds the first of them.
    """
    names = ctx.version_name(candidate), ctx.version_name(parent)
    decision = with_alarms(decide(gain, *names, ctx.config.promote.min_gain), alarms)
    if (held := rival(ctx, parent, candidate)) is None:
        return decision
    tasks = make_tasks(ctx, "test", dict.fromkeys(ctx.config.env.tasks, per_task), first)
    return against_rival(ctx, decision, held, outcomes(ctx, judged), rivals, tasks)


def against_rival(
    ctx: RunContext, decision: Decision, held: ModelVersion, ours: Outcomes, stage: str, tasks: Sequence[Task]
) -> Decision:
    """What a gate says where the project's champion is neither parent nor candidate: it stays unless it is beaten too.

    Args:
        ctx: the run.
        decision: by the gain over the parent.
        held: the champion.
        ours: what the candidate did on ``tasks``.
        stage: the champion's episodes are kept below it.
        tasks: held-out tasks.
    """
    own = f"over its parent {decision.champion}: {decision.reasons[0]}"
    champion = address(held)
    if not decision.promoted:
        return decision.model_copy(update={"champion": champion, "reasons": (own, *decision.reasons[1:])})
    gain = paired_difference(measure_rival(ctx, held, stage, tasks), ours)
    second = decide(gain, decision.candidate, champion, ctx.config.promote.min_gain)
    reasons = (f"over the champion {champion} ({held.name}): {second.reasons[0]}", own)
    return second.model_copy(update={"reasons": reasons})


def move_aliases(ctx: RunContext, decision: Decision, parent: str, candidate: str) -> dict[str, Any]:
    """Carry a decision out; a project without a champion begins with the parent. Returns the stage's facts."""
    if ctx.registry.find("champion") is None:
        ctx.registry.set_alias("champion", registered(ctx, parent))
    version = registered(ctx, candidate)
    ctx.registry.set_alias("candidate", version)
    if decision.promoted:
        ctx.registry.promote(version, decision)
    else:
        ctx.registry.refuse(version, decision)
    verdict = "promoted" if decision.promoted else "refused"
    return {"summary": f"{verdict}: {decision.reasons[0]}", "decision": decision.model_dump(mode="json")}


def with_alarms(decision: Decision, alarms: Sequence[Alarm]) -> Decision:
    """No promotion where a monitor has something to say; its reasons come first."""
    if not alarms:
        return decision
    reasons = tuple(f"{alarm.monitor}: {alarm.why}" for alarm in alarms)
    return decision.model_copy(update={"promoted": False, "reasons": (*reasons, *decision.reasons)})


def decide(gain: PairedDifference, candidate: str, champion: str, min_gain: float) -> Decision:
    """The gate: the whole 95 % interval of the paired gain must lie above ``min_gain``, and the exact test agree.

    The bootstrap is optimistic on few episodes; McNemar's exact test is not.
    """
    if gain.mean is None or gain.low is None or gain.high is None:
        return Decision(promoted=False, candidate=candidate, champion=champion, gain=gain,
                        reasons=("no pair of episodes could be compared",))  # fmt: skip
    interval = f"[{gain.low:+.1%}, {gain.high:+.1%}], n = {gain.n} pairs"
    significant = gain.p_mcnemar is not None and gain.p_mcnemar < SIGNIFICANCE
    promoted = gain.low > min_gain and significant
    if promoted:
        reason = f"{gain.mean:+.1%} {interval}, wholly above {min_gain:+.1%}"
    elif gain.low > min_gain:
        reason = f"{gain.mean:+.1%} {interval}, but the exact test gives p = {gain.p_mcnemar:.3f}"
    else:
        reason = f"the interval {interval} is not wholly above {min_gain:+.1%}"
    return Decision(promoted=promoted, candidate=candidate, champion=champion, gain=gain, reasons=(reason,))
