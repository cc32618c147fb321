"""The code, or pieces of it, stand on pages that open in tabs of their own: open each, read, close, join."""

from __future__ import annotations

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage, step_number
from dpo_driver.agents.solver.parts import joined, least, seen, submit, told, waits, whole
from dpo_driver.core.actions import Click, TabClose
from dpo_driver.core.records import Element, Observation

ENTERS = True
TAB = r"\b(?:tabs?|windows?)\b"
ABOUT = r"\b(?:code|key|parts?|fragments?|pieces?)\b"
LOOK_MS = 200
PATIENCE = 4  # looks, until a tab has come up and is drawn


def _links(page: PuzzlePage) -> list[Element]:
    """The link that the text names, or all that follow a text about tabs and what they hold."""
    named = told(page, TAB, r"[\"“]")
    links = [e for e in named.buttons if e.role == "link"] if named else []
    text = told(page, TAB, ABOUT)
    return links or (text.controls("link") if text else [])


def _elsewhere(observation: Observation) -> bool:
    return step_number(observation) is None


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    return 0.9 if _links(page) else 0.0


def solve(page: PuzzlePage) -> Decision:
    """In another tab: close it, for what it says is remembered. In the first: open what was not opened yet."""
    if _elsewhere(page.observation):
        if not page.observation.elements and waits(page) < PATIENCE:
            return page.wait(LOOK_MS, "wait for the tab")
        return "close the tab", TabClose()
    links = _links(page)
    if not links:
        raise Lost("there is no link")
    last = page.history[-1 - waits(page)].action if len(page.history) > waits(page) else None
    if isinstance(last, Click) and last.ref in [link.ref for link in links] and waits(page) < PATIENCE:
        return page.wait(LOOK_MS, "wait for the tab")
    said = [e.name for observation in seen(page) if _elsewhere(observation) for e in observation.elements]
    code = whole(said) if len(links) == 1 else joined(said)
    return submit(page, code) if code else page.click(least(page, links))
