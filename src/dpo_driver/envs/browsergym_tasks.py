"""Our tasks for agents that were written for BrowserGym: ``gymnasium.make("browsergym/dpo_driver.click-test")``.

Import this module (``import dpo_driver.envs.browsergym_tasks``) and the ids are registered, also inside BrowserGym's
own virtual environment: the browser runs in another process, whose interpreter ``DPO_DRIVER_PYTHON`` names (else the
running one). Observations have BrowserGym's keys and forms (goal, axtree_object, extra_element_properties, ...),
actions are its strings, parsed by a white-list and never executed. The reward is 1 for strict success, else 0; the raw
one is in ``info["task_info"]``. A broken world raises RolloutFailure, and the next reset mends it. Must not import
playwright or browsergym.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import time
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dpo_driver.core.errors import RolloutFailure, UnknownNameError
from dpo_driver.core.plugins import load
from dpo_driver.envs.worker import Answer, WorkerProcess

NAMESPACE = "browsergym/dpo_driver."
PYTHON_VARIABLE = "DPO_DRIVER_PYTHON"
RESET_S, STEP_S, PICTURE_S = 90.0, 30.0, 10.0
GREETING = "Hi! I am your UI assistant, I can perform web tasks for you. What can I help you with?"
KEYS = (
    *("chat_messages", "goal", "goal_object", "open_pages_urls", "open_pages_titles", "active_page_index", "url"),
    *("screenshot", "dom_object", "axtree_object", "extra_element_properties", "focused_element_bid", "last_action"),
    *("last_action_error", "elapsed_time"),
)
AX_ROLES = {"text": "StaticText", "clickable": "generic", "textarea": "textbox", "item": "listitem"}
AX_STATES = {"checked": ("checked", "true"), "selected": ("selected", True), "expanded": ("expanded", True)}
AX_STATES |= {"collapsed": ("expanded", False), "disabled": ("disabled", True), "focused": ("focused", True)}
TAGS = {"link": "a", "textbox": "input", "checkbox": "input", "radio": "input", "combobox": "select", "text": "span"}

Observed = dict[str, Any]


class Anything(spaces.Space[Any]):
    """A space of whatever BrowserGym's agents are given: trees, texts and pictures of any size."""

    def contains(self, x: Any) -> bool:
        return True


class Chat:
    """BrowserGym's chat without its window: the goal, and what the agent says."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def add_message(self, role: str, msg: str) -> None:
        if role != "info":  # told to a person only, as in BrowserGym
            self.messages.append({"role": role, "timestamp": time.time(), "message": msg})


class BrowserGymTask(gymnasium.Env[Observed, str]):
    """One of our task families behind BrowserGym's conventions.

    Args:
        task: family, "click-test".
        python: interpreter of an environment in which this package is installed with its browser layer.
        screenshots: give pictures of the page (needs Pillow); by default if Pillow is there. Without them an episode
            is faster, and the picture is one black pixel.
        theirs: BrowserGym's own arguments (headless, action_mapping, slow_mo, ...): accepted, without effect.

    Raises:
        UnknownNameError: at the first reset, if there is no such family.
    """

    metadata = {"render_modes": [None]}
    action_space = Anything()
    observation_space = spaces.Dict({key: Anything() for key in KEYS})

    def __init__(self, task: str, *, python: str | None = None, screenshots: bool | None = None, **theirs: Any) -> None:
        self.theirs = theirs
        self.chat = Chat()
        self._task = task
        interpreter = python or os.environ.get(PYTHON_VARIABLE) or sys.executable
        self._command = [interpreter, "-m", "dpo_driver.envs.browsergym_serve"]
        self._pictures = find_spec("PIL") is not None if screenshots is None else screenshots
        self._worker: WorkerProcess | None = None
        self._began = 0.0

    @property
    def pid(self) -> int | None:
        """Process id of the process with the browser; None while there is none."""
        return self._worker.pid if self._worker is not None else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observed, Answer]:
        super().reset(seed=seed)
        chosen = seed if seed is not None else int(self.np_random.integers(2**31))
        if self._worker is None or not self._worker.alive:
            self._worker = WorkerProcess(self._command, {"PYTHONPATH": ""})
        try:
            answer = self._call("reset", RESET_S, task=self._task, seed=chosen)
        except LookupError:
            raise UnknownNameError("MiniWoB++ task", self._task, load("tasks", "miniwob")) from None
        self._began = time.time()
        self.chat = Chat()
        self.chat.add_message("assistant", GREETING)
        self.chat.add_message("user", answer["goal"])
        return self._observed(answer, ""), {"task_info": {"seed": chosen}}

    def step(self, action: str) -> tuple[Observed, float, bool, bool, Answer]:
        began = time.time()
        answer = self._call("step", STEP_S, action=action)
        task_info = {"RAW_REWARD_GLOBAL": answer["raw"], "DONE_GLOBAL": answer["done"], "stop": answer["stop"]}
        info = {"action_exec_start": began, "action_exec_stop": time.time(), "action_exec_timeout": 0}
        reward = float(answer["success"])
        observed = self._observed(answer, action)
        return observed, reward, answer["done"], False, {**info, "task_info": task_info}

    def close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _call(self, operation: str, deadline_s: float, **request: Any) -> Answer:
        if self._worker is None:
            raise gymnasium.error.ResetNeeded("call reset first")
        try:
            return self._worker.call(operation, deadline_s, **request)
        except RolloutFailure:
            self._worker.kill()
            self._worker = None
            raise

    def _observed(self, answer: Answer, action: str) -> Observed:
        elements = answer["elements"]
        focused = [e["ref"] for e in elements if "focused" in e["states"] and e["ref"] is not None]
        return {
            "chat_messages": tuple(dict(message) for message in self.chat.messages),
            "goal": answer["goal"],
            "goal_object": ({"type": "text", "text": answer["goal"]},),
            "open_pages_urls": (answer["url"],),
            "open_pages_titles": (answer["title"],),
            "active_page_index": np.asarray([0]),
            "url": answer["url"],
            "screenshot": self._picture(),
            "dom_object": dom_object(elements),
            "axtree_object": axtree_object(elements, answer["title"], answer["url"]),
            "extra_element_properties": extra_properties(elements),
            "focused_element_bid": focused[0] if focused else "",
            "last_action": action,
            "last_action_error": answer["last_error"] or "",
            "elapsed_time": np.asarray([time.time() - self._began]),
        }

    def _picture(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(height, width, 3) in CSS pixels, so that coordinates read off it are those of the mouse actions."""
        if not self._pictures:
            return np.zeros((1, 1, 3), dtype=np.uint8)
        from PIL import Image

        answer = self._call("screenshot", PICTURE_S)
        with Image.open(io.BytesIO(base64.b64decode(answer["picture"]))) as picture:
            return np.asarray(picture.convert("RGB").resize(tuple(answer["size"])))


# -- our elements in the forms that BrowserGym's agents read -----------------------------------------------------------


def axtree_object(elements: list[Answer], title: str, url: str) -> Answer:
    """An accessibility tree as CDP gives it: a root, our elements below it, options below their list."""
    nodes: list[Answer] = []
    root: Answer = {"nodeId": "0", "role": _typed("RootWebArea"), "name": _typed(title), "childIds": []}
    root["properties"] = [{"name": "url", "value": _typed(url)}]
    nodes.append(root)
    for element in elements:
        node: Answer = {
            "nodeId": str(len(nodes)),
            "role": _typed(AX_ROLES.get(element["role"], element["role"])),
            "name": _typed(element["name"]),
            "properties": [
                {"name": name, "value": _typed(value)}
                for state in element["states"]
                for name, value in [AX_STATES.get(state, (state, True))]
            ],
            "childIds": [],
        }
        if node["role"]["value"] == "StaticText" and element["ref"] is not None:
            node["role"] = _typed("LabelText")  # BrowserGym shows no number beside static text
        if node["role"]["value"] == "generic":
            node["properties"].append({"name": "clickable", "value": _typed(True)})  # else it is left out as empty
        if element["ref"] is not None:
            node["browsergym_id"] = element["ref"]
        if element["value"] is not None:
            node["value"] = _typed(element["value"])
        root["childIds"].append(node["nodeId"])
        nodes.append(node)
        for option in element["options"]:
            chosen = {"name": "selected", "value": _typed(option == element["value"])}
            child: Answer = {
                "nodeId": str(len(nodes)),
                "role": _typed("option"),
                "name": _typed(option),
                "childIds": [],
            }
            node["childIds"].append(child["nodeId"])
            nodes.append({**child, "properties": [chosen]})
    return {"nodes": nodes}


def _typed(value: Any) -> Answer:
    return {"type": "computedString", "value": value}


def extra_properties(elements: list[Answer]) -> Answer:
    """BrowserGym's properties by bid. Everything in our observation is visible and may be acted on."""
    return {
        element["ref"]: {
            "visibility": 1.0,
            "bbox": list(element["box"]) if element["box"] else None,
            "clickable": True,
            "set_of_marks": True,
        }
        for element in elements
        if element["ref"] is not None
    }


def dom_object(elements: list[Answer]) -> Answer:
    """A DOM snapshot as CDP gives it: html, body, and an element with its text for each of ours."""
    snapshot = _Snapshot()
    body = snapshot.add(snapshot.add(-1, "HTML", 1), "BODY", 1)
    for element in elements:
        tag = str(element["tag"] or TAGS.get(element["role"], element["role"])).upper()
        attributes = {"bid": element["ref"], "role": element["role"], "value": element["value"]}
        if element["role"] in {"checkbox", "radio"}:
            attributes["type"] = element["role"]
        attributes |= {"checked": ""} if "checked" in element["states"] else {}
        node = snapshot.add(body, tag, 1, {key: value for key, value in attributes.items() if value is not None})
        snapshot.add(node, "#text", 3, text=element["name"])
        for option in element["options"]:
            snapshot.add(snapshot.add(node, "OPTION", 1), "#text", 3, text=option)
    return snapshot.whole()


class _Snapshot:
    """Nodes in columns, texts in one list, as ``DOMSnapshot.captureSnapshot`` writes them."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {}
        self._nodes: dict[str, list[Any]] = {
            name: [] for name in ("parentIndex", "nodeType", "nodeName", "nodeValue", "attributes")
        }

    def add(
        self, parent: int, name: str, kind: int, attributes: dict[str, str] | None = None, text: str | None = None
    ) -> int:
        pairs = [self._text(part) for item in (attributes or {}).items() for part in item]
        row = (parent, kind, self._text(name), -1 if text is None else self._text(text), pairs)
        for column, value in zip(self._nodes.values(), row, strict=True):
            column.append(value)
        return len(self._nodes["nodeType"]) - 1

    def whole(self) -> Answer:
        nodes = {**self._nodes, "contentDocumentIndex": {"index": [], "value": []}}
        return {"documents": [{"nodes": nodes}], "strings": list(self._strings)}

    def _text(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))


def register() -> None:
    """Make every MiniWoB++ family known to gymnasium as ``browsergym/dpo_driver.NAME``. Safe to call again."""
    for name in load("tasks", "miniwob"):
        if NAMESPACE + name not in gymnasium.registry:
            gymnasium.register(
                NAMESPACE + name,
                entry_point="dpo_driver.envs.browsergym_tasks:BrowserGymTask",
                kwargs={"task": name},
                disable_env_checker=True,
                nondeterministic=False,
            )


register()
