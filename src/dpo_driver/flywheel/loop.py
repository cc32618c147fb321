"""The loop, readable in one screen: sft, rounds of collect -> pair -> dpo, then grpo, evaluate and promote.

``dpo-driver run`` is this function. Every line is a verb that resumes from disk and is a command of its own.
"""

from __future__ import annotations

from dpo_driver.core.records import Decision
from dpo_driver.flywheel.collect import collect
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.evaluate import evaluate, replay
from dpo_driver.flywheel.grpo import grpo
from dpo_driver.flywheel.memory import remember
from dpo_driver.flywheel.pair import pair
from dpo_driver.flywheel.promote import promote
from dpo_driver.flywheel.search import search
from dpo_driver.flywheel.train import choose, control, dpo, sft, sft_best


def run(ctx: RunContext) -> Decision:
    """The whole job. Stopped anywhere, the same call goes on from there."""
    sft(ctx)
    for number in range(1, ctx.config.rounds + 1):
        collect(ctx, number)
        if "search" in ctx.config.pair.sources:
            search(ctx, number)
        if "memory" in ctx.config.pair.sources:
            remember(ctx, number)
        pair(ctx, number)
        dpo(ctx, number)
        control(ctx, number)
    choose(ctx)
    if ctx.config.grpo.episodes:
        grpo(ctx)
    if "sft_best" in ctx.config.evaluate.agents:
        sft_best(ctx)
    evaluate(ctx)
    replay(ctx)
    return promote(ctx)
