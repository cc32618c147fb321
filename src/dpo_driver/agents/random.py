"""The floor: an agent that acts at random but validly. Evaluated beside every model, so that a score has a zero point.

It clicks mostly, fills text fields with a word of the goal, and picks options; which one follows from its seed, the
task and the step, so a rollout can be repeated exactly. Must not import environments or policies.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.core.actions import Action, Click, Fill, Noop, SelectOption
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Element, Observation, Step, Task

_FIELDS = frozenset({"textbox", "textarea", "date", "time", "number", "spinbutton"})
_STILL = frozenset({"text", "heading", "cell", "label", "listitem", "image", "dialog"})
_QUOTED = re.compile(r'"([^"]+)"')
_WORD = re.compile(r"\w[\w/:#.-]*")


class RandomAgent:
    """``RandomAgent(seed=0)``. ``profile`` only says how its decisions are written down."""

    def __init__(self, seed: int = 0, profile: str = "pocket") -> None:
        self._seed = seed
        self._profile = get_profile(profile)

    @property
    def name(self) -> str:
        return "random"

    @property
    def policy_version(self) -> str:
        return f"random-{self._seed}"

    @property
    def context_policy(self) -> str:
        return self._profile.id

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """A uniformly random element that acts, with an action that suits it; noop on a page without elements."""
        sibling = task.params.get("sibling", 0)
        rng = random.Random(f"{self._seed}/{task.id}/{sibling}/{len(history)}")
        numbered = [element for element in observation.elements if element.ref is not None]
        targets = [element for element in numbered if element.role not in _STILL] or numbered
        action: Action = Noop()
        thought = "nothing to act on"
        if targets:
            target = rng.choice(targets)
            action, thought = _suit(target, observation.goal, rng), target.label
        return Move(
            action=action,
            thought=thought,
            completion=render_completion(self._profile, thought, action),
            messages=render(self._profile, observation, history),
        )


def _suit(target: Element, goal: str, rng: random.Random) -> Action:
    """An action that the element can take. Fields are filled three times in four, else clicked."""
    assert target.ref is not None
    if target.options:
        return SelectOption(ref=target.ref, options=(rng.choice(target.options),))
    if target.role in _FIELDS and rng.random() < 0.75:
        # Quoted spans are what a goal asks to type, when it has any.
        words = _QUOTED.findall(goal) or _WORD.findall(goal) or ["x"]
        return Fill(ref=target.ref, value=rng.choice(words))
    return Click(ref=target.ref)
