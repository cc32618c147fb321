"""What was decided in which state, and what came of it: the common ground of the environment's preference sources.

A *state* is a task, a state hash and the exact messages the model saw. The trajectories that took the same decision
there form an :class:`Arm`, whose value is their mean success. :func:`compare` turns two arms into a preference or
counts why not. Called by outcome.py and step.py; must not import agents, environments or torch.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from dpo_driver.core.actions import format_action
from dpo_driver.core.config import PairConfig
from dpo_driver.core.records import Message, Preference, Step, Trajectory

UNREADABLE = "unreadable"
SOURCE = "environment"
TRAINABLE = frozenset({"train", "demo"})
_ROUNDING = 1e-9

# Why something did not become a pair, in the words of `dpo-driver pair --stats`. The unit differs and is said first.
REASONS = {
    "failure": "trajectory: the world broke, so there is no outcome to learn from",
    "unscored": "trajectory: the environment gave neither success nor failure",
    "held_out": "trajectory: its split is for choosing or testing, never for training",
    "no_sibling": "group: only one trajectory of this task, seed and policy",
    "start_hash_differs": "group: its siblings did not start from the same page state",
    "same_outcome": "group: all siblings succeeded or all failed",
    "no_prompt": "step: the agent wrote no messages or no text (scripted agents)",
    "context_differs": "state: seen under another history, which is another prompt (step pairs)",
    "state_differs": "siblings: equal actions led to different states",
    "same_action": "siblings: the same actions to the end, yet a different outcome",
    "equal_value": "decisions: both lead to success equally often",
    "margin_too_small": "decisions: the difference in success is below pair.min_margin",
    "no_value": "trajectory: a search refused the branch that it belongs to, so it has no value (search pairs)",
    "q_too_close": "decisions: the difference of their Q values is below search.min_margin (search pairs)",
    "same_effect": "decisions: both lead to the same next state and were tried only once (search pairs: however often)",
    "chosen_unreadable": "decisions: the better one cannot be read as an action",
    "no_majority": "comparison: its raters tie, find both bad, or disagree (human, teacher)",
    "no_confidence": "comparison: its raters say that they do not know: confidence 0 (human, teacher)",
    "judged_held_out": "comparison: its task is for choosing or testing, never for training (human, teacher)",
    "other_role": "pair: its role is another agent's, which learns by itself: dpo-driver train dpo --role",
    "no_memory": "start: not rolled out both with and without memory (memory pairs)",
    "no_rule": "decisions: no rule tells them apart (heuristic pairs)",
    "rules_disagree": "decisions: one rule prefers the one, another the other (heuristic pairs)",
    "against_outcome": "decisions: the one that a rule prefers leads to success less often (heuristic pairs)",
    "contradiction": "pair: the opposite preference has the larger margin",
    "duplicate": "pair: found before, by another source or in another seed: same prompt, same two decisions",
    "state_cap": "pair: beyond pair.max_per_state",
    "task_cap": "pair: beyond pair.max_per_task",
    "beyond": "pair: beyond pair.exactly",
    "leak": "pair: for validation, but its prompt is also trained on (pages repeat between seeds)",
    "unreadable_cap": "pair: an unreadable rejected text beyond pair.max_parse_error_share",
}
Refusals = Counter[str]


class State(NamedTuple):
    """Where a decision was taken. ``context`` stands for what came before: a digest of the messages (:func:`state_of`)
    or the decisions so far (:func:`fork_of`)."""

    task_id: str
    state_hash: str
    context: str


class Pass(NamedTuple):
    """One trajectory taking one decision: ``trajectory.steps[at]``."""

    trajectory: Trajectory
    at: int

    @property
    def step(self) -> Step:
        return self.trajectory.steps[self.at]

    @property
    def next_state(self) -> str | None:
        """State hash after the decision; None when the episode ended with it."""
        after = self.trajectory.steps[self.at + 1 : self.at + 2]
        return after[0].observation.state_hash if after else None


@dataclass
class Arm:
    """One decision in one state with all trajectories that took it, each counted once."""

    decision: str
    passes: list[Pass] = field(default_factory=list)

    @property
    def n(self) -> int:
        return len(self.passes)

    @property
    def successes(self) -> int:
        return sum(taken.trajectory.success is True for taken in self.passes)

    @property
    def value(self) -> float:
        """Mean success of the trajectories through this decision."""
        return self.successes / self.n

    def example(self, success: bool) -> Pass:
        """The pass to quote: the commonest wording among trajectories with this outcome, then the first id."""
        taken = [one for one in self.passes if one.trajectory.success is success]
        wording = Counter(one.step.completion for one in taken)
        return min(taken, key=lambda one: (-wording[one.step.completion], one.trajectory.id, one.at))


States = dict[State, dict[str, Arm]]


def decision(step: Step) -> str | None:
    """What was decided, apart from its wording: the action in the grammar, ``UNREADABLE``, or None for nothing."""
    if step.action is not None:
        return format_action(step.action)
    return UNREADABLE if step.completion.strip() else None


def quotable(step: Step) -> bool:
    """The step has a prompt and a text to quote; a scripted agent's may lack both."""
    return bool(step.messages) and bool(step.completion.strip())


def state_of(trajectory: Trajectory, index: int) -> State:
    """The state in which step ``index`` was decided."""
    step = trajectory.steps[index]
    return State(trajectory.task.id, step.observation.state_hash, digest(step.messages))


def fork_of(trajectory: Trajectory, index: int) -> State:
    """The state of step ``index`` for siblings: same page after the same decisions, however they were worded."""
    before = " ".join(str(decision(step)) for step in trajectory.steps[:index])
    return State(trajectory.task.id, trajectory.steps[index].observation.state_hash, before)


def digest(messages: Sequence[Message], *texts: str) -> str:
    """16 hex digits over messages and further texts; used for contexts and row ids."""
    content = [[tuple(message.model_dump().values()) for message in messages], *texts]
    written = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def learnable(trajectories: Iterable[Trajectory], refused: Refusals) -> list[Trajectory]:
    """Trajectories that may be trained on: scored, and of a split that is neither for choosing nor for testing."""
    kept = []
    for trajectory in trajectories:
        if trajectory.failure is not None:
            refused["failure"] += 1
        elif trajectory.success is None:
            refused["unscored"] += 1
        elif trajectory.task.split not in TRAINABLE:
            refused["held_out"] += 1
        else:
            kept.append(trajectory)
    return kept


def index_states(
    trajectories: Iterable[Trajectory],
    refused: Refusals | None = None,
    where: Callable[[Trajectory, int], State] = state_of,
) -> States:
    """All decisions by state, in order of first appearance; steps without prompt or text are left out."""
    states: States = {}
    for trajectory in trajectories:
        seen: set[tuple[State, str]] = set()
        for index, step in enumerate(trajectory.steps):
            taken = decision(step)
            if taken is None or not quotable(step):
                if refused is not None:
                    refused["no_prompt"] += 1
                continue
            state = where(trajectory, index)
            if (state, taken) in seen:
                continue
            seen.add((state, taken))
            states.setdefault(state, {}).setdefault(taken, Arm(taken)).passes.append(Pass(trajectory, index))
    return states


def compare(
    state: State,
    one: Arm,
    other: Arm,
    level: Literal["step", "outcome"],
    config: PairConfig,
    refused: Refusals,
) -> Preference | None:
    """The preference between two decisions of one state, or None with its reason counted.

    Chosen is the decision with the higher value, quoted from a trajectory that succeeded; rejected is quoted from one
    that failed. The margin is the difference of the values.
    """
    better, worse = (one, other) if one.value >= other.value else (other, one)
    margin = better.value - worse.value
    if margin <= 0:
        refused["equal_value"] += 1
        return None
    if margin < config.min_margin - _ROUNDING:
        refused["margin_too_small"] += 1
        return None
    if better.decision == UNREADABLE:
        refused["chosen_unreadable"] += 1
        return None
    if _same_effect(better, worse):
        refused["same_effect"] += 1
        return None
    chosen, rejected = better.example(True), worse.example(False)
    task = chosen.trajectory.task
    return Preference(
        id=digest(chosen.step.messages, chosen.step.completion, rejected.step.completion),
        messages=chosen.step.messages,
        chosen=chosen.step.completion,
        rejected=rejected.step.completion,
        level=level,
        source=SOURCE,
        task_name=task.name,
        seed=task.seed,
        state_hash=state.state_hash,
        margin=margin,
        evidence={
            "task_id": task.id,
            "same_prompt": chosen.step.messages == rejected.step.messages,
            "context_policy": chosen.trajectory.context_policy,
            "chosen": witness(chosen, better),
            "rejected": witness(rejected, worse),
        },
    )


def _same_effect(better: Arm, worse: Arm) -> bool:
    """Both led to the same next state, so what came later made the difference. A state can hide something (which
    button was pressed before), so decisions that were each tried more than once are believed."""
    if min(better.n, worse.n) > 1:
        return False
    after = {taken.next_state for taken in better.passes} & {taken.next_state for taken in worse.passes}
    return bool(after - {None})


def witness(quoted: Pass, arm: Arm) -> dict[str, str | int | float]:
    """Where one side of a pair comes from, as its evidence says it."""
    return {
        "trajectory": quoted.trajectory.id,
        "step": quoted.at,
        "policy_version": quoted.trajectory.policy_version,
        "stop_reason": str(quoted.trajectory.stop_reason),
        "action": arm.decision,
        "value": arm.value,
        "n": arm.n,
    }
