"""Rotating code: once set going, a board shows the pieces of the code in turn, each for a moment, over and over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.pieces import Teller, false_piece, split

TITLE: Phrases = (
    ("A code that comes in turns", "The turning board", "One part at a time", "Round and round"),
    ("The carousel", "Passing fragments", "A wheel of letters"),
)
TEXT: Phrases = (
    (
        '"{start}" sets the board going. It shows the {n} parts of the code in turn, each for a moment: note them and '
        "join them by number.",
        'The board shows one of {n} parts at a time and then the next. Press "{start}", watch, and put the parts '
        "together in the order of their numbers.",
        'Press "{start}". {n} parts of the code take turns on the board; write down each and join them, first to last.',
        'The code is cut into {n} parts that rotate on the board once you press "{start}". Their numbers say '
        "where each belongs.",
    ),
    (
        'Give the wheel a push with "{start}". {n} fragments go by, each only briefly; their numbers tell the order.',
        'After "{start}" the {n} fragments of the key pass one by one and come round again. Collect them all.',
        '{n} fragments make the key. "{start}" lets them pass by in turn; line them up by number.',
    ),
)
START: Phrases = (
    ("Start", "Run the board", "Begin", "Start the show", "Set it going"),
    ("Spin", "Push", "Turn the wheel", "Let it roll"),
)
BLANK: Phrases = (
    ("The board is blank.", "Nothing on the board yet.", "The board waits.", "Board off."),
    ("The wheel stands still.", "No fragment in sight.", "At rest."),
)
PAUSE: Phrases = (
    ("Test picture {piece}", "Advertisement {piece}", "The next part follows", "A short pause"),
    ("Empty seat {piece}", "A gap, no fragment", "Spare plate {piece}"),
)
ENDED: Phrases = (
    ("The show is over. It can be started again.", "The board has stopped; start it again."),
    ("The wheel has come to rest; push again.", "It rolls no more. Once more?"),
)
# by difficulty: number of pieces, pauses, seconds for each
PACE = {1: (2, 0, 0.9), 2: (3, 0, 1.1), 3: (3, 1, 1.2)}
ROUNDS = 12  # then it stops by itself, so that a forgotten page is not sent news for ever


class RotatingCode(Puzzle):
    """A trusted click on the start button begins the show; no view ever holds more than one piece."""

    name: ClassVar[str] = "rotating-code"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        count, pauses, self._seconds = PACE[setup.difficulty]
        self._label = setup.say(START)
        self._title = setup.say(TITLE)
        self._text = setup.say(TEXT, start=self._label, n=count)
        teller = Teller.drawn(setup)
        self._blank, self._ended = setup.say(BLANK), setup.say(ENDED)
        self._slots = [teller.tell(i, count, piece) for i, piece in enumerate(split(setup.code, count), start=1)]
        self._slots += [setup.say(PAUSE, piece=false_piece(setup, 6 // count)) for _ in range(pauses)]
        if setup.difficulty > 1:
            setup.rng.shuffle(self._slots)
        self._started: float | None = None

    @property
    def parts(self) -> Sequence[str]:
        return ["start"]

    def _turn(self) -> int:
        """How many slots have been shown since the start; the one on the board not counted."""
        assert self._started is not None
        return int((self.setup.clock() - self._started) / self._seconds + 1e-6)

    def _line(self) -> str:
        if self._started is None:
            return self._blank
        turn = self._turn()
        return self._ended if turn >= ROUNDS * len(self._slots) else self._slots[turn % len(self._slots)]

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "start": self.setup.control("start", self._label),
            "line": self._line(),
            "reveal": None,
        }

    def on(self, event: Event) -> None:
        if event.kind == "click" and event.part == "start":
            self._started = event.at
            self.solve()

    def wakes(self) -> float | None:
        if self._started is None or self._turn() >= ROUNDS * len(self._slots):
            return None
        return self._started + (self._turn() + 1) * self._seconds
