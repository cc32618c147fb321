"""Audio: a sound, made here, that sends the code in Morse. A transcript in dots and dashes can be switched on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from dpo_driver.envs.gauntlet.media.wav import MORSE, morse, wav
from dpo_driver.envs.gauntlet.puzzles.base import ALPHABET, Asset, Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.pieces import false_piece

TITLE: Phrases = (
    ("Beeps", "A message in Morse", "Listen", "Short and long"),
    ("The telegraph", "Tones in the dark", "A call from far away"),
)
TEXT: Phrases = (
    (
        'Press "{play}" to hear the code in Morse: six characters, short and long beeps. "{script}" writes the '
        "dots and dashes down, line by line.",
        '"{play}" sends the code in Morse code. If you would rather read than listen, "{script}" shows its dots '
        "and dashes one character after another.",
        'The sound behind "{play}" is the code in Morse. "{script}" turns on a transcript; the table below tells which '
        "character is which.",
        'Listen with "{play}" or read along with "{script}": six Morse signs of dots and dashes are the code. '
        "Look them up in the table.",
    ),
    (
        'A telegraph ticks the key in Morse. "{play}" lets you hear it, "{script}" has its dots and dashes '
        "written out.",
        'Six Morse signs make the key. Hear them with "{play}", or let "{script}" put the dots and dashes on '
        "paper as they come in.",
        'Somebody taps the key in Morse: "{play}" to listen, "{script}" to see dots and dashes. The alphabet '
        "hangs below.",
    ),
)
ONLY: Phrases = (
    (
        "Two stations are on the air: only the {pitch} beeps belong to the code.",
        "Ignore the {other} voice; the code is in the {pitch} tones.",
        "Somebody else sends in {other} beeps; only the {pitch} ones count.",
        "Forget the {other} sender: just the {pitch} one is meant for you.",
    ),
    (
        "The {other} tones are another telegraph; yours has the {pitch} ones.",
        "Heed only what is {pitch} in pitch.",
        "What is {other} is meant for others; only the {pitch} voice is yours.",
    ),
)
NOISE: Phrases = (("The line hisses a little.", "Reception is poor."), ("There is wind on the wire.", "It crackles."))
PLAY: Phrases = (
    ("Play", "Play the sound", "Listen", "Hear it"),
    ("Put on the headphones", "Open the line", "Let it sound"),
)
SCRIPT: Phrases = (
    ("Transcript", "Show the transcript", "Write it down", "Read along"),
    ("Paper strip", "Run the strip", "Ink it"),
)
CHART: Phrases = (("Morse table", "Morse code", "Which sign is which"), ("The alphabet", "Morse for beginners"))
LINE: Phrases = (
    ("Sign {i} of {n}: {marks}", "{i}/{n} {marks}", "Character {i}: {marks}", "{i}. {marks}"),
    ("Mark {i} out of {n} → {marks}", "({i}) {marks}", "{marks} ← {i} of {n}"),
)
# With two stations a line says which of them is heard.
LINE_OF: Phrases = (
    ("{i} of {n}, {pitch}: {marks}", "{pitch} beeps ({i}/{n}): {marks}", "{i}. {pitch} {marks}"),
    ("{pitch} → {marks} ({i} of {n})", "({i}) {pitch} tone {marks}"),
)
PITCHES = {"low": (420.0, 520.0), "high": (900.0, 1100.0)}
PACE = {1: 0.3, 2: 0.5, 3: 0.4}  # seconds from one line of the transcript to the next
UNIT_S = 0.08  # a dot: slow Morse, 15 words a minute
CHART_ROW = 4  # fits a phone


@dataclass(frozen=True)
class Sign:
    """One character as it is sent."""

    character: str
    pitch: str
    hertz: float


def _signs(setup: Setup, pitch: str) -> list[Sign]:
    """What is sent, in its order: the code, and at difficulty 3 another station between."""
    hertz = {name: round(setup.rng.uniform(*limits)) for name, limits in PITCHES.items()}
    shown = [(character, pitch) for character in setup.code]
    if setup.difficulty > 2:
        other = "low" if pitch == "high" else "high"
        for character in false_piece(setup, 4):
            shown.insert(setup.rng.randint(0, len(shown)), (character, other))
    return [Sign(character, name, hertz[name]) for character, name in shown]


class Audio(Puzzle):
    """Play hands out the sound; Transcript begins to write its lines."""

    name: ClassVar[str] = "audio"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        pitch = setup.rng.choice(list(PITCHES))
        self.signs = _signs(setup, pitch)
        self._play, self._script = setup.say(PLAY), setup.say(SCRIPT)
        self._title, self._text = setup.say(TITLE), setup.say(TEXT, play=self._play, script=self._script)
        self._hiss = 0.15 if setup.difficulty == 2 else 0.0
        if setup.difficulty == 2:
            self._text += " " + setup.say(NOISE)
        if setup.difficulty > 2:
            self._text += " " + setup.say(ONLY, pitch=pitch, other="low" if pitch == "high" else "high")
        kept = {name: "{" + name + "}" for name in ("i", "n", "pitch", "marks")}
        line = setup.say(LINE_OF if setup.difficulty > 2 else LINE, **kept)
        count = len(self.signs)
        self._lines = [
            line.format(i=number, n=count, pitch=sign.pitch, marks=MORSE[sign.character])
            for number, sign in enumerate(self.signs, start=1)
        ]
        self._chart_title = setup.say(CHART)
        self._plays = 0
        self._written: float | None = None  # when the transcript began

    @property
    def parts(self) -> Sequence[str]:
        return ["play", "script"]

    def _count(self) -> int:
        """Lines of the transcript that are there by now."""
        if self._written is None:
            return 0
        passed = (self.setup.clock() - self._written) / PACE[self.setup.difficulty]
        return min(len(self._lines), int(passed + 1e-6))

    def view(self) -> dict[str, Json]:
        rows = [ALPHABET[start : start + CHART_ROW] for start in range(0, len(ALPHABET), CHART_ROW)]
        return {
            "title": self._title,
            "text": self._text,
            "play": self.setup.control("play", self._play),
            "sound": self.setup.asset("sound.wav") if self._plays else None,
            "plays": self._plays,
            "script": self.setup.control("script", self._script),
            "lines": self._lines[: self._count()],
            "chart": {"title": self._chart_title, "rows": ["  ".join(f"{c} {MORSE[c]}" for c in row) for row in rows]},
            "reveal": None,
        }

    def on(self, event: Event) -> None:
        if event.kind != "click":
            return
        if event.part == "play":
            self._plays += 1
            self.solve()
        elif event.part == "script" and self._written is None:
            self._written = event.at
            self.solve()

    def wakes(self) -> float | None:
        if self._written is None or self._count() == len(self._lines):
            return None
        return self._written + (self._count() + 1) * PACE[self.setup.difficulty]

    @cached_property
    def _sound(self) -> bytes:
        tones = morse([(sign.character, sign.hertz) for sign in self.signs], UNIT_S)
        return wav(tones, self._hiss, seed=self.setup.part("hiss"))

    def asset(self, name: str) -> Asset | None:
        if name != "sound.wav" or not self._plays:
            return None
        return Asset(self._sound, "audio/wav")
