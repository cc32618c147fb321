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
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dpo_driver.core.errors import ActionError


class _Action(BaseModel):
    """Base of the union. ``arguments`` names the fields in the order of the written call."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    arguments: ClassVar[tuple[str, ...]] = ()
    doc: ClassVar[str] = ""


class Click(_Action):
    """``click("12")`` or ``click("12", button="right")``."""

    kind: Literal["click"] = "click"
    ref: str
    button: Literal["left", "middle", "right"] = "left"
    arguments = ("ref", "button")


class DblClick(_Action):
    """``dblclick("12")``."""

    kind: Literal["dblclick"] = "dblclick"
    ref: str
    button: Literal["left", "middle", "right"] = "left"
    arguments = ("ref", "button")


class Fill(_Action):
    """``fill("12", "text")`` replaces the content of a field."""

    kind: Literal["fill"] = "fill"
    ref: str
    value: str
    arguments = ("ref", "value")


class Type(_Action):
    """``type("12", "text")`` focuses a field and types key by key, after what is there."""

    kind: Literal["type"] = "type"
    ref: str
    text: str
    arguments = ("ref", "text")


class Clear(_Action):
    """``clear("12")`` empties a field."""

    kind: Literal["clear"] = "clear"
    ref: str
    arguments = ("ref",)


class Press(_Action):
    """``press("12", "Enter")``: a key or a combination such as ``Control+a``, sent to an element."""

    kind: Literal["press"] = "press"
    ref: str
    key: str
    arguments = ("ref", "key")


class KeyboardPress(_Action):
    """``keyboard_press("Escape")``: a key sent to whatever has the focus."""

    kind: Literal["keyboard_press"] = "keyboard_press"
    key: str
    arguments = ("key",)


class Hover(_Action):
    """``hover("12")``."""

    kind: Literal["hover"] = "hover"
    ref: str
    arguments = ("ref",)


class Focus(_Action):
    """``focus("12")``."""

    kind: Literal["focus"] = "focus"
    ref: str
    arguments = ("ref",)


class SelectOption(_Action):
    """``select_option("12", "Blue")`` or ``select_option("12", ["Blue", "Red"])``, by label or value."""

    kind: Literal["select_option"] = "select_option"
    ref: str
    options: tuple[str, ...]
    arguments = ("ref", "options")


class Scroll(_Action):
    """``scroll(0, 200)``: pixels right and down."""

    kind: Literal["scroll"] = "scroll"
    delta_x: float
    delta_y: float
    arguments = ("delta_x", "delta_y")


class DragAndDrop(_Action):
    """``drag_and_drop("3", "9")`` from the middle of one element to the middle of another."""

    kind: Literal["drag_and_drop"] = "drag_and_drop"
    from_ref: str
    to_ref: str
    arguments = ("from_ref", "to_ref")


class Goto(_Action):
    """``goto("http://...")``."""

    kind: Literal["goto"] = "goto"
    url: str
    arguments = ("url",)


class GoBack(_Action):
    """``go_back()``."""

    kind: Literal["go_back"] = "go_back"


class GoForward(_Action):
    """``go_forward()``."""

    kind: Literal["go_forward"] = "go_forward"


class Noop(_Action):
    """``noop()`` or ``noop(500)``: wait, in milliseconds."""

    kind: Literal["noop"] = "noop"
    wait_ms: float = Field(default=0.0, ge=0, le=10_000)
    arguments = ("wait_ms",)


class SendMsgToUser(_Action):
    """``send_msg_to_user("The total is 12.")``."""

    kind: Literal["send_msg_to_user"] = "send_msg_to_user"
    text: str
    arguments = ("text",)


class ReportInfeasible(_Action):
    """``report_infeasible("there is no such page")``."""

    kind: Literal["report_infeasible"] = "report_infeasible"
    reason: str
    arguments = ("reason",)


ACTIONS: dict[str, type[_Action]] = {
    "click": Click,
    "dblclick": DblClick,
    "fill": Fill,
    "type": Type,
    "clear": Clear,
    "press": Press,
    "keyboard_press": KeyboardPress,
    "hover": Hover,
    "focus": Focus,
    "select_option": SelectOption,
    "scroll": Scroll,
    "drag_and_drop": DragAndDrop,
    "goto": Goto,
    "go_back": GoBack,
    "go_forward": GoForward,
    "noop": Noop,
    "send_msg_to_user": SendMsgToUser,
    "report_infeasible": ReportInfeasible,
}

Action = Annotated[
    Click
    | DblClick
    | Fill
    | Type
    | Clear
    | Press
    | KeyboardPress
    | Hover
    | Focus
    | SelectOption
    | Scroll
    | DragAndDrop
    | Goto
    | GoBack
    | GoForward
    | Noop
    | SendMsgToUser
    | ReportInfeasible,
    Field(discriminator="kind"),
]
ACTION_ADAPTER: TypeAdapter[Action] = TypeAdapter(Action)

REF_FIELDS = frozenset({"ref", "from_ref", "to_ref"})
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
        raise ActionError(f"unknown action {name!r}; known: {', '.join(ACTIONS)}")
    model = ACTIONS[name]
    if len(call.args) > len(model.arguments):
        raise ActionError(f"{name} takes at most {len(model.arguments)} arguments: {', '.join(model.arguments)}")
    fields: dict[str, Any] = {}
    for key, node in zip(model.arguments, call.args, strict=False):
        fields[key] = _literal(key, node)
    for keyword in call.keywords:
        if keyword.arg not in model.arguments:
            raise ActionError(f"{name} has no argument {keyword.arg!r}; it takes {', '.join(model.arguments)}")
        fields[keyword.arg] = _literal(keyword.arg, keyword.value)
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
    if key == "options":
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(str(item) for item in items)
    if isinstance(value, int | float) and not isinstance(value, bool) and key in {"value", "text", "key"}:
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
        elif key == "options":
            parts.append(_quote(value[0]) if len(value) == 1 else "[" + ", ".join(map(_quote, value)) + "]")
        elif isinstance(value, str):
            written = _quote(value)
            parts.append(f"{key}={written}" if key == "button" else written)
        else:
            parts.append(f"{value:g}")
    return f"{action.kind}({', '.join(parts)})"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def describe_actions() -> str:
    """One line per action, for the system prompt of a hub model."""
    lines = []
    for model in ACTIONS.values():
        lines.append("- " + (model.__doc__ or "").strip().replace("``", ""))
    return "\n".join(lines)
