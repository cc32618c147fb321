"""The words of the frame around the puzzles, in both skins, and the look that a seed gives. Used by visit.py only.

The heading of a step says "Step k of n" in every one of them: that is how agents know where they are.
"""

from __future__ import annotations

import random
from typing import Any

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Phrases

NAME: Phrases = (("The Gauntlet", "Thirty Doors", "Code Run"), ("The Long Hall", "House of Keys"))
START_TEXT: Phrases = (
    ("{count} puzzles wait, one after the other. Each shows a code of 6 characters; enter it to go on.",
     "Solve {count} puzzles in a row. Every one gives you a 6-character code that opens the next."),
    ("There are {count} doors. Behind each task lies a key of 6 characters, and the key opens the next door.",
     "Pass {count} doors in turn. Do the task, take its key of 6 characters, and enter it."),
)  # fmt: skip
START: Phrases = (("START",), ("START", "Start the run"))
FIELD: Phrases = (("Code", "Enter the code", "6-character code"), ("Key", "Key for this door", "Your key"))
SUBMIT: Phrases = (("Submit", "Next", "Check code", "Continue"), ("Go on", "Unlock", "Open the door"))
WRONG: Phrases = (
    ("That is not the code.", "Wrong code, try again.", "This code does not fit."),
    ("The key does not turn.", "That key is wrong.", "The door stays shut."),
)
EMPTY: Phrases = (("Enter the code first.",), ("The key is missing.",))
TAINTED: Phrases = (("Please type the code with the keyboard.",), ("Please type the key with the keyboard.",))
LOCKED: Phrases = (("Too many wrong codes: wait {seconds} s.",), ("Too many wrong keys: wait {seconds} s.",))
FINISH: Phrases = (("All done", "You made it", "The end"), ("The hall lies behind you", "Out in the open"))
FINISH_TEXT: Phrases = (
    ("All {count} puzzles are solved.", "You solved {count} of {count}."),
    ("All {count} doors are open.", "{count} of {count} doors passed."),
)
REGIONS: Phrases = (("Puzzle",), ("Task",))  # for screen readers
FORM: Phrases = (("Code entry",), ("Key entry",))


def say(rng: random.Random, skin: str, phrases: Phrases, **values: object) -> str:
    """One of the phrases of a skin, with values filled in."""
    return rng.choice(list(phrases[SKINS.index(skin)])).format(**values)


def turn(number: int, skin: str, phrases: Phrases) -> str:
    """The phrases of a skin one after the other, so that what is said again looks different."""
    chosen = phrases[SKINS.index(skin)]
    return chosen[number % len(chosen)]


def look(rng: random.Random) -> dict[str, Any]:
    """What the seed decides of the looks: class names' prefix, colour, shape, places."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return {
        "prefix": "".join(rng.choice(letters) for _ in range(4)),
        "hue": rng.randrange(360),
        "radius": rng.choice((0, 4, 10, 18)),
        "font": rng.randrange(4),
        "width": rng.choice((640, 720, 820)),
        "align": rng.choice(("left", "center")),
        "form": rng.choice(("below", "below", "first")),
    }
