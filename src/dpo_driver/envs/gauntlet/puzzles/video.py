"""Video: a film, made here, whose pictures show the code a character at a time.

The film is served once Play was pressed. Who cannot see it goes through it picture by picture: every press of Next
shows one picture and tells it in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from dpo_driver.envs.gauntlet.media.pictures import SIGNS, SIZE, picture
from dpo_driver.envs.gauntlet.media.webm import key_frame, webm
from dpo_driver.envs.gauntlet.puzzles.base import Asset, Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.pieces import false_piece

FRAME_MS = 800
GROUNDS = ("#24507a", "#7a2e24", "#2e6b3c", "#5a3a7a", "#6b5a1e", "#1e6b66", "#444444", "#7a2460")

TITLE: Phrases = (
    ("A short film", "Letters on the screen", "Watch closely", "The silent movie"),
    ("Moving pictures", "At the cinema", "A reel of signs"),
)
TEXT: Phrases = (
    (
        'A film shows the code, one character in each picture. Press "{play}" to watch it; "{on}" goes through it '
        "picture by picture and says what is seen.",
        'Press "{play}": the video shows the characters of the code one after another. With "{on}" you see and '
        "read each frame in words.",
        'The code is in a video. Start it with "{play}", or after that step from frame to frame with "{on}", which '
        "describes each.",
        '"{play}" starts a short video; each frame that shows a letter or digit gives one character of the code. '
        '"{on}" turns to the next frame and tells it in words.',
    ),
    (
        'Let the reel run with "{play}": sign by sign it spells the key. "{on}" winds it one image further and '
        "puts that image in words.",
        'The key passes over the screen in a little film. "{play}" begins it, "{on}" shows the next image and '
        "says what it is.",
        'Sit down and press "{play}". Every image of the film bears one sign of the key; wind on by hand with '
        '"{on}" to have them told.',
    ),
)
SOME: Phrases = (
    (
        "Some pictures show no character: skip them.",
        "Frames without a letter or digit do not count.",
        "Not every frame holds a character.",
        "Where nothing is framed, there is nothing to note.",
    ),
    (
        "Images without a sign are only there to look at.",
        "Not every image bears something.",
        "A bare image adds nothing to the key.",
    ),
)
ONLY: Phrases = (
    (
        "Only characters in a {sign} count; the others lead astray.",
        "Take only what stands in a {sign}.",
        "Count the characters inside a {sign} and no others.",
        "A {sign} marks the characters that matter; skip the rest.",
    ),
    (
        "What is not framed by a {sign} is no part of the key.",
        "Only signs inside a {sign} belong to the key.",
        "Trust the {sign}: what stands in any other shape is false.",
    ),
)
PLAY: Phrases = (("Play", "Play the film", "Watch", "Start the video"), ("Run the reel", "Lights out", "Show it"))
ON: Phrases = (
    ("Next frame", "Next picture", "Step forward", "One frame on"),
    ("Wind on", "Further", "Another image"),
)
BACK: Phrases = (("Previous frame", "Step back", "One back"), ("Wind back", "Earlier image"))
FRAME: Phrases = (
    (
        "Frame {i} of {n}: {what}",
        "Picture {i} of {n} shows {what}",
        "{i} of {n}, {what}",
        "Frame {i}/{n} – {what}",
    ),
    ("Image {i} of {n}: {what}", "On image {i} out of {n}: {what}", "{i}/{n}: {what}"),
)
FULL: Phrases = (
    ("{character} in a {sign}", "a {sign} around {character}", "a {sign} with {character} in it"),
    ("{character}, framed by a {sign}", "{character} inside a {sign}"),
)
EMPTY: Phrases = (
    ("an empty {sign}", "only a {sign}", "a {sign}, nothing in it"),
    ("a bare {sign}", "just a {sign}"),
)


@dataclass(frozen=True)
class Frame:
    """One picture: a sign, in it a character or "", on a ground."""

    character: str
    sign: str
    ground: str


def _frames(setup: Setup, sign: str) -> list[Frame]:
    """The pictures in their order: those of the code, and at higher difficulty others between."""
    others = [name for name in SIGNS if name != sign]
    between: list[tuple[str, str]] = []
    if setup.difficulty > 1:
        between = [("", setup.rng.choice(SIGNS)) for _ in range(2)]
    if setup.difficulty > 2:
        between += [(false_piece(setup, 1), setup.rng.choice(others)) for _ in range(3)]
    shown = [(character, sign if setup.difficulty > 2 else setup.rng.choice(SIGNS)) for character in setup.code]
    for one in between:
        shown.insert(setup.rng.randint(0, len(shown)), one)
    return [Frame(*one, setup.rng.choice(GROUNDS)) for one in shown]


class Video(Puzzle):
    """Play hands out the film, Next and Back the words for one picture each."""

    name: ClassVar[str] = "video"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        sign = setup.rng.choice(SIGNS)
        self.frames = _frames(setup, sign)
        self._labels = {name: setup.say(phrases) for name, phrases in (("play", PLAY), ("on", ON), ("back", BACK))}
        self._title, self._text = setup.say(TITLE), setup.say(TEXT, **self._labels)
        if setup.difficulty > 1:
            self._text += " " + (setup.say(ONLY, sign=sign) if setup.difficulty > 2 else setup.say(SOME))
        whole = setup.say(FRAME, i="{i}", n="{n}", what="{what}")
        full = setup.say(FULL, character="{character}", sign="{sign}")
        empty = setup.say(EMPTY, sign="{sign}")
        self._told = [
            whole.format(
                i=number,
                n=len(self.frames),
                what=(full if frame.character else empty).format(character=frame.character, sign=frame.sign),
            )
            for number, frame in enumerate(self.frames, start=1)
        ]
        self._plays = 0
        self._at = -1  # the frame that is told, none yet

    @property
    def parts(self) -> Sequence[str]:
        return ["play", "on", "back"]

    def view(self) -> dict[str, Json]:
        control = {name: self.setup.control(name, label) for name, label in self._labels.items()}
        return {
            "title": self._title,
            "text": self._text,
            "play": control["play"],
            "film": self.setup.asset("film.webm") if self._plays else None,
            "plays": self._plays,
            "on": control["on"],
            "back": control["back"],
            "still": self.setup.asset(_still(self._at)) if self._at >= 0 else None,
            "told": self._told[self._at] if self._at >= 0 else "",
            "reveal": None,
        }

    def on(self, event: Event) -> None:
        if event.kind != "click":
            return
        if event.part == "play":
            self._plays += 1
            self._at = -1
            self.solve()
        elif self._plays and event.part in ("on", "back"):
            step = 1 if event.part == "on" else -1
            self._at = max(0, min(len(self.frames) - 1, self._at + step))

    @cached_property
    def _pictures(self) -> list[bytes]:
        return [picture(frame.character, frame.sign, frame.ground) for frame in self.frames]

    @cached_property
    def _film(self) -> bytes:
        return webm([key_frame(one) for one in self._pictures], *SIZE, FRAME_MS)

    def asset(self, name: str) -> Asset | None:
        if name == "film.webm" and self._plays:
            return Asset(self._film, "video/webm")
        if name == _still(self._at) and self._at >= 0:
            return Asset(self._pictures[self._at], "image/webp")
        return None


def _still(index: int) -> str:
    return f"picture-{index}.webp"
