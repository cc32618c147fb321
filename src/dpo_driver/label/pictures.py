"""What a page looked like, as an ``<svg>``: the screenshot where the run kept one, else a drawing of its elements.

Called by views.py. Where the two sides acted is marked with their letters. Screenshots are linked, not embedded: the
content security policy allows no data addresses. The drawing comes from whoever starts the server (cli/label.py hands
over the report's). Everything that comes from a page is escaped.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from dpo_driver.core.actions import REF_FIELDS, Action
from dpo_driver.core.errors import StoreError
from dpo_driver.core.records import PICTURE_SCALES, Observation

Draw = Callable[[Observation], Markup]
FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
WIDE = 480.0  # CSS pixels: a wider page wants more room than a third of a screen
_GROWN = 3.0  # pixels between an element and its outline
_POINT = 7.0  # radius of the mark of a point


@dataclass(frozen=True)
class Picture:
    """``svg`` is empty where there is nothing to show; ``wide`` where it needs a row of its own."""

    svg: Markup
    wide: bool = False


class Pictures:
    """Pictures of one run.

    Args:
        get_blob: bytes of a screenshot by its SHA-256; StoreError where it is missing. None: there are none.
        draw: a drawing of a page as ``<svg ...>...</svg>`` in CSS pixels, empty where it has no boxes.
    """

    def __init__(self, get_blob: Callable[[str], bytes] | None, draw: Draw) -> None:
        self._get_blob, self._draw = get_blob, draw
        self._sizes: dict[str, tuple[int, int] | None] = {}

    def of(
        self, page: Observation, sha: str | None, env: str, marks: Sequence[tuple[str, Action | None]] = ()
    ) -> Picture:
        """A page with marks on it.

        Args:
            page: its boxes are in CSS pixels.
            sha: of its screenshot, if there is one.
            env: which environment took it.
            marks: ("A", action) for each side: where it acts.
        """
        size = self._size(sha) if sha else None
        if sha is None or size is None:
            drawn = self._draw(page)
            if not drawn:
                return Picture(Markup(""))
            width = max((element.box[0] + element.box[2] for element in page.elements if element.box), default=0.0)
            over = _marks(page, marks, width)
            return Picture(Markup(drawn.removesuffix("</svg>")) + over + Markup("</svg>"), width > WIDE)
        width, height = (side / PICTURE_SCALES.get(env, 1.0) for side in size)
        svg = Markup(
            '<svg class="frame" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-label="{2}">'
            '<image href="/picture/{3}" width="{0}" height="{1}"/>{4}</svg>'
        ).format(
            round(width, 1), round(height, 1), f"The page: {page.title or 'untitled'}", sha, _marks(page, marks, width)
        )
        return Picture(svg, width > WIDE)

    def file(self, sha: str) -> tuple[bytes, str] | None:
        """A screenshot's bytes and media type; None where there is none, or it is no picture."""
        if self._get_blob is None:
            return None
        try:
            content = self._get_blob(sha)
            with Image.open(io.BytesIO(content), formats=list(FORMATS)) as image:
                return content, FORMATS[str(image.format)]
        except (StoreError, UnidentifiedImageError, OSError):
            return None

    def _size(self, sha: str) -> tuple[int, int] | None:
        if sha not in self._sizes:
            found = self.file(sha)
            if found is None:
                self._sizes[sha] = None
            else:
                with Image.open(io.BytesIO(found[0])) as image:
                    self._sizes[sha] = image.size
        return self._sizes[sha]


def _marks(page: Observation, marks: Sequence[tuple[str, Action | None]], width: float) -> Markup:
    """Outlines and letters, larger on a page that will be shown smaller."""
    size = "large" if width > WIDE else "small"
    scale = 2.0 if width > WIDE else 1.0
    boxes = {element.ref: element.box for element in page.elements if element.ref and element.box}
    drawn = Markup("")
    taken: dict[tuple[float, float], int] = {}  # how many letters stand at a corner already
    for letter, action in marks:
        for x, y, w, h, is_point in _places(action, boxes):
            corner = (round(x), round(y))
            shift = taken.get(corner, 0) * 15 * scale
            taken[corner] = taken.get(corner, 0) + 1
            if is_point:
                shape = Markup('<circle cx="{}" cy="{}" r="{}"/>').format(x, y, _POINT * scale)
            else:
                shape = Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="4"/>').format(
                    x - _GROWN, y - _GROWN, w + 2 * _GROWN, h + 2 * _GROWN
                )
            # The letter stands at the upper left corner, inside the picture.
            left, top = max(0.0, x - 9 * scale + shift), max(0.0, y - 11 * scale)
            drawn += Markup(
                '<g class="mark mark-{} mark-{}">{}<rect class="tag" x="{:.1f}" y="{:.1f}" width="{}" height="{}"'
                ' rx="{}"/><text x="{:.1f}" y="{:.1f}">{}</text></g>'
            ).format(
                letter.lower(), size, shape, left, top, 14 * scale, 13 * scale, 3 * scale,
                left + 7 * scale, top + 10 * scale, letter,
            )  # fmt: skip
    return drawn


def _places(
    action: Action | None, boxes: dict[str, tuple[float, float, float, float]]
) -> list[tuple[float, float, float, float, bool]]:
    """(left, top, width, height, is a point) of everything that an action touches."""
    if action is None:
        return []
    fields = action.model_dump()
    found = [(*boxes[fields[name]], False) for name in sorted(REF_FIELDS & fields.keys()) if fields[name] in boxes]
    for across, down in (("x", "y"), ("from_x", "from_y"), ("to_x", "to_y")):
        if across in fields:
            found.append((fields[across], fields[down], 0.0, 0.0, True))
    return found
