"""Remember: the round's start states once more, by the same model with solved tasks in its prompt.

What it remembers are the demonstrations and the successes of the run's rollouts, never a validation or test page. The
file ``memory.db`` is made anew from the store by whoever needs it, so it is never behind and may be removed. A search
index cannot be sealed, so in a sealed run there is no file. Called by loop.py, pair.py, evaluate.py and the command
line; must not import report or cli.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_driver.agents.memory import Memory, MemoryAgent
from dpo_driver.core.errors import DataError
from dpo_driver.core.protocols import Agent
from dpo_driver.core.records import Sampling, Trajectory
from dpo_driver.core.schema_training import ModelConfig
from dpo_driver.core.stats import paired_difference, rate
from dpo_driver.flywheel.collect import local_policy, model_source, next_round, parent_of_round, roll_out
from dpo_driver.flywheel.context import RunContext
from dpo_driver.preferences.decisions import TRAINABLE

FILE = "memory.db"  # in the run directory
STAGE = "remember/{}"


class RememberingAgent(MemoryAgent):
    """The agent that a model with a memory drives, as a run sets it up. Pickled, it is what it takes to load both."""

    def __init__(
        self, source: str | Path, config: ModelConfig, sampling: Sampling, max_batch: int, name: str, memory: Memory,
        examples: int,
    ) -> None:  # fmt: skip
        super().__init__(local_policy(source, config), memory, config.prompt_profile, sampling, examples=examples,
                         max_batch=max_batch, name=name)  # fmt: skip
        self._made_of = (source, config, sampling, max_batch, name, memory, examples)

    def __reduce__(self) -> tuple[Any, ...]:
        return RememberingAgent, self._made_of


def memory_agent(ctx: RunContext, model: str, sampling: Sampling, rounds: int) -> Agent:
    """One of the run's models, with what was solved in the first ``rounds`` rounds and the demonstrations."""
    memory = memorize(ctx, rounds)
    return RememberingAgent(model_source(ctx, model), ctx.config.model, sampling, max(ctx.config.env.workers, 1),
                            "memory", memory, ctx.config.pair.examples)  # fmt: skip


def memorize(ctx: RunContext, rounds: int) -> Memory:
    """Make the run's memory anew.

    Raises:
        DataError: nothing was solved yet.
    """
    file = ctx.run_dir / FILE
    draft = file.with_name(f".{FILE}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    memory = Memory(draft if ctx.store.vault is None else None)
    try:
        for stage in ("demos", *(f"collect/{number}" for number in range(1, rounds + 1))):
            memory.add(one for one in ctx.store.iterate(stage) if one.task.split in TRAINABLE)
        if not len(memory):
            raise DataError("there is nothing to remember: no task was solved yet", where=str(ctx.run_dir),
                            remedy="record demonstrations first: dpo-driver sft CONFIG")  # fmt: skip
        if memory.path is not None:
            memory.close()
            draft.replace(file)
            memory = Memory(file, "read")
    finally:
        draft.unlink(missing_ok=True)
    return memory


def remember(ctx: RunContext, round: int | None = None) -> dict[str, Any]:
    """Roll the round's model out with memory, from the start states of the round's rollouts.

    Raises:
        DataError: the round has no rollouts.
    """
    number = next_round(ctx, "remember", round)
    stage, parent = STAGE.format(number), parent_of_round(ctx, number)

    def work() -> dict[str, Any]:
        without = ctx.store.trajectories(f"collect/{number}")
        if not without:
            raise DataError(f"round {number} has no rollouts to repeat with memory", where=str(ctx.run_dir),
                            remedy="run `dpo-driver collect` with the same configuration first")  # fmt: skip
        settings = ctx.config.collect
        sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p,
                            max_new_tokens=settings.max_new_tokens, seed=ctx.config.project.seed)  # fmt: skip
        agent = memory_agent(ctx, parent, sampling, number)
        tasks = list({one.task.id: one.task for one in without}.values())
        roll_out(ctx, stage, f"rollouts with {parent} and memory", tasks, agent, group_size=settings.group_size,
                 starts_of=f"collect/{number}")  # fmt: skip
        return _account(without, ctx.store.trajectories(stage))

    return ctx.stage(stage, f"round {number}: remember", work)


def remembering(ctx: RunContext, number: int) -> list[Trajectory]:
    """What a round rolled out with memory: what pairing reads.

    Raises:
        DataError: it rolled out nothing so.
    """
    found = ctx.store.trajectories(STAGE.format(number))
    if not found:
        raise DataError(f"nothing was rolled out with memory in round {number}", where=str(ctx.run_dir),
                        remedy="run `dpo-driver remember` with the same configuration first")  # fmt: skip
    return found


def _account(without: Sequence[Trajectory], helped: Sequence[Trajectory]) -> dict[str, Any]:
    """Success with and without, paired by start state and sibling: on training pages, so it tests nothing."""
    before, after = ({(one.task.name, one.task.seed, one.id.rpartition("/")[2]): one.success for one in group}
                     for group in (without, helped))  # fmt: skip
    gain, (plain, own) = paired_difference(before, after), (rate(group.values()) for group in (before, after))
    return {
        "summary": f"{own.success or 0:.1%} success with memory, {plain.success or 0:.1%} without, on the same "
        f"{gain.n} training rollouts",
        "with_memory": own.model_dump(mode="json"),
        "without": plain.model_dump(mode="json"),
        "gain": gain.model_dump(mode="json"),
    }
