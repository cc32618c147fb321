"""The sounds and films of the gauntlet's puzzles, decoded back: tones by Goertzel's filter, frames by Pillow; and when
the puzzles hand them out."""

from __future__ import annotations

import io
import itertools
import math
import random
import re
import struct
import wave
from array import array
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from dpo_driver.envs.gauntlet.media.pictures import SIZE, picture
from dpo_driver.envs.gauntlet.media.wav import MORSE, RATE
from dpo_driver.envs.gauntlet.media.webm import key_frame, webm
from dpo_driver.envs.gauntlet.puzzles import load_puzzle
from dpo_driver.envs.gauntlet.puzzles.base import ALPHABET, Event, Puzzle, Setup

CODE = "K7MQ2X"


class Clock:
    """Turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(name: str, seed: int = 7, difficulty: int = 1, skin: str = "a") -> tuple[Any, Clock]:
    clock = Clock()
    setup = Setup(random.Random(seed), CODE, difficulty, skin, clock, secret=b"of this test")
    return load_puzzle(name)(setup), clock


def press(puzzle: Puzzle, part: str, kind: str = "click", button: int = 0) -> None:
    assert part in puzzle.parts
    puzzle.on(Event(kind, part, at=puzzle.setup.clock(), button=button))


# ---- audio ----------------------------------------------------------------------------------------------------------


def strength(samples: array[int], hertz: float) -> float:
    """Goertzel: how much of one pitch a stretch of sound holds, 0 to about 1."""
    step = 2 * math.cos(2 * math.pi * hertz / RATE)
    one = two = 0.0
    for sample in samples:
        one, two = sample / 32_768 + step * one - two, one
    power = one * one + two * two - step * one * two
    return 2 * math.sqrt(max(power, 0.0)) / len(samples)


def heard(sound: bytes, hertz: float, unit_s: float = 0.08) -> list[tuple[int, str]]:
    """The characters that a WAV sends at a pitch, each with the unit in which it begins: unit by unit, loud or not."""
    with wave.open(io.BytesIO(sound)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        samples = array("h", file.readframes(file.getnframes()))
    width = round(unit_s * RATE)
    loud = "".join(
        "1" if strength(samples[at : at + width], hertz) > 0.2 else "0"
        for at in range(0, len(samples) - width + 1, width)
    )
    letters = {marks: letter for letter, marks in MORSE.items()}
    marks = {"1": ".", "111": "-"}
    return [
        (match.start(), letters["".join(marks[run] for run in match[0].strip("0").split("0"))])
        for match in re.finditer(r"1(?:0?1)*", loud)
    ]


@pytest.mark.parametrize(("difficulty", "skin"), itertools.product((1, 2, 3), "ab"))
def test_audio_is_a_wav_whose_tones_spell_the_code(difficulty: int, skin: str) -> None:
    puzzle, _ = make("audio", 5, difficulty, skin)
    press(puzzle, "play")
    assert puzzle.solved and puzzle.view()["sound"].endswith("/sound.wav")
    sound = puzzle.asset("sound.wav")
    assert sound is not None and sound.media_type == "audio/wav" and sound.content[:4] == b"RIFF"
    stations = {sign.pitch: sign.hertz for sign in puzzle.signs}
    text = puzzle.view()["text"]
    if difficulty < 3:
        ((_, hertz),) = stations.items()
        assert "".join(letter for _, letter in heard(sound.content, hertz)) == CODE
        return
    spelled = {pitch: "".join(letter for _, letter in heard(sound.content, hertz)) for pitch, hertz in stations.items()}
    assert sorted(map(len, spelled.values())) == [4, 6] and stations["high"] > 1.5 * stations["low"]
    right = next(pitch for pitch, letters in spelled.items() if letters == CODE)
    wrong = "low" if right == "high" else "high"
    assert re.search(rf"\b{right}\b", text) and text.rfind(right) > text.rfind(wrong)


@pytest.mark.parametrize(("difficulty", "skin"), itertools.product((1, 2, 3), "ab"))
def test_audio_writes_its_transcript_line_by_line(difficulty: int, skin: str) -> None:
    for seed in range(8):
        puzzle, clock = make("audio", seed, difficulty, skin)
        clock.now += 30
        assert puzzle.view()["lines"] == []
        press(puzzle, "script")
        began, lines = clock.now, 0
        assert puzzle.asset("sound.wav") is None
        while (at := puzzle.wakes()) is not None:
            assert at > clock.now
            clock.now = at
            lines += 1
            assert len(puzzle.view()["lines"]) == lines
        assert lines == (10 if difficulty == 3 else 6) and clock.now - began <= 4.0
        letters = {marks: letter for letter, marks in MORSE.items()}
        spelled = {"low": "", "high": "", "": ""}
        for line, sign in zip(puzzle.view()["lines"], puzzle.signs, strict=True):
            marks = re.findall(r"(?<![\w.-])[.-]+(?![\w.-])", line)
            assert [letters[mark] for mark in marks] == [sign.character]
            said = re.search(r"\b(low|high)\b", line)
            spelled[said[1] if said else ""] += sign.character
        assert CODE in spelled.values() and (spelled[""] == CODE) == (difficulty < 3)
        press(puzzle, "script")  # once is enough
        assert len(puzzle.view()["lines"]) == lines


def test_audio_shows_a_table_of_every_character() -> None:
    puzzle, _ = make("audio")
    table = " ".join(puzzle.view()["chart"]["rows"]).split()
    assert dict(zip(table[::2], table[1::2], strict=True)) == {letter: MORSE[letter] for letter in ALPHABET}
    assert len(set(MORSE.values())) == 36


# ---- video ----------------------------------------------------------------------------------------------------------


def elements(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The EBML elements of a stretch: (place, id, content)."""
    at = 0
    while at < len(data):
        begin, width = at, 9 - data[at].bit_length()
        name = int.from_bytes(data[at : at + width], "big")
        at += width
        length_width = 9 - data[at].bit_length()
        length = int.from_bytes(data[at : at + length_width], "big") & ~(1 << (7 * length_width))
        at += length_width
        yield begin, name, data[at : at + length]
        at += length
    assert at == len(data)


def only(data: bytes, *path: int) -> bytes:
    for wanted in path:
        (data,) = [content for _, name, content in elements(data) if name == wanted]
    return data


def frames_of(film: bytes) -> list[tuple[int, bytes]]:
    """(milliseconds, VP8 frame) of every block."""
    found = []
    for _, name, cluster in elements(only(film, 0x18538067)):
        if name == 0x1F43B675:
            block = only(cluster, 0xA3)
            track, offset, flags = struct.unpack(">BhB", block[:4])
            assert (track, flags) == (0x81, 0x80)
            found.append((int.from_bytes(only(cluster, 0xE7), "big") + offset, block[4:]))
    return found


def as_webp(frame: bytes) -> bytes:
    chunk = b"VP8 " + struct.pack("<I", len(frame)) + frame + b"\0" * (len(frame) % 2)
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


@cache
def inked(webp: bytes) -> Any:
    """Which points of a picture are white, as a black and white picture."""
    from PIL import Image

    return Image.open(io.BytesIO(webp)).convert("L").point(lambda value: 255 if value > 170 else 0)


def difference(one: Any, other: Any) -> float:
    from PIL import ImageChops, ImageStat

    return float(ImageStat.Stat(ImageChops.difference(one, other)).mean[0])


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_video_is_a_webm_whose_frames_show_the_code(difficulty: int) -> None:
    puzzle, _ = make("video", 11, difficulty)
    press(puzzle, "play")
    film = puzzle.asset("film.webm")
    assert film is not None and film.media_type == "video/webm"
    blocks = frames_of(film.content)
    assert [at for at, _ in blocks] == [800 * index for index in range(len(puzzle.frames))]
    assert len(blocks) == {1: 6, 2: 8, 3: 11}[difficulty]
    read = []
    for (_, block), frame in zip(blocks, puzzle.frames, strict=True):
        assert block[0] & 1 == 0 and block[3:6] == b"\x9d\x01\x2a"  # a key frame and its start code
        assert struct.unpack("<HH", block[6:10]) == SIZE
        drawn = inked(as_webp(block))
        known = {letter: difference(drawn, inked(picture(letter, frame.sign, "#444444"))) for letter in ("", *ALPHABET)}
        read.append(min(known, key=lambda letter: known[letter]))
    assert read == [frame.character for frame in puzzle.frames]
    sign = next(frame.sign for frame in puzzle.frames if frame.character == CODE[0]) if difficulty == 3 else None
    counting = [letter for letter, frame in zip(read, puzzle.frames, strict=True) if sign in (None, frame.sign)]
    assert "".join(counting) == CODE
    assert sign is None or sign in puzzle.view()["text"]


def test_webm_says_where_everything_is() -> None:
    frames = [key_frame(picture(letter, "square", "#24507a")) for letter in "AB"]
    film = webm(frames, *SIZE, 500)
    segment = only(film, 0x18538067)
    places = {place: name for place, name, _ in elements(segment)}
    assert only(film, 0x1A45DFA3, 0x4282) == b"webm"
    assert struct.unpack(">d", only(segment, 0x1549A966, 0x4489)) == (1000.0,)
    video = only(segment, 0x1654AE6B, 0xAE, 0xE0)
    assert [int.from_bytes(only(video, name), "big") for name in (0xB0, 0xBA)] == list(SIZE)
    for _, _, seek in elements(only(segment, 0x114D9B74)):
        place = int.from_bytes(only(seek, 0x53AC), "big")
        assert places[place] == int.from_bytes(only(seek, 0x53AB), "big")
    cues = [
        (int.from_bytes(only(cue, 0xB3), "big"), int.from_bytes(only(cue, 0xB7, 0xF1), "big"))
        for _, _, cue in elements(only(segment, 0x1C53BB6B))
    ]
    assert [at for at, _ in cues] == [0, 500] and [places[place] for _, place in cues] == [0x1F43B675] * 2
    with pytest.raises(ValueError, match="no WebP"):
        key_frame(b"RIFF0000WAVE")


@pytest.mark.parametrize(("difficulty", "skin"), itertools.product((1, 2, 3), "ab"))
def test_video_tells_one_frame_for_each_press(difficulty: int, skin: str) -> None:
    for seed in range(5):
        puzzle, _ = make("video", seed, difficulty, skin)
        press(puzzle, "on")
        assert puzzle.view()["told"] == "" and puzzle.view()["film"] is None and not puzzle.solved
        press(puzzle, "play")
        told = []
        for index, frame in enumerate(puzzle.frames):
            assert puzzle.asset(f"picture-{index}.webp") is None
            press(puzzle, "on")
            view = puzzle.view()
            told.append(view["told"])
            assert frame.sign in told[-1] and view["still"].endswith(f"/picture-{index}.webp")
            assert re.findall(
                r"(?<![\w-])[A-HJ-NP-Z2-9](?![\w-])", re.sub(r"\d+(?: of |/| out of )\d+", "", told[-1])
            ) == ([frame.character] if frame.character else [])
        assert len(set(told)) == len(puzzle.frames)
        press(puzzle, "on")
        assert puzzle.view()["told"] == told[-1]
        press(puzzle, "back")
        assert puzzle.view()["told"] == told[-2]
        press(puzzle, "play")
        assert puzzle.view()["told"] == "" and puzzle.view()["still"] is None and puzzle.view()["plays"] == 2
