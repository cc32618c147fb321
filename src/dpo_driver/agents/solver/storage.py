"""The browser's stores are filled and listed: open each that is named, take the values of the named keys in order."""

from __future__ import annotations

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.agents.solver.parts import LENGTH, Told, least, submit, told, unanswered
from dpo_driver.core.records import Element

ENTERS = True
STORE = r"\bcookies?\b|\b(?:local|session) ?storage\b"
NAMED = r"[\"“][^\"“”]+[\"”]"


def _told(page: PuzzlePage) -> Told | None:
    text = told(page, STORE, NAMED)
    return text if text and text.others else None


def _openers(text: Told) -> list[Element]:
    return text.buttons or text.alike(STORE)


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    text = _told(page)
    return 0.95 if text and _openers(text) else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Open the stores one by one; then join what stands beside the keys that the text names."""
    text = _told(page)
    if text is None:
        raise Lost("nothing speaks of a store")
    cells = [squash(e.name) for e in text.region if e.role == "cell"]
    values = dict(zip(reversed(cells[:-1]), reversed(cells[1:]), strict=True))
    found = [values.get(key, "") for key in text.others]
    if len("".join(found)) == LENGTH and all(found):
        return submit(page, "".join(found))
    return unanswered(page) or page.click(least(page, _openers(text)))
