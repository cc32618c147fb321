"""Animated button: it drifts about and dodges after each hit; hit it a few times. Others drift beside it and spoil it.

The server owns where each button is: places change with its clock and with each hit, and the page glides there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("A restless button", "Catch it", "It will not stand still", "On the move"),
    ("The runaway", "A lively thing", "Chase it"),
)
TEXT: Phrases = (
    (
        'Press the moving "{label}" {n} times.',
        '"{label}" drifts about. Hit it {n} times.',
        'Catch "{label}" {n} times while it wanders.',
        'The button "{label}" will not rest: press it {n} times.',
    ),
    (
        'Chase "{label}" and tap it {n} times.',
        '"{label}" runs away; get it {n} times.',
        '{n} times must you strike the roaming "{label}".',
    ),
)
WARNING: Phrases = (
    (
        "Another button sets you back.",
        "The others undo your hits.",
        "Beware: a wrong one costs everything.",
        "Only that one: the rest reset the count.",
    ),
    ("Its companions spoil the count.", "Strike none of its neighbours.", "A wrong hit wipes out the right ones."),
)
LABELS: Phrases = (
    (
        "Butterfly", "Comet", "Rabbit", "Balloon", "Squirrel", "Firefly", "Bubble", "Kite", "Swallow", "Marble",
        "Lizard", "Puck", "Sparrow", "Beetle", "Feather", "Minnow", "Cricket", "Drone",
    ),
    (
        "Otter", "Meteor", "Ferret", "Dragonfly", "Cloud", "Trout", "Hedgehog", "Paper plane", "Hornet", "Gecko",
        "Tumbleweed", "Wagtail", "Seal", "Acorn",
    ),
)  # fmt: skip
COUNT: Phrases = (
    ("Hits: {k} of {n}", "{k} of {n} so far", "Caught {k} of {n}", "You have {k} of {n}"),
    ("Score {k} of {n}", "{k} of {n} taken", "Struck {k} of {n}"),
)
WRONG: Phrases = (
    ("That was the wrong one. From zero.", "Wrong one: all hits are gone.", "Not that one! Back to zero.", "Oh no."),
    ("The wrong beast. Count again.", "Missed the right one.", "All is lost; begin anew."),
)
NEEDED = {1: 2, 2: 3, 3: 4}
OTHERS = {1: 0, 2: 1, 3: 2}
STRIDE = {1: 10, 2: 15, 3: 20}  # per cent of the width that it drifts in one period, at most
PERIOD_S = 1.6
PLACES = 40  # then they come round again


class AnimatedButton(Puzzle):
    """Solved by enough trusted presses on the right button, with none on another in between."""

    name: ClassVar[str] = "animated-button"
    held_out: ClassVar[bool] = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, skin = setup.rng, SKINS.index(setup.skin)
        self._needed = NEEDED[setup.difficulty]
        self._label, *others = rng.sample(list(LABELS[skin]), 1 + OTHERS[setup.difficulty])
        self._title, self._text = setup.say(TITLE), setup.say(TEXT, label=self._label, n=self._needed)
        self._warning = setup.say(WARNING) if others else None
        self._buttons = [("goal", self._label), *((f"other/{i}", label) for i, label in enumerate(others))]
        rng.shuffle(self._buttons)
        # Each has a band of its own, so that none ever covers another.
        self._walks = [self._walk(lane) for lane in range(len(self._buttons))]
        self._count, self._wrong = rng.choice(COUNT[skin]), setup.say(WRONG)
        self._begin = setup.clock()
        self._hits = self._dodges = 0
        self._note: str | None = None

    def _walk(self, lane: int) -> list[tuple[int, int]]:
        """Places of one button one after another: per cent of the free width, and of the free height."""
        rng, stride = self.setup.rng, STRIDE[self.setup.difficulty]
        band = 100 / len(self._buttons)
        x, walk = rng.randint(20, 80), []
        for _ in range(PLACES):
            by = rng.choice((-1, 1)) * rng.randint(stride // 2, stride)
            x = x + by if 0 <= x + by <= 100 else x - by
            walk.append((x, round(lane * band + rng.uniform(0.2, 0.5) * band)))
        return walk

    @property
    def parts(self) -> Sequence[str]:
        return [name for name, _ in self._buttons]

    def _moves(self) -> int:
        """How many periods have passed."""
        return max(0, int((self.setup.clock() - self._begin) / PERIOD_S + 1e-6))

    def view(self) -> dict[str, Json]:
        at = 0 if self.solved else self._moves() + self._dodges
        shown = [
            {**self.setup.control(name, label), "x": walk[at % PLACES][0], "y": walk[at % PLACES][1]}
            for (name, label), walk in zip(self._buttons, self._walks, strict=True)
        ]
        return {
            "title": self._title,
            "text": self._text,
            "warning": self._warning,
            "buttons": shown,
            "period": PERIOD_S,
            "count": self._count.format(k=self._hits, n=self._needed),
            "note": self._note,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        """A press counts as it goes down: what moves may be elsewhere before the button is let go."""
        down = event.kind == "pointerdown" and event.button == 0
        if self.solved or not (down or (event.kind == "keydown" and event.key in ("Enter", " "))):
            return
        if event.part == "goal":
            self._hits += 1
            self._dodges += 1
            self._note = None
            if self._hits == self._needed:
                self.solve()
        elif event.part.startswith("other/"):
            self.mistakes += 1
            self._hits = 0
            self._note = self._wrong

    def wakes(self) -> float | None:
        return None if self.solved else self._begin + (self._moves() + 1) * PERIOD_S
