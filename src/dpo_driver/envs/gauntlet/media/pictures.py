"""The pictures of a film: a big character or nothing within a drawn sign, as lossy WebP.

Pillow is loaded when the first picture is drawn. Its built-in font serves, so no machine needs fonts. Used by
envs/gauntlet/puzzles/video.py.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any

SIZE = (320, 240)
SIGNS = ("circle", "square", "triangle", "diamond", "hexagon")
_CORNERS = {
    "square": (4, 45),
    "triangle": (3, -90),
    "diamond": (4, 0),
    "hexagon": (6, 0),
}  # how many, the first's angle
_INK, _CHARACTER = "#f4f4f0", 84  # white; height of the font


@lru_cache(maxsize=2_048)  # of about 3 kB: the server is not to be kept from others by drawing the same again
def picture(character: str, sign: str, ground: str) -> bytes:
    """One picture: a sign of :data:`SIGNS` on a ground of a CSS colour, and in it one character or ""."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", SIZE, ground)
    draw = ImageDraw.Draw(image)
    # A triangle has less room around its middle, and its middle lies low.
    lower, radius = (0.62, 0.6) if sign == "triangle" else (0.5, 0.46)
    middle = (SIZE[0] / 2, SIZE[1] * lower)
    _outline(draw, sign, middle, SIZE[1] * radius)
    if character:
        draw.text(middle, character, fill=_INK, font=ImageFont.load_default(size=_CHARACTER), anchor="mm")
    file = io.BytesIO()
    image.save(file, format="WEBP", lossless=False, quality=80, method=2)
    return file.getvalue()


def _outline(draw: Any, sign: str, middle: tuple[float, float], radius: float) -> None:
    x, y = middle
    if sign == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_INK, width=6)
        return
    count, start = _CORNERS[sign]
    turns = [math.radians(start + 360 * index / count) for index in range(count)]
    corners = [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
    draw.line([*corners, corners[0]], fill=_INK, width=6, joint="curve")
