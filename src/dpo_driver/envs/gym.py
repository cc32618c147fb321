"""The gymnasium face: ``gymnasium.make("dpo_driver/miniwob.click-button")``, text in and text out.

An action is one call of the action language, ``click("3")``; an observation is the goal, the page as lines of text,
and what went wrong with the last action. The reward is the environment's raw reward, given when it ends the episode
(one with milestones gives each its share), or what ``reward="strict"`` or ``"positive"`` makes of it.
The browser runs in an event loop of its own thread, so that the plain synchronous API works anywhere. Registered
by ``import dpo_driver`` (envs/gym_hook.py); importing this module loads no browser.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar, get_args

import gymnasium
from gymnasium import spaces

from dpo_driver.core.actions import parse_action
from dpo_driver.core.errors import ActionError, UnknownNameError
from dpo_driver.core.plugins import load
from dpo_driver.core.protocols import Environment, Outcome
from dpo_driver.core.records import Element, Observation

MAX_ACTION_CHARS = 4_000
MAX_PAGE_CHARS = 100_000
OPEN_S = 60.0
CALL_S = 60.0
SUCCESS_REWARD = 0.99
RewardKind = Literal["dense", "strict", "positive"]

T = TypeVar("T")


class AnyText(spaces.Text):
    """Text of any characters: pages are not limited to an alphabet."""

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length


class BrowserEnv(gymnasium.Env[dict[str, str], str]):
    """One task family in a browser of its own.

    Args:
        task: family or alias, "click-button".
        environment: name in the table of environments.
        reward: "dense" gives the raw reward as the page computes it (with partial credit and below 0); "strict" gives 1
            where it is at least 0.99 and 0 elsewhere; "positive", as in BrowserGym, 1 where it is above 0. Of
            shares the sum counts.

    ``reset(seed=7)`` starts the episode of seed 7; without a seed one is drawn. ``info["observation"]`` is the whole
    record, ``info["stop"]`` why the episode ended, ``info["raw_reward"]`` the raw reward whatever ``reward`` says, None
    where nothing was measured. A broken world raises RolloutFailure; the next reset mends it.
    """

    def __init__(
        self,
        task: str,
        environment: str = "miniwob",
        render_mode: str | None = None,
        reward: RewardKind = "dense",
    ) -> None:
        if render_mode is not None:
            raise ValueError("there is no render mode; use `screenshot()`")
        if reward not in get_args(RewardKind):
            raise UnknownNameError("reward", reward, get_args(RewardKind))
        self._reward: RewardKind = reward
        self.render_mode = None
        self._make_task = load("make_task", environment)
        self._make_task(task, 0)  # an unknown name is told before a browser starts
        self._task = task
        self.action_space = AnyText(MAX_ACTION_CHARS, min_length=0)
        page = AnyText(MAX_PAGE_CHARS, min_length=0)
        self.observation_space = spaces.Dict({"goal": page, "page": page, "last_error": page})  # type: ignore[assignment]
        self._observation: Observation | None = None
        self._earned = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dpo-driver-gym", daemon=True)
        self._thread.start()
        try:
            self._environment: Environment = self._run(load("environment", environment).create(), OPEN_S)
        except BaseException:
            self._stop_loop()
            raise

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, str], dict[str, Any]]:
        super().reset(seed=seed)
        chosen = seed if seed is not None else int(self.np_random.integers(2**31))
        self._observation = self._run(self._environment.reset(self._make_task(self._task, chosen)))
        self._earned = 0.0
        return _as_text(self._observation), {"observation": self._observation, "seed": chosen}

    def step(self, action: str) -> tuple[dict[str, str], float, bool, bool, dict[str, Any]]:
        if self._observation is None:
            raise gymnasium.error.ResetNeeded("call reset before step, and after the end of an episode")
        try:
            outcome = self._run(self._environment.step(parse_action(action)))
        except ActionError as error:  # unreadable: nothing was done
            outcome = Outcome(self._observation.model_copy(update={"last_error": str(error)}))
        text = _as_text(outcome.observation)
        self._observation = outcome.observation if outcome.stop is None else None
        info = {"observation": outcome.observation, "stop": outcome.stop, "raw_reward": outcome.reward}
        before, self._earned = self._earned, self._earned + (outcome.reward or 0.0)
        reward = _as_reward(self._reward, self._earned) - _as_reward(self._reward, before)
        return text, reward, outcome.stop is not None, False, info

    def screenshot(self) -> bytes:
        """JPEG of the page as it is."""
        return self._run(self._environment.screenshot())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        try:
            self._run(self._environment.close())
        finally:
            self._stop_loop()

    def _run(self, call: Coroutine[Any, Any, T], deadline_s: float = CALL_S) -> T:
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(call, deadline_s), self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S)
        self._loop.close()


def _as_reward(kind: RewardKind, raw: float) -> float:
    """A raw reward in the asked kind."""
    if kind == "strict":
        return float(raw >= SUCCESS_REWARD)
    return float(raw > 0) if kind == "positive" else float(raw)


def _as_text(observation: Observation) -> dict[str, str]:
    page = "\n".join(_line(element) for element in observation.elements)
    goal, error = observation.goal, observation.last_error or ""
    return {"goal": goal[:MAX_PAGE_CHARS], "page": page[:MAX_PAGE_CHARS], "last_error": error[:MAX_PAGE_CHARS]}


def _line(element: Element) -> str:
    """``[4] checkbox "Milk" checked``; running text has no number."""
    parts = [f"[{element.ref}]"] if element.ref is not None else []
    parts.append(element.role)
    if element.name:
        parts.append(f'"{element.name}"')
    if element.value is not None:
        parts.append(f'= "{element.value}"')
    parts += element.states
    if element.options:
        parts.append("options: " + " | ".join(element.options))
    return " ".join(parts)
