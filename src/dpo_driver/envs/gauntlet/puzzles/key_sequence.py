"""Key sequence: keys to be pressed one after the other while a pad has the focus; a wrong one starts it again.

Evidence: trusted keydown events on the pad, in the order shown (or from last to first). Tab and the modifiers pass
through, so nobody is caught in the pad; a key that is held down counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.wordlists import listed

TITLE: Phrases = (
    ("Play the keys", "Fingers on the keyboard", "Key by key", "Keyboard practice", "Type it blind"),
    ("A tune for ten fingers", "The keyboard's song", "Strike the keys", "Etude"),
)
TEXT: Phrases = (
    (
        "Click the pad, then press these keys in this order:",
        "Focus the pad and press the keys one after the other, as listed:",
        "With the pad in focus, press the following keys on your keyboard, first to last:",
        "These keys open it. Select the pad and press them in the order shown:",
    ),
    (
        "Give the pad the focus and strike these keys in turn:",
        "Play this row of keys upon the pad, from the first to the last:",
        "Touch the pad, then let your keyboard sound these keys in sequence:",
    ),
)
REVERSED: Phrases = (
    (
        "Click the pad, then press these keys backwards, beginning with the last:",
        "Focus the pad and press the listed keys in reverse order:",
        "With the pad in focus, press the following keys on your keyboard from last to first:",
        "These keys open it, but only in reverse. Select the pad and press the last one first:",
    ),
    (
        "Give the pad the focus and strike these keys in reverse, the last one first:",
        "Play this row of keys upon the pad, backwards:",
        "Touch the pad, then let your keyboard sound these keys from the last to the first:",
    ),
)
PAD: Phrases = (
    ("Key pad: press keys here", "Pad for keys", "Pad (waits for keys)", "Keyboard pad"),
    ("The listening pad", "Pad of the keyboard", "Pad: strike keys here"),
)
PROGRESS: Phrases = (
    ("{done} of {all} right so far", "Keys done: {done} of {all}", "{done} of {all} keys"),
    ("{done} of {all} struck", "So far {done} of {all}", "Heard: {done} of {all}"),
)
WRONG: Phrases = (
    ("Wrong key. From the start, please.", "That was not it; start again.", "No, begin again."),
    ("A false note. Once more from the start.", "Out of tune; begin anew.", "Not that one. Start over."),
)
# KeyboardEvent.key -> how the page writes it, by skin; letters and digits stand for themselves
NAMES: tuple[dict[str, str], dict[str, str]] = (
    {"ArrowUp": "↑", "ArrowDown": "↓", "ArrowLeft": "←", "ArrowRight": "→", " ": "Space", "Enter": "Enter"},
    {
        "ArrowUp": "Up",
        "ArrowDown": "Down",
        "ArrowLeft": "Left",
        "ArrowRight": "Right",
        " ": "Space bar",
        "Enter": "Return",
    },
)
SIGNS = "ABCDEFGHKMNPRSTUVWXYZ"
DIGITS = "23456789"
ARROWS = ("ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight")
COUNTS = (3, 5, 7)
IGNORED = frozenset({"Tab", "Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock", "Fn", "Dead", "Unidentified"})
HELD_S = 0.7  # a key that is held down repeats sooner than this


class KeySequence(Puzzle):
    """Solved by the whole sequence without a wrong key in it."""

    name: ClassVar[str] = "key-sequence"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng = setup.rng
        keys = [self._key() for _ in range(COUNTS[setup.difficulty - 1])]
        backwards = setup.difficulty == 3 and rng.random() < 0.5
        self._title, self._text = setup.say(TITLE), setup.say(REVERSED if backwards else TEXT)
        names = NAMES[SKINS.index(setup.skin)]
        self._shown = [names.get(key, key.upper()) for key in keys]
        self._order = keys[::-1] if backwards else keys
        self._pad, self._wrong = setup.say(PAD), setup.say(WRONG)
        self._progress: str = rng.choice(listed(setup, PROGRESS))
        self._layout = rng.choice(("list", "line"))
        self._done = 0
        self._failed = False
        self._held: dict[str, float] = {}  # keys that are down, and when they last said so

    def _key(self) -> str:
        """A key: an arrow or a letter, and from difficulty 2 on others as well."""
        rng = self.setup.rng
        kinds = (ARROWS, SIGNS, DIGITS, (" ", "Enter"))[: 2 if self.setup.difficulty == 1 else 4]
        kind = rng.choices(kinds, (4, 4, 2, 1)[: len(kinds)])[0]
        return rng.choice(kind)

    @property
    def parts(self) -> Sequence[str]:
        return ["pad"]

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "layout": self._layout,
            "keys": self._shown,
            "pad": self.setup.control("pad", self._pad),
            "progress": self._progress.format(done=self._done, all=len(self._order)),
            "note": self._wrong if self._failed else None,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if event.kind == "keyup":  # wherever it is let go
            self._held.pop(event.key.upper(), None)
        if event.kind != "keydown" or event.part != "pad" or event.key in IGNORED or self.solved:
            return
        key = event.key.upper()
        last = self._held.get(key)
        self._held[key] = event.at
        if last is not None and event.at - last < HELD_S:
            return
        self._failed = key != self._order[self._done].upper()
        if self._failed:
            self.mistakes += 1
            self._done = 0
            return
        self._done += 1
        if self._done == len(self._order):
            self.solve()
