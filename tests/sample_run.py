"""A made-up run for tests of the report: records of the true schema with invented numbers. Nothing here is a result.

``write_sample_run(folder)`` fills a run directory as the flywheel would; screenshots come from the caller.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.core.actions import Action, Click, Fill
from dpo_driver.core.config import RunConfig
from dpo_driver.core.records import (
    Decision,
    Element,
    EvalReport,
    Observation,
    Preference,
    Step,
    StopReason,
    Task,
    Trajectory,
    state_hash,
)
from dpo_driver.core.stats import paired_difference, rate
from dpo_driver.core.store import RunStore

TASKS = {  # family: invented success of sft, control, dpo
    "click-button": (0.97, 0.97, 0.98),
    "click-checkboxes": (0.42, 0.55, 0.78),
    "click-link": (0.81, 0.84, 0.93),
    "enter-text": (0.73, 0.77, 0.90),
    "login-user": (0.55, 0.60, 0.82),
    "navigate-tree": (0.38, 0.44, 0.61),
    "choose-list": (0.62, 0.66, 0.64),
    "form-sequence-2": (0.21, 0.30, 0.52),
}
STAGES = {  # invented seconds
    "demos": 6.2, "sft": 71.0, "collect/1": 63.5, "pair/1": 1.1, "dpo/1": 58.0, "control/1": 55.4, "collect/2": 61.0,
    "pair/2": 1.0, "dpo/2": 57.2, "control/2": 54.8, "choose": 0.1, "evaluate": 118.3, "promote": 0.2,
}  # fmt: skip
FIRST_SEED, SEEDS = 900_000, 40
HOSTILE = '<script>document.title="owned"</script><img src=x onerror=alert(1)>'
Screenshot = Callable[[Observation, str | None], bytes | None]
PROFILE = get_profile("pocket")


def page(task: str, seed: int, progress: int) -> tuple[Observation, list[tuple[str, Action]]]:
    """A page in the manner of the named family, and the decisions that solve it from its start."""
    rng = random.Random(f"{task}/{seed}")
    words = rng.sample(["Amber", "Birch", "Cedar", "Delta", "Ember", "Fjord", "Grove", "Heron"], 5)
    if task == "login-user":
        elements = [
            Element(ref=None, role="text", name="Username", box=(10, 60, 70, 12)),
            Element(
                ref="1", role="textbox", name="Username", box=(10, 76, 130, 18), value=words[0] if progress else ""
            ),
            Element(
                ref="2", role="textbox", name="Password", box=(10, 114, 130, 18), value="•••" if progress > 1 else ""
            ),
            Element(ref="3", role="button", name="Login", box=(10, 146, 60, 22)),
        ]
        moves: list[tuple[str, Action]] = [
            ("textbox Username", Fill(ref="1", value=words[0])),
            ("textbox Password", Fill(ref="2", value=words[1])),
            ("button Login", Click(ref="3")),
        ]
        goal = f'Enter the username "{words[0]}" and the password "{words[1]}" into the text fields and press login.'
    elif task in ("click-checkboxes", "choose-list", "form-sequence-2"):
        picked = words[:2]
        elements = [
            Element(
                ref=str(i + 1),
                role="checkbox",
                name=word,
                box=(12, 62 + 20 * i, 13, 13),
                states=("checked",) if word in picked[:progress] else (),
            )
            for i, word in enumerate(sorted(words))
        ]
        elements += [Element(ref=None, role="text", name=e.name, box=(31, e.box[1], 60, 13)) for e in elements if e.box]
        elements.append(Element(ref="6", role="button", name="Submit", box=(12, 168, 70, 22)))
        where = {e.name: e.ref or "" for e in elements if e.role == "checkbox"}
        moves = [*((f"checkbox {word}", Click(ref=where[word])) for word in picked), ("button Submit", Click(ref="6"))]
        goal = f"Select {picked[0]}, {picked[1]} and click Submit."
    else:
        elements = [
            Element(ref=str(i + 1), role="button", name=word, box=(12 + 70 * (i % 2), 64 + 34 * (i // 2), 62, 22))
            for i, word in enumerate(words)
        ]
        moves = [(f"button {words[2]}", Click(ref="3"))]
        goal = f'Click on the "{words[2]}" button.'
    elements.insert(
        0, Element(ref=None, role="heading", name=HOSTILE if seed % 5 == 0 else "Sample", box=(10, 40, 140, 14))
    )
    kept = tuple(elements)
    seen = Observation(
        goal=goal,
        url=f"http://127.0.0.1/miniwob/{task}.html",
        title=f"{task} sample",
        elements=kept,
        state_hash=state_hash(goal, task, kept),
    )
    return seen, moves


def trajectory(
    stage: str,
    task_name: str,
    seed: int,
    solved: bool | None,
    agent: str,
    put: Callable[[Observation, str | None], str | None],
) -> Trajectory:
    """An episode that solves its page, or clicks the wrong thing at the end; None is a failure of the world."""
    _, moves = page(task_name, seed, 0)
    if solved is False:
        moves = [
            *moves[: max(0, len(moves) - 2)],
            ("button Cancel", Click(ref=moves[-1][1].ref if len(moves) > 1 else "1")),
        ]
    steps: list[Step] = []
    if solved is False and task_name == "click-link":
        seen, _ = page(task_name, seed, 0)
        unreadable = 'no line starts with "action:"'
        seen = seen.model_copy(update={"screenshot": put(seen, None)})
        steps.append(Step(observation=seen, completion="Hm, a link.", parse_error=unreadable))
    for number, (thought, action) in enumerate(moves):
        seen, _ = page(task_name, seed, number)
        seen = seen.model_copy(update={"screenshot": put(seen, None)})
        steps.append(
            Step(
                observation=seen,
                messages=render(PROFILE, seen, steps),
                completion=render_completion(PROFILE, thought, action),
                thought=thought,
                action=action,
            )
        )
    lost = solved is None
    return Trajectory(
        id=f"{stage}/miniwob.{task_name}/{seed}/0",
        task=Task(
            id=f"miniwob.{task_name}/{seed}",
            env="miniwob",
            name=task_name,
            seed=seed,
            split="test",
            goal=page(task_name, seed, 0)[0].goal,
        ),
        agent=agent,
        policy_version="0" * 16,
        steps=() if lost else tuple(steps),
        stop_reason=StopReason.BROWSER_LOST if lost else StopReason.SUCCESS if solved else StopReason.WRONG,
        reward=None if lost else 1.0 if solved else -1.0,
        success=solved,
        failure="browser_lost: sample" if lost else None,
        final_screenshot=None if lost else put(page(task_name, seed, 9)[0], "end"),
    )  # fmt: skip


def _outcomes(agent: str) -> dict[tuple[str, int], bool | None]:
    """Invented outcomes: a page has a difficulty, so agents fail on much the same pages, as related agents do."""
    column = {"sft": 0, "control": 1, "dpo": 2}
    fixed = {"random": 0.04, "base": 0.16, "oracle": 0.995, "sft_best": None}
    found: dict[tuple[str, int], bool | None] = {}
    for task, chances in TASKS.items():
        for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
            page_rng, own = random.Random(f"{task}.{seed}"), random.Random(f"{task}.{seed}.{agent}")
            chance = chances[column[agent]] if agent in column else fixed[agent]
            if chance is None:
                chance = min(0.98, chances[0] + 0.04)
            draw = 0.7 * page_rng.random() + 0.3 * own.random()
            lost = own.random() < 0.004
            found[task, seed] = None if lost else draw < _threshold(chance)
    return found


def _threshold(chance: float) -> float:
    """The value that a weighted sum of two uniform draws stays below with the given chance (found by counting)."""
    rng = random.Random(1)
    draws = sorted(0.7 * rng.random() + 0.3 * rng.random() for _ in range(2000))
    return draws[min(1999, int(chance * 2000))]


def evaluation(agent: str, outcomes: dict[tuple[str, int], bool | None]) -> EvalReport:
    """An EvalReport whose figures follow from the outcomes."""
    strict = rate(outcomes.values())
    won = sum(bool(o) for o in outcomes.values())
    lost = sum(o is None for o in outcomes.values())
    wrong = len(outcomes) - won - lost
    stops = {"success": won, "wrong": wrong * 2 // 3, "max_steps": wrong - wrong * 2 // 3, "browser_lost": lost}
    return EvalReport(
        agent=agent,
        policy_version="0" * 16,
        split="test",
        seeds=(FIRST_SEED, FIRST_SEED + SEEDS - 1),
        strict=strict,
        positive=rate([o if o is not False else (i % 11 == 0) for i, o in enumerate(outcomes.values())]),
        tasks={task: rate(o for key, o in outcomes.items() if key[0] == task) for task in TASKS},
        mean_steps=2.4,
        stop_reasons={name: count for name, count in stops.items() if count},
        seconds=40.0,
    )


def _metrics(store: RunStore) -> None:
    rng = random.Random(3)
    for step in range(1, 121):
        values = {"loss": 2.6 * math.exp(-step / 30) + 0.25 + rng.gauss(0, 0.06), "grad_norm": 1 + rng.random()}
        values["learning_rate"] = 5e-4 * (1 + math.cos(math.pi * step / 120)) / 2
        if step % 20 == 0:
            values["eval_loss"] = 2.6 * math.exp(-step / 30) + 0.31
        store.log_metric("sft", step, values)
    for number in (1, 2):
        for step in range(1, 61):
            grow = (step / 60) ** 0.8
            chosen, rejected = 0.25 * grow + rng.gauss(0, 0.05), -1.1 * grow + rng.gauss(0, 0.08)
            values = {
                "loss": math.log(2) - 0.34 * grow + rng.gauss(0, 0.02),
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/margins": chosen - rejected,
                "rewards/accuracies": min(1.0, 0.5 + 0.42 * grow + rng.gauss(0, 0.04)),
                "grad_norm": 2 + rng.random(),
                "learning_rate": 1e-4 * (1 - step / 60),
            }
            if step % 15 == 0:
                values |= {"eval_loss": math.log(2) - 0.3 * grow, "eval_rewards/accuracies": 0.5 + 0.38 * grow}
            store.log_metric(f"dpo/{number}", step, values)
            store.log_metric(
                f"control/{number}", step, {"loss": 0.5 - 0.2 * grow + rng.gauss(0, 0.02), "grad_norm": 1.5}
            )


def _preferences() -> list[Preference]:
    rows = []
    for index in range(40):
        task = list(TASKS)[index % len(TASKS)]
        seed = 10_000 + index
        seen, moves = page(task, seed, 0)
        thought, action = moves[0]
        rejected = (
            "thought: hm\naction: dance()"
            if index == 6
            else render_completion(PROFILE, "button Sample", Click(ref="5"))
        )
        rows.append(
            Preference(
                id=f"pair-{index}",
                messages=render(PROFILE, seen, ()),
                chosen=render_completion(PROFILE, thought, action),
                rejected="thought: hm\naction: dance()" if index == 6 else rejected,
                level="outcome" if index % 3 else "step",
                source="environment",
                task_name=task,
                seed=seed,
                split="val" if index % 10 == 0 else "train",
                state_hash=seen.state_hash,
                margin=1.0 - (index % 4) / 5,
                evidence={"chosen": {"value": 0.8, "n": 5}, "rejected": {"value": 0.0, "n": 3}},
            )
        )
    return rows


def _gains(store: RunStore, outcomes: dict[str, dict[tuple[str, int], bool | None]], sft: EvalReport) -> None:
    easy = {task for task, found in sft.tasks.items() if found.success and found.success >= 0.95}
    gain = paired_difference(outcomes["sft"], outcomes["dpo"])
    hard = {key: outcome for key, outcome in outcomes["sft"].items() if key[0] not in easy}
    store.set_fact("gain", gain.model_dump(mode="json"))
    for key, against in (("gain_over_control", "control"), ("gain_over_sft_best", "sft_best")):
        store.set_fact(key, paired_difference(outcomes[against], outcomes["dpo"]).model_dump(mode="json"))
    unsaturated = paired_difference(hard, outcomes["dpo"]).model_dump(mode="json")
    store.set_fact("gain_unsaturated", {"left_out": sorted(easy), **unsaturated})
    decision = Decision(
        promoted=True,
        candidate="sample/dpo-2",
        champion="sample/sft",
        reasons=("the 95 % interval of the paired gain lies above 0", "no family lost more than 10 points"),
        gain=gain,
    )
    store.set_fact("decision", decision.model_dump(mode="json"))


def write_sample_run(
    run_dir: Path, screenshot: Screenshot = lambda _seen, _moment: None, pictured: int | None = None
) -> Path:
    """Fill a run directory with an invented, complete run.

    Args:
        run_dir: made if it is missing.
        screenshot: draws an observation, or gives None.
        pictured: how many episodes are rolled out again for pictures; two thirds of those that differ when None.
    """
    with RunStore(run_dir) as store:

        def put(seen: Observation, moment: str | None) -> str | None:
            content = screenshot(seen, moment)
            return store.put_blob(content) if content else None

        config = RunConfig.model_validate({"project": {"name": "sample"}, "env": {"tasks": list(TASKS)}, "rounds": 2})
        store.set_fact("config", config.resolved_yaml())
        store.set_fact(
            "environment", {"dpo-driver": "0.0 (sample)", "python": "3.11", "torch": "2.13.0", "git.commit": "0" * 40}
        )
        store.set_fact("power", "320 paired episodes show a gain of 6.1 points over 58 % with 80 % power.")
        outcomes = {name: _outcomes(name) for name in ("random", "base", "sft", "sft_best", "control", "dpo", "oracle")}
        reports = {name: evaluation(name, found) for name, found in outcomes.items()}
        for name, report in reports.items():
            store.set_fact(f"eval/{name}", report.model_dump(mode="json"))
        _gains(store, outcomes, reports["sft"])
        for agent in ("sft", "dpo"):
            stage = f"evaluate/test/{agent}"
            rows = [trajectory(stage, *key, won, agent, lambda *_: None) for key, won in outcomes[agent].items()]
            store.add_trajectories(stage, rows)
        differing = [
            key for key, won in outcomes["sft"].items() if won is not None and outcomes["dpo"][key] is (not won)
        ]
        for agent in ("sft", "dpo"):
            stage = f"replay/{agent}"
            pictured = [key for key in differing if (key[1] + len(key[0])) % 3]
            store.add_trajectories(
                stage, [trajectory(stage, *key, outcomes[agent][key], agent, put) for key in pictured]
            )
        _metrics(store)
        rows = _preferences()
        for number, part in ((1, rows[:24]), (2, rows[24:])):
            store.add_preferences(number, part)
            store.set_fact(f"pair_stats/{number}", pair_stats(part))
        for stage, seconds in STAGES.items():
            store.finish_stage(stage, seconds)
    return run_dir


def pair_stats(rows: list[Preference]) -> dict[str, object]:
    """The account that the pair stage would keep of these rows."""
    return {
        "schema_version": 1,
        "trajectories": 1024,
        "used": 1020,
        "groups": 128,
        "mixed_groups": 71,
        "forked_states": 96,
        "pairs": len(rows),
        "by_task": {},
        "by_level": {level: sum(row.level == level for row in rows) for level in ("outcome", "step")},
        "by_source": {"environment": len(rows)},
        "by_split": {split: sum(row.split == split for row in rows) for split in ("train", "val")},
        "unreadable_rejected": 1,
        "mean_margin": sum(row.margin for row in rows) / len(rows),
        "refused": {"same_outcome": 57, "failure": 4, "margin_too_small": 12},
    }
