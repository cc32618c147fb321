"""Settings that fit: what a plan that is too large changes, in the order of least harm.

Called by cli/plan.py. Must not import torch or transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dpo_driver.core.errors import ConfigError
from dpo_driver.core.schema import RunConfig
from dpo_driver.training.cards import GIB, Card
from dpo_driver.training.planner import Plan, Stage, section

Change = Callable[[RunConfig, Stage], list[str]]
SHORTEST = 256  # tokens: a page cannot be shown in less


@dataclass(frozen=True)
class Proposal:
    """Settings that fit, and what was changed for it: ``key=value`` as for ``--set``."""

    changes: tuple[str, ...]
    plan: Plan


def _checkpoint(config: RunConfig, stage: Stage) -> list[str]:
    return [] if section(config, stage).gradient_checkpointing else [f"{stage}.gradient_checkpointing=true"]


def _smaller_passes(config: RunConfig, stage: Stage) -> list[str]:
    budget = section(config, stage).tokens_per_pass
    return [f"{stage}.tokens_per_pass={budget // 2}"] if budget > config.model.max_length // 2 else []


def _half(config: RunConfig, stage: Stage) -> list[str]:
    """Beside bfloat16 weights too: PEFT would give each adapter a float32 copy of its layer's input."""
    return [f"{stage}.bf16=true"] if config.model.uses_adapter and not section(config, stage).bf16 else []


def _quantize(config: RunConfig, stage: Stage) -> list[str]:
    if config.model.quantization != "none" or not config.model.uses_adapter:
        return []
    return ["model.quantization=nf4"]


def _paged(config: RunConfig, stage: Stage) -> list[str]:
    return [] if section(config, stage).optim == "paged_adamw_8bit" else [f"{stage}.optim=paged_adamw_8bit"]


def _adapter(config: RunConfig, stage: Stage) -> list[str]:
    return [] if config.model.uses_adapter else ["model.training=lora"]


def _shorter(config: RunConfig, stage: Stage) -> list[str]:
    """Completions keep their length. More pages would fit into a pass as they are: its budget shrinks with them."""
    longest = config.model.max_length * 3 // 4 // 64 * 64
    if longest < max(SHORTEST, 2 * config.collect.max_new_tokens):
        return []
    changes = [f"model.max_length={longest}"]
    if config.model.max_prompt_length is not None:
        changes.append(f"model.max_prompt_length={longest - config.collect.max_new_tokens}")
    if section(config, stage).tokens_per_pass > longest:
        changes.append(f"{stage}.tokens_per_pass={longest}")
    return changes


# In the order of least harm: the first change nothing but time, the next the precision of what is frozen or remembered,
# the last what is learned from.
ON_ANY: tuple[Change, ...] = (_checkpoint, _smaller_passes)
ON_CUDA: tuple[Change, ...] = (_half, _quantize, _paged)


def propose(stage: Stage, card: Card, plan_with: Callable[[Sequence[str]], tuple[RunConfig, Plan]]) -> Proposal:
    """Change settings until the stage fits.

    Args:
        stage: what does not fit.
        card: where it must fit.
        plan_with: the configuration with some ``key=value`` changes, and its plan.

    Raises:
        ConfigError: nothing helps; the least memory that was reached is named.
    """
    more = () if card.is_cpu else ON_CUDA
    changes: dict[str, str] = {}
    config, plan = plan_with([])
    for way in (*ON_ANY, *more, _adapter, *more, _shorter):
        while not plan.fits and (change := way(config, stage)):
            tried = changes | dict(item.split("=", 1) for item in change)
            changed, better = plan_with([f"{key}={value}" for key, value in tried.items()])
            if better.memory.peak >= plan.memory.peak:  # smaller passes do nothing for a page that fills one
                break
            changes, config, plan = tried, changed, better
    if not plan.fits:
        least, most = (f"{value / GIB:.1f} GiB" for value in (plan.memory.peak, card.usable))
        raise ConfigError(f"nothing fits: {stage} takes at least {least}, of {most} that can be used", where=card.name,
                          remedy="take a smaller model or a larger card")  # fmt: skip
    return Proposal(tuple(f"{key}={value}" for key, value in changes.items()), plan)
