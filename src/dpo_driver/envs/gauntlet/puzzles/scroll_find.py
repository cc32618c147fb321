"""Scroll to find: far down a page that grows while it is scrolled stands one button; traps stand on the way.

Evidence: trusted scrolling (wheel, keys, or a finger or scroll bar that was held while the page moved) brings each
further stretch of the page, and the button comes with the last one; then a trusted click on it. Before that the button
is in no view, so there is nothing to jump to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.wordlists import THINGS, prose, some

TITLE: Phrases = (
    ("A long way down", "Keep scrolling", "At the bottom of it", "The long page", "Down, down, down"),
    ("The deep well", "Descend", "Many floors below", "Where the page ends"),
)
TEXT: Phrases = (
    (
        'Far down on this page is a button named "{label}". Scroll to it and press it.',
        'Scroll down until you come to "{label}", and click it. The page gets longer as you go.',
        'This page is long. The only button that helps is "{label}", near its bottom: scroll there and press it.',
        'Keep scrolling: further down than it seems waits the button "{label}". Press that one and no other.',
        'The code is given by "{label}", a button at the bottom of the page, which grows while you scroll.',
    ),
    (
        'Descend to the very bottom. There hangs "{label}"; pull at nothing else on the way down.',
        'Below all these lines lies "{label}". Scroll on, for the page unrolls as you go, and press it.',
        'Go down as far as the page leads, and then a little lower, to "{label}". Press it.',
        'Many floors below you will see "{label}". Scroll down to it, and touch no other.',
    ),
)
VERBS: Phrases = (
    ("Ring the", "Take the", "Open the", "Use the", "Pick up the", "Touch the", "Turn the", "Lift the"),
    ("Wake the", "Greet the", "Follow the", "Free the", "Ask the", "Name the", "Feed the"),
)
HEADS: Phrases = (
    (
        "About us,Opening hours,How to find us,News,From the archive,Letters,Staff,History,Rules,Thanks,Weather,Events,"
        "Questions,Suppliers,Safety,Timetable"
    ).split(","),
    (
        "First landing,The pantry,Cobwebs,A draught,Old portraits,The cellar door,Roots,Dripping water,Echoes,The lamp "
        "room,Bats,Loose stones,A narrow stair,Moss"
    ).split(","),
)
WRONG: Phrases = (
    ("That was not the one.", "Nothing happens.", "Wrong button. Keep going.", "No code here."),
    ("A trap. Go on.", "It does not move.", "Nothing stirs. Lower still."),
)
FIRST = 4  # sections that are there at the beginning: more than a screen
BATCH = 3  # sections that come with each stretch
STRETCHES = (1, 2, 4)  # by difficulty
ENOUGH = 400.0  # pixels of scrolling that bring the next stretch
# What a key scrolls, about; screens differ. Tab counts little: it moves by one control.
KEYS = {"PageDown": 600.0, " ": 600.0, "End": 3000.0, "ArrowDown": 40.0, "Tab": 130.0}
GESTURE = 1500.0  # the most that one held pointer may have moved the page


class ScrollFind(Puzzle):
    """Solved by a trusted click on the button, which exists only after enough trusted scrolling."""

    name: ClassVar[str] = "scroll-find"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        stretches = STRETCHES[setup.difficulty - 1]
        count = FIRST + BATCH * stretches
        things = some(setup, THINGS, count)
        verb = setup.say(VERBS)
        self._label = f"{verb} {things[0]}"
        self._title, self._text = setup.say(TITLE), setup.say(TEXT, label=self._label)
        heads = some(setup, HEADS, min(count, 13))
        heads += [f"{head} (2)" for head in heads[: count - len(heads)]]
        # Traps: the same verb at difficulty 3, so that the whole label has to be read.
        share = (0.25, 0.5, 0.7)[setup.difficulty - 1]
        self._traps = {
            i: f"{verb if setup.difficulty == 3 else setup.say(VERBS)} {things[i]}"
            for i in range(1, count)
            if setup.rng.random() < share
        }
        self._sections = [(head, " ".join(prose(setup, 2))) for head in heads]
        self._notes = [setup.say(WRONG) for _ in range(3)]
        self._stretches, self._come = stretches, 0
        self._scrolled = 0.0
        self._held: float | None = None  # where the page stood when a pointer went down that has not come up
        self._wrong: int | None = None

    @property
    def parts(self) -> Sequence[str]:
        return ["ground", "goal", *(f"trap/{i}" for i in self._traps)]

    @property
    def _shown(self) -> int:
        return FIRST + BATCH * self._come

    def view(self) -> dict[str, Json]:
        control = self.setup.control
        sections: list[Json] = []
        for i, (head, text) in enumerate(self._sections[: self._shown]):
            trap = control(f"trap/{i}", self._traps[i]) if i in self._traps else None
            note = self._notes[self.mistakes % len(self._notes)] if i == self._wrong else None
            sections.append({"head": head, "text": text, "trap": trap, "note": note})
        return {
            "title": self._title,
            "text": self._text,
            "ground": self.setup.part("ground"),
            "sections": sections,
            "goal": control("goal", self._label) if self._come == self._stretches else None,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        self._scroll(event)
        if event.kind != "click":
            return
        if event.part == "goal" and self._come == self._stretches:
            self.solve()
        elif event.part.startswith("trap/") and int(event.part.partition("/")[2]) < self._shown:
            self.mistakes += 1
            self._wrong = int(event.part.partition("/")[2])

    def _scroll(self, event: Event) -> None:
        """Add up trusted scrolling; one event brings at most one stretch, as one cannot scroll past a page's end."""
        moved = 0.0
        if event.kind == "wheel":
            moved = max(0.0, event.delta)
        elif event.kind == "keydown" and event.part in ("", "ground"):
            moved = KEYS.get(event.key, 0.0)
        elif event.kind == "keydown" and event.key == "Tab":
            moved = KEYS["Tab"]
        # A finger's swipe and a drag of the scroll bar end without pointerup: the page moved while it was held.
        if event.kind in ("pointerup", "click"):
            self._held = None
        elif self._held is not None and event.scroll > self._held:
            moved += min(GESTURE, event.scroll - self._held)
            self._held = None
        if event.kind == "pointerdown":
            self._held = event.scroll
        self._scrolled += moved
        if self._scrolled >= ENOUGH and self._come < self._stretches:
            self._come, self._scrolled = self._come + 1, 0.0
