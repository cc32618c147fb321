"""The report as one HTML file that opens offline: nothing is fetched, pictures are inside, the few lines of script are
allowed by their hash. Whatever came from a web page or a model is escaped by the template.

``dpo-driver report`` and the flywheel call :func:`write_report`. Must not import torch, playwright or mlflow.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dpo_driver.agents.prompt import chat_line, parse_completion
from dpo_driver.core.actions import format_action
from dpo_driver.core.errors import ActionError
from dpo_driver.core.records import EvalReport, Observation, Preference, Step, Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.preferences.decisions import REASONS
from dpo_driver.report import words
from dpo_driver.report.curves import training_charts
from dpo_driver.report.data import HeldOut, Replay, RunReport, collect_report
from dpo_driver.report.pictures import Pictures
from dpo_driver.report.writing import HERE, templates, write_whole

PAGE = "report.html"
MAX_SEEN_CHARS = 6000  # of what the model saw, per step: a page must not drown the report
BARS = ("sft", "control", "dpo", "grpo")


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html`` into a run directory and return its path.

    Raises:
        StoreError: not a run directory, or it cannot be written.
    """
    run_dir = Path(run_dir)
    with RunStore(run_dir, mode="read") as store:
        html = render_page(collect_report(store, run_dir), store.get_blob)
    return write_whole(run_dir / PAGE, html)


def render_page(report: RunReport, get_blob: Callable[[str], bytes]) -> str:
    """The whole HTML document.

    Args:
        report: what to show.
        get_blob: content of a screenshot by its hash; see :class:`Pictures`.
    """
    pictures = Pictures(get_blob)
    script, style = (HERE / "replay.js").read_text(), (HERE / "style.css").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        templates()
        .get_template("template.html.j2")
        .render(
            report=report,
            verdicts=_verdicts(report),
            agents=[_agent(name, report.agents.get(name)) for name in report.shown],
            tasks=_tasks(report),
            families=_families(report.tasks, report.agents),
            held_out=[_held_out(group) for group in report.held_out],
            charts=training_charts(report.curves),
            stops=_stops(report),
            pair_rounds=[_pair_round(number, stats) for number, stats in report.pair_stats.items()],
            pairs=[_pair(row) for row in report.pairs],
            replays={
                kind: [_replay(r, pictures) for r in report.replays if r.kind == kind] for kind in ("won", "lost")
            },
            times=_times(report),
            seeds=_seeds(report),
            names=words.AGENT_NAMES,
            pictures=pictures,
            script=Markup(script),
            style=Markup(style),
            script_hash=digest,
        )
    )


# -- sections --------------------------------------------------------------------------------------------------------


def _verdicts(report: RunReport) -> dict[str, words.Verdict]:
    return {
        "gain": words.verdict(report.gain, "DPO", "its SFT parent"),
        "control": words.verdict(report.gain_over_control, "DPO", "the control"),
        "best": words.verdict(report.gain_over_sft_best, "DPO", "SFT at its best"),
        "unsaturated": words.verdict(report.gain_unsaturated, "DPO", "its SFT parent"),
        "memory": words.verdict(report.gain_memory, "SFT with memory", "SFT without"),
        "online": words.verdict(report.gain_online, "GRPO", "the DPO champion"),
    }


def _agent(name: str, report: EvalReport | None) -> dict[str, Any]:
    return {"key": name, "name": words.AGENT_NAMES[name], "note": words.AGENT_NOTES[name], "report": report}


def _families(tasks: Sequence[str], agents: Mapping[str, EvalReport]) -> list[dict[str, Any]]:
    """Each family's figures by agent, in the order of the story."""
    return [
        {
            "name": task,
            "rates": [(a, words.AGENT_NAMES[a], agents[a].tasks[task]) for a in agents if task in agents[a].tasks],
        }
        for task in tasks
    ]


def _held_out(group: HeldOut) -> dict[str, Any]:
    return {
        "title": group.title,
        "agents": [_agent(name, report) for name, report in group.agents.items()],
        "families": _families(group.tasks, group.agents),
        "verdict": words.verdict(group.gain, "DPO", "its SFT parent"),
    }


def _tasks(report: RunReport) -> list[dict[str, Any]]:
    """One entry per task family, largest measured difference first."""
    rows = []
    for task in report.tasks:
        rates = [(name, report.rate(name, task)) for name in BARS]
        success = {name: rate.success for name, rate in rates if rate is not None and rate.success is not None}
        gain = success["dpo"] - success["sft"] if {"dpo", "sft"} <= success.keys() else None
        rows.append({"name": task, "rates": rates, "gain": gain, "sft": success.get("sft", 0.0)})
    return sorted(rows, key=lambda row: (-(row["gain"] or 0.0), row["name"]))


def _stops(report: RunReport) -> dict[str, Any]:
    """Shares of stop reasons by agent, and the legend in order of frequency, success first."""
    totals: dict[str, int] = {}
    for agent in report.agents.values():
        for reason, count in agent.stop_reasons.items():
            totals[reason] = totals.get(reason, 0) + count
    order = sorted(totals, key=lambda reason: (reason != "success", -totals[reason]))
    rows = []
    for name in report.shown:
        agent_report = report.agents.get(name)
        counts = agent_report.stop_reasons if agent_report else {}
        n = sum(counts.values())
        if n:
            parts = [(reason, counts[reason], 100 * counts[reason] / n) for reason in order if counts.get(reason)]
            rows.append({"name": words.AGENT_NAMES[name], "n": n, "parts": parts})
    return {"order": order, "rows": rows}


def _pair_round(number: str, stats: dict[str, Any]) -> dict[str, Any]:
    """A round's pair statistics: the known numbers by name, refusals with their reasons."""
    refused = stats.get("refused") or {}
    known = (
        ("trajectories", "rollouts"),
        ("mixed_groups", "groups with success and failure"),
        ("forked_states", "states with more than one decision"),
    )
    return {
        "number": number,
        "pairs": stats.get("pairs"),
        "margin": stats.get("mean_margin"),
        "facts": [(name, stats[key]) for key, name in known if key in stats],
        "splits": stats.get("by_split") or {},
        "levels": stats.get("by_level") or {},
        "refused": [(REASONS.get(key, key.replace("_", " ")), n) for key, n in sorted(refused.items(), key=_most)],
    }


def _most(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]


def _pair(row: Preference) -> dict[str, Any]:
    return {
        "row": row,
        "state": _clip("\n\n".join(message.content for message in row.messages if message.role != "system")),
        "sides": [
            _side("chosen", row.chosen, row.evidence.get("chosen")),
            _side("rejected", row.rejected, row.evidence.get("rejected")),
        ],
    }


def _side(kind: str, completion: str, witness: Any) -> dict[str, Any]:
    witness = witness if isinstance(witness, dict) else {}
    value, n = witness.get("value"), witness.get("n")
    outcome = f"led to success in {words.percent(value, 0)} of {n} rollouts" if value is not None and n else ""
    if "q" in witness:
        outcome = f"Q value {witness['q']:.2f} over {witness['visits']} visits of the search"
    try:
        thought, action = parse_completion(completion)
        return {"kind": kind, "thought": thought, "action": format_action(action), "outcome": outcome}
    except ActionError as error:
        return {"kind": kind, "thought": completion, "action": f"unreadable: {error}", "outcome": outcome}


def _seeds(report: RunReport) -> list[tuple[str, tuple[int, int]]]:
    """Which agents were evaluated on which block of seeds."""
    users: dict[tuple[int, int], list[str]] = {}
    for name, agent in report.agents.items():
        users.setdefault(agent.seeds, []).append(words.AGENT_NAMES[name])
    return [(", ".join(names), block) for block, names in users.items()]


def _times(report: RunReport) -> dict[str, Any]:
    total = sum(stage.seconds for stage in report.stages)
    longest = max((stage.seconds for stage in report.stages), default=0.0)
    rows = [(stage, 100 * stage.seconds / longest if longest else 0.0) for stage in report.stages]
    return {"total": total, "rows": rows}


# -- replays ---------------------------------------------------------------------------------------------------------


def _replay(replay: Replay, pictures: Pictures) -> dict[str, Any]:
    task = replay.before.task
    sides = [
        _episode("sft", replay.before, pictures),
        _episode("dpo", replay.after, pictures),
    ]
    return {
        "task": task.name,
        "seed": task.seed,
        "goal": task.goal or _goal(replay),
        "sides": sides,
        "steps": max(len(side["steps"]) for side in sides),
        "parting": _parting(replay),
    }


def _parting(replay: Replay) -> int:
    """The step at which the two agents first act differently, from 1."""
    before, after = ([step.action for step in t.steps] for t in (replay.before, replay.after))
    shared = min(len(before), len(after))
    return 1 + next((index for index in range(shared) if before[index] != after[index]), shared)


def _goal(replay: Replay) -> str:
    steps = replay.before.steps or replay.after.steps
    return steps[0].observation.goal if steps else ""


def _episode(agent: str, trajectory: Trajectory, pictures: Pictures) -> dict[str, Any]:
    steps, env = trajectory.steps, trajectory.task.env
    shown = [
        {
            "number": number,
            "picture": pictures.frame(step.observation, getattr(step.action, "ref", None), env=env),
            "seen": _seen(step),
            "thought": step.thought,
            "action": _action_text(step),
            "target": _target(step),
            "result": _result(step, steps[number].observation if number < len(steps) else None, trajectory),
        }
        for number, step in enumerate(steps, start=1)
    ]
    end = Markup("")
    if trajectory.final_screenshot and steps:
        end = pictures.frame(steps[-1].observation, screenshot=trajectory.final_screenshot, env=env)
    return {
        "agent": agent,
        "name": words.AGENT_NAMES[agent],
        "solved": bool(trajectory.success),
        "ending": words.stop_name(trajectory.stop_reason),
        "reward": trajectory.reward,
        "steps": shown,
        "end": end,
    }


def _action_text(step: Step) -> str:
    if step.action is not None:
        return format_action(step.action)
    return step.completion or "nothing"


def _target(step: Step) -> str:
    """What the action aims at, in words: a number says nothing to a person."""
    ref = getattr(step.action, "ref", None)
    return next((element.label for element in step.observation.elements if ref and element.ref == ref), "")


def _seen(step: Step) -> str:
    """The prompt's last turn as it went to the model; without one (scripted agents), the elements."""
    if step.messages:
        return _clip(step.messages[-1].content)
    return _clip("\n".join(chat_line(element, 120) for element in step.observation.elements))


def _result(step: Step, following: Observation | None, trajectory: Trajectory) -> str:
    if step.parse_error:
        return f"could not be read: {step.parse_error}"
    if following is None:
        reward = "" if trajectory.reward is None else f", reward {trajectory.reward:g}".replace("-", words.MINUS)
        return f"the episode ended: {words.stop_name(trajectory.stop_reason)}{reward}"
    if following.last_error:
        return f"failed: {following.last_error}"
    if following.state_hash and following.state_hash == step.observation.state_hash:
        return "the page did not change"
    return _changes(step.observation, following)


def _changes(before: Observation, after: Observation) -> str:
    """What the action did to the page, in a few words."""
    old = {element.ref: element for element in before.elements if element.ref}
    changed: list[str] = []
    for element in after.elements:
        earlier = old.get(element.ref) if element.ref else None
        if earlier is None or (earlier.role, earlier.name) != (element.role, element.name):
            continue
        if earlier.value != element.value:
            changed.append(f"{element.label} is now {json.dumps(element.value or '', ensure_ascii=False)}")
        elif set(earlier.states) - {"focused"} != set(element.states) - {"focused"}:
            states = sorted(set(element.states) - {"focused"})
            changed.append(f"{element.label} is now {', '.join(states) or 'plain'}")
    if changed:
        return _first(changed, 2)
    return "the page changed"


def _first(items: Sequence[str], wanted: int) -> str:
    rest = len(items) - wanted
    return "; ".join(items[:wanted]) + (f"; and {rest} more" if rest > 0 else "")


def _clip(text: str) -> str:
    return (
        text
        if len(text) <= MAX_SEEN_CHARS
        else f"{text[:MAX_SEEN_CHARS]}\n… {len(text) - MAX_SEEN_CHARS} more characters"
    )
