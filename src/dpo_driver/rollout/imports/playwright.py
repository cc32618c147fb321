"""Scripts as Playwright's codegen writes them, as intents. Python or JavaScript is told from the text.

Written for the output of Playwright 1.40 to 1.60, targets python, python-async, python-pytest, javascript and
playwright-test. The first ``goto`` is left out: an episode begins on its own start page. Assertions, waits for the page
and what opens or closes a browser say nothing that is done. A call that is not known is an error with its line. Listed
in the table of imports/__init__.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.rollout.imports import script_js, script_py
from dpo_driver.rollout.imports.calls import Call, Expression, NewPage, Pattern, Statement
from dpo_driver.rollout.intents import Chain, Intent, Part, Target

# Nothing is done by these: they look, wait, or belong to the program around the page.
PASSED_OVER = frozenset({
    "wait_for", "wait_for_url", "wait_for_load_state", "wait_for_selector", "wait_for_event", "wait_for_function",
    "screenshot", "scroll_into_view_if_needed", "set_default_timeout", "set_default_navigation_timeout",
    "set_viewport_size", "bring_to_front", "once", "on", "pause", "highlight", "start", "stop", "tracing",
    "add_init_script", "storage_state",
})  # fmt: skip
LOCATORS = frozenset({
    "locator", "get_by_role", "get_by_label", "get_by_text", "get_by_placeholder", "get_by_title", "get_by_alt_text",
    "get_by_test_id", "frame_locator", "content_frame", "first", "last", "nth", "filter", "owner",
})  # fmt: skip
_PYTHON = re.compile(r"^\s*(?:from|import)\s+playwright\b|\bsync_playwright\b|\bdef \w+\(|\bget_by_", re.MULTILINE)
_HAS_TEXT = re.compile(r""":has-text\(\s*(?P<quote>["'])(?P<text>.*?)(?P=quote)\s*\)""")
_WORKS = ("click", "fill", "press", "check", "hover", "select_option", "drag_to", "goto")


def read(text: str, name: str) -> list[Intent]:
    """What a script does, in order.

    Raises:
        DataError: a call that is not known, or more than a straight recording.
    """
    python = _PYTHON.search(text) is not None
    written = script_py.statements(text, name) if python else script_js.statements(text, name)
    return list(_Recording(name).intents(written))


class _Recording:
    """The pages that a script has opened, and which of them is seen."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pages: list[str] = []
        self._seen = ""
        self._begun = False  # on the start page

    def intents(self, statements: Iterator[Statement]) -> Iterator[Intent]:
        for statement in statements:
            if isinstance(statement, NewPage):
                self._open(statement.name)  # what has opened it shows it
            elif statement.root in ("context", "browser", "playwright"):
                self._check(statement, {"close", "new_page", "clear_cookies", *PASSED_OVER})
            else:
                yield from self._on_page(statement)

    def _open(self, page: str) -> None:
        self._pages.append(page)
        self._seen = page

    def _on_page(self, said: Expression) -> Iterator[Intent]:
        if [call.name for call in said.calls] == ["new_page"]:
            if self._pages:
                yield Intent("new_tab", where=self._where(said.line))
            self._open(said.root)
            return
        if not self._pages:
            self._open(said.root)  # the page that a test is given
        if said.root not in self._pages:
            raise DataError(f"{said.root!r} is no page of this recording", where=self._where(said.line))
        if not said.calls or said.calls[-1].name in PASSED_OVER or said.calls[0].name in PASSED_OVER:
            return
        last = said.calls[-1]
        if last.name == "close" and len(said.calls) == 1:
            yield from self._closed(said)
            return
        if last.name == "goto" and not self._begun:
            self._begun = True
            return
        if said.root != self._seen:
            self._seen = said.root
            index = self._pages.index(said.root)
            yield Intent("tab_focus", values={"index": index}, where=self._where(said.line))
        self._begun = True
        yield from self._acted(said.calls[:-1], last)

    def _closed(self, said: Expression) -> Iterator[Intent]:
        if said.root == self._pages[0]:
            return  # the end of the recording
        if said.root != self._seen:
            yield Intent("tab_focus", values={"index": self._pages.index(said.root)}, where=self._where(said.line))
        yield Intent("tab_close", where=self._where(said.line))
        self._pages.remove(said.root)
        self._seen = self._pages[-1]

    def _acted(self, path: Sequence[Call], last: Call) -> Iterator[Intent]:
        where = self._where(last.line)
        if path and path[0].name in ("keyboard", "mouse"):
            device = f"{path[0].name}.{last.name}"
            if device not in _DEVICES:
                raise self._unknown(last, device)
            yield Intent(*_DEVICES[device](last), where=where)
            return
        if not path:
            if last.name in _PAGE:
                yield Intent(*_PAGE[last.name](last), where=where)
                return
            if last.name not in _ELEMENT or not last.args:
                raise self._unknown(last, f"page.{last.name}")
            # page.click("#go"), as before there were locators
            selector, last = last.args[0], Call(last.name, last.args[1:], last.named, last.line)
            path = (Call("locator", (selector,), (), last.line),)
        if last.name == "drag_to":
            yield Intent("drag_and_drop", (self._target(path, last), self._drop(last)), where=where)
            return
        if last.name not in _ELEMENT:
            raise self._unknown(last, last.name)
        kind, values = _ELEMENT[last.name](last)
        yield Intent(kind, (self._target(path, last),), values, where)

    def _drop(self, last: Call) -> Target:
        onto = last.args[0] if last.args else last.get("target")
        if not isinstance(onto, Expression):
            raise self._unknown(last, "drag_to without a locator")
        return self._target(onto.calls, last)

    # -- locators ------------------------------------------------------------------------------------------------------

    def _target(self, path: Sequence[Call], last: Call) -> Target:
        parts: list[Part] = []
        for call in path:
            if call.name not in LOCATORS:
                raise self._unknown(call, call.name)
            parts += self._parts(call)
        if not parts:
            raise self._unknown(last, f"{last.name} on nothing")
        return Target((tuple(parts),), " ".join(_said(call) for call in path))

    def _parts(self, call: Call) -> Chain:
        for value in (*call.args, *(value for _, value in call.named)):
            self._check_pattern(value, call)
        first = call.args[0] if call.args else None
        exact = bool(call.get("exact", False))
        match call.name:
            case "first":
                return (Part("nth", number=0),)
            case "last":
                return (Part("nth", number=-1),)
            case "nth":
                return (Part("nth", number=int(first or 0)),)
            case "content_frame" | "owner":
                return ()
            case "locator" | "frame_locator":
                if not isinstance(first, str):
                    raise self._unknown(call, f"{call.name} without a selector")
                return (*selector(first), *self._filters(call))
            case "filter":
                return self._filters(call)
            case "get_by_role":
                text, pattern = _text(call.get("name", ""))
                return (Part("role", text, role=str(first), exact=exact, pattern=pattern),)
            case "get_by_test_id":
                return (Part("css", f'[data-testid="{_css_text(str(first))}"]'),)
        text, pattern = _text(first)
        if call.name == "get_by_text":
            return (Part("text", text, exact=exact, pattern=pattern),)
        # A title or an alternative text is what an element without other words is called by.
        by = "label" if call.name in ("get_by_label", "get_by_placeholder") else "text"
        return (Part(by, text, exact=exact, pattern=pattern),)  # type: ignore[arg-type]

    def _filters(self, call: Call) -> Chain:
        known = {"has_text"}
        other = [name for name, _ in call.named if name not in known]
        if other:
            raise self._unknown(call, f"{call.name}({other[0]}=...)")
        if call.get("has_text") is None:
            return ()
        text, pattern = _text(call.get("has_text"))
        return (Part("holds", text, pattern=pattern),)

    # -- errors --------------------------------------------------------------------------------------------------------

    def _check(self, said: Expression, known: set[str]) -> None:
        for call in said.calls[-1:]:
            if call.name not in known:
                raise self._unknown(call, f"{said.root}.{call.name}")

    def _check_pattern(self, value: Any, call: Call) -> None:
        try:
            re.compile(value.text if isinstance(value, Pattern) else "")
        except re.error as error:
            raise DataError(f"the expression {value.text!r} cannot be used: {error}",
                            where=self._where(call.line)) from None  # fmt: skip

    def _unknown(self, call: Call, what: str) -> DataError:
        return DataError(f"unknown call {what}", where=self._where(call.line),
                         remedy=f"take it out, or write it with one of {', '.join(_WORKS)}, ...")  # fmt: skip

    def _where(self, line: int) -> str:
        return f"{self._name}:{line}"


def selector(text: str) -> Chain:
    """A selector in Playwright's language as parts: CSS, ``text=``, ``xpath=``, ``>>``, ``:has-text()``, ``nth=``."""
    parts: list[Part] = []
    for piece in (piece.strip() for piece in text.split(">>")):
        if piece.startswith(("xpath=", "//", "..")):
            parts.append(Part("xpath", piece.removeprefix("xpath=")))
        elif piece.startswith("text="):
            quoted = re.fullmatch(r"""text=(["'])(.*)\1""", piece)
            parts.append(Part("text", quoted[2], exact=True) if quoted else Part("text", piece.removeprefix("text=")))
        elif piece.startswith("nth="):
            parts.append(Part("nth", number=int(piece.removeprefix("nth="))))
        else:
            css = piece.removeprefix("css=")
            held = [found["text"] for found in _HAS_TEXT.finditer(css)]
            parts.append(Part("css", _HAS_TEXT.sub("", css) or "*"))
            parts += [Part("holds", words) for words in held]
    return tuple(parts)


def _text(value: Any) -> tuple[str, bool]:
    """(text, whether it is a regular expression) of a string or a pattern."""
    return (value.text, True) if isinstance(value, Pattern) else (str(value or ""), False)


def _css_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _said(call: Call) -> str:
    words = [f'"{value.text if isinstance(value, Pattern) else value}"' for value in call.args]
    words += [f'"{_text(value)[0]}"' for name, value in call.named if name in ("name", "has_text")]
    return " ".join((call.name.removeprefix("get_by_").replace("_", " "), *words))


# -- what calls do -----------------------------------------------------------------------------------------------------

_KEYS = {"ControlOrMeta": "Control"}


def _key(text: Any) -> str:
    return "+".join(_KEYS.get(part, part) for part in str(text).split("+")) if str(text) != "+" else "+"


def _click(call: Call) -> tuple[str, dict[str, Any]]:
    kind = "dblclick" if call.name == "dblclick" or call.get("click_count") == 2 else "click"
    modifiers = tuple(_KEYS.get(key, key) for key in call.get("modifiers") or ())
    return kind, {"button": call.get("button") or "left", "modifiers": modifiers}


def _options(call: Call) -> tuple[str, dict[str, Any]]:
    value = next((v for v in (*call.args, call.get("label"), call.get("value")) if v is not None), ())
    return "select_option", {"options": tuple(str(v) for v in (value if isinstance(value, list | tuple) else [value]))}


def _files(call: Call) -> tuple[str, dict[str, Any]]:
    given = call.args[0] if call.args else ()
    names = given if isinstance(given, list | tuple) else [given]
    return "upload_file", {"file": tuple(PurePath(str(one)).name for one in names)}


def _ticked(call: Call) -> tuple[str, dict[str, Any]]:
    wanted = call.name == "check" or (call.name == "set_checked" and bool(call.args and call.args[0]))
    return "check" if wanted else "uncheck", {}


def _first(call: Call, default: Any = "") -> Any:
    return call.args[0] if call.args else default


_ELEMENT: dict[str, Callable[[Call], tuple[str, dict[str, Any]]]] = {
    "click": _click,
    "dblclick": _click,
    "tap": _click,
    "fill": lambda call: ("fill", {"value": str(_first(call))}),
    "clear": lambda call: ("clear", {}),
    "type": lambda call: ("type", {"text": str(_first(call))}),
    "press_sequentially": lambda call: ("type", {"text": str(_first(call))}),
    "press": lambda call: ("press", {"key": _key(_first(call))}),
    "check": _ticked,
    "uncheck": _ticked,
    "set_checked": _ticked,
    "select_option": _options,
    "hover": lambda call: ("hover", {}),
    "focus": lambda call: ("focus", {}),
    "set_input_files": _files,
}
_PAGE: dict[str, Callable[[Call], tuple[str, tuple[Target, ...], dict[str, Any]]]] = {
    "goto": lambda call: ("goto", (), {"url": str(_first(call))}),
    "go_back": lambda call: ("go_back", (), {}),
    "go_forward": lambda call: ("go_forward", (), {}),
    "reload": lambda call: ("reload", (), {}),
    "wait_for_timeout": lambda call: ("noop", (), {"wait_ms": min(10_000.0, float(_first(call, 0)))}),
}
_DEVICES: dict[str, Callable[[Call], tuple[str, tuple[Target, ...], dict[str, Any]]]] = {
    "keyboard.press": lambda call: ("keyboard_press", (), {"key": _key(_first(call))}),
    "keyboard.type": lambda call: ("keyboard_type", (), {"text": str(_first(call))}),
    "keyboard.insert_text": lambda call: ("keyboard_insert_text", (), {"text": str(_first(call))}),
    "keyboard.down": lambda call: ("keyboard_down", (), {"key": _key(_first(call))}),
    "keyboard.up": lambda call: ("keyboard_up", (), {"key": _key(_first(call))}),
    "mouse.wheel": lambda call: ("scroll", (), {"delta_x": float(call.args[0]), "delta_y": float(call.args[1])}),
    "mouse.move": lambda call: ("mouse_move", (), {"x": float(call.args[0]), "y": float(call.args[1])}),
    "mouse.click": lambda call: ("mouse_click", (), {"x": float(call.args[0]), "y": float(call.args[1])}),
    "mouse.dblclick": lambda call: ("mouse_dblclick", (), {"x": float(call.args[0]), "y": float(call.args[1])}),
}
