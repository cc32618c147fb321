"""A turn of the browser agent: the champion acts, success is paired against failure, DPO trains, fresh seeds judge.

Every turn is a round of one run, so whatever was stopped goes on from disk. Called by loop.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from dpo_driver.agents.prompt import get_profile
from dpo_driver.core.records import Decision, EvalReport, Sampling
from dpo_driver.core.stats import paired_difference
from dpo_driver.flywheel.champion import own_champion
from dpo_driver.flywheel.collect import collect, make_tasks, model_agent, oracle, roll_out
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.evaluate import outcomes, report_on
from dpo_driver.flywheel.jobs import Work
from dpo_driver.flywheel.learn.budget import check, spent
from dpo_driver.flywheel.learn.reading import Filter, read
from dpo_driver.flywheel.learn.settings import LearnSettings
from dpo_driver.flywheel.monitors import run_monitors
from dpo_driver.flywheel.monitors.gather import evidence_of
from dpo_driver.flywheel.pair import pair
from dpo_driver.flywheel.promote import judge, move_aliases
from dpo_driver.flywheel.train import dpo, sft
from dpo_driver.preferences.interactions import trajectories_of_interactions

FEW_PAIRS = 500  # fewer are warned of
EXPERT_PER_TASK = 10
SHARES = {"begin": 0.0, "collect": 0.1, "pair": 0.4, "dpo": 0.45, "gate": 0.7, "promote": 0.98}  # of a turn, roughly


def take_turn(
    ctx: RunContext, number: int, settings: LearnSettings, work: Work, keep: Filter | None, seen: int
) -> dict[str, Any]:
    """One turn, or what is left of it.

    Args:
        ctx: the agent's run.
        number: of the turn, from 1.
        settings: see settings.py.
        work: the job, told of every phase.
        keep: the content filter.
        seen: number of the last row of the inbox that an earlier turn has read.

    Returns:
        What came of it as JSON; ``decision.promoted`` says whether there is a new champion.

    Raises:
        BudgetSpent: before a phase that would cost more than is allowed.
    """

    def phase(name: str) -> None:
        check(spent(ctx.store), settings.budget)
        work.phase(f"turn {number}: {name}", SHARES[name])

    phase("begin")
    if settings.start == "sft":
        sft(ctx)
    # A person may have rolled back or promoted by hand since the last turn.
    champion = ctx.store.get_fact(f"parent/{number}") or own_champion(ctx) or standing(ctx, number - 1, settings.start)
    ctx.store.set_fact(f"parent/{number}", champion)
    phase("collect")
    collect(ctx, number)
    upto, taken = _take_in(ctx, number, keep, seen)
    phase("pair")
    found = pair(ctx, number)
    facts: dict[str, Any] = {
        "turn": number, "parent": ctx.version_name(champion), "pairs": found.pairs, "from_inbox": taken,
        "seen": {"": upto}, "warnings": list(found.warnings),
    }  # fmt: skip
    if found.pairs < FEW_PAIRS:
        facts["warnings"].append(f"{found.pairs} pairs: under {FEW_PAIRS} gains are small and easily chance")
        ctx.say(f"[yellow]{facts['warnings'][-1]}[/yellow]")
    if not found.pairs:
        decision = Decision(promoted=False, candidate="", champion=ctx.version_name(champion),
                            reasons=("no pairs: the agent always or never succeeds where it tried",))  # fmt: skip
        return facts | _ended(ctx, number, champion, decision)
    phase("dpo")
    dpo(ctx, number)
    phase("gate")
    candidate = f"dpo-{number}"
    before, after = (_judge(ctx, number, name, settings.gate_per_task) for name in (champion, candidate))
    _expert(ctx, number, settings.gate_per_task)
    phase("promote")
    decision = _promote(ctx, number, champion, candidate, settings.gate_per_task)
    facts |= {
        "candidate": ctx.version_name(candidate),
        "before": before.strict.model_dump(mode="json"), "after": after.strict.model_dump(mode="json"),
    }  # fmt: skip
    return facts | _ended(ctx, number, candidate if decision.promoted else champion, decision)


def standing(ctx: RunContext, number: int, start: str) -> str:
    """The model that was champion after a turn; 0 is the start."""
    return str(ctx.store.get_fact(f"standing/{number}") or start)


def account(ctx: RunContext, turns: int, settings: LearnSettings) -> dict[str, Any]:
    """Success after every turn on the same held-out seeds, which judged no turn, and the paired gain over the start."""
    names = [standing(ctx, number, settings.start) for number in range(turns + 1)]
    rows = []
    for number, name in enumerate(names):
        report = measure_on(ctx, f"final/{name}", name, settings.final_per_task, 0)
        gain = None
        if name != names[0]:
            gain = paired_difference(outcomes(ctx, f"final/{names[0]}"), outcomes(ctx, f"final/{name}"))
        rows.append({"turn": number, "model": ctx.version_name(name), "strict": report.strict.model_dump(mode="json"),
                     "gain_over_start": gain.model_dump(mode="json") if gain else None})  # fmt: skip
    return {"episodes_per_task": settings.final_per_task, "families": len(ctx.config.env.tasks), "by_turn": rows}


def measure_on(ctx: RunContext, stage: str, name: str, per_task: int, offset: int) -> EvalReport:
    """A model of the run, greedy, on test seeds that begin ``offset`` seeds into the block."""

    def work() -> dict[str, Any]:
        tasks = make_tasks(ctx, "test", dict.fromkeys(ctx.config.env.tasks, per_task), offset)
        sampling = Sampling(temperature=0.0, max_new_tokens=ctx.config.evaluate.max_new_tokens)
        agent = model_agent(ctx, name, sampling)
        began = time.monotonic()
        roll_out(ctx, stage, f"{name} on held-out seeds", tasks, agent)
        report = report_on(ctx.store.trajectories(stage), name, agent.policy_version, "test", time.monotonic() - began)
        rate = report.strict
        told = "nothing could be measured"
        if rate.success is not None:
            told = f"{rate.success:.1%} [{rate.low:.1%}, {rate.high:.1%}], n = {rate.n}, {rate.excluded} excluded"
        return {"summary": told, "report": report.model_dump(mode="json")}

    return EvalReport.model_validate(ctx.stage(stage, stage.replace("/", " "), work)["report"])


def _judge(ctx: RunContext, number: int, name: str, per_task: int) -> EvalReport:
    return measure_on(ctx, f"gate/{number}/{name}", name, per_task, _first_seed(ctx, number, per_task))


def _first_seed(ctx: RunContext, number: int, per_task: int) -> int:
    """Every turn has held-out seeds of its own, in the second half of the block; the account's are in the first."""
    first, last = ctx.config.seeds.test
    return (last - first + 1) // 2 + (number - 1) * per_task


def _expert(ctx: RunContext, number: int, per_task: int) -> None:
    """The scripted expert on some of the turn's held-out seeds: monitors compare with its steps."""

    def work() -> dict[str, Any]:
        expert = oracle(ctx)
        names = [name for name in ctx.config.env.tasks if name in expert.families]
        counts = dict.fromkeys(names, min(EXPERT_PER_TASK, per_task))
        tasks = make_tasks(ctx, "test", counts, _first_seed(ctx, number, per_task)) if names else []
        if tasks:
            roll_out(ctx, f"gate/{number}/expert", "the expert on the same seeds", tasks, expert)
        return {"summary": f"{len(tasks)} episodes"}

    ctx.stage(f"gate/{number}/expert", f"turn {number}: expert", work)


def _take_in(ctx: RunContext, number: int, keep: Filter | None, seen: int) -> tuple[int, int]:
    """Trajectories from the inbox join the round's rollouts, where they were written by the prompt of this run."""

    def work() -> dict[str, Any]:
        root = Path(ctx.run_dir.resolve().parent)
        taken = read(root, "", f"turn {number} of {ctx.config.project.name}", after=seen, keep=keep)
        profile = get_profile(ctx.config.model.prompt_profile).id
        mine = [one for one in trajectories_of_interactions(taken.rows) if one.context_policy == profile]
        ctx.store.add_trajectories(f"collect/{number}", mine)
        return {"summary": f"{len(mine)} trajectories from the inbox", "upto": taken.upto, "taken": len(mine)}

    facts = ctx.stage(f"inbox/{number}", f"turn {number}: inbox", work)
    return int(facts["upto"]), int(facts["taken"])


def _promote(ctx: RunContext, number: int, champion: str, candidate: str, per_task: int) -> Decision:
    stage = f"promote/{number}"
    before, after = f"gate/{number}/{champion}", f"gate/{number}/{candidate}"

    def work() -> dict[str, Any]:
        return move_aliases(ctx, decision, champion, candidate) | {
            "alarms": [alarm.model_dump(mode="json") for alarm in alarms]
        }

    if ctx.store.stage_status(stage).state != "done":
        gain = paired_difference(outcomes(ctx, before), outcomes(ctx, after))
        alarms = run_monitors(evidence_of(ctx.store, after, f"gate/{number}/expert"))
        first = _first_seed(ctx, number, per_task)
        decision = judge(ctx, gain, alarms, candidate, champion, after, f"gate/{number}", per_task, first)
    facts = ctx.stage(stage, f"turn {number}: promote or refuse", work)
    return Decision.model_validate(facts["decision"])


def _ended(ctx: RunContext, number: int, stands: str, decision: Decision) -> dict[str, Any]:
    ctx.store.set_fact(f"standing/{number}", stands)
    return {"decision": decision.model_dump(mode="json"), "champion": ctx.version_name(stands)}
