"""How much "any positive reward is a success" inflates success rates: ``python benchmarks/inflation.py``.

Plays two agents on the MiniWoB++ families whose pages give part of the reward for part of the work, and counts the
episodes that are successes by the raw reward being above 0 (BrowserGym's rule) but not by its being at least 0.99. The
random agent acts at random; the sloppy one is the scripted expert of whose actions some slip: a point lands up to 20
pixels aside, anything else is replaced by the random agent's action. Options: ``--seeds``, ``--workers``, ``--slip``,
``--json``. Every rate comes with n and its 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from typing import Any

from dpo_driver.agents.oracle import ORACLES, OracleAgent
from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.plugins import load
from dpo_driver.core.protocols import Agent, Move
from dpo_driver.core.records import Observation, Rate, Step, Task, Trajectory
from dpo_driver.core.stats import rate
from dpo_driver.rollout.pool import rollout_sync

FAMILIES = """
    ascending-numbers bisect-angle button-delay chase-circle circle-center click-checkboxes click-checkboxes-large
    click-checkboxes-soft click-checkboxes-transfer drag-shapes-2 draw-circle draw-line find-greatest find-midpoint
    hot-cold moving-items odd-or-even phone-book right-angle use-colorwheel use-colorwheel-2
""".split()
FIRST_SEED = 700
ASIDE = 20.0  # pixels


class SloppyAgent:
    """The expert, of whose actions a share slips. ``SloppyAgent(slip=0.3)``"""

    def __init__(self, slip: float, seed: int = 0) -> None:
        self._slip, self._seed = slip, seed
        self._expert, self._random = OracleAgent(), RandomAgent(seed)

    name = "sloppy"
    context_policy = "pocket"

    @property
    def policy_version(self) -> str:
        return f"sloppy-{self._slip:g}-{self._seed}"

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """The expert's move, or what became of it."""
        move = await self._expert.act(task, observation, history)
        rng = random.Random(f"sloppy/{self._seed}/{task.id}/{len(history)}")
        if rng.random() >= self._slip:
            return move
        points = [key for key in ("to_x", "to_y", "x", "y") if hasattr(move.action, key)]
        if not points:
            return await self._random.act(task, observation, history)
        moved = {key: max(0.0, getattr(move.action, key) + rng.uniform(-ASIDE, ASIDE)) for key in points}
        return Move(
            action=move.action.model_copy(update=moved),
            thought=move.thought,
            completion=move.completion,
            messages=move.messages,
        )


def measure(agent: Agent, families: Sequence[str], seeds: int, workers: int) -> dict[str, Any]:
    """For each family and for all: rates of strict and positive success and of their difference."""
    make_task = load("make_task", "miniwob")
    found: list[Trajectory] = []
    rollout_sync(
        [make_task(name, FIRST_SEED + number, "test") for name in families for number in range(seeds)],
        agent,
        environments=load("environments", "miniwob"),
        stage="inflation",
        on_trajectory=found.append,
        workers=workers,
    )
    rows = {name: _row([t for t in found if t.task.name == name]) for name in families}
    return {"all": _row(found), **rows}


def _row(played: Sequence[Trajectory]) -> dict[str, Any]:
    inflated = [None if t.success is None else bool(t.positive) and not t.success for t in played]
    rates = {"strict": rate(t.success for t in played), "positive": rate(t.positive for t in played)}
    return {name: _figures(found) for name, found in {**rates, "inflated": rate(inflated)}.items()}


def _figures(found: Rate) -> dict[str, Any]:
    return {"share": found.success, "low": found.low, "high": found.high, "n": found.n, "excluded": found.excluded}


def as_markdown(figures: dict[str, Any]) -> str:
    """The table of docs/environments.md."""
    agents = list(figures)
    lines = ["| family | " + " | ".join(f"{agent}: strict | raw > 0 | inflated by" for agent in agents) + " |"]
    lines.append("|---" * (1 + 3 * len(agents)) + "|")
    for family in figures[agents[0]]:
        cells = []
        for agent in agents:
            row = figures[agent][family]
            cells += [f"{100 * row[key]['share']:.0f} %" for key in ("strict", "positive")]
            more = row["inflated"]
            cells.append(
                f"{100 * more['share']:.0f} % ({100 * more['low']:.0f} to {100 * more['high']:.0f}, n {more['n']})"
            )
        lines.append(f"| {'**all**' if family == 'all' else family} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30, help="episodes of each family and agent")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--slip", type=float, default=0.3, help="share of the expert's actions that slip")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    agents: list[Agent] = [RandomAgent(seed=0), SloppyAgent(given.slip)]
    played = [name for name in FAMILIES if name in ORACLES]
    figures = {agent.name: measure(agent, played, given.seeds, given.workers) for agent in agents}
    print(json.dumps(figures, indent=2) if given.json else as_markdown(figures))


if __name__ == "__main__":
    main()
