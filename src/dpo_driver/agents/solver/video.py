"""A film shows the code a character at a time: start it, go through its frames by hand, read what each shows."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import STEP, PuzzlePage
from dpo_driver.agents.solver.parts import LENGTH, Told, seen, submit, told, unanswered
from dpo_driver.core.records import Element

ENTERS = True
FILM = r"\b(?:film|video|movie|reel|clip)s?\b"
FRAME = r"\b(?:frame|picture|image)s?\b"
COUNT = re.compile(r"(?<![\w/])(\d+)\s*(?:/|of|out of)\s*(\d+)(?![\w/])", re.IGNORECASE)
CHARACTER = re.compile(r"(?<![\w-])[A-HJ-NP-Z2-9](?![\w-])")
SHAPES = re.compile(r"\b(circle|ring|square|box|triangle|diamond|hexagon|pentagon|star|oval|cross)\b", re.IGNORECASE)


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    text = told(page, FILM, FRAME)
    return 0.95 if text and text.buttons and len(text.names) > 1 else 0.0


def _frames(page: PuzzlePage, text: Told) -> tuple[dict[int, str], int]:
    """(number of a frame -> what is said of it, how many there are)."""
    frames: dict[int, str] = {}
    many = 0
    for observation in seen(page):
        for element in observation.elements:
            said = squash(element.name)
            count = COUNT.search(said)
            if count and SHAPES.search(said) and not STEP.search(said) and said != text.text:
                many = int(count[2])
                frames[int(count[1])] = said[: count.start()] + " " + said[count.end() :]
    return frames, many


def _towards(page: PuzzlePage, text: Told, frames: dict[int, str], many: int) -> Element:
    """The button that leads to a frame which was not seen: the next, or the one beside it that goes back."""
    following = text.buttons[1]
    now = next((int(c[1]) for e in text.region if (c := COUNT.search(e.name)) and SHAPES.search(e.name)), 0)
    if any(number not in frames for number in range(now + 1, many + 1)) or not many:
        return following
    controls = text.controls("button")
    place = controls.index(following)
    around = [e for e in (controls[max(place - 1, 0)], *controls[place + 1 :]) if e not in text.buttons]
    return around[0] if around else text.buttons[0]


def solve(page: PuzzlePage) -> Decision:
    """Play, then the next frame until all were told; of those, the characters in the right shape."""
    text = told(page, FILM, FRAME)
    if text is None or not text.buttons:
        raise Lost("nothing starts the film")
    if len(text.buttons) < 2:
        return page.click(text.buttons[0])
    frames, many = _frames(page, text)
    if not many or len(frames) < many:
        return unanswered(page) or page.click(_towards(page, text, frames, many))
    shape = SHAPES.search(text.text)
    counting = [said for _, said in sorted(frames.items()) if shape is None or shape[1].lower() in said.lower()]
    code = "".join(found[0] for said in counting if (found := CHARACTER.search(said)))
    if len(code) != LENGTH:
        raise Lost(f"the frames show {code!r}")
    return submit(page, code)
