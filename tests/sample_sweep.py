"""A real sweep in small, for tests: the browserless toy environment, the pocket model, a few training steps a stage.

``python sample_sweep.py FOLDER KEY=V1,V2`` runs it as a process of its own that a test can kill.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from dpo_driver.agents.experts.page import Decision, Page
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.core.actions import Click
from dpo_driver.core.config import RunConfig, load_config
from dpo_driver.core.records import StopReason, Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.envs.toy import make_task
from dpo_driver.flywheel.collect import make_tasks, roll_out
from dpo_driver.flywheel.context import open_run
from dpo_driver.flywheel.sweep import FINISHED, sweep
from dpo_driver.flywheel.sweep_plan import Plan, Point, make_plan, parse_over

CONFIG = """
project: {name: toy}
env: {name: toy, tasks: [wizard], workers: 1}
demos: {per_task: 4}
sft: {max_steps: 2, eval_steps: 1}
sft_best: {epochs: [1]}
rounds: 1
collect: {episodes_per_task: 24, group_size: 8, temperature: 1.5, max_new_tokens: 32}
pair: {max_parse_error_share: 1.0}
dpo: {max_steps: 2, eval_steps: 1}
evaluate: {episodes_per_task: 3, reference_episodes: 3, choose_per_task: 2, max_new_tokens: 32, agents: [sft, dpo]}
tracking: {mlflow: false}
"""


def small_plan(folder: Path, *over: str, overrides: tuple[str, ...] = ()) -> Plan:
    """A plan over the toy environment; its points lie below ``folder/toy-sweep``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy.yaml"
    path.write_text(CONFIG)
    given = [f"project.run_dir={folder / 'toy'}", *overrides]

    def read(more: Any) -> RunConfig:
        return load_config(path, [*given, *more])

    return make_plan(read, [parse_over(text) for text in over])


def wizard(page: Page) -> Decision:
    """The expert of the toy family: the goal's words, one a page."""
    wanted = re.findall(r'"(\w+)"', page.goal)[len(page.history)]
    return f"button {wanted}", Click(ref=page.named(wanted).ref)


EXPERTS: Mapping[str, Any] = {"wizard": wizard}


def demonstrate(config: RunConfig) -> None:
    """Play the demonstrations into a run, as a person would with ``dpo-driver play --save``: the toy families have no
    expert that is listed."""
    with open_run(config, console=Console(file=io.StringIO())) as ctx:
        tasks = make_tasks(ctx, "demo", dict.fromkeys(config.env.tasks, config.demos.per_task))
        roll_out(ctx, "demos", "played", tasks, OracleAgent(config.model.prompt_profile, EXPERTS))


def played(point: Point, outcomes: Mapping[str, Mapping[int, bool | None]], seconds: float = 60.0) -> None:
    """A finished run of a point whose agents ended the pages of the toy family ``press`` as told."""
    with RunStore(point.config.run_dir) as store:
        store.set_fact("config_hash", point.config.hash())
        for agent, ended in outcomes.items():
            stage = f"evaluate/test/{agent}"
            rows = []
            for page, won in ended.items():
                task = make_task("press", page, "test")
                reason = StopReason.BROWSER_LOST if won is None else StopReason.SUCCESS if won else StopReason.WRONG
                failure = "lost" if won is None else None
                rows.append(Trajectory(id=f"{stage}/{task.id}/0", task=task, agent=agent, stop_reason=reason,
                                       success=won, failure=failure))  # fmt: skip
            store.add_trajectories(stage, rows)
            store.finish_stage(stage, seconds)
        store.set_fact(FINISHED, True)


def first(count: int, of: int = 40) -> dict[int, bool | None]:
    """The first ``count`` of the pages are solved."""
    return {page: page < count for page in range(of)}


def main() -> None:
    plan = small_plan(Path(sys.argv[1]), *sys.argv[2:])
    demonstrate(plan.points[0].config)
    sweep(plan, Console(file=sys.stdout, width=200))


if __name__ == "__main__":
    main()
