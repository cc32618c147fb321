"""Multi-tab: the pieces of the code stand on sheets that open in tabs of their own.

A sheet is written only for who opened it by hand: its address gives nothing until trusted input fell on its link.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Asset, Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.pieces import Teller, split
from dpo_driver.envs.gauntlet.puzzles.wordlists import THINGS, some

TITLE: Phrases = (
    ("In another tab", "Elsewhere", "A second window", "Loose sheets"),
    ("Next door", "Pages that lie apart", "The other leaf"),
)
ONE: Phrases = (
    (
        'The code stands on a sheet of its own. "{link}" opens it in a new tab; read it there and come back.',
        'Open "{link}" (a new tab), read the code and return to this tab.',
        'What you need is not on this page: the link "{link}" brings it up in another tab.',
        'A new tab holds the code. Follow "{link}", then return here and enter it.',
    ),
    (
        'The key lies next door. "{link}" leads there in a tab of its own; come back with it.',
        'Another tab carries the key: use "{link}", read, and return.',
        'Look into the tab that "{link}" opens; the key is written there.',
    ),
)
MANY: Phrases = (
    (
        "The code is spread over {n} sheets. Each link opens one in a new tab; read all, come back, and join the "
        "parts by number.",
        "Each of these links opens a new tab with one of {n} parts of the code. Join them in the order of their "
        "numbers.",
        "{n} parts, {n} tabs: open the sheets one by one, note what they say, and put the code together here.",
        "You will need several tabs. The links lead to {n} sheets with a part of the code each; their numbers give the "
        "order.",
    ),
    (
        "{n} leaves, each in a tab of its own, carry the fragments of the key. Visit all and line the fragments up.",
        "The key was torn into {n} fragments. Every link opens one in another tab; return and join them by number.",
        "Go through the tabs behind these links: {n} fragments stand there, numbered, and make up the key.",
    ),
)
EMPTY: Phrases = (
    (
        "One of the sheets is empty.",
        "Not every sheet has something on it.",
        "One sheet was left blank.",
        "One link leads to nothing.",
    ),
    ("One leaf bears nothing.", "A leaf among them is bare.", "Somewhere a leaf was left empty."),
)
LINK: Phrases = (
    ("Open the {thing} sheet", "The {thing} sheet", "See {thing} (new tab)", "{Thing}, opens in a new tab"),
    ("Go to the {thing} leaf", "{Thing} leaf", "Visit {thing} next door"),
)
HEADING: Phrases = (
    ("Sheet {thing}", "The {thing} sheet", "{Thing}", "You opened {thing}"),
    ("Leaf {thing}", "{Thing}, next door", "This is the {thing} leaf"),
)
NOTHING: Phrases = (
    ("This sheet is blank.", "Nothing is written here.", "There is no part of the code on this one."),
    ("A bare leaf.", "No fragment was left here."),
)
BACK: Phrases = (
    ("Close this tab to go back.", "That is all. Return to the first tab.", "Now go back to the tab you came from."),
    ("Leave this tab when you have read it.", "Your first tab is still open: return to it."),
)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><meta name="color-scheme" content="light dark">
<style>body {{ font: 1.1rem/1.5 sans-serif; margin: 3rem auto; max-width: 30rem; padding: 0 1rem }}
.said {{ font-size: 1.5rem }}</style>
</head><body><main><h1>{title}</h1><p class="said">{said}</p><p>{back}</p></main></body></html>
"""


@dataclass(frozen=True)
class Sheet:
    """A page of its own: name of its link and asset, the link's words, its heading, what it says."""

    name: str
    label: str
    heading: str
    said: str


class MultiTab(Puzzle):
    """A click on a link opens a sheet; the sheet's asset is there from then on. Solved when all pieces were opened."""

    name: ClassVar[str] = "multi-tab"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        count, empty = setup.difficulty, int(setup.difficulty == 3)
        teller = Teller.drawn(setup)
        said = [teller.tell(i, count, piece) for i, piece in enumerate(split(setup.code, count), start=1)]
        said += [setup.say(NOTHING)] * empty
        patterns = [setup.say(phrases, thing="{thing}", Thing="{Thing}") for phrases in (LINK, HEADING)]
        self._sheets: list[Sheet] = []
        for number, (words, thing) in enumerate(zip(said, some(setup, THINGS, len(said)), strict=True)):
            label, heading = (pattern.format(thing=thing, Thing=thing.capitalize()) for pattern in patterns)
            self._sheets.append(Sheet(f"sheet-{number}.html", label, heading, words))
        self._needed = {sheet.name for sheet in self._sheets[:count]}
        self._title, self._back = setup.say(TITLE), setup.say(BACK)
        self._text = setup.say(ONE, link=self._sheets[0].label) if count == 1 else setup.say(MANY, n=count)
        if empty:
            self._text += " " + setup.say(EMPTY)
        setup.rng.shuffle(self._sheets)
        self._opened: set[str] = set()

    @property
    def parts(self) -> Sequence[str]:
        return [sheet.name for sheet in self._sheets]

    def view(self) -> dict[str, Json]:
        links = [
            {**self.setup.control(sheet.name, sheet.label), "address": self.setup.asset(sheet.name)}
            for sheet in self._sheets
        ]
        return {"title": self._title, "text": self._text, "links": links, "reveal": None}

    def on(self, event: Event) -> None:
        # The middle button and the menu of the right one open tabs, too, and end in no click.
        opens = event.kind in ("click", "contextmenu") or (event.kind == "pointerdown" and event.button == 1)
        if opens and event.part in self.parts:
            self._opened.add(event.part)
            if self._needed <= self._opened:
                self.solve()

    def asset(self, name: str) -> Asset | None:
        for sheet in self._sheets:
            if sheet.name == name and name in self._opened:
                words = {"title": sheet.heading, "said": sheet.said, "back": self._back}
                page = PAGE.format(**{key: html.escape(value) for key, value in words.items()})
                return Asset(page.encode(), "text/html; charset=utf-8")
        return None
