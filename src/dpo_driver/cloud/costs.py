"""What a training may cost: seconds times the user's own prices, and PPO, DPO and GRPO side by side from stated FLOPs.

Estimates, all of them. A dense transformer of N parameters takes 2N floating-point operations a token to read or write
one and 6N to learn from one (forward 2N, backward 4N); attention's own share is left out. Called by cli/cost.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpo_driver.core.config import load_settings
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.prices import HOUR, Prices
from dpo_driver.core.section import Count, CountOrNone, NotNegative, Positive, Section

FORWARD, LEARNING = 2.0, 6.0  # FLOPs a parameter and token


class Workload(Section):
    """A training to compare. Tokens are a mean over rows."""

    parameters: Positive = 4e9
    prompts: Count = 2000
    prompt_tokens: Count = 3000
    completion_tokens: Count = 128
    epochs: Count = 1
    group: Count = 8  # GRPO's rollouts of a prompt
    reward_parameters: NotNegative = 0.0  # of a reward model that PPO asks; 0: the environment rewards
    ppo_epochs: Count = 4  # passes over a batch of rollouts
    shared_prompts: bool = True  # a prompt is computed once for all completions of it
    steps_of_an_episode: CountOrNone = 1  # decisions that one rollout takes


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one algorithm, by what they are for."""

    generation: float
    reference: float
    reward: float
    value: float
    learning: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def load_workload(path: Path | None, overrides: Sequence[str] = ()) -> Workload:
    """A workload's file with overrides; ConfigError as for any configuration."""
    return load_settings(Workload, path, overrides)


def estimate(prices: Prices, machine: str, seconds: float, *, spot: bool = False, count: int = 1) -> dict[str, Any]:
    """What some machines cost for a time.

    Raises:
        UnknownNameError: the table has no such machine, or no spot price for it.
    """
    known = {name: each for name, each in prices.machines.items() if not spot or each.spot_hour is not None}
    if machine not in known:
        raise UnknownNameError("machine with a spot price" if spot else "machine", machine, known)
    hour = known[machine].spot_hour if spot else known[machine].hour
    assert hour is not None
    return {"machine": machine, "count": count, "spot": spot, "seconds": seconds, "price_an_hour": hour,
            "cost": round(count * seconds / HOUR * hour, 4), "currency": prices.currency, "estimate": True}  # fmt: skip


def flops(work: Workload) -> dict[str, Flops]:
    """Operations of each algorithm for the same prompts. See docs/azure.md for every line.

    DPO learns from two completions a prompt that are there already; PPO and GRPO write theirs. PPO also trains a value
    model of the policy's size, and reads each rollout with it.
    """
    n, steps = work.parameters, max(1, work.steps_of_an_episode)
    prompts = float(work.prompts * work.epochs * steps)
    one = float(work.prompt_tokens + work.completion_tokens)

    def together(completions: int) -> float:
        """Tokens of a prompt with its completions."""
        if work.shared_prompts:
            return float(work.prompt_tokens + completions * work.completion_tokens)
        return completions * one

    pair, group = together(2), together(work.group)
    reference_once = prompts / work.epochs  # kept after the first epoch
    return {
        "dpo": Flops(0.0, FORWARD * n * pair * reference_once, 0.0, 0.0, LEARNING * n * pair * prompts),
        "ppo": Flops(
            generation=FORWARD * n * one * prompts, reference=FORWARD * n * one * prompts,
            reward=FORWARD * work.reward_parameters * one * prompts,
            value=FORWARD * n * one * prompts + LEARNING * n * one * prompts * work.ppo_epochs,
            learning=LEARNING * n * one * prompts * work.ppo_epochs,
        ),
        "grpo": Flops(FORWARD * n * group * prompts, FORWARD * n * group * prompts, 0.0, 0.0,
                      LEARNING * n * group * prompts),
    }  # fmt: skip


def compare(work: Workload, prices: Prices, machine: str | None, *, spot: bool = False) -> dict[str, Any]:
    """The three side by side: FLOPs, and hours and money where the machine's speed is stated.

    Raises:
        UnknownNameError: see :func:`estimate`.
    """
    found = flops(work)
    rows = []
    for name, each in found.items():
        row: dict[str, Any] = {"algorithm": name, **asdict(each), "flops": each.total,
                               "against_dpo": round(each.total / found["dpo"].total, 2)}  # fmt: skip
        if machine is not None:
            rented = prices.machines.get(machine)
            if rented is not None and rented.tflops is not None:
                seconds = each.total / (rented.tflops * 1e12 * rented.reached)
                row |= {"hours": round(seconds / HOUR, 3)}
                row |= {"cost": estimate(prices, machine, seconds, spot=spot)["cost"], "currency": prices.currency}
            else:
                estimate(prices, machine, 0.0, spot=spot)  # says so where the machine is unknown
        rows.append(row)
    return {"estimate": True, "workload": work.model_dump(mode="json"), "machine": machine, "rows": rows}
