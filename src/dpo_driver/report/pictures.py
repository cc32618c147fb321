"""What a page looked like at one step: the screenshot where one was kept, otherwise a drawing from the element boxes.

Called by page.py. A picture that occurs in several steps is embedded once, and a budget keeps the page small: beyond it
pages are drawn instead. Everything that comes from a web page is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

from markupsafe import Markup

from dpo_driver.core.errors import StoreError
from dpo_driver.core.records import PICTURE_SCALES, Element, Observation

Box = tuple[float, float, float, float]
BUDGET = 3_000_000  # bytes of screenshots in one report, before base64
MARGIN = 10
SMALLEST = (160.0, 210.0)  # a MiniWoB++ page
LARGEST = (1600.0, 1200.0)
_BUTTONS = frozenset(
    {"button", "tab", "menuitem", "link", "clickable", "heading", "option", "item", "listitem", "cell"}
)
_FIELDS = frozenset(
    {"textbox", "textarea", "combobox", "spinbutton", "date", "time", "number", "color", "file", "slider"}
)


@dataclass
class Pictures:
    """The pictures of one report. Draw frames first, then put :meth:`definitions` before them in the page.

    Args:
        get_blob: content of a screenshot by its SHA-256; StoreError where it is missing.
        budget: bytes of screenshots to embed at most.
    """

    get_blob: Callable[[str], bytes]
    budget: int = BUDGET
    _kept: dict[str, tuple[Markup, tuple[int, int]] | None] = field(default_factory=dict)

    def frame(
        self, observation: Observation, target: str | None = None, screenshot: str | None = None, env: str = ""
    ) -> Markup:
        """One step's page with the element that the action aims at outlined; an ``<svg>``.

        Args:
            observation: its boxes frame the picture.
            target: ref of the element acted on.
            screenshot: instead of the observation's own, such as the one after the last action.
            env: which environment took it.
        """
        sha = screenshot or observation.screenshot
        image = self._image(sha) if sha else None
        if image is None and (screenshot or not any(element.box for element in observation.elements)):
            return Markup("")
        scale = PICTURE_SCALES.get(env, 1.0)
        whole = tuple(side / scale for side in image[1]) if image else None
        width, height = _extent(observation, whole)
        boxes = {element.ref: element.box for element in observation.elements if element.ref and element.box}
        shown = Markup('<use href="#i{}" transform="scale({})"/>').format(sha, round(1 / scale, 4))
        body = shown if image else _drawing(observation, width, height)
        outline = Markup("")
        if target in boxes:
            x, y, w, h = boxes[target]
            outline = Markup('<rect class="target" x="{}" y="{}" width="{}" height="{}" rx="3"/>').format(
                round(x - 2, 1), round(y - 2, 1), round(w + 4, 1), round(h + 4, 1)
            )
        what = "Screenshot" if image else "Drawing"
        description = f"{what} of the page: {observation.title or observation.url or 'untitled'}"
        return Markup('<svg class="frame" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
            round(width), round(height), description, body, outline
        )

    def definitions(self) -> Markup:
        """The embedded screenshots, once each, as an invisible ``<svg>``."""
        images = Markup("").join(kept[0] for kept in self._kept.values() if kept)
        return Markup('<svg width="0" height="0" aria-hidden="true" class="images"><defs>{}</defs></svg>').format(
            images
        )

    def _image(self, sha: str) -> tuple[Markup, tuple[int, int]] | None:
        """The picture as an element, and its size in its own pixels."""
        if sha not in self._kept:
            self._kept[sha] = self._embed(sha)
        return self._kept[sha]

    def _embed(self, sha: str) -> tuple[Markup, tuple[int, int]] | None:
        try:
            content = self.get_blob(sha)
        except StoreError:  # a lost picture is no reason to go without the report
            return None
        size = image_size(content)
        if size is None or len(content) > self.budget:
            return None
        self.budget -= len(content)
        kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
        data = base64.b64encode(content).decode()
        tag = Markup('<image id="i{}" width="{}" height="{}" href="data:image/{};base64,{}"/>').format(
            sha, *size, kind, data
        )
        return tag, size


def image_size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG or JPEG in pixels; None for anything else."""
    if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) >= 24:
        return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    if not content.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        # Start of frame: C0 to CF, but for the tables C4, C8 and CC.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(content[at + 7 : at + 9]), int.from_bytes(content[at + 5 : at + 7])
        at += 2 + length
    return None


def _extent(observation: Observation, image: tuple[float, ...] | None) -> tuple[float, float]:
    """The part of the page to show: from its corner to its last element, so that an empty viewport takes no room."""
    boxes = [element.box for element in observation.elements if element.box]
    right = max([SMALLEST[0], *(x + w + MARGIN for x, _, w, _ in boxes)])
    bottom = max([SMALLEST[1], *(y + h + MARGIN for _, y, _, h in boxes)])
    limit = image or LARGEST
    return min(right, limit[0]), min(bottom, limit[1])


def _drawing(observation: Observation, width: float, height: float) -> Markup:
    parts = [Markup('<rect class="sheet" width="{}" height="{}"/>').format(round(width), round(height))]
    parts += [_draw_element(element, element.box) for element in observation.elements if element.box]
    return Markup("").join(parts)


def _draw_element(element: Element, box: Box) -> Markup:
    x, y, w, h = (round(number, 1) for number in box)
    role = "field" if element.role in _FIELDS else "press" if element.role in _BUTTONS and element.ref else "plain"
    if element.role in ("checkbox", "radio"):
        mark = "✓" if {"checked", "selected"} & set(element.states) else ""
        round_by = h / 2 if element.role == "radio" else 2
        return Markup(
            '<rect class="field" x="{0}" y="{1}" width="{2}" height="{3}" rx="{4}"/>'
            '<text class="mark" x="{5}" y="{6}">{7}</text>'
        ).format(x, y, w, h, round(round_by, 1), x + w / 2, round(y + h * 0.8, 1), mark)
    size = round(max(6.0, min(11.0, h * 0.6)), 1)
    text = element.value if role == "field" and element.value else element.name
    text = _fit(text, w, size)
    shape = Markup("")
    if role != "plain":
        shape = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="2.5"/>').format(role, x, y, w, h)
    return shape + Markup('<text x="{}" y="{}" font-size="{}">{}</text>').format(
        round(x + (0 if role == "plain" else 4), 1), round(y + min(h, size * 1.9) / 2 + size * 0.35, 1), size, text
    )


def _fit(text: str, width: float, size: float) -> str:
    room = max(1, int(width / (size * 0.52)))
    line = " ".join(text.split())
    return line if len(line) <= room else line[: max(1, room - 1)] + "…"
