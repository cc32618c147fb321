"""Tones, and Morse code in tones, as a WAV file. Used by envs/gauntlet/puzzles/audio.py. Imports nothing of ours."""

from __future__ import annotations

import io
import math
import random
import sys
import wave
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

RATE = 8_000  # samples a second: enough for beeps below 2 kHz
LOUDEST = 32_767  # that a sample can hold
LOUDNESS = 0.5  # of that
RAMP_S = 0.005  # tones swell and fade, or they would click

# International Morse code.
MORSE = {
    "A": ".-", "B": "-...", "C": "-.-.", "D": "-..", "E": ".", "F": "..-.", "G": "--.", "H": "....", "I": "..",
    "J": ".---", "K": "-.-", "L": ".-..", "M": "--", "N": "-.", "O": "---", "P": ".--.", "Q": "--.-", "R": ".-.",
    "S": "...", "T": "-", "U": "..-", "V": "...-", "W": ".--", "X": "-..-", "Y": "-.--", "Z": "--..",
    "0": "-----", "1": ".----", "2": "..---", "3": "...--", "4": "....-", "5": ".....", "6": "-....", "7": "--...",
    "8": "---..", "9": "----.",
}  # fmt: skip


@dataclass(frozen=True)
class Tone:
    """A sound of one pitch; ``hertz`` 0 is silence."""

    hertz: float
    seconds: float


def morse(signs: Sequence[tuple[str, float]], unit_s: float) -> list[Tone]:
    """Characters with their pitches as tones: a dot lasts one unit, a dash three; one unit between the marks of a
    character, six between characters (three are usual: beginners hear better where one ends)."""
    tones: list[Tone] = []
    for character, hertz in signs:
        for mark in MORSE[character]:
            tones += [Tone(hertz, unit_s * (1 if mark == "." else 3)), Tone(0, unit_s)]
        tones.append(Tone(0, 5 * unit_s))
    return tones


@lru_cache(maxsize=64)
def _waves(tone: Tone) -> array[int]:
    """The samples of a tone; a message repeats a few of them again and again."""
    count = round(tone.seconds * RATE)
    if not tone.hertz:
        return array("h", bytes(2 * count))
    ramp = max(1, min(round(RAMP_S * RATE), count // 2))
    turn = 2 * math.pi * tone.hertz / RATE
    edges = (min(1.0, (index + 1) / ramp, (count - index) / ramp) for index in range(count))
    return array("h", (round(LOUDEST * LOUDNESS * edge * math.sin(turn * index)) for index, edge in enumerate(edges)))


def wav(tones: Iterable[Tone], hiss: float = 0.0, seed: str = "") -> bytes:
    """One channel, 16 bits. ``hiss`` is the share of noise; the same seed gives the same noise."""
    samples = array("h")
    for tone in tones:
        samples.extend(_waves(tone))
    if hiss:
        noise, most = random.Random(seed), hiss * LOUDNESS * LOUDEST
        samples = array("h", (max(-LOUDEST, min(LOUDEST, round(s + noise.uniform(-most, most)))) for s in samples))
    if sys.byteorder == "big":
        samples.byteswap()
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(samples.tobytes())
    return file.getvalue()
