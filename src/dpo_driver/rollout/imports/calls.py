"""What both kinds of Playwright scripts are read into: calls on pages, as data. Used by the readers beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pattern:
    """A regular expression that was written as an argument."""

    text: str


@dataclass(frozen=True)
class Opaque:
    """An argument that is a function or something else that only a running program could use."""


@dataclass(frozen=True)
class Call:
    """``get_by_role("button", name="Save")``; an attribute such as ``first`` is a call without arguments. Names are
    Playwright's for Python, whatever language they were written in."""

    name: str
    args: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()
    line: int = 0

    def get(self, name: str, default: Any = None) -> Any:
        """A named argument."""
        return dict(self.named).get(name, default)


@dataclass(frozen=True)
class Expression:
    """``page.get_by_role(...).click()``: calls on something with a name."""

    root: str
    calls: tuple[Call, ...]
    line: int


@dataclass(frozen=True)
class NewPage:
    """From here on a name stands for the page that was opened last."""

    name: str
    line: int


Statement = Expression | NewPage
