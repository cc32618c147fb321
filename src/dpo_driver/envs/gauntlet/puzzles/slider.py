"""Slider: set one or more sliders to the asked values, then confirm. Keys and pointer; the server owns the values.

The page draws ``role="slider"`` and reports keys and pointer places; where the thumb stands comes from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("Fine tuning", "Set it right", "The control desk", "Adjust it"),
    ("In balance", "Turn the knobs", "A matter of degree"),
)
TEXT: Phrases = (
    (
        'Move each slider as told, then press "{confirm}".',
        'Set each slider to its value and press "{confirm}".',
        'Slide to each value below. Then "{confirm}".',
        'Bring every slider to its number; end with "{confirm}".',
    ),
    (
        'Drag each scale to what is wanted, and "{confirm}".',
        'Tune every scale as listed; close with "{confirm}".',
        'Shift what you see until it fits; then "{confirm}".',
    ),
)
SET: Phrases = (
    ("{label}: {value}", "Set {label} to {value}.", "{label} should be at {value}.", "Move {label} to {value}."),
    ("{label} belongs at {value}.", "Tune {label} to {value}.", "For {label}, {value} is right."),
)
MORE: Phrases = (
    (
        "Set {label} to {by} more than {other}.",
        "{label}: {by} above {other}",
        "{label} should be {by} higher than {other}.",
        "Move {label} {by} past {other}.",
    ),
    ("{label} exceeds {other} by {by}.", "Tune {label} {by} over {other}.", "{label} lies {by} beyond {other}."),
)
LABELS: Phrases = (
    (
        "Volume", "Brightness", "Contrast", "Bass", "Treble", "Speed", "Warmth", "Zoom", "Balance", "Pressure",
        "Humidity", "Focus", "Power", "Tempo", "Depth", "Distance",
    ),
    (
        "Sweetness", "Steam", "Echo", "Gravity", "Tilt", "Saltiness", "Wind", "Glow", "Torque", "Ripple", "Density",
        "Haze", "Altitude", "Pulse",
    ),
)  # fmt: skip
CONFIRM: Phrases = (
    ("Confirm", "Apply", "Done", "Set", "Accept", "Save it"),
    ("Fix it", "That is it", "Settle", "Lock in", "Agree"),
)
WRONG: Phrases = (
    ("Not yet: a value is off.", "That does not fit.", "Check the values again.", "Something is not set right."),
    ("It is not in tune.", "Still out of place.", "The settings are not the asked ones."),
)
# (lowest, highest, step) by difficulty
RANGES: dict[int, Sequence[tuple[int, int, int]]] = {
    1: ((0, 10, 1), (0, 20, 1), (0, 100, 10), (0, 50, 5)),
    2: ((0, 50, 1), (0, 100, 5), (-20, 20, 1), (10, 60, 1)),
    3: ((0, 60, 1), (-40, 40, 1), (0, 90, 1), (20, 100, 1)),
}


@dataclass
class Scale:
    """One slider: what is asked of it and where it stands."""

    label: str
    low: int
    high: int
    step: int
    wanted: int
    value: int

    def put(self, value: float) -> None:
        """As near to a value as its steps and ends allow."""
        steps = int((value - self.low) / self.step + 0.5)
        self.value = min(self.high, max(self.low, self.low + steps * self.step))

    def put_at(self, fraction: float) -> None:
        self.put(self.low + fraction * (self.high - self.low))

    def key(self, key: str) -> None:
        """What the keys of a slider do, by the ARIA practices."""
        leap = self.step * max(1, (self.high - self.low) // self.step // 10)
        by = {
            "ArrowRight": self.step,
            "ArrowUp": self.step,
            "ArrowLeft": -self.step,
            "ArrowDown": -self.step,
            "PageUp": leap,
            "PageDown": -leap,
        }
        if key in ("Home", "End"):
            self.value = self.low if key == "Home" else self.high
        elif key in by:
            self.put(self.value + by[key])


class Slider(Puzzle):
    """Solved by a trusted click on the button that confirms while every slider stands where it should."""

    name: ClassVar[str] = "slider"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, skin = setup.rng, SKINS.index(setup.skin)
        labels = rng.sample(list(LABELS[skin]), setup.difficulty)
        self._scales: list[Scale] = []
        self._lines: list[str] = []
        phrase, more = rng.choice(SET[skin]), rng.choice(MORE[skin])
        common = rng.choice(RANGES[setup.difficulty])
        for label in labels:
            # Scales that are compared with each other have one range; room is left for what lies above another.
            low, high, step = common if setup.difficulty == 3 else rng.choice(RANGES[setup.difficulty])
            if setup.difficulty == 3 and label == labels[-1]:
                other, by = rng.choice(self._scales), rng.randint(2, 9)
                wanted = other.wanted + by
                self._lines.append(more.format(label=label, other=other.label, by=by))
            else:
                wanted = rng.choice(range(low, high + 1, step)[1 : -10 if setup.difficulty == 3 else None])
                self._lines.append(phrase.format(label=label, value=wanted))
            value = rng.choice([v for v in range(low, high + 1, step) if v != wanted])
            self._scales.append(Scale(label, low, high, step, wanted, value))
        self._confirm, self._wrong = setup.say(CONFIRM), setup.say(WRONG)
        self._title, self._text = setup.say(TITLE), setup.say(TEXT, confirm=self._confirm)
        self._held: Scale | None = None
        self._note: str | None = None

    @property
    def parts(self) -> Sequence[str]:
        return [*(f"scale/{i}" for i in range(len(self._scales))), "confirm"]

    def view(self) -> dict[str, Json]:
        scales = [
            {**self.setup.control(f"scale/{i}", s.label), "min": s.low, "max": s.high, "value": s.value}
            for i, s in enumerate(self._scales)
        ]
        return {
            "title": self._title,
            "text": self._text,
            "lines": self._lines,
            "scales": scales,
            "confirm": self.setup.control("confirm", self._confirm),
            "note": self._note,
            "flip": self.setup.skin == "b",
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if self.solved:
            return
        if event.kind == "pointerup":  # wherever it ends
            self._held = None
        kind, _, number = event.part.partition("/")
        if kind == "scale":
            self._move(self._scales[int(number)], event)
        elif event.part == "confirm" and event.kind == "click":
            if all(scale.value == scale.wanted for scale in self._scales):
                self.solve()
                return
            self.mistakes += 1
            self._note = self._wrong

    def _move(self, scale: Scale, event: Event) -> None:
        if event.kind == "keydown":
            scale.key(event.key)
        elif event.width > 0 and event.kind == "pointerdown" and event.button == 0:
            self._held = scale
            scale.put_at(event.x / event.width)
        elif event.width > 0 and event.kind == "pointermove" and self._held is scale:
            scale.put_at(event.x / event.width)
        else:
            return
        self._note = None
