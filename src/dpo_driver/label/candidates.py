"""Comparisons out of a run's trajectories: two different decisions that were taken in one state.

States are those of preferences/decisions.py: equal page and prompt, or equal page after equal decisions of siblings.
People are asked where the environment is silent too: a trajectory needs no score here. What is held out for choosing
or testing is never put up, because what people say of it would be trained on. Called by cli/label.py.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

from dpo_driver.core.records import Comparison, Trajectory
from dpo_driver.preferences.decisions import (
    TRAINABLE,
    UNREADABLE,
    Arm,
    Pass,
    State,
    decision,
    digest,
    fork_of,
    index_states,
    state_of,
)

PER_STATE = 2  # comparisons of one state at most: more of them teach less than another state


def comparisons_of(trajectories: Iterable[Trajectory], *, limit: int | None = None, seed: int = 0) -> list[Comparison]:
    """Comparisons worth a person's time, task families in turns, so that any beginning of the list is balanced.

    The same trajectories in any order give the same list. Left out: decisions that nobody could read, and decisions
    that led to the same page, where there is nothing to tell apart.

    Args:
        trajectories: of any stage, with or without a score; failures of the world and held-out ones are passed over.
        limit: how many at most.
        seed: of the order within a family.
    """
    usable = [one for one in trajectories if one.failure is None and one.task.split in TRAINABLE]
    usable.sort(key=lambda one: (one.task.id, one.id))
    found: dict[str, Comparison] = {}
    for where in (state_of, fork_of):
        for state, arms in index_states(usable, where=where).items():
            for comparison in _of_state(state, arms, seed):
                found.setdefault(comparison.id, comparison)
    return _in_turns(found.values(), seed)[:limit]


def _of_state(state: State, arms: dict[str, Arm], seed: int) -> Iterator[Comparison]:
    readable = [arm for name, arm in sorted(arms.items()) if name != UNREADABLE]
    pairs = [(_quoted(one), _quoted(other)) for one, other in combinations(readable, 2)]
    apart = [(one, other) for one, other in pairs if one.next_state is None or one.next_state != other.next_state]
    apart.sort(key=lambda pair: mix(seed, pair[0].step.completion, pair[1].step.completion))
    for one, other in apart[:PER_STATE]:
        yield _comparison(state, one, other)


def _quoted(arm: Arm) -> Pass:
    """The pass to show: the commonest wording, then the first id. How it ended plays no part."""
    wording = Counter(taken.step.completion for taken in arm.passes)
    return min(arm.passes, key=lambda taken: (-wording[taken.step.completion], taken.trajectory.id, taken.at))


def _comparison(state: State, one: Pass, other: Pass) -> Comparison:
    identity = digest(one.step.messages, one.step.completion, other.step.completion)
    first, second = (one, other) if mix(identity) % 2 else (other, one)
    return Comparison(
        id=identity,
        messages=first.step.messages,
        first=first.step.completion,
        second=second.step.completion,
        state_hash=state.state_hash,
        task=first.trajectory.task,
        evidence={
            "task_id": state.task_id,
            "same_prompt": first.step.messages == second.step.messages,
            "context_policy": first.trajectory.context_policy,
            "first": _witness(first),
            "second": _witness(second),
        },
    )


def _witness(taken: Pass) -> dict[str, Any]:
    return {
        "trajectory": taken.trajectory.id,
        "step": taken.at,
        "policy_version": taken.trajectory.policy_version,
        "action": decision(taken.step),
    }


def _in_turns(comparisons: Iterable[Comparison], seed: int) -> list[Comparison]:
    families: dict[str, list[Comparison]] = {}
    for comparison in sorted(comparisons, key=lambda one: mix(seed, one.id)):
        families.setdefault(comparison.task.name if comparison.task else "", []).append(comparison)
    rounds: Sequence[list[Comparison]] = [families[name] for name in sorted(families)]
    longest = max(map(len, rounds), default=0)
    return [family[turn] for turn in range(longest) for family in rounds if turn < len(family)]


def mix(*parts: object) -> int:
    """A number that looks random and is the same for the same parts on every machine: 64 bits of SHA-256."""
    written = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(written).digest()[:8])
