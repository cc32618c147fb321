"""The page as a list of elements: asks the distiller (observe.js) and makes records of its answer.

Called by environments after every reset and action. The distiller runs in an isolated world, so the page can neither
see nor bend it, and it never writes. Must not import environments, or playwright.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Protocol
from urllib.parse import urlsplit

from dpo_driver.core.records import Element, Observation, state_hash

OBSERVER_SCRIPT = files(__package__).joinpath("observe.js").read_text(encoding="utf-8")


class IsolatedWorld(Protocol):
    """What the distiller needs of a session: a place to evaluate in."""

    async def isolated(self, expression: str) -> str: ...


@dataclass(frozen=True)
class Limits:
    """Caps of one observation. ``exclude`` is a CSS selector of subtrees that are not part of the page proper."""

    max_elements: int = 400
    max_chars: int = 40_000
    max_name_chars: int = 300
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
    options = {
        "maxElements": limits.max_elements,
        "maxChars": limits.max_chars,
        "maxNameChars": limits.max_name_chars,
        "exclude": limits.exclude,
        "fresh": fresh,
    }
    seen = json.loads(await session.isolated(f"dpoDriver.observe({json.dumps(options)})"))
    elements = tuple(Element(**element) for element in seen["elements"])
    return PageView(url=seen["url"], title=seen["title"], elements=elements, truncated=seen["truncated"])
