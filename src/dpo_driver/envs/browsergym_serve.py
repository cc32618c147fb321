"""Serves our tasks to a program that speaks BrowserGym: ``python -m dpo_driver.envs.browsergym_serve``.

Started as a process of its own by envs/browsergym_tasks.py with an interpreter that has this package; requests and
answers are those of browsergym_worker.serve. An action may be several calls, one after the other, as BrowserGym allows.
"""

from __future__ import annotations

import ast
import base64
from typing import Any

from dpo_driver.core.errors import DriverError, RolloutFailure, UnknownNameError
from dpo_driver.core.records import Observation
from dpo_driver.envs.browsergym_worker import Answer, Refusal, serve
from dpo_driver.envs.gym import BrowserEnv
from dpo_driver.envs.miniwob.environment import SUCCESS_REWARD, TASK_AREA


class OurPlayer:
    """One task family in a browser at a time, opened anew when another is asked for."""

    def __init__(self) -> None:
        self._env: BrowserEnv | None = None
        self._task = ""

    def reset(self, request: Answer) -> Answer:
        try:
            if self._env is None or self._task != request["task"]:
                self.close()
                self._env, self._task = BrowserEnv(request["task"]), request["task"]
            _, info = self._env.reset(seed=request["seed"])
        except UnknownNameError as error:
            raise Refusal("unknown_task", str(error)) from error
        except (RolloutFailure, DriverError) as failure:
            raise _refusal(failure) from failure
        return _seen(info["observation"])

    def step(self, request: Answer) -> Answer:
        assert self._env is not None, "reset comes first"
        answer: Answer = {}
        try:
            for call in _calls(request["action"]):
                _, raw, done, _, info = self._env.step(call)
                stop = info["stop"].value if info["stop"] is not None else None
                answer = {**_seen(info["observation"]), "raw": float(raw), "done": done, "stop": stop}
                if done or answer["last_error"]:
                    break
        except RolloutFailure as failure:
            raise _refusal(failure) from failure
        return {**answer, "success": bool(answer["done"] and answer["raw"] >= SUCCESS_REWARD)}

    def screenshot(self, request: Answer) -> Answer:
        assert self._env is not None, "reset comes first"
        try:
            picture = self._env.screenshot()
        except RolloutFailure as failure:
            raise _refusal(failure) from failure
        return {"picture": base64.b64encode(picture).decode(), "size": [int(TASK_AREA[2]), int(TASK_AREA[3])]}

    def close(self) -> None:
        env, self._env, self._task = self._env, None, ""
        if env is not None:
            env.close()


def _calls(text: str) -> list[str]:
    """The calls of an action, one text each. What cannot be read stays whole: the environment says what is wrong."""
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [text]
    return [ast.get_source_segment(text.strip(), part) or text for part in body] or [text]


def _refusal(failure: Exception) -> Refusal:
    return Refusal(getattr(failure, "kind", "server_error"), str(failure))


def _seen(observation: Observation) -> Answer:
    answer: dict[str, Any] = observation.model_dump(exclude={"state_hash", "screenshot"})
    return answer


if __name__ == "__main__":
    serve(OurPlayer())
