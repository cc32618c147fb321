"""The table of attacks: what an attack is, and how a family's file enters its own. Used by all files beside it.

An attack is a small function that tries one thing; its docstring says what. It hands over whatever it got hold of
(``it.keep``), or says that it has won (``it.won``); whether that is a leak is for judge.py to say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpo_driver.envs.gauntlet.audit.adversary import Adversary

# Families that count: a leak of theirs fails the audit.
COUNTED = (
    "told", "source", "internals", "stores", "network", "history", "workers", "channel", "addresses", "starts",
    "guessing", "synthetic", "builtins", "realms", "clocks",
)  # fmt: skip
# Families that are reported apart, and why they do not count.
APART = {
    "mixed": "trusted input that a script turns to its own ends: no more than the same input would have done by itself",
    "beyond": "whoever rules the browser, or is none: they can make trusted input of their own",
}
FAMILIES = (*COUNTED, *APART)

Run = Callable[["Adversary"], Awaitable[int | None]]


@dataclass(frozen=True)
class Attack:
    """One thing that is tried.

    Args:
        run: returns how many tries it made; None: one.
        spoils: the page is of no use afterwards, and is opened anew.
        once: its outcome has nothing to do with the type; one type a seed is enough.
        types: only these; none: all.
    """

    family: str
    run: Run
    spoils: bool = False
    once: bool = False
    types: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"{self.family}/{self.run.__name__.replace('_', '-')}"

    @property
    def tries(self) -> str:
        """What it tries, in words."""
        return " ".join((self.run.__doc__ or "").split())

    @property
    def counts(self) -> bool:
        return self.family in COUNTED


_TABLE: list[Attack] = []


def attack(
    family: str, *, spoils: bool = False, once: bool = False, types: tuple[str, ...] = ()
) -> Callable[[Run], Run]:
    """Enters a function: ``@attack("stores")``."""

    def enter(run: Run) -> Run:
        _TABLE.append(Attack(family, run, spoils, once, frozenset(types)))
        return run

    return enter


def all_attacks() -> list[Attack]:
    """Every attack, family by family."""
    for family in FAMILIES:
        import_module(f"dpo_driver.envs.gauntlet.audit.{family}")
    return sorted(_TABLE, key=lambda one: FAMILIES.index(one.family))
