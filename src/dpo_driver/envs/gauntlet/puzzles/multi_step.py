"""Multi-step: a list of small things to do in that order and no other: begin, write, tick, choose, finish.

The form appears at the first press; the order of its controls is not that of the list. A thing done out of order, or
to the wrong control, empties the form and starts the list again. Used by envs/gauntlet/visit.py. Imports the base only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("Step by step", "In the right order", "A short procedure", "One after another"),
    ("The checklist", "By the book", "A routine"),
)
TEXT: Phrases = (
    (
        "Follow the list in exactly this order. Any slip starts it again.",
        "Do these things one after another; whatever is out of order sends you back to the start.",
        "Work through the list from top to bottom, and keep to the order.",
        "All of this has to be done in sequence, nothing else in between.",
    ),
    (
        "Carry out the checklist from the first line to the last, without a detour.",
        "The order of the checklist is binding; a wrong turn clears everything.",
        "Line by line, please: what comes first on the checklist is done first.",
    ),
)
PRESS: Phrases = (
    ('Press "{label}".', 'Click the button "{label}".', 'Press the button "{label}" now.', 'Use "{label}".'),
    ("Hit “{label}”.", "Go for “{label}”.", "Then “{label}”, the button."),
)
WRITE: Phrases = (
    (
        'Write "{value}" into "{label}".',
        'Fill in "{label}" with "{value}".',
        'Type "{value}" in the field "{label}".',
        'Put "{value}" into the field "{label}".',
    ),
    ("State “{value}” as “{label}”.", "“{label}” has to read “{value}”.", "Give “{value}” for “{label}”."),
)
TICK: Phrases = (
    ('Tick "{label}".', 'Check the box "{label}".', 'Put a tick at "{label}".', 'Tick the box "{label}".'),
    ("Mark “{label}”.", "Put a cross beside “{label}”.", "“{label}” is to be marked."),
)
CHOOSE: Phrases = (
    ('Choose "{label}".', 'Select "{label}".', 'Pick "{label}" of the choices.', 'Set the choice to "{label}".'),
    ("Opt for “{label}”.", "Take “{label}” among the options.", "Settle on “{label}”."),
)
START: Phrases = (
    ("Begin", "Start", "Open the form", "Set out", "Let us go"),
    ("Commence", "Unfold", "Kick off", "Get going"),
)
FINISH: Phrases = (
    ("Finish", "Complete", "Close the form", "All done", "Sign off"),
    ("Wrap up", "Conclude", "Dispatch", "Wind up"),
)
TRAPS: Phrases = (
    ("Skip", "Help me", "Print", "Save for later", "Ask a friend", "Shortcut"),
    ("Bypass", "Postpone", "Hint", "Duplicate", "Autofill"),
)
PROGRESS: Phrases = (
    ("{n} of {total} done", "Done: {n} of {total}", "{n}/{total} finished", "So far {n} of {total}"),
    ("{n} of {total} lines", "Line {n} of {total} is past", "Past: {n}/{total}"),
)
SLIP: Phrases = (
    ("Out of order: start again.", "That was not next. From the top.", "A slip; the form is empty again."),
    ("Not by the book. Once more.", "Wrong turn; all cleared.", "That line was not next."),
)
FIELDS: Phrases = (
    ("Word", "Name", "Town", "Reference", "Title", "Motto", "Nickname", "Street"),
    ("Watchword", "Ship", "Station", "Remark", "Label", "Signature"),
)
VALUES = (
    "maple harbor violet comet pepper anchor meadow sparrow copper lantern willow thunder marble cactus pebble ribbon "
    "saddle temple walnut zephyr almond breeze candle dagger engine feather galaxy hazel indigo jungle kettle lagoon"
).split()
BOXES: Phrases = (
    tuple(
        "red green blue yellow purple orange silver golden crimson ivory turquoise brown pink grey black white".split()
    ),
    tuple("north south east west spring summer autumn winter dawn noon dusk midnight earth water fire wind".split()),
)
CHOICES: Phrases = (
    tuple("circle square triangle star hexagon heart arrow spiral crescent cross diamond oval".split()),
    tuple("tiger zebra otter falcon beetle dolphin gecko lobster panda raven walrus yak".split()),
)
BOX_COUNT = {1: 2, 2: 4, 3: 5}
TICKS = {1: 1, 2: 2, 3: 3}
CHOICE_COUNT = {1: 0, 2: 0, 3: 3}


@dataclass(frozen=True)
class Line:
    """One thing to do: a click on ``part``, or with ``value`` a text in the field ``part``."""

    part: str
    said: str
    value: str = ""


class MultiStep(Puzzle):
    """Solved by trusted clicks and trusted typing in the order of the list."""

    name: ClassVar[str] = "multi-step"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, skin, hard = setup.rng, SKINS.index(setup.skin), setup.difficulty
        self._labels = {"start": setup.say(START), "finish": setup.say(FINISH), "word": setup.say(FIELDS)}
        boxes = rng.sample(BOXES[skin], BOX_COUNT[hard])
        choices = rng.sample(CHOICES[skin], CHOICE_COUNT[hard])
        traps = rng.sample(TRAPS[skin], hard - 1)
        self._boxes = {f"box/{at}": label for at, label in enumerate(boxes)}
        self._choices = {f"choice/{at}": label for at, label in enumerate(choices)}
        self._traps = {f"trap/{at}": label for at, label in enumerate(traps)}
        self._labels |= self._boxes | self._choices | self._traps
        self._lines = self._listed(rng.choice(VALUES))
        self._buttons = ["finish", *self._traps]
        rng.shuffle(self._buttons)
        self._groups = ["word", "boxes", *(["choices"] if choices else [])]
        rng.shuffle(self._groups)
        self._title, self._text, self._slip = setup.say(TITLE), setup.say(TEXT), setup.say(SLIP)
        progress = setup.say(PROGRESS, n="{n}", total=len(self._lines))
        self._progress = [progress.format(n=n) for n in range(len(self._lines) + 1)]
        self._at = 0  # how many lines are done
        self._typed = ""
        self._round = 0
        self._note = ""

    def _listed(self, value: str) -> list[Line]:
        """The list: start, some things in any order, finish."""
        setup, rng = self.setup, self.setup.rng
        between = [Line("word", setup.say(WRITE, label=self._labels["word"], value=value), value)]
        ticks = rng.sample(sorted(self._boxes), TICKS[setup.difficulty])
        between += [Line(part, setup.say(TICK, label=self._labels[part])) for part in ticks]
        if self._choices:
            part = rng.choice(sorted(self._choices))
            between.append(Line(part, setup.say(CHOOSE, label=self._labels[part])))
        if setup.difficulty > 1:
            rng.shuffle(between)
        first = Line("start", setup.say(PRESS, label=self._labels["start"]))
        return [first, *between, Line("finish", setup.say(PRESS, label=self._labels["finish"]))]

    @property
    def parts(self) -> Sequence[str]:
        return ["start", "finish", "word", *self._boxes, *self._choices, *self._traps]

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "lines": [line.said for line in self._lines],
            "start": self._control("start"),
            "progress": self._progress[self._at],
            "form": self._form() if self._at else None,
            "note": self._note,
            "reveal": self.revealed(),
        }

    def _control(self, part: str) -> dict[str, str]:
        return self.setup.control(part, self._labels[part])

    def _form(self) -> dict[str, Json]:
        done = {line.part for line in self._lines[: self._at]}
        return {
            "round": self._round,  # a new one is a new form with an empty field
            "groups": self._groups,
            "word": self._control("word"),
            "boxes": [{**self._control(part), "on": part in done} for part in self._boxes],
            "choices": [{**self._control(part), "on": part in done} for part in self._choices],
            "buttons": [self._control(part) for part in self._buttons],
        }

    def on(self, event: Event) -> None:
        if self.solved:
            return
        if event.kind == "input" and event.part == "word":
            self._type(event.value)
        elif event.kind == "click" and event.part == "start":
            self._at, self._typed, self._note = 1, "", ""
            self._round += 1
        elif event.kind == "click" and event.part in self._labels and event.part != "word" and self._at:
            self._click(event.part)

    def _type(self, text: str) -> None:
        if not self._at:
            return
        if self._lines[self._at].value:
            self._typed = text
        else:
            self._restart()

    def _click(self, part: str) -> None:
        line = self._lines[self._at]
        if line.value and self._typed.strip() == line.value:
            self._at += 1
            line = self._lines[self._at]
        if part != line.part:
            self._restart()
            return
        self._at += 1
        self._note = ""
        if self._at == len(self._lines):
            self.solve()

    def _restart(self) -> None:
        self.mistakes += 1
        self._at, self._typed, self._note = 0, "", self._slip
