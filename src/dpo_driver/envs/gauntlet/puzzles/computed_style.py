"""Computed style: boxes that differ in colour, size, place, turn or frame, all by style sheet; pick the one meant.

Nothing in the markup tells the boxes apart, and their order in it is not the one seen. Difficulty 1 asks for one box by
one trait, 2 two times, 3 three times by two traits together; a wrong box starts again. Held out of training. Used by
envs/gauntlet/visit.py. Imports the base only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("A row of boxes", "Which one is it?", "Look closely", "The odd collection"),
    ("The shop window", "An eye for it", "Pieces on show"),
)
TEXT: Phrases = (
    (
        "Click {what}.",
        "Which is {what}? Click it, or the letter below it.",
        "Find {what} and click it.",
        "Pick {what} with a click.",
    ),
    (
        "Choose {what}.",
        "Point out {what} by clicking.",
        "Wanted: {what}. Choose it or its letter.",
    ),
)
AGAIN: Phrases = (
    ("Not that one; from the beginning.", "That was another box. Start over.", "No. Back to the first one."),
    ("Some other piece. Once more from the first.", "It was not. All over again.", "Wrong piece; begin anew."),
)
ROUND: Phrases = (
    ("Box {at} of {of}", "Question {at} of {of}", "{at} out of {of}", "Round {at} of {of}"),
    ("Piece {at} of {of}", "Pick {at} of {of}", "No. {at} of {of}"),
)
TRAITS: dict[str, Phrases] = {
    "box": (("box", "rectangle"), ("piece", "block", "shape")),
    "largest": (("largest", "biggest"), ("most spacious", "bulkiest", "greatest")),
    "smallest": (("smallest", "littlest"), ("tiniest", "slightest", "minutest")),
    "lying": (("lies on its side", "is wider than high"), ("is lying down", "rests lengthwise", "lies flat")),
    "upright": (("stands upright", "is higher than wide"), ("is standing", "stands on end", "stands up")),
    "tilted": (("is tilted", "leans over"), ("is aslant", "is slanted", "stands on a corner")),
    "frame": (("frame", "border"), ("edge", "rim", "outline")),
    "0": (("first",), ("1st",)),
    "1": (("second",), ("2nd",)),
    "2": (("third",), ("3rd",)),
    "3": (("fourth",), ("4th",)),
    "4": (("fifth",), ("5th",)),
}
COLORS = {  # of skin a, then those that only skin b has
    "red": "rgb(255, 0, 0)",
    "green": "rgb(0, 128, 0)",
    "blue": "rgb(0, 0, 255)",
    "yellow": "rgb(255, 255, 0)",
    "orange": "rgb(255, 165, 0)",
    "purple": "rgb(128, 0, 128)",
    "pink": "rgb(255, 192, 203)",
    "black": "rgb(0, 0, 0)",
    "gray": "rgb(128, 128, 128)",
    "maroon": "rgb(128, 0, 0)",
    "olive": "rgb(128, 128, 0)",
    "navy": "rgb(0, 0, 128)",
    "teal": "rgb(0, 128, 128)",
    "lime": "rgb(0, 255, 0)",
    "magenta": "rgb(255, 0, 255)",
    "aqua": "rgb(0, 255, 255)",
    "brown": "rgb(165, 42, 42)",
}
FIRST_OF_B = 9
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
COUNT = {1: 4, 2: 5, 3: 5}
SIDE, SMALL, LARGE = 32, 20, 44  # pixels; five of the largest fit beside each other on a phone


@dataclass(frozen=True)
class Box:
    """How one box looks; ``place`` counts from the left."""

    color: str
    place: int
    width: int = SIDE
    height: int = SIDE
    turn: int = 0
    frame: str = ""

    @property
    def area(self) -> int:
        return self.width * self.height


@dataclass(frozen=True)
class Question:
    """A row of boxes in the order of the markup, what is asked, and which one that is."""

    boxes: tuple[Box, ...]
    letters: tuple[str, ...]
    what: str
    right: int


Words = dict[str, str]
Made = tuple[list[Box], str, Callable[[Box], bool]]  # a row, what is asked for, and whether a box is that
Maker = Callable[[random.Random, list[str], int, Words], Made]


def _row(rng: random.Random, colors: Sequence[str]) -> list[Box]:
    places = list(range(len(colors)))
    rng.shuffle(places)
    return [Box(color, place) for color, place in zip(colors, places, strict=True)]


def _by_color(rng: random.Random, colors: list[str], n: int, say: Words) -> Made:
    wanted = colors[0]
    return _row(rng, colors[:n]), f"the {wanted} {say['box']}", lambda box: box.color == wanted


def _by_size(rng: random.Random, colors: list[str], n: int, say: Words) -> Made:
    sides = rng.sample(range(SMALL, LARGE + 1, 6), n)
    boxes = [replace(box, width=side, height=side) for box, side in zip(_row(rng, colors[:n]), sides, strict=True)]
    largest = rng.random() < 0.5
    wanted = max(sides) if largest else min(sides)
    return boxes, f"the {say['largest' if largest else 'smallest']} {say['box']}", lambda box: box.width == wanted


def _by_place(rng: random.Random, colors: list[str], n: int, say: Words) -> Made:
    place, left = rng.randrange(n), rng.random() < 0.5
    counted = say[str(place if left else n - 1 - place)]
    what = f"the {counted} {say['box']} from the {'left' if left else 'right'}"
    return _row(rng, [colors[0]] * n), what, lambda box: box.place == place


def _by_turn(rng: random.Random, colors: list[str], n: int, say: Words) -> Made:
    # All are declared upright and alike; only the rotation tells them apart.
    usual, odd, said = rng.choice(
        [
            (0, 90, say["lying"]),
            (90, 0, say["upright"]),
            (0, 45, say["tilted"]),
            (90, 45, say["tilted"]),
        ]
    )
    at = rng.randrange(n)
    boxes = [
        replace(box, width=SMALL, height=LARGE, turn=odd if index == at else usual)
        for index, box in enumerate(_row(rng, [colors[0]] * n))
    ]
    return boxes, f"the {say['box']} that {said}", lambda box: box.turn == odd


def _by_frame(rng: random.Random, colors: list[str], n: int, say: Words) -> Made:
    frames = rng.sample([color for color in colors if color != colors[0]], n)
    boxes = [replace(box, frame=frame) for box, frame in zip(_row(rng, [colors[0]] * n), frames, strict=True)]
    wanted = frames[0]
    return boxes, f"the {say['box']} with the {wanted} {say['frame']}", lambda box: box.frame == wanted


def _color_frame(rng: random.Random, c: list[str], n: int, say: Words) -> Made:
    one, two, three, four = c[:4]
    kinds = [(one, three), (one, four), (two, three), (two, four), (three, four)][:n]
    boxes = [replace(box, frame=kind[1]) for box, kind in zip(_row(rng, [k[0] for k in kinds]), kinds, strict=True)]
    return (
        boxes,
        f"the {one} {say['box']} with the {three} {say['frame']}",
        lambda box: (box.color, box.frame) == (one, three),
    )


def _color_size(rng: random.Random, c: list[str], n: int, say: Words) -> Made:
    sides = sorted(rng.sample(range(SMALL, LARGE + 1, 6), n))
    largest = rng.random() < 0.5
    # The extreme of all has the other colour, so that size alone misleads.
    colors = [c[0], c[1], c[0], c[1], c[1]][:n] if largest else [c[1], c[1], c[0], c[1], c[0]][-n:]
    if largest:
        wanted = max(side for side, color in zip(sides, colors, strict=True) if color == c[0])
    else:
        wanted = min(side for side, color in zip(sides, colors, strict=True) if color == c[0])
    boxes = [replace(box, width=side, height=side) for box, side in zip(_row(rng, colors), sides, strict=True)]
    what = f"the {say['largest' if largest else 'smallest']} {c[0]} {say['box']}"
    return boxes, what, lambda box: box.width == wanted


def _color_place(rng: random.Random, c: list[str], n: int, say: Words) -> Made:
    boxes = _row(rng, [c[0], c[0], c[0], *[c[1]] * (n - 3)])
    left = rng.random() < 0.5
    places = sorted((box.place for box in boxes if box.color == c[0]), reverse=not left)
    counted = rng.randrange(3)
    what = f"the {say[str(counted)]} {c[0]} {say['box']} from the {'left' if left else 'right'}"
    return boxes, what, lambda box: box.place == places[counted]


ONE_TRAIT: tuple[Maker, ...] = (_by_color, _by_size, _by_place, _by_turn, _by_frame)
TWO_TRAITS: tuple[Maker, ...] = (_color_frame, _color_size, _color_place)


class ComputedStyle(Puzzle):
    """Solved by trusted clicks on the box meant (or the letter below it), once for each question in a row."""

    name: ClassVar[str] = "computed-style"
    held_out: ClassVar[bool] = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, skin, hard = setup.rng, SKINS.index(setup.skin), setup.difficulty
        colors = list(COLORS)[:FIRST_OF_B] if skin == 0 else list(COLORS)[FIRST_OF_B:]
        makers = rng.sample(ONE_TRAIT if hard < 3 else TWO_TRAITS, hard)
        words = {trait: setup.say(phrases) for trait, phrases in TRAITS.items()}
        self._title, self._again = setup.say(TITLE), setup.say(AGAIN)
        self._questions = [self._asked(maker, rng.sample(colors, len(colors)), words) for maker in makers]
        self._texts = [setup.say(TEXT, what=question.what) for question in self._questions]
        rounds = setup.say(ROUND, at="{at}", of=hard)
        self._rounds = [rounds.format(at=at + 1) for at in range(hard)]
        self._at = 0
        self._note = ""

    def _asked(self, maker: Maker, colors: list[str], words: Words) -> Question:
        rng, count = self.setup.rng, COUNT[self.setup.difficulty]
        boxes, what, fits = maker(rng, colors, count, words)
        rng.shuffle(boxes)
        (right,) = (index for index, box in enumerate(boxes) if fits(box))
        return Question(tuple(boxes), tuple(rng.sample(LETTERS, count)), what, right)

    @property
    def parts(self) -> Sequence[str]:
        return [f"{at}/{index}" for at, asked in enumerate(self._questions) for index in range(len(asked.boxes))]

    def view(self) -> dict[str, Json]:
        at = min(self._at, len(self._questions) - 1)
        return {
            "title": self._title,
            "text": self._texts[at],
            "round": self._rounds[at] if len(self._rounds) > 1 else "",
            "boxes": [self._drawn(at, index) for index in range(len(self._questions[at].boxes))],
            "note": self._note,
            "reveal": self.revealed(),
        }

    def _drawn(self, at: int, index: int) -> dict[str, Json]:
        asked = self._questions[at]
        box = asked.boxes[index]
        return {
            **self.setup.control(f"{at}/{index}", asked.letters[index]),
            "color": COLORS[box.color],
            "frame": COLORS[box.frame] if box.frame else "",
            "width": box.width,
            "height": box.height,
            "turn": box.turn,
            "order": box.place,
        }

    def on(self, event: Event) -> None:
        if self.solved or event.kind != "click" or "/" not in event.part:
            return
        at, index = map(int, event.part.split("/"))
        if at != self._at:
            return  # a second click of a double one, when the row has changed already
        self._note = ""
        if index != self._questions[at].right:
            self.mistakes += 1
            self._at, self._note = 0, self._again
            return
        self._at += 1
        if self._at == len(self._questions):
            self.solve()
