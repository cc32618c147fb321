"""What stands in the way on a step: banners, popups, traps, filler. Used by visit.py.

The server draws their words and knows which are closed; the page draws them around the puzzle
(gauntlet/src/distractors) and reports trusted clicks on their buttons. All can be closed or ignored, and a closed one
stays closed on its step.

Kinds: ``cookies`` (a banner), ``modal`` (covers the page until it is closed), ``prize`` and ``newsletter`` (popups in a
corner), ``decoys`` (buttons that move), ``traps`` (buttons that lead nowhere), ``filler`` (sections to scroll past).
From difficulty 2 on popups have buttons that only look as if they closed something, some come after the first click on
the puzzle, and filler holds things that look like codes.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

from dpo_driver.envs.gauntlet.plan import Plan
from dpo_driver.envs.gauntlet.puzzles.base import ALPHABET, CODE_LENGTH, SKINS, Phrases

Control = Callable[[str, str], dict[str, str]]
POPUPS = ("modal", "prize", "newsletter")  # Escape closes the last of them

TITLES: dict[str, Phrases] = {
    "cookies": (("Cookies", "Your privacy"), ("Crumbs", "What we keep")),
    "modal": (("Before you go on", "A short notice", "Please note"), ("One moment", "A word from the porter")),
    "prize": (("Congratulations!", "You are our 1000th visitor!"), ("Lucky you!", "The wheel chose you!")),
    "newsletter": (("Stay in touch", "Our newsletter"), ("Letters from the hall", "Hear from us")),
    "decoys": (("Hot offers",), ("Now or never",)),
    "traps": (("Shortcuts",), ("Side doors",)),
}
TEXTS: dict[str, Phrases] = {
    "cookies": (
        ("We use cookies to make this site better.", "This site would like to store cookies."),
        ("We would like to keep a few crumbs of your visit.", "Crumbs help us to know you again."),
    ),
    "modal": (
        ("This page is being watched over by nobody in particular.", "Our terms have not changed since yesterday."),
        ("The floors were polished this morning.", "The house is older than it looks."),
    ),
    "prize": (("A prize is waiting for you.", "Claim your gift card now."), ("A golden cup could be yours.",)),
    "newsletter": (
        ("News about puzzles, once a week.", "Be the first to know."),
        ("We write rarely and at length.", "One letter each month."),
    ),
    "decoys": (("",), ("",)),
    "traps": (("",), ("",)),
}
CLOSES: dict[str, tuple[Sequence[str], Sequence[str]]] = {  # these close it, each of them
    "cookies": (("Accept all", "Only necessary"), ("Take all crumbs", "Only the needed ones")),
    "modal": (("Dismiss", "Got it", "I understand"), ("Very well", "Let me pass")),
    "prize": (("No, thanks", "Not interested"), ("Decline", "Keep it")),
    "newsletter": (("Maybe later", "Not now"), ("Another time", "Rather not")),
    "decoys": (("Hide offers",), ("Send them away",)),
    "traps": ((), ()),
}
FAKES: dict[str, tuple[Sequence[str], Sequence[str]]] = {  # these look as if they did something
    "cookies": (("Cookie settings",), ("Sort the crumbs",)),
    "modal": (("Close", "X", "Close window"), ("Shut", "X")),
    "prize": (("Claim prize", "Close", "X"), ("Take the cup", "Shut", "X")),
    "newsletter": (("Subscribe",), ("Write to me",)),
    "decoys": (("Click me!", "Win now", "Free code", "Hurry!"), ("Catch me!", "Golden key", "Quick!")),
    "traps": (
        ("Skip this step", "Go to the last step", "Show all codes", "Solve it for me", "Proceed"),
        ("Take the back stairs", "Skip this door", "Master key", "Ask the porter", "Slip through"),
    ),
}
NOTES: Phrases = (
    ("Nothing happened.", "That did nothing.", "This is not the way."),
    ("Silence.", "It leads nowhere.", "A wall behind it."),
)
FIELD: Phrases = (("E-mail",), ("Postal or e-mail address",))
HEADINGS: tuple[Sequence[str], Sequence[str]] = (
    ("About this site", "From our blog", "Did you know?", "Frequently asked", "Our partners"),
    ("The history of the house", "Notes of the porter", "On keys", "Visitors' book", "The garden"),
)
SENTENCES: tuple[Sequence[str], Sequence[str]] = (
    (
        "Puzzles have been with us for thousands of years.", "Nobody has read this far in a while.",
        "Our office is closed on public holidays.", "A good break makes the next step easier.",
        "The weather will stay as it is, more or less.", "We redesigned this section and forgot why.",
    ),
    (
        "The oldest lock in the house has never been opened.", "In winter the windows are kept shut.",
        "Each door was made from a single tree.", "The stairs creak on the fourth step.",
        "Guests are asked to wipe their feet.", "There is a portrait in the hall that smiles on Sundays.",
    ),
)  # fmt: skip
DECOY_CODES: Phrases = (
    ("Example of a code: {code}.", "Yesterday's code was {code}.", "A sample, which opens nothing: {code}."),
    ("Last year's key was {code}.", "A key that fits nowhere: {code}.", "For instance {code}, long out of use."),
)


@dataclasses.dataclass
class _Item:
    kind: str
    title: str
    text: str
    buttons: list[tuple[str, str, str]]  # part, label, style
    late: bool = False  # comes after the first click on the puzzle
    field: str = ""
    sections: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    closed: bool = False
    note: str = ""


class Distractors:
    """Those of one step. ``control`` makes a part with its label."""

    def __init__(self, plan: Plan, step: int, control: Control) -> None:
        self._control = control
        self._rng = plan.rng(step, "distractors")
        self._skin, self._difficulty = SKINS.index(plan.skin), plan.difficulty
        self._items = [self._draw(kind) for kind in plan.step(step).distractors]
        self._place = self._rng.randrange(4)
        self._notes = self._rng.sample(NOTES[self._skin], len(NOTES[self._skin]))
        self._touched = False

    @property
    def parts(self) -> Sequence[str]:
        """Names of their buttons."""
        return [part for item in self._items for part, _, _ in item.buttons]

    def on(self, kind: str, part: str, key: str) -> bool:
        """Input; True when it was theirs, and not the puzzle's."""
        if kind == "keydown" and key == "Escape":
            popups = [item for item in self._items if item.kind in POPUPS and self._shows(item)]
            if popups:
                popups[-1].closed = True
            return bool(popups)
        for item in self._items:
            if any(part == name for name, _, _ in item.buttons):
                if kind == "click" and self._shows(item):
                    self._press(item, part)
                return True
        return False

    def touched(self) -> None:
        """The puzzle was clicked: what waited for it appears."""
        self._touched = True

    def view(self) -> list[dict[str, Any]]:
        """What the page draws of them."""
        return [
            {
                "kind": item.kind, "id": item.kind, "title": item.title, "text": item.text, "note": item.note,
                "field": item.field, "sections": item.sections, "place": (self._place + (item.kind == "prize")) % 4,
                "buttons": [self._control(part, label) | {"style": style} for part, label, style in item.buttons],
            }
            for item in self._items if self._shows(item)
        ]  # fmt: skip

    def _shows(self, item: _Item) -> bool:
        return not item.closed and (self._touched or not item.late)

    def _press(self, item: _Item, part: str) -> None:
        if "/close/" in part:
            item.closed = True
        else:
            # Never the same answer twice in a row: who presses again sees that it was seen.
            used = self._notes.index(item.note) if item.note in self._notes else -1
            item.note = self._notes[(used + 1) % len(self._notes)]

    def _say(self, phrases: Phrases) -> str:
        return self._rng.choice(list(phrases[self._skin]))

    def _draw(self, kind: str) -> _Item:
        if kind == "filler":
            return _Item(kind, "", "", [], sections=_filler(self._rng, self._skin, self._difficulty))
        item = _Item(kind, self._say(TITLES[kind]), self._say(TEXTS[kind]), [])
        closes, fakes = list(CLOSES[kind][self._skin]), list(FAKES[kind][self._skin])
        if kind in POPUPS:
            closes = [self._rng.choice(closes)]
        item.buttons = [(f"frame/close/{kind}/{i}", label, "close") for i, label in enumerate(closes)]
        count = {"decoys": 2, "traps": self._difficulty, "prize": self._difficulty - 1}.get(kind, 1)
        if kind in ("modal", "cookies") and self._difficulty == 1:
            count = 0
        chosen = self._rng.sample(fakes, min(count, len(fakes)))
        corner = kind in ("modal", "prize")
        item.buttons += [
            (f"frame/fake/{kind}/{i}", label, "corner" if corner and label in ("X", "Close", "Shut") else "loud")
            for i, label in enumerate(chosen)
        ]
        self._rng.shuffle(item.buttons)
        item.late = kind in ("prize", "newsletter") and self._difficulty > 1 and self._rng.random() < 0.5
        item.field = self._say(FIELD) if kind == "newsletter" else ""
        return item


def _filler(rng: random.Random, skin: int, difficulty: int) -> list[dict[str, Any]]:
    """Sections with headings; from difficulty 2 on each may hold something that looks like a code."""
    sections = []
    sentences = rng.sample(SENTENCES[skin], 2 * difficulty)
    for number, heading in enumerate(rng.sample(HEADINGS[skin], difficulty)):
        texts = list(sentences[2 * number : 2 * number + 2])
        if difficulty > 1 and rng.random() < 0.6:
            decoy = "".join(rng.choice(ALPHABET) for _ in range(CODE_LENGTH))
            texts.insert(rng.randrange(3), rng.choice(list(DECOY_CODES[skin])).format(code=decoy))
        sections.append({"title": heading, "text": texts})
    return sections
