"""Decisions and pages in words that a person reads: "Click the button “Login”". Called by views.py.

A sentence is a row of parts, so that a page can set off what was acted on, and mark where two sentences differ. Must
not know HTML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from dpo_driver.core.actions import REF_FIELDS, Action, format_action
from dpo_driver.core.records import Element, Observation

MOST_CHARS = 240  # of a value in a sentence
MOST_TOKENS = 3000  # of both texts together: above, the comparison would keep the server from others
ALIKE = 0.3  # texts less similar than this have nothing in common worth marking around
ISLAND = 4  # characters that are alike between two differences, and are marked with them
_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True)
class Part:
    """A piece of a sentence or text. ``strong``: what was acted on or written; ``differs``: the other side has not."""

    text: str
    strong: bool = False
    differs: bool = False


Sentence = tuple[Part, ...]


def thing(element: Element | None, ref: str) -> str:
    """An element as people call it: “Login” button."""
    if element is None:
        return f"element {ref}, which is not on the page"
    ordinal = f", number {element.nth} of its kind" if element.nth > 1 else ""
    name = f"“{_short(element.name)}” " if element.name.strip() else ""
    return f"{name}{element.role}{'' if name else ' without a name'}{ordinal}"


def action_words(action: Action, page: Observation) -> Sentence:
    """What an action does, in words."""
    elements = {element.ref: element for element in page.elements if element.ref is not None}
    written = _WORDS.get(action.kind)
    if written is None:
        return (Part(format_action(action), strong=True),)
    fields = {}
    for name, value in action.model_dump().items():
        fields[name] = thing(elements.get(value), value) if name in REF_FIELDS else _value(value)
    parts = []
    for number, piece in enumerate(re.split(r"\{(\w+)\}", written(action) if callable(written) else written)):
        if piece:
            parts.append(Part(fields[piece], strong=True) if number % 2 else Part(piece))
    return tuple(parts)


def marked(one: Sentence, other: Sentence) -> tuple[Sentence, Sentence]:
    """Both sentences with the parts marked that the other one has not; unmarked where nothing is the same."""
    texts = [{part.text for part in sentence} for sentence in (one, other)]
    if not texts[0] & texts[1]:
        return one, other
    return (
        tuple(replace(part, differs=part.text not in texts[1]) for part in one),
        tuple(replace(part, differs=part.text not in texts[0]) for part in other),
    )


def text_difference(one: str, other: str) -> tuple[Sentence, Sentence]:
    """Two texts word by word, with what only one of them says marked; unmarked where they have little in common, or are
    too long to be compared while somebody waits."""
    left, right = _TOKEN.findall(one), _TOKEN.findall(other)
    if len(left) + len(right) > MOST_TOKENS:
        return (Part(one),), (Part(other),)
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    if matcher.ratio() < ALIKE:
        return (Part(one),), (Part(other),)
    sides: tuple[list[Part], list[Part]] = ([], [])
    pieces = matcher.get_opcodes()
    for number, (tag, i, j, k, m) in enumerate(pieces):
        inside = 0 < number < len(pieces) - 1
        # A "we" or "in" between two differences is there by chance: marking around it makes it hard to read.
        alike = tag == "equal" and not (inside and len("".join(left[i:j]).strip()) <= ISLAND)
        for side, words in zip(sides, (left[i:j], right[k:m]), strict=True):
            if words:
                side.append(Part("".join(words), differs=not alike))
    return _joined(sides[0]), _joined(sides[1])


def _joined(parts: Sequence[Part]) -> Sentence:
    """Neighbours that are both marked, or both not, as one."""
    found: list[Part] = []
    for part in parts:
        if found and found[-1].differs == part.differs:
            found[-1] = replace(found[-1], text=found[-1].text + part.text)
        else:
            found.append(part)
    return tuple(found)


def element_line(element: Element) -> str:
    """One line of a page's outline: button “Login”; textbox “User” contains “amber”; checkbox “Milk”, checked."""
    words = element.role
    if element.name.strip():
        words += f" “{_short(element.name)}”"
    if element.nth > 1:
        words += f" number {element.nth}"
    if element.value:
        words += f" contains “{_short(element.value)}”"
    states = [state for state in element.states if state != "focused"]
    if states:
        words += ", " + ", ".join(states)
    if element.options:
        words += ", options: " + ", ".join(map(_short, element.options))
    return words


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARS else line[: MOST_CHARS - 1] + "…"


def _value(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(f"“{_short(str(one))}”" for one in value)
    return f"“{_short(value)}”" if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _button(action: Action) -> str:
    button = getattr(action, "button", "left")
    held = ", holding " + " and ".join(getattr(action, "modifiers", ())) if getattr(action, "modifiers", ()) else ""
    return ("" if button == "left" else f" with the {button} button") + held


def _scroll(action: Action) -> str:
    down, right = getattr(action, "delta_y", 0.0), getattr(action, "delta_x", 0.0)
    ways = [f"{abs(down):g} pixels {'down' if down > 0 else 'up'}"] if down else []
    ways += [f"{abs(right):g} pixels {'to the right' if right > 0 else 'to the left'}"] if right else []
    return f"Scroll {' and '.join(ways) or 'nowhere'}"


_WORDS: dict[str, str | Callable[[Action], str]] = {
    "click": lambda action: "Click the {ref}" + _button(action),
    "dblclick": lambda action: "Double-click the {ref}" + _button(action),
    "fill": "Write {value} into the {ref}",
    "type": "Type {text} into the {ref}, after what is there",
    "clear": "Empty the {ref}",
    "press": "Press {key} in the {ref}",
    "keyboard_press": "Press {key}",
    "hover": "Move the pointer over the {ref}",
    "focus": "Put the focus on the {ref}",
    "select_option": "Choose {options} in the {ref}",
    "scroll": _scroll,
    "drag_and_drop": "Drag the {from_ref} onto the {to_ref}",
    "goto": "Open the address {url}",
    "go_back": "Go back",
    "go_forward": "Go forward",
    "noop": lambda action: "Wait {wait_ms} milliseconds" if getattr(action, "wait_ms", 0) else "Do nothing",
    "mouse_move": "Move the pointer to ({x}, {y})",
    "mouse_down": "Press the mouse at ({x}, {y}) and hold it",
    "mouse_up": "Let the mouse go at ({x}, {y})",
    "mouse_click": lambda action: "Click at ({x}, {y})" + _button(action),
    "mouse_dblclick": lambda action: "Double-click at ({x}, {y})" + _button(action),
    "mouse_drag_and_drop": "Drag from ({from_x}, {from_y}) to ({to_x}, {to_y})",
    "upload_file": lambda action: (
        "Upload {file} with the {ref}" if getattr(action, "file", ()) else "Take the files away from the {ref}"
    ),
    "mouse_upload_file": "Upload {file} at ({x}, {y})",
    "keyboard_down": "Press {key} and hold it",
    "keyboard_up": "Let {key} go",
    "keyboard_type": "Type {text}",
    "keyboard_insert_text": "Paste {text}",
    "new_tab": "Open an empty tab",
    "tab_close": "Close this tab",
    "tab_focus": "Look at tab {index}",
    "js_eval": "Read {code} by script",
    "send_msg_to_user": "Say to the user: {text}",
    "report_infeasible": "Give up: {reason}",
}  # fmt: skip
