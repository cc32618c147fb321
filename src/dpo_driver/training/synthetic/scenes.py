"""Synthetic pages: blocks of controls and text in random order, in a random state of progress.

A scene is a list of :class:`Element` records, the same that the browser's distiller emits, so the pocket model sees
real and synthetic pages in one format. Goals are made for a finished scene by goals.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from dpo_driver.core.records import Element
from dpo_driver.training.synthetic import words


@dataclass(frozen=True)
class Widget:
    """An element before it has a number. ``truth`` is a field's real content where the page shows bullets."""

    role: str
    name: str = ""
    value: str | None = None
    states: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    actionable: bool = True
    group: str = ""
    truth: str = ""


@dataclass(frozen=True)
class Scene:
    """A page: elements in document order and the widgets they came from, position by position."""

    elements: tuple[Element, ...]
    widgets: tuple[Widget, ...]

    def pick(self, *roles: str) -> list[int]:
        """Positions of elements that can be acted on, with one of the roles."""
        return [i for i, e in enumerate(self.elements) if e.ref is not None and e.role in roles]


def names(rng: random.Random, count: int) -> list[str]:
    """Names for siblings; look-alikes among them are common, equal ones are rare."""
    out: list[str] = []
    while len(out) < count:
        text = words.look_alike(rng, rng.choice(out)) if out and rng.random() < 0.25 else words.name(rng)
        text = " ".join(text.split())
        if text and (text not in out or rng.random() < 0.02):
            out.append(text)
    return out


def _buttons(rng: random.Random, size: int) -> list[Widget]:
    count = rng.randint(1, size)
    labels = [rng.choice(words.FINISH) if rng.random() < 0.3 else text for text in names(rng, count)]
    return [Widget("button", words.cased(rng, t) if t in words.FINISH else t) for t in labels]


def _finish(rng: random.Random, size: int) -> list[Widget]:
    return [Widget("button", rng.choice(words.FINISH), group="finish")]


def _links(rng: random.Random, size: int) -> list[Widget]:
    """Running text with links in it."""
    role = rng.choice(("link", "clickable"))
    out = []
    for text in names(rng, rng.randint(1, size)):
        if rng.random() < 0.6:
            out.append(Widget("text", words.phrase(rng, 1, 4), actionable=False))
        out.append(Widget(role, text))
    return out


def _items(rng: random.Random, size: int) -> list[Widget]:
    """A list or tree of entries that can be clicked; some may open."""
    role = rng.choice(("item", "clickable", "text", "listitem", "menuitem"))
    states = rng.random() < 0.3
    return [
        Widget(role, text, states=(rng.choice(("collapsed", "expanded")),) if states and rng.random() < 0.6 else ())
        for text in names(rng, rng.randint(2, size + 1))
    ]


def _tabs(rng: random.Random, size: int) -> list[Widget]:
    count = rng.randint(1, min(size, 5))
    labels = rng.sample(words.SECTIONS, count) if rng.random() < 0.6 else names(rng, count)
    role = rng.choice(("tab", "tab", "link", "heading"))
    active = rng.randrange(count)
    shown = rng.random() < 0.7
    return [Widget(role, t, states=("selected",) if shown and i == active else ()) for i, t in enumerate(labels)]


def _checkboxes(rng: random.Random, size: int) -> list[Widget]:
    named = rng.random() < 0.93
    count = rng.randint(1, size + 1)
    share = rng.choice((0.0, 0.0, 0.3, 0.6))
    labels = names(rng, count) if named else [""] * count
    return [Widget("checkbox", t, states=("checked",) if rng.random() < share else ()) for t in labels]


def _radios(rng: random.Random, size: int) -> list[Widget]:
    named = rng.random() < 0.8
    count = rng.randint(2, size + 1)
    labels = names(rng, count) if named else [""] * count
    chosen = rng.randrange(count) if rng.random() < 0.4 else -1
    return [Widget("radio", t, states=("checked",) if i == chosen else ()) for i, t in enumerate(labels)]


def _fields(rng: random.Random, size: int) -> list[Widget]:
    count = rng.choice((1, 1, 2, 2, 3))
    style = rng.random()
    out: list[Widget] = []
    labels = rng.sample(words.FIELDS, count) if rng.random() < 0.6 else names(rng, count)
    if rng.random() < 0.15 and count == 2:
        labels = [labels[0], f"{rng.choice(('Repeat', 'Again', 'Confirm'))} {labels[0].lower()}"]
    share = rng.choice((0.0, 0.0, 0.5))
    same = words.value(rng)
    secret = rng.random() < 0.2
    for label in labels:
        text = (same if rng.random() < 0.3 else words.value(rng)) if rng.random() < share else ""
        shown = ("•" * len(text) if secret else text) or None
        role = "textarea" if rng.random() < 0.08 else "textbox"
        if style < 0.35:
            out.append(Widget(role, value=shown, truth=text))
        elif style < 0.75:
            out.append(Widget(role, label, value=shown, truth=text))
        else:
            out.append(Widget("text", label, actionable=rng.random() < 0.7))
            out.append(Widget(role, label, value=shown, truth=text))
    return out


def _dates(rng: random.Random, size: int) -> list[Widget]:
    name = rng.choice(("", "", "Day", "Due", "Start"))
    text = iso_date(rng) if rng.random() < 0.3 else ""
    return [Widget("date", name, value=text or None, truth=text)]


def iso_date(rng: random.Random) -> str:
    return f"{rng.randint(1990, 2029)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _combobox(rng: random.Random, size: int) -> list[Widget]:
    options = names(rng, rng.randint(2, size + 2))
    name = rng.choice(("", "", rng.choice(words.FIELDS), words.name(rng)))
    current = rng.choice(options) if rng.random() < 0.5 else options[0]
    return [Widget("combobox", name, value=current, options=tuple(options), truth=current)]


def _text(rng: random.Random, size: int) -> list[Widget]:
    return [
        Widget(rng.choice(("text", "text", "text", "heading", "cell", "label")), words.phrase(rng, 1, 5),
               actionable=rng.random() < 0.5)
        for _ in range(rng.randint(1, 3))
    ]  # fmt: skip


def _dialog(rng: random.Random, size: int) -> list[Widget]:
    """A box with its title, a closing button and one or two more."""
    out = [Widget("text", words.phrase(rng, 1, 4), actionable=rng.random() < 0.5)]
    out += [Widget("button", t) for t in names(rng, rng.randint(1, 3))]
    if rng.random() < 0.6:
        out.append(Widget("button", rng.choice(("×", "X", "Close", "x"))))
    return out


_BLOCKS: list[tuple[float, Callable[[random.Random, int], list[Widget]]]] = [
    (1.6, _buttons),
    (0.8, _finish),
    (1.4, _links),
    (1.2, _items),
    (0.7, _tabs),
    (1.5, _checkboxes),
    (1.2, _radios),
    (2.0, _fields),
    (0.6, _dates),
    (0.9, _combobox),
    (1.2, _text),
    (0.5, _dialog),
]


def scene(rng: random.Random, size: int) -> Scene:
    """A random page.

    Args:
        rng: source of randomness.
        size: 2..8, how many siblings a block may hold; the curriculum raises it.
    """
    blocks = rng.choices([b for _, b in _BLOCKS], [w for w, _ in _BLOCKS], k=rng.choice((1, 1, 2, 2, 3)))
    widgets: list[Widget] = []
    for block in blocks:
        widgets += block(rng, size)
    roles = {w.role for w in widgets}
    controls = roles & {"checkbox", "radio", "textbox", "textarea", "date", "combobox"}
    if controls and rng.random() < 0.85 and not any(w.group == "finish" for w in widgets):
        widgets += _finish(rng, size)
    if rng.random() < 0.2:
        rng.shuffle(widgets)
    widgets = widgets[:40]
    return Scene(_number(rng, widgets), tuple(widgets))


def _number(rng: random.Random, widgets: list[Widget]) -> tuple[Element, ...]:
    """Give numbers as the browser does: in document order, or with gaps and new ones among old after a change."""
    count = len(widgets)
    draw = rng.random()
    if draw < 0.5:
        refs = list(range(1, count + 1))
    elif draw < 0.75:
        start = rng.randint(1, 20)
        refs = sorted(rng.sample(range(start, start + 2 * count + 5), count))
    else:
        refs = rng.sample(range(1, max(60, count + 1)), count)
    elements = []
    seen: dict[tuple[str, str], int] = {}
    unnumbered = 0
    for i, w in enumerate(widgets):
        nth = seen[w.role, w.name] = seen.get((w.role, w.name), 0) + 1
        if not w.actionable:
            unnumbered += 1
        ref = str(refs[i] if draw >= 0.5 else refs[i] - unnumbered) if w.actionable else None
        elements.append(
            Element(ref=ref, role=w.role, name=w.name, value=w.value, states=w.states, options=w.options, nth=nth)
        )
    return tuple(elements)


def with_widget(base: Scene, position: int, **changes: object) -> Scene:
    """The same page with one element changed: ``with_widget(s, 2, states=("checked",))``."""
    widgets, elements = list(base.widgets), list(base.elements)
    widgets[position] = replace(widgets[position], **changes)  # type: ignore[arg-type]
    shown = {key: value for key, value in changes.items() if key in {"value", "states"}}
    elements[position] = elements[position].model_copy(update=shown)
    return Scene(tuple(elements), tuple(widgets))
