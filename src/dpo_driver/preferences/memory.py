"""Memory pairs: one start state, decided with worked examples in the prompt and without; one succeeds, the other fails.

The pair belongs to the prompt *without* examples, whichever side it was that succeeded: the model is to do by itself
what the examples taught it, and needs no memory, and no longer prompt, when it is served. So the prompt is always the
one that the agent without memory saw where the two part, and the other side's text is quoted under it. Called by
build.py; the rollouts are flywheel/memory.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from dpo_driver.core.config import PairConfig
from dpo_driver.core.records import Preference, Trajectory
from dpo_driver.preferences.decisions import Refusals, State, compare, decision, digest, fork_of, index_states
from dpo_driver.preferences.outcome import parting

SOURCE = "memory"
Group = list[Trajectory]


def build(
    without: Sequence[Trajectory], remembering: Sequence[Trajectory], config: PairConfig, refused: Refusals
) -> list[Preference]:
    """One preference for each state and pair of decisions at which the two ways part.

    Args:
        without: scored rollouts of the agent as it is trained and served, see :func:`decisions.learnable`.
        remembering: scored rollouts of the same model from the same starts, with memory.
        config: ``min_margin`` holds for the difference in success of the two ways through either decision.
        refused: counts every start and pair of rollouts that gave none, by reason.
    """
    plain, helped = _by_origin(without), _by_origin(remembering)
    refused["no_memory"] += len(plain.keys() ^ helped.keys())
    found: list[Preference] = []
    for origin in plain.keys() & helped.keys():
        if len({one.start_hash for one in (*plain[origin], *helped[origin])}) > 1:
            refused["start_hash_differs"] += 1
        else:
            found += _of_start(plain[origin], helped[origin], config, refused)
    return sorted(found, key=lambda row: (row.evidence["task_id"], row.id))


def _by_origin(trajectories: Iterable[Trajectory]) -> dict[tuple[str, str], Group]:
    """By task and model."""
    groups: dict[tuple[str, str], Group] = {}
    for one in trajectories:
        groups.setdefault((one.task.id, one.policy_version), []).append(one)
    return groups


def _of_start(plain: Group, helped: Group, config: PairConfig, refused: Refusals) -> list[Preference]:
    differing = [(one, other) for one, other in product(plain, helped) if one.success is not other.success]
    if not differing:
        refused["same_outcome"] += 1
    parted: dict[tuple[State, str, str], None] = {}
    for one, other in differing:
        success, failure = (one, other) if one.success else (other, one)
        at = parting(success, failure, refused)
        if at is not None:
            parted[fork_of(one, at), str(decision(one.steps[at])), str(decision(other.steps[at]))] = None
    arms, arms_helped = index_states(plain, where=fork_of), index_states(helped, where=fork_of)
    own = {one.id: one for one in plain}
    found = []
    for state, by_itself, with_help in parted:
        pair = compare(state, arms[state][by_itself], arms_helped[state][with_help], "outcome", config, refused)
        if pair is not None:
            found.append(_without_examples(pair, own, helped[0].context_policy))
    return found


def _without_examples(pair: Preference, own: dict[str, Trajectory], helped_by: str) -> Preference:
    """The pair under the prompt of the side that had no examples."""
    side = "chosen" if pair.evidence["chosen"]["trajectory"] in own else "rejected"
    witness = pair.evidence[side]
    quoted = own[witness["trajectory"]]
    messages = quoted.steps[witness["step"]].messages
    evidence = {**pair.evidence, "context_policy": quoted.context_policy, "with_memory": helped_by,
                "taught_by_memory": side == "rejected"}  # fmt: skip
    identity = digest(messages, pair.chosen, pair.rejected)
    return pair.model_copy(update={"id": identity, "messages": messages, "source": SOURCE, "evidence": evidence})
