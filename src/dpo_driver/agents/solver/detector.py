"""Which type of puzzle a page shows: one read of the page -> the types that recognise it, the surest first.

A literal table names the modules; each is loaded when it is first asked. The list is ours: nothing of the gauntlet may
be imported. Called by agent.py, and by rollout/solve.py for the names of types on a site that is not ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Protocol

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Observation

THRESHOLD = 0.3  # below it a page counts as not recognised
UNKNOWN = "unknown"
REMEMBERED = 256  # looks
# What a solver trips over on a page that it did not foresee is no reason to end a run.
TRIPS = (Lost, AssertionError, LookupError, ValueError)

# type -> module in this package
TYPES: dict[str, str] = {
    "animated-button": "animated_button",
    "audio": "audio",
    "calculated-code": "calculated_code",
    "click-reveal": "click_reveal",
    "click-sequence": "click_sequence",
    "computed-style": "computed_style",
    "conditional": "conditional",
    "delayed-reveal": "delayed_reveal",
    "drag-drop": "drag_drop",
    "draw": "draw",
    "encoded": "encoded",
    "encrypted": "encrypted",
    "form-fill": "form_fill",
    "frames": "frames",
    "hidden-text": "hidden_text",
    "hover-reveal": "hover_reveal",
    "key-sequence": "key_sequence",
    "math": "math",
    "memory": "memory",
    "multi-step": "multi_step",
    "multi-tab": "multi_tab",
    "mutation": "mutation",
    "radio-force": "radio_force",
    "rotating-code": "rotating_code",
    "scroll-find": "scroll_find",
    "service-worker": "service_worker",
    "shadow-dom": "shadow_dom",
    "slider": "slider",
    "split-parts": "split_parts",
    "storage": "storage",
    "timing": "timing",
    "video": "video",
    "visible-text": "visible_text",
    "websocket": "websocket",
}


class Solver(Protocol):
    """What a module of a type offers. ``ENTERS``: it finds out the code and enters it itself."""

    def recognise(self, page: PuzzlePage) -> float: ...

    def solve(self, page: PuzzlePage) -> Decision: ...


@dataclass(frozen=True)
class Signal:
    """How sure a type is that the page is of its kind, 0 to 1."""

    name: str
    score: float

    @property
    def solver(self) -> Solver:
        found = load_solver(self.name)
        assert found is not None
        return found

    @property
    def enters(self) -> bool:
        """Whether the type's solver enters the code itself."""
        return bool(getattr(load_solver(self.name), "ENTERS", False))


@cache
def load_solver(name: str) -> Solver | None:
    """The module of a type; None where it is not written yet."""
    module = f"{__package__}.{TYPES[name]}"
    try:
        found: Solver = import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    return found


def first_look(observation: Observation) -> tuple[Signal, ...]:
    """:func:`rank` of a page by itself. An agent that keeps no state asks again at every decision on a step, so what
    was found out is remembered by the page's content."""
    key = (observation.state_hash, observation.url, observation.elements[0].box if observation.elements else None)
    found = _looks.get(key) if observation.state_hash else None
    if found is None:
        found = rank(PuzzlePage(observation, ()))
        if len(_looks) >= REMEMBERED:
            _looks.clear()
        _looks[key] = found
    return found


_looks: dict[tuple[object, ...], tuple[Signal, ...]] = {}


def rank(page: PuzzlePage, threshold: float = THRESHOLD) -> tuple[Signal, ...]:
    """The types that recognise the page, best first; equal ones in the order of the table. Empty: unknown."""
    signals = []
    for name in TYPES:
        solver = load_solver(name)
        if solver is None:
            continue
        try:
            score = solver.recognise(page)
        except TRIPS:
            continue
        if score >= threshold:
            signals.append(Signal(name, score))
    return tuple(sorted(signals, key=lambda signal: -signal.score))
