"""A code in numbered pieces.

Used by the types that hand a code out piece by piece: rotating-code, multi-tab, split-parts, websocket, service-worker.
Imports base.py only.
"""

from __future__ import annotations

from dataclasses import dataclass

from dpo_driver.envs.gauntlet.puzzles.base import ALPHABET, Phrases, Setup

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
NUMBERS = ("one", "two", "three", "four", "five", "six")

# How a piece is told. A page that shows several pieces tells all of them in the same way.
PIECE: Phrases = (
    (
        "Part {i} of {n}: {piece}",
        "Piece {i}/{n} is {piece}",
        "{i} of {n} = {piece}",
        "The {ith} of {many} parts: {piece}",
        "No. {i} of {n} reads {piece}",
    ),
    (
        "Fragment {i} out of {n}: {piece}",
        "{piece} is the {ith} of {many} fragments",
        "Shard {i}/{n} bears {piece}",
        "{piece} ({i} of {n})",
    ),
)
WHOLE: Phrases = (
    ("The code is {piece}.", "Code: {piece}", "It reads {piece}.", "Your code, {piece}, stands here."),
    ("The key is {piece}.", "{piece} is what you came for.", "Take {piece} along."),
)


@dataclass(frozen=True)
class Teller:
    """Tells pieces in one wording: ``Teller(setup).tell(2, 3, "K7")``."""

    setup: Setup
    pattern: str
    whole: str

    @classmethod
    def drawn(cls, setup: Setup) -> Teller:
        """Draws the wording from the seed."""
        kept = {name: "{" + name + "}" for name in ("i", "n", "ith", "many", "piece")}
        return cls(setup, setup.say(PIECE, **kept), setup.say(WHOLE, **kept))

    def tell(self, number: int, count: int, piece: str) -> str:
        """The sentence about piece ``number`` (from 1) of ``count``; a code in one piece is told without numbers."""
        pattern = self.whole if count == 1 else self.pattern
        words = {"ith": ORDINALS[number - 1], "many": NUMBERS[count - 1]}
        return pattern.format(i=number, n=count, piece=piece, **words)


def split(code: str, count: int) -> list[str]:
    """The code in ``count`` pieces of equal length.

    Raises:
        ValueError: it cannot be cut so.
    """
    if len(code) % count:
        raise ValueError(f"a code of {len(code)} characters has no {count} equal pieces")
    size = len(code) // count
    return [code[start : start + size] for start in range(0, len(code), size)]


def false_piece(setup: Setup, length: int) -> str:
    """Something that looks like a piece and is none."""
    return "".join(setup.rng.choice(ALPHABET) for _ in range(length))
