"""A button that the text names uncovers the code. The simplest solver: copy from here."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element

QUOTED = r"[\"“]([^\"”\n]+)[\"”]"
ABOUT = (
    r"(?:un|dis)cover|\breveals?\b|unveil|veiled|(?:see|shows?) (?:the|your) (?:code|key)|(?:lies|waits) behind"
    r"|behind [\"“]"
)
# What other tasks name a button for as well.
OTHER = (
    r"scroll|hover|pointer|drag|wait (?:for|until)|seconds?\b|\btab\b|frame|slider|number|first|then|order|type|listen"
    r"|play|connect|morse|sound|film|picture|hear|watch|lasts"
)


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    line, button = _named(page)
    if button is None:
        return 0.0
    if not re.search(ABOUT, line, re.IGNORECASE):
        return 0.35
    return 0.4 if re.search(OTHER, line, re.IGNORECASE) else 0.9


def solve(page: PuzzlePage) -> Decision:
    """The next decision. Entering the code once it is on the page is the agent's business (agent.py), not ours."""
    _, button = _named(page)
    if button is None:
        raise Lost("no button of the page is named in its text")
    return page.click(button)


def _named(page: PuzzlePage) -> tuple[str, Element | None]:
    """The line that names a button in quotes, and the button; one that speaks of uncovering comes first."""
    found: list[tuple[str, Element | None]] = []
    for line in page.text.split("\n"):
        for label in re.findall(QUOTED, line):
            if (button := page.maybe(label, "button", "link", "clickable")) is not None:
                found.append((line, button))
    about = [pair for pair in found if re.search(ABOUT, pair[0], re.IGNORECASE)]
    return (about or found or [("", None)])[0]
