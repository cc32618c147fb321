"""Does search solve more start states than the policy alone at equal browser actions? ``python benchmarks/search.py``.

Every start state is given to both: to the policy, which plays it again and again, sampling anew each time, until it is
solved or the actions are spent (best of n); and to the search with the same policy (docs/search.md), whose replayed
actions count like all others. Solved means: within ``--actions``. Pairs by start state, with 95 % intervals; the curve
says how many were solved with fewer actions. ``--env gauntlet --families step-click-reveal,step-slider`` plays the
gauntlet. ``--seconds`` takes no further start state after that time; both have always played the same ones. A table
goes to stderr, JSON to stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.agents.random import RandomAgent
from dpo_driver.core import plugins
from dpo_driver.core.protocols import Agent, Environment
from dpo_driver.core.records import Rate, Sampling, Task, Trajectory
from dpo_driver.core.stats import paired_difference, rate
from dpo_driver.rollout.episode import run_episode
from dpo_driver.rollout.kept import KeptEnvironment
from dpo_driver.rollout.pool import EnvironmentFactory
from dpo_driver.rollout.search import search
from dpo_driver.rollout.search_account import Searched, SearchSettings

FIRST_SEED = 970_000
FAMILIES = "click-tab-2,click-checkboxes,navigate-tree,use-autocomplete"
MOST_EPISODES = 1_000


@dataclass
class Played:
    """What one start state took: actions until it was solved, None where it was not within the budget."""

    task: Task
    alone: int | None = None
    alone_actions: int = 0
    alone_episodes: int = 0
    first: bool | None = None  # the policy's first try
    alone_broken: bool = False
    searched: int | None = None
    account: Searched = field(default_factory=lambda: Searched(""))
    lines: list[Trajectory] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether the world held for both."""
        return not self.alone_broken and self.account.ended not in ("failed", "start_differs")


@dataclass
class Bench:
    agent: Agent
    settings: SearchSettings
    factory: EnvironmentFactory
    actions: int
    aside: list[Environment] = field(default_factory=list)

    async def environment(self) -> Environment:
        """One that was put aside, or a new one."""
        inner = self.aside.pop() if self.aside else await self.factory()
        return KeptEnvironment(inner, self.aside)

    async def both(self, task: Task) -> Played:
        """The policy alone and the search, on one start state."""
        played = Played(task)
        began = time.monotonic()
        await self._alone(played)
        played.seconds["alone"] = time.monotonic() - began
        began = time.monotonic()
        (played.account,) = await search(
            [task],
            self.agent,
            environments=self.environment,
            stage="bench",
            on_line=lambda trajectory, _account: played.lines.append(trajectory),
            settings=self.settings,
            workers=1,
        )
        played.seconds["search"] = time.monotonic() - began
        after = played.account.solved_after
        played.searched = after if after is not None and after <= self.actions else None
        return played

    async def _alone(self, played: Played) -> None:
        environment = await self.environment()
        for sibling in range(MOST_EPISODES):
            trajectory = await run_episode(environment, self.agent, played.task, sibling=sibling)
            await environment.close()
            played.alone_broken = trajectory.failure is not None
            if played.alone_broken:
                return
            played.alone_episodes += 1
            played.alone_actions += sum(step.action is not None for step in trajectory.steps)
            played.first = trajectory.success if played.first is None else played.first
            if trajectory.success and played.alone_actions <= self.actions:
                played.alone = played.alone_actions
            if trajectory.success or played.alone_actions >= self.actions:
                return
            environment = await self.environment()


async def measure(given: argparse.Namespace, agent: Agent) -> list[Played]:
    """All start states, several at once; both players on each."""
    make_task = plugins.load("make_task", given.env)
    families = given.families.split(",")
    seeds = range(FIRST_SEED, FIRST_SEED + given.seeds)
    waiting = deque(make_task(name, seed, "val") for seed in seeds for name in families)
    settings = SearchSettings(iterations=MOST_EPISODES, candidates=given.candidates, exploration=given.exploration,
                              blend=given.blend, max_actions=given.actions, until_solved=True)  # fmt: skip
    found: list[Played] = []
    ends = time.monotonic() + given.seconds
    async with plugins.load("environments", given.env)() as factory:
        bench = Bench(agent, settings, factory, given.actions)

        async def work() -> None:
            while waiting and time.monotonic() < ends:
                found.append(await bench.both(waiting.popleft()))

        try:
            await asyncio.gather(*(work() for _ in range(given.workers)))
        finally:
            for environment in bench.aside:
                await environment.close()
    return found


def figures(found: Sequence[Played], budget: int) -> dict[str, Any]:
    """Rates, their paired difference, and what it took."""
    counted = [one for one in found if one.counts]
    keys = [(one.task.name, one.task.seed) for one in counted]
    alone = dict(zip(keys, (one.alone is not None for one in counted), strict=True))
    searched = dict(zip(keys, (one.searched is not None for one in counted), strict=True))
    curve = {
        part: [sum(after is not None and after <= part for after in column) for column in (
            [one.alone for one in counted], [one.searched for one in counted])]
        for part in (budget // 8, budget // 4, budget // 2, budget)
    }  # fmt: skip
    return {
        "n": len(counted),
        "excluded": len(found) - len(counted),
        "first_try": rate([one.first for one in counted]).model_dump(),
        "policy_alone": rate(alone.values()).model_dump(),
        "search": rate(searched.values()).model_dump(),
        "difference": paired_difference(alone, searched).model_dump(),
        "solved_within": {str(part): {"policy_alone": a, "search": s} for part, (a, s) in curve.items()},
        "actions": {"policy_alone": sum(one.alone_actions for one in counted),
                    "search": sum(one.account.actions for one in counted)},
        "episodes": {"policy_alone": sum(one.alone_episodes for one in counted),
                     "search": sum(one.account.played for one in counted)},
        "seconds": {name: round(sum(one.seconds[name] for one in counted), 1) for name in ("alone", "search")},
        "branches_refused": sum(len(one.account.refused) for one in counted),
        "lines_with_value": sum(len(one.account.lines) for one in counted),
        "ended": {why: sum(one.account.ended == why for one in counted)
                  for why in sorted({str(one.account.ended) for one in counted})},
    }  # fmt: skip


def table(rows: dict[str, dict[str, Any]]) -> Table:
    shown = Table("family", "n", "first try", "policy alone", "search", "difference", "p", "refused")
    for name, row in rows.items():
        gap = row["difference"]
        wide = f"{gap['mean']:+.0%} [{gap['low']:+.0%}, {gap['high']:+.0%}]" if gap["n"] else "-"
        rates = (written(Rate(**row[key])) for key in ("first_try", "policy_alone", "search"))
        p = "-" if gap["p_mcnemar"] is None else f"{gap['p_mcnemar']:.2g}"
        shown.add_row(name, str(row["n"]), *rates, wide, p, str(row["branches_refused"]))
    return shown


def written(found: Rate) -> str:
    return "-" if found.success is None else f"{found.success:.0%} [{found.low:.0%}, {found.high:.0%}]"


def make_agent(given: argparse.Namespace) -> Agent:
    if given.model == "random":
        return RandomAgent(0, given.profile)
    from dpo_driver.policies.hf import HFPolicy

    sampling = Sampling(temperature=given.temperature, max_new_tokens=given.max_new_tokens, seed=0)
    return PolicyAgent(HFPolicy(given.model, max_length=given.max_length), given.profile, sampling)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="miniwob", help="miniwob, gauntlet, website:FOLDER, toy")
    parser.add_argument("--families", default=FAMILIES, help="with commas between them")
    parser.add_argument("--seeds", type=int, default=20, help="start states of each")
    parser.add_argument("--actions", type=int, default=40, help="in the browser, on each start state")
    parser.add_argument("--model", default="pocket", help="pocket, a folder, a hub id, or random")
    parser.add_argument("--profile", default="pocket")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--exploration", type=float, default=1.4)
    parser.add_argument("--blend", type=float, default=0.7)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3600.0)
    given = parser.parse_args()
    found = asyncio.run(measure(given, make_agent(given)))
    names = [*given.families.split(","), "all"]
    rows = {name: figures([one for one in found if name in ("all", one.task.name)], given.actions) for name in names}
    Console(stderr=True, width=140).print(table(rows))
    print(json.dumps({"settings": vars(given), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
