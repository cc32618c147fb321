"""Step pairs: two decisions taken in the same state, one of which leads to success clearly more often.

A state here is the page and the very prompt the model saw, so both texts are answers to the same messages. Rollouts of
different policies count together. Called by build.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from dpo_driver.core.config import PairConfig
from dpo_driver.core.records import Preference, Trajectory
from dpo_driver.preferences.decisions import Refusals, compare, index_states


def build(trajectories: Sequence[Trajectory], config: PairConfig, refused: Refusals) -> list[Preference]:
    """All preferences between decisions of the same state, best margin first within a state.

    Args:
        trajectories: scored ones, see :func:`decisions.learnable`.
        config: ``min_margin`` holds for the difference in mean success of the trajectories through each decision.
        refused: counts every state or pair of decisions that gave none, by reason.
    """
    states = index_states(trajectories, refused)
    pages = Counter((state.task_id, state.state_hash) for state in states)
    refused["context_differs"] += sum(contexts - 1 for contexts in pages.values())
    found: list[Preference] = []
    for state, arms in states.items():
        here = [compare(state, one, other, "step", config, refused) for one, other in combinations(arms.values(), 2)]
        kept = [preference for preference in here if preference is not None]
        found += sorted(kept, key=lambda preference: (-preference.margin, preference.id))
    return found
