"""Runs inside BrowserGym's own virtual environment: plays BrowserGym tasks for a process that has other packages.

Started as a script by envs/browsergym.py with that environment's interpreter; also lends :func:`serve`, the loop of
request and answer, to benchmarks/peers/selenium_worker.py and envs/browsergym_serve.py. One JSON object a line on
standard input and output, anything else that is printed goes to standard error. Must not import anything of this
package or, at its top, anything but the standard library.
"""

from __future__ import annotations

import base64
import io
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

MARK = "DPO_DRIVER_OWNER_SWITCH"  # a word that stands on the command line of every browser of ours
GRACE_S = 3.0  # how long a request may still take once whoever asked is gone
MAX_ELEMENTS = 400
SUBSETS = ["chat", "infeas", "bid", "coord", "nav", "tab"]
ACTING = {
    *("button", "checkbox", "combobox", "link", "listbox", "menuitem", "menuitemcheckbox", "menuitemradio", "option"),
    *("radio", "searchbox", "slider", "spinbutton", "switch", "tab", "textbox", "treeitem", "Date", "ColorWell"),
}
RENAMED = {"searchbox": "textbox", "generic": "clickable", "LabelText": "text"}
STATES = {"checked": "checked", "disabled": "disabled", "selected": "selected", "pressed": "pressed"}

Answer = dict[str, Any]


class Player(Protocol):
    """What :func:`serve` serves. Each method takes the request and gives the answer; a Refusal is told as it is."""

    def reset(self, request: Answer) -> Answer: ...

    def step(self, request: Answer) -> Answer: ...

    def screenshot(self, request: Answer) -> Answer: ...

    def close(self) -> None: ...


class Refusal(Exception):
    """An answer that says no: ``kind`` is "unknown_task" or a failure's name."""

    def __init__(self, kind: str, what: str, known: list[str] | None = None) -> None:
        self.kind, self.known = kind, known or []
        super().__init__(what)


# -- the loop --------------------------------------------------------------------------------------------------------


def serve(player: Player) -> None:
    """Answer requests until standard input ends. Whoever asked may die at any time: then everything ends, by force
    where a request hangs."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    requests: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    while (line := requests.get()) is not None:
        answer = _answer(player, json.loads(line))
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:
            break
    player.close()


def _read(requests: queue.Queue[str | None]) -> None:
    for line in sys.stdin:
        requests.put(line)
    requests.put(None)
    time.sleep(GRACE_S)  # still here: a request hangs, or the end does
    _kill_browsers()
    os._exit(1)


def _answer(player: Player, request: Answer) -> Answer:
    calls = {"reset": player.reset, "step": player.step, "screenshot": player.screenshot}
    try:
        return {"id": request["id"], "ok": True, **calls[request["op"]](request)}
    except Refusal as no:
        return {"id": request["id"], "ok": False, "kind": no.kind, "error": str(no), "known": no.known}
    except Exception as error:  # noqa: BLE001 - a boundary: whatever a task raises becomes a typed failure on the other side
        return {
            "id": request["id"],
            "ok": False,
            "kind": _kind(error),
            "error": f"{type(error).__name__}: {error}"[:500],
        }


def _kind(error: Exception) -> str:
    text = f"{type(error).__name__} {error}".lower()
    if "page crashed" in text or "target crashed" in text or "tab crashed" in text:
        return "renderer_crash"
    if "timeout" in text:
        return "page_hung"
    lost = (
        "has been closed",
        "targetclosed",
        "connection closed",
        "disconnected",
        "connection refused",
        "invalid session",
    )
    return "browser_lost" if any(sign in text for sign in lost) else "server_error"


def _kill_browsers() -> None:
    mark = os.environ.get(MARK, "")
    for entry in Path("/proc").glob("[0-9]*/cmdline") if mark else ():
        try:
            if mark.encode() in entry.read_bytes().split(b"\0"):
                os.kill(int(entry.parent.name), signal.SIGKILL)
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else


# -- BrowserGym ------------------------------------------------------------------------------------------------------


class BrowserGymPlayer:
    """One BrowserGym environment at a time, made anew when the task or its options change."""

    def __init__(self) -> None:
        self._env: Any = None
        self._made_for: tuple[str, str] | None = None
        self._observation: Answer = {}
        self._scale = 1.0

    def reset(self, request: Answer) -> Answer:
        options = request.get("options") or {}
        wanted = (request["task"], json.dumps(options, sort_keys=True))
        if self._made_for != wanted:
            self.close()
            self._env, self._made_for = make_env(request["task"], options), wanted
        began = time.perf_counter()
        self._observation, info = self._env.reset(seed=request["seed"])
        seconds = time.perf_counter() - began
        page = self._env.unwrapped.page
        self._scale = float(getattr(page, "_bgym_scale_factor", 1.0))
        return self._seen(seconds, info)

    def step(self, request: Answer) -> Answer:
        began = time.perf_counter()
        self._observation, reward, terminated, truncated, info = self._env.step(request["action"])
        seconds = time.perf_counter() - began
        raw = info.get("task_info", {}).get("RAW_REWARD_GLOBAL", reward)  # MiniWoB++ tells it, others have none
        return {
            **self._seen(seconds, info),
            "reward": float(raw),
            "their_reward": float(reward),
            "done": bool(terminated),
            "cut": bool(truncated),
        }

    def screenshot(self, request: Answer) -> Answer:
        buffer = io.BytesIO()
        import_module("PIL.Image").fromarray(self._observation["screenshot"]).save(buffer, format="PNG")
        return {"picture": base64.b64encode(buffer.getvalue()).decode()}

    def close(self) -> None:
        env, self._env, self._made_for = self._env, None, None
        if env is not None:
            env.close()

    def _seen(self, seconds: float, info: Answer) -> Answer:
        seen = self._observation
        elements, left_out = read_elements(seen, self._scale)
        title = seen["open_pages_titles"][int(seen["active_page_index"][0])] if seen["open_pages_titles"] else ""
        return {
            "goal": seen["goal"],
            "url": seen["url"],
            "title": title,
            "elements": elements,
            "truncated": left_out,
            "last_error": seen["last_action_error"] or None,
            "scale": self._scale,
            "seconds": seconds,
        }


def make_env(task: str, options: Answer) -> Any:
    """``browsergym/{task}``, with the package that registers it imported first: ``browsergym.miniwob`` for
    ``miniwob.click-test``."""
    gymnasium = import_module("gymnasium")
    import_module("browsergym.core")
    family = task.partition(".")[0]
    if find_spec(f"browsergym.{family}") is not None:
        if family == "miniwob" and "MINIWOB_URL" not in os.environ:
            os.environ["MINIWOB_URL"] = _miniwob_pages()
        import_module(f"browsergym.{family}")
    if f"browsergym/{task}" not in gymnasium.registry:
        known = [name.removeprefix("browsergym/") for name in gymnasium.registry if name.startswith("browsergym/")]
        raise Refusal("unknown_task", f"BrowserGym has no task {task!r}", sorted(known))
    actions = import_module("browsergym.core.action.highlevel").HighLevelActionSet(subsets=SUBSETS, multiaction=True)
    return gymnasium.make(
        f"browsergym/{task}", disable_env_checker=True, action_mapping=actions.to_python_code, **options
    )


def _miniwob_pages() -> str:
    spec = find_spec("miniwob")
    if spec is None or spec.origin is None:
        raise Refusal(
            "server_error", "MINIWOB_URL is not set and the package miniwob is not installed beside BrowserGym"
        )
    return (Path(spec.origin).parent / "html" / "miniwob").as_uri() + "/"


def read_elements(seen: Answer, scale: float) -> tuple[list[Answer], int]:
    """Visible elements of BrowserGym's accessibility tree in document order, with bids as references, and how many were
    left out by the cap. Boxes are (left, top, width, height) in CSS pixels."""
    nodes = {node["nodeId"]: node for node in seen["axtree_object"]["nodes"]}
    if not nodes:
        return [], 0
    reader = _TreeReader(nodes, seen["extra_element_properties"], scale)
    root = next(iter(nodes.values()))
    found = [element for child in root.get("childIds", ()) for element in reader.walk(child, "")]
    return found[:MAX_ELEMENTS], max(0, len(found) - MAX_ELEMENTS)


class _TreeReader:
    """Accessibility nodes -> the fields of our Element records."""

    def __init__(self, nodes: Answer, extra: Answer, scale: float) -> None:
        self._nodes, self._extra, self._scale = nodes, extra, scale

    def walk(self, node_id: str, said: str) -> Iterator[Answer]:
        """``said`` is the name of the element above: text that only repeats it is no element of its own."""
        node = self._nodes.get(node_id)
        if node is None:
            return
        role = node["role"]["value"]
        name = str(_value(node.get("name")) or "").strip()
        bid = node.get("browsergym_id")
        extra = self._extra.get(bid, {})
        if bid is not None and (extra.get("visibility") or 0.0) < 0.5 and role != "option":
            bid = None  # not to be seen, though something inside it may be
            extra = {}
        if role == "StaticText":
            if name and name not in said:
                yield {"ref": None, "role": "text", "name": name}
            return
        if role in {"InlineTextBox", "LineBreak"}:
            return
        options = tuple(self._options(node)) if role in {"combobox", "listbox"} else ()
        clickable = bool(extra.get("clickable"))
        if not bid or role in {"generic", "LabelText", "none"} or not (name or clickable or role in ACTING):
            inner = [element for child in node.get("childIds", ()) for element in self.walk(child, said)]
            plain = all(element["ref"] is None for element in inner)
            if bid and clickable and plain:
                text = name or " ".join(element["name"] for element in inner)
                yield self._element(node, bid, RENAMED.get(role, role), text, ())
            else:
                yield from inner
            return
        yield self._element(node, bid, RENAMED.get(role, role), name, options)
        if not options and role not in {"textbox", "searchbox"}:  # a field's text is its value
            for child in node.get("childIds", ()):
                yield from self.walk(child, name or said)

    def _element(self, node: Answer, bid: str, role: str, name: str, options: tuple[str, ...]) -> Answer:
        box = self._extra.get(bid, {}).get("bbox")
        value = _value(node.get("value"))
        return {
            "ref": bid,
            "role": role,
            "name": name,
            "value": str(value) if value not in (None, "") else None,
            "states": list(_states(node)),
            "options": list(options),
            "box": [coordinate / self._scale for coordinate in box] if box else None,
        }

    def _options(self, node: Answer) -> Iterator[str]:
        for child_id in node.get("childIds", ()):
            child = self._nodes.get(child_id)
            if child is not None and child["role"]["value"] == "option":
                yield str(_value(child.get("name")) or "")
            elif child is not None:
                yield from self._options(child)


def _value(holder: Answer | None) -> Any:
    return holder.get("value") if holder else None


def _states(node: Answer) -> Iterator[str]:
    for entry in node.get("properties", ()):
        value = _value(entry.get("value"))
        on = value is True or value in ("true", "mixed")
        if entry["name"] in STATES and on:
            yield STATES[entry["name"]]
        elif entry["name"] == "expanded" and value is not None:
            yield "expanded" if on else "collapsed"
        elif entry["name"] == "focused" and on:
            yield "focused"


if __name__ == "__main__":
    serve(BrowserGymPlayer())
