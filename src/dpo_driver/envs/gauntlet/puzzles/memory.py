"""Memory: a button plays words one after another, each for a moment; afterwards they are to be pressed in that order.

The whole order is judged once it has as many words as were shown, so that it cannot be found word by word. It may be
played as often as one likes, slower too; what was pressed before is then forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("Remember the order", "A good memory", "Watch and repeat", "One after the other"),
    ("Keep it in mind", "Once seen, never forgotten", "The parade"),
)
TEXT: Phrases = (
    (
        'Press "{show}", memorise the {n} words, repeat them.',
        'Watch {n} words after "{show}". Then press them in order.',
        '"{show}" plays {n} words. Repeat them from memory.',
        'Remember the {n} words that "{show}" plays; press them too.',
    ),
    (
        '"{show}" lets {n} words pass by. Recall them in order.',
        'Keep the {n} words of "{show}" in mind; tap them likewise.',
        'See {n} words go by after "{show}" and echo them.',
    ),
)
SHOW: Phrases = (
    ("Show", "Play", "Watch", "Show me", "Run", "Present"),
    ("March", "Roll", "Parade", "Let me see", "Pass by"),
)
SLOWER: Phrases = (
    ("Slowly", "Slow motion", "Take more time", "Slower"),
    ("At leisure", "Unhurried", "Half asleep"),
)
CLEAR: Phrases = (("Clear", "Start over", "Undo all", "Erase"), ("Forget it", "Wipe", "Once more"))
WORDS: Phrases = (
    (
        "Moon", "Apple", "Bridge", "Candle", "Drum", "Eagle", "Forest", "Garden", "Hammer", "Island", "Jacket",
        "Kettle", "Ladder", "Mirror", "Needle", "Ocean", "Pepper", "Quilt", "River", "Saddle", "Table", "Umbrella",
        "Violin", "Window",
    ),
    (
        "Anchor", "Basket", "Cherry", "Desert", "Engine", "Feather", "Guitar", "Honey", "Igloo", "Jungle", "Kitten",
        "Lemon", "Magnet", "Nutmeg", "Olive", "Pearl", "Rocket", "Spoon", "Tulip", "Velvet", "Whistle", "Yarn",
    ),
)  # fmt: skip
ENTERED: Phrases = (("Entered", "Your order", "So far", "You pressed"), ("Echo", "Recalled", "Your row"))
WRONG: Phrases = (
    ("That was another order.", "Not the same. Watch again.", "Wrong order: try again.", "It went differently."),
    ("The echo is false.", "That is not how it went.", "Memory fails: look once more."),
)
FIRST: Phrases = (
    (
        "Watch to the end first.",
        "It has not been played to its end.",
        "First let it play.",
        "Not before you have seen it.",
    ),
    ("See it through before you answer.", "Let it pass first.", "Too soon: look on."),
)
NOTHING = "\u2013"
LENGTH = {1: 3, 2: 4, 3: 5}
CHOICE = {1: 5, 2: 7, 3: 9}
EACH_S = {1: 0.7, 2: 0.75, 3: 0.8}
SLOWED = 3.0


class Memory(Puzzle):
    """Solved by trusted clicks on the words in the order shown, after it was played to its end."""

    name: ClassVar[str] = "memory"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, skin = setup.rng, SKINS.index(setup.skin)
        self._words = rng.sample(list(WORDS[skin]), CHOICE[setup.difficulty])
        self._order: list[int] = []
        while len(self._order) < LENGTH[setup.difficulty]:
            index = rng.randrange(len(self._words))
            if self._order[-1:] != [index]:  # the same twice running would look like one
                self._order.append(index)
        self._show = setup.say(SHOW)
        self._title, self._text = setup.say(TITLE), setup.say(TEXT, show=self._show, n=len(self._order))
        self._slower, self._clear, self._entered = setup.say(SLOWER), setup.say(CLEAR), setup.say(ENTERED)
        self._wrong, self._first = setup.say(WRONG), setup.say(FIRST)
        self._each = EACH_S[setup.difficulty]
        self._slow = False
        self._played_from: float | None = None  # when the play that runs began
        self._pace = self._each
        self._seen = False  # once to its end
        self._pressed: list[int] = []
        self._note: str | None = None

    @property
    def parts(self) -> Sequence[str]:
        return ["show", "slower", "clear", *(f"word/{i}" for i in range(len(self._words)))]

    def _playing(self, now: float) -> int | None:
        """Which place of the order is shown; None: none."""
        if self._played_from is None:
            return None
        place = int((now - self._played_from) / self._pace + 1e-6)
        if place < len(self._order):
            return place
        self._played_from, self._seen = None, True
        return None

    def view(self) -> dict[str, Json]:
        place = self._playing(self.setup.clock())
        shown = None
        if place is not None:
            shown = f"{place + 1} of {len(self._order)}: {self._words[self._order[place]]}"
        pressed = ", ".join(self._words[index] for index in self._pressed)
        return {
            "title": self._title,
            "text": self._text,
            "show": self.setup.control("show", self._show),
            "slower": {**self.setup.control("slower", self._slower), "on": self._slow},
            "shown": shown,
            "words": [self.setup.control(f"word/{i}", word) for i, word in enumerate(self._words)],
            "entered": f"{self._entered}: {pressed or NOTHING}",
            "clear": self.setup.control("clear", self._clear),
            "note": self._note,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if self.solved or event.kind != "click":
            return
        playing = self._playing(event.at) is not None
        self._note = None
        if event.part == "show":
            self._played_from, self._pace = event.at, self._each * (SLOWED if self._slow else 1.0)
            self._pressed = []
        elif event.part == "slower":
            self._slow = not self._slow
        elif event.part == "clear":
            self._pressed = []
        elif event.part.startswith("word/"):
            if playing or not self._seen:
                self._note = self._first
            else:
                self._press(int(event.part.partition("/")[2]))

    def _press(self, index: int) -> None:
        self._pressed.append(index)
        if len(self._pressed) < len(self._order):
            return
        if self._pressed == self._order:
            self.solve()
            return
        self.mistakes += 1
        self._pressed, self._note = [], self._wrong

    def wakes(self) -> float | None:
        place = self._playing(self.setup.clock())
        if place is None or self._played_from is None:
            return None
        return self._played_from + (place + 1) * self._pace
