"""Click to reveal: one of several buttons uncovers the code, the others do nothing. The simplest type: a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("A covered code", "Under the lid", "Uncover it", "One press away", "Wrapped up"),
    ("Behind the curtain", "Lift the cloth", "The veiled key", "What lies beneath"),
)
TEXT: Phrases = (
    (
        'Press "{label}" to see the code.',
        'The button "{label}" uncovers the code.',
        'The code is covered. Press the button "{label}" and it shows.',
        'One button reveals the code: "{label}". Press it.',
        'To see the code, click "{label}".',
    ),
    (
        'Your key lies behind "{label}".',
        'Only "{label}" shows the key.',
        'The key is veiled; press "{label}" to uncover it.',
        'Behind "{label}" the key lies waiting for a press.',
    ),
)
LABELS: Phrases = (
    (
        "Reveal",
        "Show code",
        "Uncover",
        "Open the lid",
        "Unveil",
        "Unwrap",
        "Lift the cover",
        "Turn the card",
        "Let me see",
    ),
    ("Lift", "Draw aside", "Pull the cord", "Look behind", "Raise the cloth", "Part the curtain", "Shine a light"),
)
IDLE: Phrases = (
    (
        "Details",
        "Learn more",
        "Contact",
        "Archive",
        "Overview",
        "Print",
        "Reveal later",
        "Show help",
        "Cover",
        "Settings",
    ),
    ("Background", "Credits", "Imprint", "Gallery", "Partners", "Notes", "Let it hang", "Look away", "Lift nothing"),
)


class ClickReveal(Puzzle):
    """Solved by a trusted click on the right button."""

    name: ClassVar[str] = "click-reveal"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._label = setup.say(LABELS)
        self._title, self._text = setup.say(TITLE), setup.say(TEXT, label=self._label)
        skin = 0 if setup.skin == "a" else 1
        idle = setup.rng.sample(list(IDLE[skin]), 2 * (setup.difficulty - 1))
        self._buttons = [("reveal", self._label), *((f"idle/{i}", label) for i, label in enumerate(idle))]
        setup.rng.shuffle(self._buttons)

    @property
    def parts(self) -> Sequence[str]:
        return [name for name, _ in self._buttons]

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "buttons": [self.setup.control(name, label) for name, label in self._buttons],
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if event.kind != "click":
            return
        if event.part == "reveal":
            self.solve()
        elif event.part.startswith("idle/"):
            self.mistakes += 1
