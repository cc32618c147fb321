"""The page as a list of elements: asks the distiller (observe.js, drawing.js) and makes records of its answer.

Called by environments after every reset and action. The distiller runs in an isolated world, so the page can neither
see nor bend it, and it never writes. Must not import environments, or playwright.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import urlsplit

from dpo_driver.core.records import Element, Observation, state_hash

OBSERVER_SCRIPT = "\n".join(
    files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("drawing.js", "observe.js")
)


class IsolatedWorld(Protocol):
    """What the distiller needs of a session: a place to evaluate in."""

    async def isolated(self, expression: str) -> str: ...


@dataclass(frozen=True)
class Limits:
    """Caps of one observation. ``exclude`` is a CSS selector of subtrees that are not part of the page proper."""

    max_elements: int = 400
    max_chars: int = 40_000
    max_name_chars: int = 300
    max_value_chars: int = 2_500  # what a field holds is needed to its end more often than a long name
    exclude: str = ""


@dataclass(frozen=True)
class PageView:
    """What the distiller saw: address, title, elements in document order, and how many were left out."""

    url: str
    title: str
    elements: tuple[Element, ...]
    truncated: int

    def observation(self, goal: str, last_error: str | None = None) -> Observation:
        """The record that agents get; its hash covers path, goal and elements."""
        return Observation(
            goal=goal,
            url=self.url,
            title=self.title,
            elements=self.elements,
            truncated=self.truncated,
            last_error=last_error,
            state_hash=state_hash(goal, urlsplit(self.url).path, self.elements),
        )


async def observe(session: IsolatedWorld, limits: Limits = Limits(), *, fresh: bool = False) -> PageView:
    """Read the page. ``fresh`` starts the numbering again, at the beginning of an episode.

    Raises:
        RolloutFailure: the page or the browser broke.
    """
    options = json.dumps({**asked(limits), "fresh": fresh})
    return view_of(await session.isolated(f"dpoDriver.observe({options})"))


def asked(limits: Limits) -> dict[str, Any]:
    """The limits in the distiller's words."""
    return {
        "maxElements": limits.max_elements,
        "maxChars": limits.max_chars,
        "maxNameChars": limits.max_name_chars,
        "maxValueChars": limits.max_value_chars,
        "exclude": limits.exclude,
    }


def view_of(answer: str) -> PageView:
    """The distiller's answer as records."""
    seen = json.loads(answer)
    elements = tuple(Element(**element) for element in seen["elements"])
    return PageView(url=seen["url"], title=seen["title"], elements=elements, truncated=seen["truncated"])
