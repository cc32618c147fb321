"""Pictures of an episode as one animated GIF: the page, the pointer on its way, what was thought and done.

Drawn with Pillow on top of the screenshots, so nothing is added to the page. Called by ``dpo-driver watch``. Must not
import playwright or environments.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]
LEAST_WIDTH = 420
MARGIN = 12
TEXT_SIZE = 15
LINE_HEIGHT = 20
MOVE_FRAMES, MOVE_MS = 6, 60
RING_RADII, RING_MS = (8, 13, 18), 90
HOLD_MS, END_MS = 1200, 2500
BACKGROUND, INK, FAINT, ACCENT = "#14181f", "#f2f4f8", "#9aa7b8", "#ffb000"
GOOD, BAD = "#46c46a", "#ff6b5e"
_DRAWN = (ACCENT, GOOD, BAD, INK, FAINT, BACKGROUND)
_ARROW = ((0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (13, 12))


@dataclass
class Film:
    """``film = Film(goal, "run, episode"); film.add(jpeg, ...); film.save("out.gif")``. ``scale`` is how many pixels of
    the pictures make one CSS pixel, ``origin`` the CSS point of their upper left corner."""

    goal: str
    title: str
    scale: float = 1.0
    origin: Point = (0.0, 0.0)
    _frames: list[Image.Image] = field(default_factory=list)
    _milliseconds: list[int] = field(default_factory=list)
    _pointer: Point | None = None

    def add(self, picture: bytes, head: str, caption: str, target: Point | None = None, *, rings: bool = True) -> None:
        """One step: the pointer moves to its target, rings there, and the caption stays for reading.

        Args:
            picture: JPEG or PNG of the page before the action.
            head: small line, such as "step 1 of 3: button OK".
            caption: what is done.
            target: CSS point of what is acted on; None if there is none.
            rings: whether to ring there (a click) or only to point.
        """
        page = Image.open(io.BytesIO(picture)).convert("RGB")
        if target is not None:
            start = self._pointer or (page.width / self.scale / 2, page.height / self.scale)
            for number in range(1, MOVE_FRAMES + 1):
                share = number / MOVE_FRAMES
                self._pointer = tuple(a + (b - a) * share for a, b in zip(start, target, strict=True))  # type: ignore[assignment]
                self._shoot(page, head, caption, MOVE_MS)
            for radius in RING_RADII if rings else ():
                self._shoot(page, head, caption, RING_MS, radius=radius)
        self._shoot(page, head, caption, HOLD_MS, radius=RING_RADII[-1] if target is not None and rings else 0)

    def end(self, picture: bytes, verdict: str, *, good: bool) -> None:
        """The last picture, with how it ended."""
        page = Image.open(io.BytesIO(picture)).convert("RGB")
        self._shoot(page, "the end", verdict, END_MS, ink=GOOD if good else BAD)

    def save(self, file: Path) -> int:
        """Write the GIF, which repeats for ever. Returns the number of frames."""
        # One palette for all frames: colours do not flicker, and unchanged areas compress to nothing.
        width, height = self._frames[0].size
        picked = [self._frames[0], self._frames[len(self._frames) // 2], self._frames[-1]]
        sheet = Image.new("RGB", (width, height * len(picked) + len(_DRAWN) * 8))
        for number, colour in enumerate(_DRAWN):  # ours are rare on the frames, so they ask for their place
            sheet.paste(colour, (0, height * len(picked) + 8 * number, width, height * len(picked) + 8 * number + 8))
        for number, frame in enumerate(picked):
            sheet.paste(frame, (0, number * height))
        palette = sheet.quantize(255)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self._frames]
        frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=self._milliseconds, loop=0)
        return len(frames)

    def _shoot(
        self, page: Image.Image, head: str, caption: str, milliseconds: int, radius: int = 0, ink: str = INK
    ) -> None:
        frame = self._lay_out(page, head, caption, ink)
        if self._pointer is not None:
            left = (frame.width - page.width) // 2
            x = left + (self._pointer[0] - self.origin[0]) * self.scale
            y = self._above() + (self._pointer[1] - self.origin[1]) * self.scale
            draw = ImageDraw.Draw(frame)
            if radius:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=ACCENT, width=3)
            draw.polygon([(x + dx, y + dy) for dx, dy in _ARROW], fill="black", outline="white")
        self._frames.append(frame)
        self._milliseconds.append(milliseconds)

    def _lay_out(self, page: Image.Image, head: str, caption: str, ink: str) -> Image.Image:
        width = max(page.width + 2 * MARGIN, LEAST_WIDTH)
        font, small = ImageFont.load_default(TEXT_SIZE), ImageFont.load_default(TEXT_SIZE - 2)
        frame = Image.new("RGB", (width, self._above() + page.height + 4 * LINE_HEIGHT + MARGIN), BACKGROUND)
        draw = ImageDraw.Draw(frame)
        draw.text((MARGIN, 6), self.title, font=small, fill=FAINT)
        for number, line in enumerate(_lines(self.goal, width, 2)):
            draw.text((MARGIN, 6 + LINE_HEIGHT * (number + 1)), line, font=font, fill=INK)
        frame.paste(page, ((width - page.width) // 2, self._above()))
        below = self._above() + page.height + 8
        draw.text((MARGIN, below), _lines(head, width, 1)[0] if head else "", font=small, fill=FAINT)
        for number, line in enumerate(_lines(caption, width, 2)):
            draw.text((MARGIN, below + LINE_HEIGHT * (number + 1)), line, font=font, fill=ink)
        return frame

    def _above(self) -> int:
        return 3 * LINE_HEIGHT + MARGIN


def _lines(text: str, width: int, limit: int) -> list[str]:
    """Text in at most ``limit`` lines of the frame's width; a cut is shown."""
    found = wrap(" ".join(text.split()), width=max(20, int((width - 2 * MARGIN) / (TEXT_SIZE * 0.52)))) or [""]
    if len(found) > limit:
        found = [*found[: limit - 1], found[limit - 1] + " ..."]
    return found
