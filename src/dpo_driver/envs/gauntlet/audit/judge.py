"""What counts as a leak: codes and keys in what an adversary holds, and signals that no trusted input made.

The judge knows what nobody else does: the codes of all steps and the keys that were given out. Used by adversary.py and
play.py. Imports the puzzles' alphabet only.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from dpo_driver.envs.gauntlet.signals import Signal

# Types whose task is to read: on its own step their content may be seen. (encrypted, storage and the like hand theirs
# out after trusted input, so they are not among these.)
READING = frozenset({"visible-text", "hidden-text", "calculated-code", "encoded"})
_KEY = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{32}(?![A-Za-z0-9_-])")
NEUTRAL_KEYS = frozenset({"Escape", "Shift"})


@dataclass(frozen=True)
class Leak:
    """What got out, and how to make it happen again."""

    attack: str
    type: str
    seed: int
    difficulty: int
    skin: str
    what: str
    tries: str  # the attack, in words

    @property
    def again(self) -> str:
        """The command that shows it again."""
        return (
            f"dpo-driver gauntlet audit --seed {self.seed} --types {self.type} --difficulty {self.difficulty} "
            f"--skin {self.skin} --attacks {self.attack}"
        )


@dataclass(frozen=True)
class Code:
    """A code, and the ways in which it may be written."""

    step: int
    text: str

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        text, apart = self.text, r"[^A-Za-z0-9]{0,3}"
        word = r"(?<![A-Za-z0-9]){}(?![A-Za-z0-9])"
        spread = word.format(apart.join(text))
        back = word.format(apart.join(reversed(text)))
        numbers = r"(?<![0-9])" + r"[^0-9]{1,4}".join(str(ord(char)) for char in text) + r"(?![0-9])"
        return [
            ("plain", re.compile(re.escape(text))),
            ("spread", re.compile(spread, re.IGNORECASE)),
            ("backwards", re.compile(back, re.IGNORECASE)),
            ("rot13", re.compile(word.format(codecs.encode(text, "rot13")))),
            ("hexadecimal", re.compile(text.encode().hex(), re.IGNORECASE)),
            ("numbers", re.compile(numbers)),
            ("base64", re.compile("|".join(map(re.escape, _base64(text))))),
        ]

    @cached_property
    def _halves(self) -> list[re.Pattern[str]]:
        return [re.compile(rf"(?<![A-Za-z0-9]){half}(?![A-Za-z0-9])") for half in (self.text[:3], self.text[3:])]

    def ways(self, text: str) -> list[str]:
        """How this code stands in a text: names of the ways; none when it is not there."""
        found = [way for way, pattern in self._patterns if pattern.search(text)]
        if not found and all(half.search(text) for half in self._halves):
            found.append("in halves")
        return found


def _base64(text: str) -> set[str]:
    """What a code's characters become in base64, wherever in a longer text they stand."""
    cores = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + text.encode()).decode().rstrip("=")
        skip = (0, 2, 3)[before]  # characters that the bytes before take part in
        cores.add(encoded[skip : (before + len(text)) * 8 // 6])
    return cores


class Judge:
    """Of one visit.

    Args:
        codes: of all its steps.
        step: the one that is played; earlier ones are no secret any more.
        readable: its own code may be read.
        public: texts that are the same for everybody, such as the app's script.
    """

    def __init__(self, codes: Mapping[int, str], step: int, readable: bool, public: Iterable[str]) -> None:
        first = step + 1 if readable else step
        self._codes = [Code(number, code) for number, code in sorted(codes.items()) if number >= first]
        self._public = tuple(public)
        self.keys: set[str] = set()  # given out so far

    def read(self, text: str) -> set[str]:
        """What a text gives away."""
        for known in self._public:
            text = text.replace(known, "")
        found = {f"the code of step {code.step} ({way})" for code in self._codes for way in code.ways(text)[:1]}
        return found | {"a key to the channel" for run in _KEY.findall(text) if run in self.keys}


def claims(signal: Signal, code_field: str = "") -> str:
    """What a signal says that nobody has done; "" for what scripts can cause and is worth nothing: an emptied field,
    a pointer that has gone. Keys that the audit pressed itself, on nothing or on the code's field, are no claim."""
    if signal.kind == "input" and not signal.value:
        return ""
    if signal.kind == "pointermove" and not signal.part and not signal.source:
        return ""
    own_key = signal.kind in ("keydown", "keyup") and not signal.part
    if own_key and signal.key in NEUTRAL_KEYS and not signal.field:
        return ""
    if own_key and signal.key == "Enter" and signal.field in ("", code_field) and not any(signal.fields.values()):
        return ""
    text = f"{signal.kind} on {signal.part or signal.field or 'no part'}"
    return text + (f" {signal.key!r}" if signal.key else "") + (f" with {signal.value!r}" if signal.value else "")
