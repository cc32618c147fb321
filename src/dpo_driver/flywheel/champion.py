"""The project's champion when a gate opens: one of the run's models, or another, which is then measured too.

A run knows its gain over its own parent. Where another run, or a person, has made something else champion, that gain
says nothing about who should be served. Called by promote.py and learn/turn.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_driver.core.records import ModelVersion, Sampling, Task
from dpo_driver.flywheel.collect import ModelAgent, roll_out
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.evaluate import Outcomes, outcomes
from dpo_driver.registry.versions import address


def own_champion(ctx: RunContext) -> str | None:
    """The champion by the run's own name for it (``base``, ``sft``, ``dpo-2``); None: none, or it is not the run's."""
    held = ctx.registry.find("champion")
    return None if held is None else _own_name(ctx, held)


def rival(ctx: RunContext, *compared: str) -> ModelVersion | None:
    """The champion, unless there is none or it is one of the run's models that were ``compared`` already."""
    held = ctx.registry.find("champion")
    return None if held is None or _own_name(ctx, held) in compared else held


def measure_rival(ctx: RunContext, version: ModelVersion, stage: str, tasks: Sequence[Task]) -> Outcomes:
    """Success by (family, seed) of a registered model, greedy, set up as the run sets up its own, with prompts as the
    model knows them.

    Raises:
        ModelError: its files are not those that were registered.
    """
    stage = f"{stage}/{version.content_hash[:12]}"

    def work() -> dict[str, Any]:
        sampling = Sampling(temperature=0.0, max_new_tokens=ctx.config.evaluate.max_new_tokens)
        source = ctx.registry.load(address(version)).path
        model = ctx.config.model.reading(version.prompt_profile)
        agent = ModelAgent(source, model, sampling, max(ctx.config.env.workers, 1), "champion")
        roll_out(ctx, stage, f"the champion {version.name}", tasks, agent, screenshots=False)
        won = [success for success in outcomes(ctx, stage).values() if success is not None]
        return {"summary": f"{sum(won)} of {len(won)} episodes"}

    ctx.stage(stage, f"measure the champion {version.name}", work)
    return outcomes(ctx, stage)


def registered(ctx: RunContext, name: str) -> str:
    """The reference that means this run's model ``name``: runs of one project name theirs alike."""
    called = ctx.version_name(name)
    mine = [one for one in ctx.registry.list() if one.name == called and _own_name(ctx, one) == name]
    return address(mine[-1]) if mine else called


def _own_name(ctx: RunContext, version: ModelVersion) -> str | None:
    from dpo_driver.policies.loading import resolve

    folder = Path(version.path).resolve()
    if folder == Path(resolve(ctx.config.model.name)).resolve():
        return "base"
    return folder.name if folder == ctx.model_folder(folder.name).resolve() else None
