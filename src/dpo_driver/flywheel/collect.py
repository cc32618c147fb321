"""Collect: roll an agent out in real pages and keep every trajectory. Also the one place where agents meet browsers.

Used by train (demonstrations), collect (rollouts to learn from) and evaluate (held-out seeds). Interrupted rollouts go
on where they stopped: finished trajectories are skipped by key.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.core import plugins, ranks
from dpo_driver.core.protocols import Agent, Policy
from dpo_driver.core.records import Sampling, Split, Task
from dpo_driver.core.schema_training import ModelConfig
from dpo_driver.core.stats import rate
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.shares import Arrivals, Rollouts, added_up, part_of_another
from dpo_driver.rollout.pool import RolloutProgress

LEAST_SHARE = 0.1  # of a family's even share of rollouts, however easy or hopeless it is


def make_tasks(ctx: RunContext, split: Split, counts: Mapping[str, int], offset: int = 0) -> list[Task]:
    """``counts[name]`` tasks per family from the split's block of seeds, starting ``offset`` seeds into it."""
    first, last = getattr(ctx.config.seeds, split)
    make_task = plugins.load("make_task", ctx.config.env.source)
    tasks = []
    for name, count in counts.items():
        if first + offset + count - 1 > last:
            raise ValueError(f"the block of {split} seeds is used up: {name} wants {offset + count}")
        for seed in range(first + offset, first + offset + count):
            task = make_task(name, seed, split)
            limit = ctx.config.env.max_steps
            tasks.append(task if limit is None else task.model_copy(update={"max_steps": limit}))
    return tasks


def roll_out(
    ctx: RunContext, stage: str, title: str, tasks: Sequence[Task], agent: Agent, *, group_size: int = 1,
    screenshots: bool = False, starts_of: str | None = None,
) -> RolloutProgress:  # fmt: skip
    """Roll tasks out in the run's environment and store the trajectories under ``stage``. They are held to the start
    states of an earlier stage where ``starts_of`` names one.

    What is no result (all but the test seeds, and no pictures wanted) goes to ``env.rollouts`` where that is named.
    """
    store, env = ctx.store, ctx.config.env
    result = screenshots or any(task.split == "test" for task in tasks)
    with Arrivals(store, stage) as arrivals:
        done = store.done_task_keys(stage)
        left = [task for task in tasks if any(f"{task.id}/{i}" not in done for i in range(group_size))]
        rollouts = Rollouts(
            run_dir=ctx.run_dir,
            stage=stage,
            tasks=tuple(left),
            agent=agent,
            source=env.source if result or env.rollouts is None else env.rollouts,
            workers=env.workers,
            group_size=group_size,
            skip=frozenset(done),
            start_hashes=(store.start_hashes(starts_of) if starts_of else {}) | store.start_hashes(stage),
            screenshots=screenshots,
        )
        before = (len(tasks) - len(left)) * group_size
        with ctx.bar(title, len(tasks) * group_size) as advance, ranks.beside(part_of_another, rollouts) as others:

            def show(progress: RolloutProgress) -> None:
                finished = progress.finished + arrivals.finished
                judged = finished - progress.failed - arrivals.failed
                share = f"{(progress.succeeded + arrivals.succeeded) / judged:.0%} success" if judged else ""
                speed = finished / progress.seconds if progress.seconds else 0.0
                advance(before + progress.skipped + finished, f"{share}, {speed:.0f}/s")

            own = rollouts.part(arrivals.add, show)
    return added_up([RolloutProgress(total=before, skipped=before), own, *others])


def model_agent(ctx: RunContext, name: str, sampling: Sampling) -> Agent:
    """The agent that acts with one of the run's models (``base``, ``sft``, ``dpo-1``, ...)."""
    return ModelAgent(model_source(ctx, name), ctx.config.model, sampling, max(ctx.config.env.workers, 1), name)


def model_source(ctx: RunContext, name: str) -> str | Path:
    """Where one of the run's models is loaded from. ModelError: it has not been trained yet."""
    return ctx.config.model.name if name == "base" else ctx.require_model(name, "run the stage that trains it first")


def local_policy(source: str | Path, config: ModelConfig) -> Policy:
    """A model of a run, as its configuration loads it."""
    from dpo_driver.policies.hf import HFPolicy

    return HFPolicy(source, dtype=config.dtype, device=config.device, max_length=config.max_length,
                    quantization=config.quantization)  # fmt: skip


class ModelAgent(PolicyAgent):
    """The agent that a model drives, as a run sets it up. Pickled, it is what it takes to load the model again: so it
    goes to other processes."""

    def __init__(self, source: str | Path, config: ModelConfig, sampling: Sampling, max_batch: int, name: str) -> None:
        policy = local_policy(source, config)
        super().__init__(policy, config.prompt_profile, sampling, max_batch=max_batch, name=name)
        self._made_of = (source, config, sampling, max_batch, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return ModelAgent, self._made_of


def oracle(ctx: RunContext) -> OracleAgent:
    """The scripted experts of the run's environment, as one agent."""
    env = ctx.config.env
    known = plugins.load("experts", env.source) if env.name in plugins.names("experts") else {}
    return OracleAgent(ctx.config.model.prompt_profile, known)


def parent_of_round(ctx: RunContext, number: int) -> str:
    """The model that acts, and is improved, in a round: the one that the round before it made, unless the loop that
    keeps learning has noted another."""
    return ctx.store.get_fact(f"parent/{number}") or ("sft" if number == 1 else f"dpo-{number - 1}")


def next_round(ctx: RunContext, stage: str, number: int | None) -> int:
    """The round a command means: the one given, else the first whose ``stage`` is not done (the last if all are)."""
    if number is not None:
        return number
    for candidate in range(1, ctx.config.rounds + 1):
        if ctx.store.stage_status(f"{stage}/{candidate}").state != "done":
            return candidate
    return max(1, ctx.config.rounds)


def collect(ctx: RunContext, round: int | None = None) -> dict[str, Any]:
    """Roll the current model out on training seeds, ``group_size`` siblings from each start.

    Families in which the model neither always fails nor always succeeds get more seeds: only there can siblings differ.
    """
    number = next_round(ctx, "collect", round)
    parent = parent_of_round(ctx, number)

    def work() -> dict[str, Any]:
        settings = ctx.config.collect
        sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p,
                            max_new_tokens=settings.max_new_tokens, seed=ctx.config.project.seed)  # fmt: skip
        agent = model_agent(ctx, parent, sampling)
        counts = seeds_per_task(ctx, number)
        offset = sum(ctx.store.get_fact(f"collect_span/{earlier}", 0) for earlier in range(1, number))
        ctx.store.set_fact(f"collect_span/{number}", max(counts.values()))
        tasks = make_tasks(ctx, "train", counts, offset)
        progress = roll_out(ctx, f"collect/{number}", f"rollouts with {parent}", tasks, agent,
                            group_size=settings.group_size)  # fmt: skip
        found = rate([t.success for t in ctx.store.trajectories(f"collect/{number}")])
        return {
            "summary": f"{found.n} rollouts, {found.success or 0:.1%} success, {found.excluded} excluded, "
            f"{progress.per_second:.0f} a second",
            "success": found.success, "n": found.n, "excluded": found.excluded, "parent": parent,
        }  # fmt: skip

    return ctx.stage(f"collect/{number}", f"round {number}: collect", work)


def seeds_per_task(ctx: RunContext, number: int) -> dict[str, int]:
    """How many start states each family gets: in proportion to p(1 - p), p being the success measured last."""
    settings, names = ctx.config.collect, ctx.config.env.tasks
    even = math.ceil(settings.episodes_per_task / settings.group_size)
    measured: dict[str, list[bool | None]] = defaultdict(list)
    last = f"evaluate/val/{parent_of_round(ctx, number)}"
    for (name, _), (_, success) in ctx.store.outcomes(last).items():
        measured[name].append(success)
    if not measured:
        return dict.fromkeys(names, even)
    weights = {}
    for name in names:
        known = [outcome for outcome in measured[name] if outcome is not None]
        p = (sum(known) + 0.5) / (len(known) + 1)
        weights[name] = max(LEAST_SHARE, 4 * p * (1 - p))
    scale = even * len(names) / sum(weights.values())
    return {name: max(1, round_half_up(scale * weight)) for name, weight in weights.items()}


def round_half_up(value: float) -> int:
    return math.floor(value + 0.5)
