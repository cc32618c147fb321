"""Heuristic pairs: named rules that prefer one of two decisions in one state, and say what they saw.

The rules are the literal table ``RULES``; ``pair.rules`` names those that count. They speak where outcomes do not:
between decisions that lead to success equally often, such as two ways that both arrive. Never against the outcome,
but for the rule about forbidden origins: going where one must not go is wrong even if it helps. A rule's pair has a
small margin, so that where caps leave room for few, pairs of the environment come first. Called by build.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any
from urllib.parse import urlsplit

from dpo_driver.core.config import PairConfig
from dpo_driver.core.records import Preference, Trajectory
from dpo_driver.preferences.decisions import (
    UNREADABLE,
    Arm,
    Pass,
    Refusals,
    State,
    decision,
    digest,
    fork_of,
    index_states,
    witness,
)

SOURCE = "heuristic"
MARGIN = 0.1  # below any difference of outcomes that makes a pair
FEWER = 1.0  # steps
SHORTER = 0.8  # of the other's length
# What environments say in ``last_error`` beside errors, and when they keep an agent from leaving its site.
_NOTICE = re.compile(r"the page opened an? [\w ]+: \".*\"", re.DOTALL)
FORBIDDEN = re.compile(r"[^;]*is not part of this (?:task's )?site[^;]*")


@dataclass(frozen=True)
class Finding:
    """What a rule says of two decisions: which is better, by which passes, and what was seen of either."""

    better: Arm
    worse: Arm
    seen: dict[str, Any]


Rule = Callable[[Arm, Arm], Finding | None]


def fewer_steps(one: Arm, other: Arm) -> Finding | None:
    """Both ways arrive, and the one in fewer steps on average."""
    if not one.successes or not other.successes:
        return None
    arms = [_only(arm, lambda taken: taken.trajectory.success is True) for arm in (one, other)]
    steps = [fmean(len(taken.trajectory.steps) - taken.at for taken in arm.passes) for arm in arms]
    if abs(steps[0] - steps[1]) < FEWER:
        return None
    better, worse = sorted((0, 1), key=lambda at: steps[at])
    return Finding(arms[better], arms[worse], {"steps_to_success": {"chosen": steps[better], "rejected": steps[worse]}})


def no_invalid_action(one: Arm, other: Arm) -> Finding | None:
    """The one was carried out, the other could not be read or not be done."""
    return _without(one, other, _invalid, "error", _carried_out)


def no_repeated_action(one: Arm, other: Arm) -> Finding | None:
    """The other was done before on a page that looked the same, so it changed nothing."""
    return _without(one, other, _repeated, "repeats_step")


def no_forbidden_origin(one: Arm, other: Arm) -> Finding | None:
    """The other tried to leave the site that the task is about."""
    return _without(one, other, _left_site, "refused")


def shorter(one: Arm, other: Arm) -> Finding | None:
    """The one was written in fewer characters: 80 % of the other's, or less."""
    lengths = [fmean(len(taken.step.completion) for taken in arm.passes) for arm in (one, other)]
    better, worse = sorted((0, 1), key=lambda at: lengths[at])
    if lengths[better] > SHORTER * lengths[worse]:
        return None
    arms = (one, other)
    return Finding(arms[better], arms[worse], {"characters": {"chosen": lengths[better], "rejected": lengths[worse]}})


# By the names that ``pair.rules`` knows (core/schema.py).
RULES: dict[str, Rule] = {
    "fewer_steps": fewer_steps,
    "no_invalid_action": no_invalid_action,
    "no_repeated_action": no_repeated_action,
    "no_forbidden_origin": no_forbidden_origin,
    "shorter": shorter,
}
ABOVE_OUTCOME = frozenset({"no_forbidden_origin"})
LENGTH_ALONE = ["shorter"]


def build(trajectories: Sequence[Trajectory], config: PairConfig, refused: Refusals) -> list[Preference]:
    """All preferences that a rule finds between decisions that siblings took in one state.

    Args:
        trajectories: scored ones, see :func:`decisions.learnable`.
        config: ``rules`` are asked; margins are not looked at.
        refused: counts every pair of decisions that gave none, by reason.
    """
    found = []
    for state, arms in index_states(trajectories, refused, fork_of).items():
        for one, other in combinations(arms.values(), 2):
            preference = _judged(state, one, other, config.rules, refused)
            if preference is not None:
                found.append(preference)
    return found


def warnings(rows: Iterable[Preference]) -> tuple[str, ...]:
    """What whoever trains on these pairs should know."""
    alone = sum(row.source == SOURCE and row.evidence.get("rules") == LENGTH_ALONE for row in rows)
    if not alone:
        return ()
    return (f"{alone} pairs rest on length alone (pair.rules: shorter): they teach brevity, not skill",)


def _judged(state: State, one: Arm, other: Arm, rules: Sequence[str], refused: Refusals) -> Preference | None:
    said = {name: finding for name in rules if (finding := RULES[name](one, other)) is not None}
    if not said:
        refused["no_rule"] += 1
        return None
    if len({finding.better.decision for finding in said.values()}) > 1:
        refused["rules_disagree"] += 1
        return None
    first = next(iter(said.values()))
    better, worse = (one, other) if first.better.decision == one.decision else (other, one)
    if better.value < worse.value and not said.keys() & ABOVE_OUTCOME:
        refused["against_outcome"] += 1
        return None
    if better.decision == UNREADABLE:
        refused["chosen_unreadable"] += 1
        return None
    chosen, rejected = _quoted(first.better), _quoted(first.worse)
    task = chosen.trajectory.task
    return Preference(
        id=digest(chosen.step.messages, chosen.step.completion, rejected.step.completion),
        messages=chosen.step.messages,
        chosen=chosen.step.completion,
        rejected=rejected.step.completion,
        level="step",
        source=SOURCE,
        task_name=task.name,
        seed=task.seed,
        state_hash=state.state_hash,
        margin=MARGIN,
        evidence={
            "task_id": task.id,
            "rules": list(said),
            "seen": {name: finding.seen for name, finding in said.items()},
            "same_prompt": chosen.step.messages == rejected.step.messages,
            "context_policy": chosen.trajectory.context_policy,
            "chosen": witness(chosen, better),
            "rejected": witness(rejected, worse),
        },
    )


def _only(arm: Arm, keep: Callable[[Pass], bool]) -> Arm:
    return replace(arm, passes=[taken for taken in arm.passes if keep(taken)])


def _quoted(arm: Arm) -> Pass:
    """The commonest wording, of the first id."""
    wording = Counter(taken.step.completion for taken in arm.passes)
    return min(arm.passes, key=lambda taken: (-wording[taken.step.completion], taken.trajectory.id, taken.at))


def _without(
    one: Arm,
    other: Arm,
    fault: Callable[[Pass], Any],
    name: str,
    sound: Callable[[Pass], bool] = lambda taken: True,
) -> Finding | None:
    """Of two decisions the one that never has a fault, if the other always has it."""
    for better, worse in ((one, other), (other, one)):
        faults = [fault(taken) for taken in worse.passes]
        clean = all(fault(taken) is None and sound(taken) for taken in better.passes)
        if clean and all(found is not None for found in faults):
            return Finding(better, worse, {name: faults[0]})
    return None


# -- what happened at a pass -------------------------------------------------------------------------------------------


def _said(taken: Pass) -> str | None:
    """What the environment said of the action, with the page after it; None where the episode was over."""
    after = taken.trajectory.steps[taken.at + 1 : taken.at + 2]
    return (after[0].observation.last_error or "") if after else None


def _invalid(taken: Pass) -> str | None:
    """Why the action was none."""
    if taken.step.parse_error is not None:
        return taken.step.parse_error
    said = FORBIDDEN.sub("", _NOTICE.sub("", _said(taken) or ""))
    return said.strip("; ") or None


def _carried_out(taken: Pass) -> bool:
    """It is known that the action could be done."""
    return _said(taken) is not None or taken.trajectory.success is True


def _repeated(taken: Pass) -> int | None:
    """The earlier step that did the same on a page that looked the same."""
    step, done = taken.step, decision(taken.step)
    for index, earlier in enumerate(taken.trajectory.steps[: taken.at]):
        if earlier.observation.state_hash == step.observation.state_hash and decision(earlier) == done:
            return index
    return None


def _left_site(taken: Pass) -> str | None:
    """Where the agent wanted to go and may not."""
    said = _said(taken)
    if not said:
        return None
    if (refused := FORBIDDEN.search(said)) is not None:
        return refused[0].strip()
    action, here = taken.step.action, urlsplit(taken.step.observation.url)
    if action is None or action.kind != "goto":
        return None
    there = urlsplit(action.url)
    return action.url[:200] if (there.scheme, there.netloc) != (here.scheme, here.netloc) else None
