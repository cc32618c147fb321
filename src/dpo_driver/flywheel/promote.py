"""Promote: the candidate becomes champion only if its gain on held-out seeds is proven. Called by the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Decision, PairedDifference
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.monitors import Alarm, run_monitors
from dpo_driver.flywheel.monitors.gather import evidence_of

SIGNIFICANCE = 0.05


def promote(ctx: RunContext) -> Decision:
    """Decide by the measured gain, move the aliases, and say why.

    Raises:
        DataError: parent and candidate have not both been evaluated.
    """

    def work() -> dict[str, Any]:
        measured = ctx.store.get_fact("gain")
        if measured is None:
            raise DataError("there is nothing to decide by: parent and candidate have not both been evaluated",
                            where=str(ctx.run_dir), remedy="run `dpo-driver evaluate` first")  # fmt: skip
        gain = PairedDifference.model_validate(measured)
        candidate = ctx.version_name(ctx.store.get_fact("chosen/dpo") or "dpo-1")
        parent = ctx.version_name("sft")
        alarms = run_monitors(evidence_of(ctx.store, "evaluate/test/dpo"))
        decision = with_alarms(decide(gain, candidate, parent, ctx.config.promote.min_gain), alarms)
        ctx.store.set_fact("alarms", [alarm.model_dump(mode="json") for alarm in alarms])
        ctx.store.set_fact("decision", decision.model_dump(mode="json"))
        ctx.registry.set_alias("champion", parent)
        ctx.registry.set_alias("candidate", candidate)
        if decision.promoted:
            ctx.registry.promote(candidate, decision)
        verdict = "promoted" if decision.promoted else "refused"
        return {"summary": f"{verdict}: {decision.reasons[0]}", "decision": decision.model_dump(mode="json")}

    facts = ctx.stage("promote", "promote or refuse", work)
    decision = Decision.model_validate(facts["decision"])
    return promote_online(ctx, decision) if ctx.config.grpo.episodes else decision


def promote_online(ctx: RunContext, before: Decision) -> Decision:
    """The second gate: what online training made, against the champion that the first gate left."""

    def work() -> dict[str, Any]:
        key = "gain_online" if before.promoted else "gain_online_over_sft"
        measured = ctx.store.get_fact(key)
        if measured is None:
            raise DataError("there is nothing to decide by: GRPO and its parent have not both been evaluated",
                            where=str(ctx.run_dir), remedy="run `dpo-driver evaluate` first")  # fmt: skip
        gain = PairedDifference.model_validate(measured)
        champion = before.candidate if before.promoted else before.champion
        alarms = run_monitors(evidence_of(ctx.store, "evaluate/test/grpo"))
        decision = decide(gain, ctx.version_name("grpo"), champion, ctx.config.promote.min_gain)
        decision = with_alarms(decision, alarms)
        ctx.store.set_fact("alarms_online", [alarm.model_dump(mode="json") for alarm in alarms])
        ctx.store.set_fact("decision_online", decision.model_dump(mode="json"))
        ctx.registry.set_alias("candidate", decision.candidate)
        if decision.promoted:
            ctx.registry.promote(decision.candidate, decision)
        verdict = "promoted" if decision.promoted else "refused"
        return {"summary": f"{verdict}: {decision.reasons[0]}", "decision": decision.model_dump(mode="json")}

    facts = ctx.stage("promote/online", "promote or refuse what online training made", work)
    return Decision.model_validate(facts["decision"])


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
