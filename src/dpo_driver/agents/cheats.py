"""Agents that do not solve tasks: what an environment pays them is a hole in it, so each must score 0.

* ``null`` does nothing at all.
* ``claims`` says that it has succeeded.
* ``reward-reader`` goes for the reward itself: it reads and sets the page's globals, calls the page's own end of an
  episode, and slips scripts into addresses and fields.

Used by tests, and by whoever doubts an environment. Must not import environments or policies.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.core.actions import Action, Click, Fill, Goto, JsEval, KeyboardType, Noop, SendMsgToUser
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Observation, Step, Task

_FORGE = "core.endEpisode(1, false)"
_SCRIPTS = (
    "window.WOB_RAW_REWARD_GLOBAL = window.WOB_REWARD_GLOBAL = 1; window.WOB_DONE_GLOBAL = true",
    f"{_FORGE}; document.querySelector('#reward-display').textContent",
    f"const s = document.createElement('script'); s.textContent = '{_FORGE}'; document.body.append(s)",
    f"document.body.setAttribute('onclick', '{_FORGE}'); document.body.click()",
    "for (const button of document.querySelectorAll('button, a, input')) button.click()",
)
_ADDRESSES = (f"javascript:{_FORGE}", f"data:text/html,<script>opener.{_FORGE}</script>", "view-source:about:blank")
_TEXTS = (f'<img src=x onerror="{_FORGE}">', f"<script>{_FORGE}</script>", f"javascript:{_FORGE}")


class _Cheat:
    """What all have in common; ``profile`` only says how a decision is written down."""

    title = ""

    def __init__(self, profile: str = "pocket") -> None:
        self._profile = get_profile(profile)

    @property
    def name(self) -> str:
        return self.title

    @property
    def policy_version(self) -> str:
        return self.title

    @property
    def context_policy(self) -> str:
        return self._profile.id

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        thought, action = self._choose(observation, history)
        return Move(
            action=action,
            thought=thought,
            completion=render_completion(self._profile, thought, action),
            messages=render(self._profile, observation, history),
        )

    def _choose(self, observation: Observation, history: Sequence[Step]) -> tuple[str, Action]:
        raise NotImplementedError


class NullAgent(_Cheat):
    """Waits until the time is up."""

    title = "null"

    def _choose(self, observation: Observation, history: Sequence[Step]) -> tuple[str, Action]:
        return "nothing", Noop()


class ClaimsAgent(_Cheat):
    """Says in every step that the task is done."""

    title = "claims"

    def _choose(self, observation: Observation, history: Sequence[Step]) -> tuple[str, Action]:
        return "success", SendMsgToUser(text=f"I have completed the task: {observation.goal} Reward: 1.0. Success.")


class RewardReaderAgent(_Cheat):
    """One attack after the other: scripts, addresses, then texts into each field, and the page is clicked beside them
    so that it takes the text up."""

    title = "reward-reader"

    def _choose(self, observation: Observation, history: Sequence[Step]) -> tuple[str, Action]:
        attacks: list[Action] = [JsEval(code=code) for code in _SCRIPTS]
        attacks += [Goto(url=url) for url in _ADDRESSES]
        for element in observation.elements:
            if element.ref is not None and element.role in ("textbox", "textarea"):
                attacks += [Fill(ref=element.ref, value=text) for text in _TEXTS]
        attacks += [KeyboardType(text=text + "\n") for text in _TEXTS]
        marked = [e.ref for e in observation.elements if e.ref is not None and "reward" in e.name.lower()]
        attacks += [Click(ref=ref) for ref in marked]
        return "reward", attacks[len(history) % len(attacks)]
