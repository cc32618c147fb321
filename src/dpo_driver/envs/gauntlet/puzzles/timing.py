"""Timing: something opens for a moment, again and again; a press counts only while it is open, by the server's clock.

A press at the wrong moment makes it stay closed for its whole time once more, so that hammering never gets through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("The right moment", "Now or never", "Good timing", "Catch the moment"),
    ("A narrow chance", "At the proper time", "Quick, but not too quick"),
)
TEXT: Phrases = (
    (
        'Press "{press}" while {thing} is {good}.',
        'As soon as {thing} is {good}, press "{press}".',
        'Wait until {thing} is {good}, then press "{press}".',
        'Use "{press}" only when {thing} is {good}.',
    ),
    (
        'Hit "{press}" at a time when {thing} is {good}.',
        'As long as {thing} is {good}, "{press}" counts.',
        'Choose "{press}" once {thing} is {good}, not before.',
    ),
)
HOW: Phrases = (
    (
        '"{start}" sets it going. Needed: {n}.',
        'Begin with "{start}". It must succeed this often: {n}.',
        'First press "{start}". Good presses needed: {n}.',
        'To begin: "{start}". Number of hits to make: {n}.',
    ),
    (
        'It moves after "{start}". Hits wanted: {n}.',
        'Set it in motion with "{start}". Do it this often: {n}.',
        'You open the game with "{start}". Points to win: {n}.',
    ),
)
# (what, at rest, in between, the moment)
SCENES: tuple[Sequence[tuple[str, str, str, str]], ...] = (
    (
        ("the gate", "closed", "ajar", "open"),
        ("the lamp", "red", "yellow", "green"),
        ("the bridge", "raised", "tilted", "lowered"),
        ("the signal", "dark", "dim", "bright"),
        ("the lift", "above", "moving", "here"),
        ("the tide", "low", "rising", "high"),
        ("the door", "locked", "creaking", "unlocked"),
        ("the train", "away", "arriving", "waiting"),
    ),
    (
        ("the sluice", "shut", "leaking", "flowing"),
        ("the beacon", "black", "flickering", "white"),
        ("the crossing", "busy", "clearing", "free"),
        ("the kettle", "cold", "warm", "boiling"),
        ("the moon", "hidden", "hazy", "clear"),
        ("the dragon", "awake", "drowsy", "asleep"),
    ),
)
START: Phrases = (("Start", "Begin", "Ready", "Go", "Switch on"), ("Set off", "Play", "Wind it up", "Turn the key"))
PRESS: Phrases = (
    ("Now", "Catch", "Pass", "Through", "Grab it", "Stop there"),
    ("Jump", "Snap", "Slip in", "Take it", "Seize"),
)
EARLY: Phrases = (
    (
        "Not the moment. Let it come again.",
        "Missed. Wait for it.",
        "Too early or too late.",
        "No: wait for the moment.",
    ),
    ("Wrong time. Hold on.", "Rash! It rests again.", "That was not it."),
)
FIRST: Phrases = (
    ("It does not move yet.", "It has to be started.", "Nothing runs yet.", "It stands still."),
    ("All is quiet still.", "It rests; set it off.", "There is no motion yet."),
)
COUNT: Phrases = (
    ("Hits: {k} of {n}", "Caught {k} of {n}", "{k} of {n} done", "So far {k} of {n}"),
    ("Score {k} of {n}", "{k} of {n} won", "Reached: {k} of {n}"),
)
NEEDED = {1: 1, 2: 2, 3: 3}
OPEN_S = {1: 1.8, 2: 1.5, 3: 1.2}
REST_S = {1: (1.0, 1.6), 2: (0.9, 1.5), 3: (0.6, 1.1)}
BETWEEN_S = 0.4  # from difficulty 2 on there is a state in between, which does not count
GRACE_S = 0.15  # a press that was under way when it closed


class Timing(Puzzle):
    """Solved by enough trusted presses while it is open; each begins a new turn."""

    name: ClassVar[str] = "timing"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng = setup.rng
        self._needed, self._open = NEEDED[setup.difficulty], OPEN_S[setup.difficulty]
        self._between = BETWEEN_S if setup.difficulty > 1 else 0.0
        self._rests = [rng.uniform(*REST_S[setup.difficulty]) for _ in range(16)]
        self._scene = rng.choice(list(SCENES[SKINS.index(setup.skin)]))
        thing, _, _, good = self._scene
        self._start, self._press = setup.say(START), setup.say(PRESS)
        self._title, self._text = setup.say(TITLE), setup.say(TEXT, press=self._press, thing=thing, good=good)
        self._how = setup.say(HOW, start=self._start, n=self._needed)
        self._early, self._first = setup.say(EARLY), setup.say(FIRST)
        self._count = rng.choice(COUNT[SKINS.index(setup.skin)])
        self._since: float | None = None  # when the turn that runs began
        self._turn = 0  # which of the rests
        self._hits = 0
        self._note: str | None = None

    @property
    def parts(self) -> Sequence[str]:
        return ["start", "press"]

    def _state(self, now: float) -> tuple[int, float]:
        """(0 at rest, 1 in between, 2 the moment; when that ends)."""
        if self._since is None:
            return 0, float("inf")
        begin, turn = self._since, self._turn
        while True:
            ends = [begin + self._rests[turn % len(self._rests)]]
            ends += [ends[0] + self._between, ends[0] + self._between + self._open]
            for state, end in enumerate(ends):
                if now < end:
                    return state, end
            begin, turn = ends[-1], turn + 1

    def _again(self, at: float) -> None:
        """It closes and rests for its whole time."""
        self._since, self._turn = at, self._turn + 1

    def view(self) -> dict[str, Json]:
        thing, *states = self._scene
        state, _ = self._state(self.setup.clock())
        return {
            "title": self._title,
            "text": self._text,
            "how": self._how,
            "state": f"{thing[0].upper()}{thing[1:]} is {states[0 if self.solved else state]}.",
            "phase": 0 if self.solved else state,
            "start": self.setup.control("start", self._start),
            "press": self.setup.control("press", self._press),
            "count": self._count.format(k=self._hits, n=self._needed),
            "note": self._note,
            "flip": self.setup.skin == "b",
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if self.solved or event.kind != "click":
            return
        if event.part == "start":
            if self._since is None:
                self._since, self._note = event.at, None
        elif event.part == "press":
            self._pressed(event.at)

    def _pressed(self, at: float) -> None:
        if self._since is None:
            self._note = self._first
        elif 2 in (self._state(at)[0], self._state(at - GRACE_S)[0]):
            self._hits += 1
            self._note = None
            if self._hits == self._needed:
                self.solve()
            self._again(at)
        else:
            self.mistakes += 1
            self._note = self._early
            self._again(at)

    def wakes(self) -> float | None:
        if self.solved or self._since is None:
            return None
        return self._state(self.setup.clock())[1]
