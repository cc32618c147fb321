"""browser-use's history files (``AgentHistoryList``, as ``agent.save_history`` writes them), as intents.

Written for browser-use 0.2 (``click_element_by_index``, ``interacted_element`` with ``tag_name`` and ``xpath``) and
0.7 (``click``, ``input``, ``node_name`` and ``x_path``). A step whose result is an error was not done and is left out;
so is the first address that is opened, for an episode begins on its own start page. Elements are looked for by id, by
what they are called, by their attributes and by their XPath, in that order. Listed in the table of imports/__init__.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.rollout.intents import Chain, Intent, Part, Target

# These look, remember or tell; nothing is done on the page.
PASSED_OVER = frozenset({
    "done", "extract", "extract_content", "extract_structured_data", "extract_page_content", "screenshot",
    "get_dropdown_options", "dropdown_options", "write_file", "read_file", "replace_file", "replace_file_str",
    "scroll_to_text", "find_text", "get_ax_tree", "read_sheet_contents", "save_pdf",
})  # fmt: skip
PAGE_PX = 720.0  # what one page of scrolling is here: the viewport's height
STEADY = ("name", "type", "placeholder", "aria-label", "title", "alt", "value", "role", "href", "for", "data-testid")
_ROLES = {"a": "link", "button": "button", "select": "combobox", "textarea": "textbox", "option": "option"}
_INPUT_ROLES = {"checkbox": "checkbox", "radio": "radio", "button": "button", "submit": "button", "reset": "button",
                "range": "slider", "number": "spinbutton"}  # fmt: skip
Made = tuple[str, dict[str, Any]]


def read(text: str, name: str) -> list[Intent]:
    """What a history says was done, in order.

    Raises:
        DataError: no such file, or an action that is not known.
    """
    try:
        told = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"malformed JSON: {error.msg}", where=f"{name}:{error.lineno}") from None
    history = told.get("history") if isinstance(told, dict) else None
    if not isinstance(history, list):
        raise DataError('there is no list "history" in it', where=f"{name}:1",
                        remedy="give the file that agent.save_history() wrote")  # fmt: skip
    return list(_History(text, name).intents(history))


class _History:
    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._counts: dict[str, int] = {}
        self._begun = False
        self._tabs: list[Any] = []

    def intents(self, history: list[Any]) -> Iterator[Intent]:
        for entry in history:
            output = entry.get("model_output") if isinstance(entry, dict) else None
            actions = output.get("action") if isinstance(output, dict) else None
            state = _dict(entry.get("state") if isinstance(entry, dict) else None)
            elements, self._tabs = _dicts(state.get("interacted_element")), _dicts(state.get("tabs"))
            results = _dicts(entry.get("result") if isinstance(entry, dict) else None)
            for place, action in enumerate(actions if isinstance(actions, list) else [actions] if actions else []):
                element = elements[place] if place < len(elements) else None
                result = results[place] if place < len(results) else {}
                yield from self._action(action, element, failed=bool(_dict(result).get("error")))

    def _action(self, action: Any, element: Any, *, failed: bool) -> Iterator[Intent]:
        said = [(key, value) for key, value in _dict(action).items() if value is not None]
        for key, value in said[:1]:  # one action each; older versions list the others as null
            where = f"{self._name}:{self._line(key)}"
            if failed or key in PASSED_OVER:
                continue
            values = _dict(value)
            if key in ("go_to_url", "navigate", "open_tab", "search_google", "search"):
                yield from self._opened(key, values, where)
            elif key in _ON_ELEMENT:
                kind, given = _ON_ELEMENT[key](values)
                yield Intent(kind, (self._target(_dict(element), values, where),), given, where)
                self._begun = True
            elif key in ("switch_tab", "switch"):
                yield Intent("tab_focus", values={"index": self._tab(values, where)}, where=where)
            elif key in _ON_PAGE:
                yield Intent(_ON_PAGE[key](values)[0], values=_ON_PAGE[key](values)[1], where=where)
                self._begun = True
            else:
                known = ", ".join(sorted({*_ON_ELEMENT, *_ON_PAGE, "go_to_url", "switch_tab"}))
                raise DataError(f"unknown action {key!r}", where=where, remedy=f"take it out; known are {known}")

    def _opened(self, key: str, values: Mapping[str, Any], where: str) -> Iterator[Intent]:
        if key.startswith("search"):
            raise DataError("a search engine is outside the task's site", where=where, remedy="take this step out")
        if not self._begun:
            self._begun = True
            return
        if key == "open_tab" or values.get("new_tab"):
            yield Intent("new_tab", where=where)
        yield Intent("goto", values={"url": str(values.get("url", ""))}, where=where)

    def _target(self, element: Mapping[str, Any], values: Mapping[str, Any], where: str) -> Target:
        if not element:
            raise DataError(f"the file does not say what element {values.get('index')} was", where=where,
                            remedy="save the history with interacted_element in it")  # fmt: skip
        tag = str(element.get("tag_name") or element.get("node_name") or "*").lower()
        attributes = {key: str(value) for key, value in _dict(element.get("attributes")).items() if value is not None}
        ways = _ways(tag, attributes, element)
        called = (attributes.get(key) for key in ("aria-label", "placeholder", "title", "name", "id"))
        words = next(filter(None, called), str(element.get("ax_name") or ""))
        return Target(tuple(ways), f"{tag} {words}".strip())

    def _tab(self, values: Mapping[str, Any], where: str) -> int:
        """Which tab is meant: its place, or the end of an id in the list of tabs."""
        number = str(values.get("page_id", values.get("tab_id", "")))
        for place, tab in enumerate(map(_dict, self._tabs)):
            known = [str(tab[key]) for key in ("page_id", "tab_id", "target_id") if key in tab]
            if number in known or any(len(number) >= 4 and one.endswith(number) for one in known):
                return place
        if number.isdigit():
            return int(number)
        raise DataError(f"the file does not say which tab {number!r} is", where=where, remedy="take this step out")

    def _line(self, key: str) -> int:
        """Where the next action of this name stands in the file."""
        count = self._counts[key] = self._counts.get(key, 0) + 1
        found = list(re.finditer(rf'"{re.escape(key)}"\s*:', self._text))
        at = found[min(count, len(found)) - 1].start() if found else 0
        return self._text.count("\n", 0, at) + 1


def _ways(tag: str, attributes: Mapping[str, str], element: Mapping[str, Any]) -> Iterator[Chain]:
    """How an element may be found again, the steadiest first."""
    if attributes.get("id"):
        yield (Part("css", f'{tag}[id="{_css_text(attributes["id"])}"]'),)
    name = element.get("ax_name") or attributes.get("aria-label") or attributes.get("placeholder")
    role = (
        attributes.get("role")
        or _ROLES.get(tag)
        or (_INPUT_ROLES.get(attributes.get("type", ""), "textbox") if tag == "input" else "")
    )
    if name and role:
        yield (Part("role", str(name), role=role, exact=True),)
    steady = "".join(f'[{key}="{_css_text(attributes[key])}"]' for key in STEADY if key in attributes)
    if steady:
        yield (Part("css", tag + steady),)
    xpath = str(element.get("xpath") or element.get("x_path") or "")
    if xpath:
        yield (Part("xpath", xpath if xpath.startswith("/") else f"/{xpath}"),)
    if element.get("css_selector"):
        yield (Part("css", str(element["css_selector"])),)


def _css_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\a ")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(values: Mapping[str, Any]) -> Made:
    if values.get("clear") is False:
        return "type", {"text": str(values.get("text", ""))}
    return "fill", {"value": str(values.get("text", ""))}


def _click(_values: Mapping[str, Any]) -> Made:
    return "click", {}


def _option(values: Mapping[str, Any]) -> Made:
    return "select_option", {"options": (str(values.get("text", "")),)}


def _scroll(sign: float) -> Callable[[Mapping[str, Any]], Made]:
    def made(values: Mapping[str, Any]) -> Made:
        pixels = values.get("amount")
        return "scroll", {"delta_x": 0.0, "delta_y": sign * (PAGE_PX if pixels is None else float(pixels))}

    return made


def _scroll_pages(values: Mapping[str, Any]) -> Made:
    pages = float(values.get("num_pages", values.get("pages", 1.0)) or 1.0)
    return "scroll", {"delta_x": 0.0, "delta_y": PAGE_PX * pages * (1 if values.get("down", True) else -1)}


def _keys(values: Mapping[str, Any]) -> Made:
    return "keyboard_press", {"key": str(values.get("keys", ""))}


_ON_ELEMENT: dict[str, Callable[[Mapping[str, Any]], Made]] = {
    "click_element_by_index": _click,
    "click_element": _click,
    "click": _click,
    "input_text": _text,
    "input": _text,
    "select_dropdown_option": _option,
    "select_dropdown": _option,
}
_ON_PAGE: dict[str, Callable[[Mapping[str, Any]], Made]] = {
    "scroll_down": _scroll(1.0),
    "scroll_up": _scroll(-1.0),
    "scroll": _scroll_pages,
    "send_keys": _keys,
    "go_back": lambda _values: ("go_back", {}),
    "wait": lambda values: ("noop", {"wait_ms": min(10_000.0, 1000.0 * float(values.get("seconds", 3) or 0))}),
    "close_tab": lambda _values: ("tab_close", {}),
    "close": lambda _values: ("tab_close", {}),
}
