"""Runs in the peers' virtual environment: MiniWoB++'s own Selenium gymnasium environment.

Started by rollout/engines.py for `dpo-driver bench env --peers`. Elements come from the gym's own DOM observation,
actions go into its own action space (CLICK_ELEMENT, FOCUS_ELEMENT_AND_TYPE_TEXT); what it cannot do is told as the last
error.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

LOOP = Path(__file__).resolve().parents[2] / "src" / "dpo_driver" / "envs" / "browsergym_worker.py"
INPUTS = {
    "checkbox": "checkbox",
    "radio": "radio",
    "button": "button",
    "submit": "button",
    "date": "date",
    "time": "time",
}
TAGS = {"button": "button", "a": "link", "textarea": "textarea", "select": "combobox"}


def load_loop() -> Any:
    spec = importlib.util.spec_from_file_location("browsergym_worker", LOOP)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


loop = load_loop()


class SeleniumPlayer:
    """One Selenium environment, made anew when the task changes. ``options`` are those of its ``reset``."""

    def __init__(self) -> None:
        self._env: Any = None
        self._task = ""
        self._goal = ""

    def reset(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._task != request["task"]:
            self.close()
            self._make(request["task"])
        began = time.perf_counter()
        observation, info = self._env.reset(seed=request["seed"], options=request.get("options") or None)
        seconds = time.perf_counter() - began
        self._goal = observation["utterance"]
        return self._seen(info, seconds)

    def step(self, request: dict[str, Any]) -> dict[str, Any]:
        action, error = self._translate(json.loads(request["action"]))
        began = time.perf_counter()
        _, _, done, cut, info = self._env.step(action)
        seconds = time.perf_counter() - began
        return {**self._seen(info, seconds, error), "reward": float(info["raw_reward"]), "done": done, "cut": cut}

    def screenshot(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"picture": self._env.unwrapped.instance.driver.get_screenshot_as_base64()}

    def close(self) -> None:
        env, self._env, self._task = self._env, None, ""
        if env is not None:
            env.close()

    def _make(self, task: str) -> None:
        import gymnasium
        import miniwob

        gymnasium.register_envs(miniwob)
        if f"miniwob/{task}-v1" not in gymnasium.registry:
            known = [name[8:-3] for name in gymnasium.registry if name.startswith("miniwob/")]
            raise loop.Refusal("unknown_task", f"the Selenium gym has no task {task!r}", sorted(known))
        self._env = gymnasium.make(f"miniwob/{task}-v1", action_space_config="all_supported", disable_env_checker=True)
        self._task = task

    def _translate(self, action: dict[str, Any]) -> tuple[Any, str | None]:
        from miniwob.action import ActionTypes

        make, kind = self._env.unwrapped.create_action, action["kind"]
        if kind == "click":
            return make(ActionTypes.CLICK_ELEMENT, ref=int(action["ref"])), None
        if kind in {"fill", "type"}:
            text = action["value"] if kind == "fill" else action["text"]
            return make(ActionTypes.FOCUS_ELEMENT_AND_TYPE_TEXT, ref=int(action["ref"]), text=text), None
        return make(ActionTypes.NONE), None if kind == "noop" else f"the Selenium gym has no action like {kind}"

    def _seen(self, info: dict[str, Any], seconds: float, error: str | None = None) -> dict[str, Any]:
        root = info.get("root_dom")  # none once the episode has ended
        elements = list(walk(root, None)) if root is not None else []
        return {
            "goal": self._goal,
            "url": f"miniwob://{self._task}",
            "title": self._task,
            "elements": elements,
            "truncated": 0,
            "last_error": error,
            "seconds": seconds,
        }


def walk(dom: Any, label: str | None) -> Iterator[dict[str, Any]]:
    """Elements of the gym's DOM in document order, with its numbers as references."""
    tag, _, kind = dom.tag.partition("_")
    if dom.tag == "t":
        yield {"ref": None, "role": "text", "name": dom.text or ""}
        return
    role = INPUTS.get(kind, "textbox") if tag == "input" else TAGS.get(tag)
    if "ui-tabs-anchor" in dom.classes:
        role = "tab"
    elif role is None and "alink" in dom.classes:
        role = "link"
    if role is not None or dom.text:
        checked = role in {"checkbox", "radio"}
        name = str(dom.value) if tag == "input" and role == "button" else (label or "") if checked else dom.text or ""
        typed = dom.value if tag in {"input", "textarea"} and not checked and role != "button" else None
        yield {
            "ref": str(dom.ref),
            "role": role or "text",
            "name": name,
            "value": typed or None,
            "states": (["checked"] if checked and dom.value else []) + (["focused"] if dom.focused else []),
            "box": [dom.left, dom.top, dom.width, dom.height],
        }
    for child, after in zip_longest(dom.children, dom.children[1:]):
        yield from walk(child, after.text if after is not None and after.tag in {"t", "label"} else None)


if __name__ == "__main__":
    loop.serve(SeleniumPlayer())
