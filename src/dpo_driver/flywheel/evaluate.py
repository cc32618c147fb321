"""Evaluate: the same held-out seeds for every agent, failures excluded and counted, differences paired by seed.

Validation seeds choose (which round's model is the candidate); test seeds are used once per run, for the numbers that
are reported. Called by the command line and loop.py.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.protocols import Agent
from dpo_driver.core.records import EvalReport, PairedDifference, Sampling, Split, Trajectory
from dpo_driver.core.stats import paired_difference, power_line, rate
from dpo_driver.flywheel.collect import make_tasks, model_agent, oracle, roll_out
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.memory import memory_agent

REFERENCES = ("random", "oracle", "base", "sft_best")  # measured on fewer episodes
HELD_OUT = "evaluate/held-out/{}"  # stage of an agent; apart from evaluate/test, so that no gate ever reads it
SATURATED = 0.95  # a family that SFT solves this often has nothing left to show

Outcomes = dict[tuple[str, int], bool | None]


def agents_of(ctx: RunContext) -> dict[str, str | None]:
    """What can be evaluated: name in the report -> model of the run (None: a script)."""
    return {
        "random": None,
        "oracle": None,
        "base": "base",
        "sft": "sft",
        "sft_best": ctx.store.get_fact("chosen/sft_best") or "sft-best-1",
        "memory": "sft",
        "control": ctx.store.get_fact("chosen/control") or "control-1",
        "dpo": ctx.store.get_fact("chosen/dpo") or "dpo-1",
        "grpo": "grpo",
    }


def evaluate(ctx: RunContext, agents: Sequence[str] | None = None) -> dict[str, EvalReport]:
    """Measure agents on the test seeds and the differences between them.

    Args:
        ctx: an open run.
        agents: names in the report; the configuration's when None.

    Raises:
        UnknownNameError: an agent that is not in the list.
        ModelError: its model has not been trained yet.
    """
    known = agents_of(ctx)
    names = list(agents or agents_to_evaluate(ctx))
    for name in names:
        if name not in known:
            raise UnknownNameError("agent", name, known)
    reports = {name: measure(ctx, name, known[name], "test", _episodes_per_task(ctx, name)) for name in names}
    for name, report in reports.items():
        ctx.store.set_fact(f"eval/{name}", report.model_dump(mode="json"))
        model = known[name] or ""
        ctx.tracker.log_evaluation(
            report, model.replace("-", "/") if name in ("sft", "dpo", "control", "grpo") else None
        )
    _differences(ctx)
    for name in names if ctx.config.evaluate.held_out else ():
        _measure_held_out(ctx, name, known[name])
    _held_out_gains(ctx)
    return reports


def agents_to_evaluate(ctx: RunContext) -> list[str]:
    """Those that the configuration names, without those that it does not train."""
    return [name for name in ctx.config.evaluate.agents if name != "grpo" or ctx.config.grpo.episodes]


def _episodes_per_task(ctx: RunContext, name: str) -> int:
    settings = ctx.config.evaluate
    if name not in REFERENCES:
        return settings.episodes_per_task
    return min(settings.episodes_per_task, math.ceil(settings.reference_episodes / len(ctx.config.env.tasks)))


def measure(ctx: RunContext, name: str, model: str | None, split: Split, episodes_per_task: int) -> EvalReport:
    """Roll one agent out greedily on the first seeds of a block and count."""
    label = name if split == "test" else model or name
    stage = f"evaluate/{split}/{label}"

    def work() -> dict[str, Any]:
        tasks = make_tasks(ctx, split, dict.fromkeys(ctx.config.env.tasks, episodes_per_task))
        agent = _agent(ctx, name, model)
        began = time.monotonic()
        roll_out(ctx, stage, f"{label} on {split} seeds", tasks, agent, screenshots=False)
        report = report_on(ctx.store.trajectories(stage), name, agent.policy_version, split, time.monotonic() - began)
        return {"summary": _summary(report), "report": report.model_dump(mode="json")}

    facts = ctx.stage(stage, f"evaluate {label} ({split})", work)
    return EvalReport.model_validate(facts["report"])


def _measure_held_out(ctx: RunContext, name: str, model: str | None) -> None:
    """One agent on the families that are never trained on, group by group: for the report, and no part of the gate."""
    stage, settings = HELD_OUT.format(name), ctx.config.evaluate

    def work() -> dict[str, Any]:
        families = [family for group in settings.held_out.values() for family in group]
        tasks = make_tasks(ctx, "test", dict.fromkeys(families, settings.held_out_per_task))
        agent = _agent(ctx, name, model)
        began = time.monotonic()
        roll_out(ctx, stage, f"{name} on held-out families", tasks, agent, screenshots=False)
        seconds = time.monotonic() - began
        group_of: dict[str, str] = {}
        # A family may be listed under an alias; its tasks bear its own name.
        for title, group in settings.held_out.items():
            group_of |= {task.name: title for task in make_tasks(ctx, "test", dict.fromkeys(group, 1))}
        played = ctx.store.trajectories(stage)
        reports = {
            title: report_on([one for one in played if group_of[one.task.name] == title], name, agent.policy_version,
                             "test", seconds)
            for title in settings.held_out
        }  # fmt: skip
        ctx.store.set_fact(f"eval_held_out/{name}", {title: r.model_dump(mode="json") for title, r in reports.items()})
        return {"summary": "; ".join(f"{title}: {_summary(report)}" for title, report in reports.items())}

    ctx.stage(stage, f"evaluate {name} (never trained on)", work)


def _held_out_gains(ctx: RunContext) -> None:
    """What DPO adds to SFT on each group of held-out families."""
    reports, found = ctx.store.get_fact("eval_held_out/dpo"), {}
    if reports is None or ctx.store.get_fact("eval_held_out/sft") is None:
        return
    before, after = (outcomes(ctx, HELD_OUT.format(name)) for name in ("sft", "dpo"))
    for title, report in reports.items():
        own = {key: value for key, value in before.items() if key[0] in report["tasks"]}
        found[title] = _difference(own, after)
    ctx.store.set_fact("gain_held_out", found)


def _agent(ctx: RunContext, name: str, model: str | None) -> Agent:
    profile = ctx.config.model.prompt_profile
    if model is None:
        return RandomAgent(seed=ctx.config.project.seed, profile=profile) if name == "random" else oracle(ctx)
    sampling = Sampling(temperature=0.0, max_new_tokens=ctx.config.evaluate.max_new_tokens)
    if name == "memory":
        return memory_agent(ctx, model, sampling, ctx.config.rounds)
    return model_agent(ctx, model, sampling)


def report_on(trajectories: Sequence[Trajectory], agent: str, version: str, split: Split, seconds: float) -> EvalReport:
    """Count trajectories of one agent; those with a failure are excluded."""
    by_task: dict[str, list[bool | None]] = {}
    for trajectory in trajectories:
        by_task.setdefault(trajectory.task.name, []).append(trajectory.success)
    seeds = [trajectory.task.seed for trajectory in trajectories]
    steps = [len(trajectory.steps) for trajectory in trajectories if trajectory.failure is None]
    return EvalReport(
        agent=agent,
        policy_version=version,
        split=split,
        seeds=(min(seeds), max(seeds)),
        strict=rate([trajectory.success for trajectory in trajectories]),
        positive=rate([trajectory.positive for trajectory in trajectories]),
        tasks={name: rate(outcomes) for name, outcomes in sorted(by_task.items())},
        mean_steps=sum(steps) / len(steps) if steps else None,
        stop_reasons=dict(Counter(trajectory.stop_reason.value for trajectory in trajectories)),
        seconds=seconds,
    )


def _summary(report: EvalReport) -> str:
    found = report.strict
    if found.success is None:
        return "nothing could be measured"
    excluded = f", {found.excluded} excluded" if found.excluded else ""
    return f"{found.success:.1%} strict [{found.low:.1%}, {found.high:.1%}], n = {found.n}{excluded}"


def outcomes(ctx: RunContext, stage: str) -> Outcomes:
    """Success by (family, seed); None where the world failed."""
    return {key: success for key, (_, success) in ctx.store.outcomes(stage).items()}


def _differences(ctx: RunContext) -> None:
    """Keep every paired difference that can be computed from what has been measured."""
    compared = ("sft", "sft_best", "memory", "control", "dpo", "grpo")
    found = {name: outcomes(ctx, f"evaluate/test/{name}") for name in compared
             if ctx.store.stage_status(f"evaluate/test/{name}").state == "done"}  # fmt: skip
    if "memory" in found and "sft" in found:  # the same model, with and without
        ctx.store.set_fact("gain_memory", _difference(found["sft"], found["memory"]))
    if "dpo" not in found:
        return
    for key, against in (("gain", "sft"), ("gain_over_control", "control"), ("gain_over_sft_best", "sft_best")):
        if against in found:
            ctx.store.set_fact(key, _difference(found[against], found["dpo"]))
    if "grpo" in found:
        ctx.store.set_fact("gain_online", _difference(found["dpo"], found["grpo"]))
        if "sft" in found:
            ctx.store.set_fact("gain_online_over_sft", _difference(found["sft"], found["grpo"]))
    if "sft" in found:
        report = EvalReport.model_validate(ctx.store.get_fact("eval/sft"))
        solved = {name for name, task in report.tasks.items() if (task.success or 0) >= SATURATED}
        before, after = ({key: value for key, value in found[name].items() if key[0] not in solved}
                         for name in ("sft", "dpo"))  # fmt: skip
        ctx.store.set_fact("gain_unsaturated", {"left_out": sorted(solved), **_difference(before, after)})
        gain = PairedDifference.model_validate(ctx.store.get_fact("gain"))
        ctx.store.set_fact("power", power_line(gain))


def replay(ctx: RunContext) -> None:
    """Roll out once more, now with pictures, a few test episodes that parent and candidate ended differently.

    They are for looking at; no number is taken from them.
    """

    def work() -> dict[str, Any]:
        before, after = outcomes(ctx, "evaluate/test/sft"), outcomes(ctx, "evaluate/test/dpo")
        picked = []
        for old, new in ((False, True), (True, False)):
            keys = [key for key, outcome in before.items() if outcome is old and after.get(key) is new]
            picked += _spread(keys, ctx.config.report.replays)
        known = {
            (task.name, task.seed): task
            for task in make_tasks(
                ctx, "test", dict.fromkeys(ctx.config.env.tasks, ctx.config.evaluate.episodes_per_task)
            )
        }
        tasks = [known[key] for key in picked]
        for name in ("sft", "dpo") if tasks else ():
            agent = _agent(ctx, name, agents_of(ctx)[name])
            roll_out(ctx, f"replay/{name}", f"pictures of {name}", tasks, agent, screenshots=True)
        return {"summary": f"{len(tasks)} episodes"}

    ctx.stage("replay", "replays with pictures", work)


def _spread(keys: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """``count`` keys, taken in turn from as many families as there are."""
    rank: Counter[str] = Counter()
    ranked = []
    for name, seed in sorted(keys):
        ranked.append((rank[name], name, seed))
        rank[name] += 1
    return [(name, seed) for _, name, seed in sorted(ranked)[:count]]


def _difference(before: Outcomes, after: Outcomes) -> dict[str, Any]:
    return paired_difference(before, after).model_dump(mode="json")
