"""The action language: BrowserGym's grammar, parsed by a white-list into typed records.

``parse_action('click("12")')`` gives ``Click(ref="12")``; ``format_action`` is its inverse. A reference may also be
written as it stands on the page, ``click([12])``. Nothing that a model writes is ever executed: the text goes
through :func:`ast.parse` and only one call of a known name with literal arguments is accepted. The older
``CLICK(selector="...")`` dialect (CLICK, TYPE, SELECT, CHECK) is read too.

Called by agents (parsing), browser/execute.py (interpretation) and preferences (comparison). Imports pydantic only.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dpo_driver.core.action_types import (
    ACTIONS,
    Action,
    Clear,
    Click,
    DblClick,
    DragAndDrop,
    Fill,
    Focus,
    GoBack,
    GoForward,
    Goto,
    Hover,
    JsEval,
    KeyboardDown,
    KeyboardInsertText,
    KeyboardPress,
    KeyboardType,
    KeyboardUp,
    MouseClick,
    MouseDblclick,
    MouseDown,
    MouseDragAndDrop,
    MouseMove,
    MouseUp,
    MouseUploadFile,
    NewTab,
    Noop,
    Press,
    ReportInfeasible,
    Scroll,
    SelectOption,
    SendMsgToUser,
    TabClose,
    TabFocus,
    Type,
    UploadFile,
    _Action,
)
from dpo_driver.core.errors import ActionError

__all__ = [
    "ACTIONS",
    "ACTION_ADAPTER",
    "FILES",
    "MAX_ACTION_CHARS",
    "NAVIGATION",
    "OPT_IN",
    "REF_FIELDS",
    "TABS",
    "Action",
    "Clear",
    "Click",
    "DblClick",
    "DragAndDrop",
    "Fill",
    "Focus",
    "GoBack",
    "GoForward",
    "Goto",
    "Hover",
    "JsEval",
    "KeyboardDown",
    "KeyboardInsertText",
    "KeyboardPress",
    "KeyboardType",
    "KeyboardUp",
    "MouseClick",
    "MouseDblclick",
    "MouseDown",
    "MouseDragAndDrop",
    "MouseMove",
    "MouseUp",
    "MouseUploadFile",
    "NewTab",
    "Noop",
    "Press",
    "ReportInfeasible",
    "Scroll",
    "SelectOption",
    "SendMsgToUser",
    "TabClose",
    "TabFocus",
    "Type",
    "UploadFile",
    "describe_actions",
    "format_action",
    "parse_action",
]

ACTION_ADAPTER: TypeAdapter[Action] = TypeAdapter(Action)

# Groups that an environment offers or refuses together. What is in OPT_IN is refused unless it is asked for.
NAVIGATION = frozenset({"goto", "go_back", "go_forward"})
TABS = frozenset({"new_tab", "tab_close", "tab_focus"})
FILES = frozenset({"upload_file", "mouse_upload_file"})
OPT_IN = frozenset({"js_eval"})

REF_FIELDS = frozenset({"ref", "from_ref", "to_ref"})
_LISTS = frozenset({"options", "file", "modifiers"})
_TEXTS = frozenset({"value", "text", "key"})
# BrowserGym's names of arguments where ours differ.
_ALIASES = {"bid": "ref", "from_bid": "from_ref", "to_bid": "to_ref", "key_comb": "key"}
_LEGACY = {"CLICK": "click", "TYPE": "fill", "SELECT": "select_option", "CHECK": "click"}
_LEGACY_CALL = re.compile(r"^(CLICK|TYPE|SELECT|CHECK)\s*\(", re.DOTALL)
MAX_ACTION_CHARS = 4_000


def parse_action(text: str) -> Action:
    """Parse one written action.

    Args:
        text: one call, for example ``fill("3", "x")``.

    Raises:
        ActionError: the text is not one call of a known action with literal arguments; the message says how to
            write it, because the agent reads it.
    """
    text = text.strip()
    if not text:
        raise ActionError("no action was written")
    if len(text) > MAX_ACTION_CHARS:
        raise ActionError(f"the action is longer than {MAX_ACTION_CHARS} characters")
    try:
        with warnings.catch_warnings():  # what a model writes is no program of ours to be warned about
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ActionError(f'cannot read the action {text[:80]!r}; write one call such as click("12")') from None
    call = tree.body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ActionError(f'{text[:80]!r} is not one call of an action such as click("12")')
    if _LEGACY_CALL.match(text):
        return _from_legacy(call)
    name = call.func.id
    if name not in ACTIONS:
        raise ActionError(f"unknown action {name!r}; known: {', '.join(n for n in ACTIONS if n not in OPT_IN)}")
    model = ACTIONS[name]
    if len(call.args) > len(model.arguments):
        raise ActionError(f"{name} takes at most {len(model.arguments)} arguments: {', '.join(model.arguments)}")
    fields: dict[str, Any] = {}
    for key, node in zip(model.arguments, call.args, strict=False):
        fields[key] = _literal(key, node)
    for keyword in call.keywords:
        key = _ALIASES.get(str(keyword.arg), str(keyword.arg))
        if key not in model.arguments:
            takes = ", ".join(model.arguments) or "none"
            raise ActionError(f"{name} has no argument {keyword.arg!r}; it takes {takes}")
        if key in fields:
            raise ActionError(f"{name}: {key} is given twice")
        fields[key] = _literal(key, keyword.value)
    return _build(model, name, fields)


def _build(model: type[_Action], name: str, fields: dict[str, Any]) -> Action:
    try:
        return model(**fields)  # type: ignore[return-value]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ActionError(f"{name}: {field}: {first['msg'].lower()}") from None


def _literal(key: str, node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ActionError(f"argument {key} must be a literal") from None
    if key in REF_FIELDS:
        # An element is referred to by "12", 12, or as the page shows it: [12].
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ActionError(f'argument {key} must be an element number such as "12"')
        return str(value)
    if key in _LISTS:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(str(item) for item in items)
    if isinstance(value, int | float) and not isinstance(value, bool) and key in _TEXTS:
        return str(value)
    return value


def _from_legacy(call: ast.Call) -> Action:
    """``CLICK(selector="12")``, ``TYPE(selector="3", text="x")``, ``SELECT(selector="4", value="x")``."""
    assert isinstance(call.func, ast.Name)
    name = _LEGACY[call.func.id]
    values: dict[str, Any] = {}
    positional = ["selector", "text"]
    for key, node in zip(positional, call.args, strict=False):
        values[key] = _literal(key, node)
    for keyword in call.keywords:
        values[str(keyword.arg)] = _literal(str(keyword.arg), keyword.value)
    ref = values.get("selector", values.get("ref"))
    if ref is None:
        raise ActionError(f'{call.func.id} needs selector="..."')
    fields: dict[str, Any] = {"ref": str(ref)}
    text = values.get("text", values.get("value", values.get("option", "")))
    if name == "fill":
        fields["value"] = str(text)
    elif name == "select_option":
        fields["options"] = (str(text),)
    return _build(ACTIONS[name], name, fields)


def format_action(action: Action, *, bracket_refs: bool = False) -> str:
    """Write an action in the grammar; ``parse_action(format_action(a)) == a``.

    Args:
        action: any action.
        bracket_refs: write references as the page shows them, ``click([12])``, which a tokenizer with one token
            for ``[12]`` can copy from the page.
    """
    parts = []
    defaults = {name: field.default for name, field in type(action).model_fields.items()}
    for key in action.arguments:
        value = getattr(action, key)
        if value == defaults[key]:
            continue
        if key in REF_FIELDS and bracket_refs and value.isdigit():
            parts.append(f"[{value}]")
        elif key in _LISTS:
            one = len(value) == 1 and key != "modifiers"
            written = _quote(value[0]) if one else "[" + ", ".join(map(_quote, value)) + "]"
            parts.append(f"{key}={written}" if key == "modifiers" else written)
        elif isinstance(value, str):
            written = _quote(value)
            parts.append(f"{key}={written}" if key == "button" else written)
        else:
            parts.append(_number(value))
    return f"{action.kind}({', '.join(parts)})"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _number(value: float) -> str:
    """As short as it can be and still the same number: ``200``, not ``200.0``."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def describe_actions(*, opt_in: Collection[str] = ()) -> str:
    """One line per action, for the system prompt of a hub model.

    Args:
        opt_in: names out of OPT_IN that the run has turned on; the others are not mentioned.
    """
    offered = [model for name, model in ACTIONS.items() if name not in OPT_IN or name in opt_in]
    return "\n".join("- " + (model.__doc__ or "").strip().replace("``", "") for model in offered)
