"""What came of an agent's answers, as pairs: a better answer that somebody gave, or two that fared differently.

Called by the loop that keeps learning; must not import environments, agents or torch.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations

from dpo_driver.core.records import Interaction, Preference, Trajectory
from dpo_driver.preferences.decisions import digest

# Two answers are told apart from this difference of their scores on; ratings and success go from -1 to 1.
LEAST_DIFFERENCE = 0.5


def pairs_of_interactions(interactions: Iterable[Interaction], role: str) -> list[Preference]:
    """Text pairs, in an order that depends on the interactions alone.

    ``preferred`` beats ``response``. Beyond that each answer to the same messages has a score, the mean of what was
    reported for it (a rating, else success as 1 or -1), and the better of two differs from the worse by at least
    ``LEAST_DIFFERENCE``. Ratings and better answers are a person's; success is the environment's.

    Args:
        interactions: of one role; those with trajectories are not looked at.
        role: put into the pairs.
    """
    found: dict[str, Preference] = {}
    scores: dict[str, dict[str, list[tuple[float, bool, str]]]] = defaultdict(lambda: defaultdict(list))
    messages = {}
    for one in interactions:
        if one.trajectory is not None or not one.messages or not one.response:
            continue
        key = digest(one.messages)
        messages[key] = one.messages
        if one.preferred and one.preferred != one.response:
            pair = Preference(
                id=digest(one.messages, one.preferred, one.response), messages=one.messages, chosen=one.preferred,
                rejected=one.response, level="text", source="human", role=role, evidence={"interaction": one.id},
            )  # fmt: skip
            found.setdefault(pair.id, pair)
        score = one.rating if one.rating is not None else None if one.success is None else 2.0 * one.success - 1
        if score is not None:
            scores[key][one.response].append((score, one.rating is not None, one.id))
    for key, answers in sorted(scores.items()):
        for (first, ours), (second, theirs) in combinations(sorted(answers.items()), 2):
            difference = statistics.fmean(s for s, _, _ in ours) - statistics.fmean(s for s, _, _ in theirs)
            if abs(difference) < LEAST_DIFFERENCE:
                continue
            chosen, rejected = (first, second) if difference > 0 else (second, first)
            by_hand = all(rated for _, rated, _ in (*ours, *theirs))
            pair = Preference(
                id=digest(messages[key], chosen, rejected), messages=messages[key], chosen=chosen, rejected=rejected,
                level="text", source="human" if by_hand else "environment", role=role,
                margin=min(1.0, abs(difference) / 2),
                evidence={"interactions": sorted(name for _, _, name in (*ours, *theirs))},
            )  # fmt: skip
            found.setdefault(pair.id, pair)
    return list(found.values())


def trajectories_of_interactions(interactions: Iterable[Interaction]) -> list[Trajectory]:
    """What browser agents did and how it ended, where that is known; whoever reported it has the last word."""
    found = []
    for one in interactions:
        played = one.trajectory
        if played is None or played.failure is not None:
            continue
        success = played.success if one.success is None else one.success
        if success is not None:
            reward = float(success) if one.success is not None or played.reward is None else played.reward
            found.append(played.model_copy(update={"success": success, "reward": reward}))
    return found
