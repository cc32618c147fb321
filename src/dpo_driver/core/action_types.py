"""The actions as typed records: one frozen class for each call of BrowserGym's grammar, and their union.

Each class names its call, its fields in the order in which they are written, and one line for prompts (its
docstring). core/actions.py parses and writes them and is what everybody imports; this file is only its table. Imports
pydantic only.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Button = Literal["left", "middle", "right"]
Modifier = Literal["Alt", "Control", "Meta", "Shift"]
Pixels = Annotated[float, Field(allow_inf_nan=False)]  # CSS pixels of the viewport


class _Action(BaseModel):
    """Base of the union. ``arguments`` names the fields in the order of the written call."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    arguments: ClassVar[tuple[str, ...]] = ()
    doc: ClassVar[str] = ""


class Click(_Action):
    """``click("12")`` or ``click("12", button="right")``."""

    kind: Literal["click"] = "click"
    ref: str
    button: Button = "left"
    modifiers: tuple[Modifier, ...] = ()
    arguments = ("ref", "button", "modifiers")


class DblClick(_Action):
    """``dblclick("12")``."""

    kind: Literal["dblclick"] = "dblclick"
    ref: str
    button: Button = "left"
    modifiers: tuple[Modifier, ...] = ()
    arguments = ("ref", "button", "modifiers")


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
    delta_x: Pixels
    delta_y: Pixels
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


class MouseMove(_Action):
    """``mouse_move(65.2, 158.5)``: the pointer to a point, in CSS pixels of the viewport."""

    kind: Literal["mouse_move"] = "mouse_move"
    x: Pixels
    y: Pixels
    arguments = ("x", "y")


class MouseDown(_Action):
    """``mouse_down(140, 80)`` or ``mouse_down(140, 80, "right")``: move there, press and hold a button."""

    kind: Literal["mouse_down"] = "mouse_down"
    x: Pixels
    y: Pixels
    button: Button = "left"
    arguments = ("x", "y", "button")


class MouseUp(_Action):
    """``mouse_up(250, 120)``: move there and let the button go."""

    kind: Literal["mouse_up"] = "mouse_up"
    x: Pixels
    y: Pixels
    button: Button = "left"
    arguments = ("x", "y", "button")


class MouseClick(_Action):
    """``mouse_click(87.2, 68)`` or ``mouse_click(87.2, 68, "right")``."""

    kind: Literal["mouse_click"] = "mouse_click"
    x: Pixels
    y: Pixels
    button: Button = "left"
    arguments = ("x", "y", "button")


class MouseDblclick(_Action):
    """``mouse_dblclick(87.2, 68)``."""

    kind: Literal["mouse_dblclick"] = "mouse_dblclick"
    x: Pixels
    y: Pixels
    button: Button = "left"
    arguments = ("x", "y", "button")


class MouseDragAndDrop(_Action):
    """``mouse_drag_and_drop(10, 32, 120, 32)`` from one point to another."""

    kind: Literal["mouse_drag_and_drop"] = "mouse_drag_and_drop"
    from_x: Pixels
    from_y: Pixels
    to_x: Pixels
    to_y: Pixels
    arguments = ("from_x", "from_y", "to_x", "to_y")


class UploadFile(_Action):
    """``upload_file("12", "receipt.pdf")`` or ``upload_file("12", ["a.png", "b.png"])``; ``[]`` takes them away."""

    kind: Literal["upload_file"] = "upload_file"
    ref: str
    file: tuple[str, ...]
    arguments = ("ref", "file")


class MouseUploadFile(_Action):
    """``mouse_upload_file(132, 47, "receipt.pdf")``: click a point that asks for a file."""

    kind: Literal["mouse_upload_file"] = "mouse_upload_file"
    x: Pixels
    y: Pixels
    file: tuple[str, ...]
    arguments = ("x", "y", "file")


class KeyboardDown(_Action):
    """``keyboard_down("Shift")``: press a key and hold it."""

    kind: Literal["keyboard_down"] = "keyboard_down"
    key: str
    arguments = ("key",)


class KeyboardUp(_Action):
    """``keyboard_up("Shift")``: let a key go."""

    kind: Literal["keyboard_up"] = "keyboard_up"
    key: str
    arguments = ("key",)


class KeyboardType(_Action):
    """``keyboard_type("text")``: key by key into whatever has the focus."""

    kind: Literal["keyboard_type"] = "keyboard_type"
    text: str
    arguments = ("text",)


class KeyboardInsertText(_Action):
    """``keyboard_insert_text("text")``: all at once into whatever has the focus, without key events."""

    kind: Literal["keyboard_insert_text"] = "keyboard_insert_text"
    text: str
    arguments = ("text",)


class NewTab(_Action):
    """``new_tab()``: an empty tab, which becomes the one that is seen."""

    kind: Literal["new_tab"] = "new_tab"


class TabClose(_Action):
    """``tab_close()``: close the tab that is seen."""

    kind: Literal["tab_close"] = "tab_close"


class TabFocus(_Action):
    """``tab_focus(0)``: see another tab; the first is 0."""

    kind: Literal["tab_focus"] = "tab_focus"
    index: int
    arguments = ("index",)


class JsEval(_Action):
    """``js_eval("document.title")``: the value of a JavaScript expression, read beside the page's own scripts."""

    kind: Literal["js_eval"] = "js_eval"
    code: str
    arguments = ("code",)


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
    "mouse_move": MouseMove,
    "mouse_down": MouseDown,
    "mouse_up": MouseUp,
    "mouse_click": MouseClick,
    "mouse_dblclick": MouseDblclick,
    "mouse_drag_and_drop": MouseDragAndDrop,
    "upload_file": UploadFile,
    "mouse_upload_file": MouseUploadFile,
    "keyboard_down": KeyboardDown,
    "keyboard_up": KeyboardUp,
    "keyboard_type": KeyboardType,
    "keyboard_insert_text": KeyboardInsertText,
    "new_tab": NewTab,
    "tab_close": TabClose,
    "tab_focus": TabFocus,
    "js_eval": JsEval,
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
    | MouseMove
    | MouseDown
    | MouseUp
    | MouseClick
    | MouseDblclick
    | MouseDragAndDrop
    | UploadFile
    | MouseUploadFile
    | KeyboardDown
    | KeyboardUp
    | KeyboardType
    | KeyboardInsertText
    | NewTab
    | TabClose
    | TabFocus
    | JsEval
    | SendMsgToUser
    | ReportInfeasible,
    Field(discriminator="kind"),
]
