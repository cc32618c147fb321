"""What a rater sees of a comparison: the page, what each side did, and what came of it. Called by app.py.

Nothing here says where an answer came from, which is first, or whether it succeeded. The page of a run's comparison is
read from its trajectories; text pairs, and comparisons whose run is not at hand, show prompt and answers. Must not know
labels or raters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dpo_driver.agents.prompt import parse_completion
from dpo_driver.core.errors import ActionError, StoreError
from dpo_driver.core.records import Comparison, Element, Message, Observation, Step, Trajectory
from dpo_driver.label.pictures import Picture, Pictures
from dpo_driver.label.words import Part, Sentence, action_words, element_line, marked, text_difference

KEPT = 256  # trajectories in memory
MOST_CHANGES = 8
MOST_STEPS = 8  # of what a side did later
LETTERS = ("A", "B")


@dataclass(frozen=True)
class Seen:
    """A page: its picture, and its outline for who does not see pictures."""

    picture: Picture
    lines: tuple[str, ...]
    title: str
    left_out: int = 0


@dataclass(frozen=True)
class Change:
    """A difference between two pages. ``Change("new", "text “Welcome”")``; kind is new, gone or changed."""

    kind: str
    text: str


@dataclass(frozen=True)
class Side:
    """One continuation. ``after`` is None where the episode ended and no picture was kept; ``ended`` where it ended."""

    letter: str
    did: Sentence
    thought: str = ""
    after: Seen | None = None
    ended: bool = False
    error: str = ""
    changes: tuple[Change, ...] = ()
    more_changes: int = 0
    then: tuple[Sentence, ...] = ()  # what it did from there on


@dataclass(frozen=True)
class View:
    """One comparison as one rater sees it. ``before`` is None for text; ``messages`` are empty for pages."""

    goal: str
    sides: tuple[Side, Side]
    before: Seen | None = None
    past: tuple[Sentence, ...] = ()
    messages: tuple[Message, ...] = ()
    role: str = ""


class Views:
    """Views of one log's comparisons.

    Args:
        pictures: of the run that they come from.
        get_trajectory: a trajectory by id; StoreError where there is none. None: there is no run.
    """

    def __init__(self, pictures: Pictures, get_trajectory: Callable[[str], Trajectory] | None = None) -> None:
        self.pictures = pictures
        self._trajectory = lru_cache(KEPT)(get_trajectory) if get_trajectory else None

    def of(self, comparison: Comparison, swapped: bool) -> View:
        """The view of a comparison; ``swapped``: its second answer is side A."""
        witnesses = [comparison.evidence.get(name) for name in ("first", "second")]
        found = [self._step(witness) for witness in witnesses]
        texts = [comparison.first, comparison.second]
        if swapped:
            found, texts = found[::-1], texts[::-1]
        if found[0] is None or found[1] is None:
            return _text_view(comparison, texts)
        return self._page_view((found[0], found[1]))

    def _step(self, witness: Any) -> tuple[Trajectory, int] | None:
        """Trajectory and step that a comparison's evidence names, if the run has them."""
        if self._trajectory is None or not isinstance(witness, dict) or "trajectory" not in witness:
            return None
        try:
            trajectory = self._trajectory(witness["trajectory"])
        except StoreError:
            return None
        at = witness.get("step")
        return (trajectory, at) if isinstance(at, int) and 0 <= at < len(trajectory.steps) else None

    def _page_view(self, found: tuple[tuple[Trajectory, int], tuple[Trajectory, int]]) -> View:
        trajectory, at = found[0]
        page = trajectory.steps[at].observation
        steps = [one.steps[where] for one, where in found]
        marks = [(letter, step.action) for letter, step in zip(LETTERS, steps, strict=True)]
        before = self._seen(page, page.screenshot, trajectory.task.env, marks)
        did = marked(_did(steps[0], page), _did(steps[1], page))
        sides = [self._side(letter, *where, said) for letter, where, said in zip(LETTERS, found, did, strict=True)]
        past = tuple(_did(step, step.observation) for step in trajectory.steps[:at])
        return View(page.goal, (sides[0], sides[1]), before, past)

    def _side(self, letter: str, trajectory: Trajectory, at: int, did: Sentence) -> Side:
        step = trajectory.steps[at]
        following = trajectory.steps[at + 1].observation if at + 1 < len(trajectory.steps) else None
        if following is not None:
            after = self._seen(following, following.screenshot, trajectory.task.env)
            changes = page_changes(step.observation, following)
            later = trajectory.steps[at + 1 : at + 1 + MOST_STEPS]
            return Side(
                letter, did, step.thought, after, error=following.last_error or "", changes=changes[:MOST_CHANGES],
                more_changes=max(0, len(changes) - MOST_CHANGES),
                then=tuple(_did(one, one.observation) for one in later),
            )  # fmt: skip
        return Side(letter, did, step.thought, self._end(trajectory, step), ended=True)

    def _end(self, trajectory: Trajectory, step: Step) -> Seen | None:
        """The page after the last action: only a picture of it is kept, if anything."""
        if trajectory.final_screenshot is None:
            return None
        bare = Observation(goal=step.observation.goal, title=step.observation.title)
        picture = self.pictures.of(bare, trajectory.final_screenshot, trajectory.task.env)
        return Seen(picture, (), bare.title) if picture.svg else None

    def _seen(self, page: Observation, sha: str | None, env: str, marks: Sequence[tuple[str, Any]] = ()) -> Seen:
        lines = tuple(map(element_line, page.elements))
        return Seen(self.pictures.of(page, sha, env, marks), lines, page.title, page.truncated)


def _did(step: Step, page: Observation) -> Sentence:
    if step.action is None:
        return (Part("Wrote something that cannot be read as an action: "), Part(step.completion, strong=True))
    return action_words(step.action, page)


def _text_view(comparison: Comparison, texts: Sequence[str]) -> View:
    goal = comparison.task.goal if comparison.task and comparison.task.goal else ""
    one, other = text_difference(*texts)
    sides = (_text_side(LETTERS[0], one, texts[0], comparison), _text_side(LETTERS[1], other, texts[1], comparison))
    return View(goal, sides, messages=comparison.messages, role=comparison.role)


def _text_side(letter: str, said: Sentence, text: str, comparison: Comparison) -> Side:
    """A page's answer whose run is gone still shows thought and action apart."""
    if comparison.task is None:
        return Side(letter, said)
    try:
        thought, _ = parse_completion(text)
    except ActionError:
        thought = ""
    return Side(letter, said, thought)


def page_changes(before: Observation, after: Observation) -> tuple[Change, ...]:
    """What is new, changed or gone on a page, in its order: first what changed, then new things, then gone ones; on
    another page only what is new.

    Elements are the same thing where ref, role and name agree; text that only moved is no change.
    """
    changes = []
    elsewhere = before.url != after.url
    if elsewhere and after.url:
        changes.append(Change("changed", f"the address is now {_address(before.url, after.url)}"))
    old, new = _by_identity(before.elements), _by_identity(after.elements)
    for key, element in new.items():
        if key in old and element_line(old[key]) != element_line(element):
            changes.append(Change("changed", f"{element_line(element)} (before: {_state(old[key])})"))
    fresh = sorted((element for key, element in new.items() if key not in old), key=_is_drawn)
    changes += [Change("new", element_line(element)) for element in fresh]
    if not elsewhere:  # on another page everything is gone, which says nothing
        gone = sorted((element for key, element in old.items() if key not in new), key=_is_drawn)
        changes += [Change("gone", element_line(element)) for element in gone]
    return tuple(changes)


def _address(before: str, after: str) -> str:
    """An address as far as it is another: its path where the site is the same."""
    old, new = urlsplit(before), urlsplit(after)
    return urlunsplit(("", "", *new[2:])) or "/" if old[:2] == new[:2] else after


def _is_drawn(element: Element) -> bool:
    """Shapes come last: what they show is seen in the picture."""
    return element.role == "image" and (element.value or "").startswith("at ")


def _by_identity(elements: Sequence[Element]) -> dict[tuple[str | None, str, str, int], Element]:
    return {(element.ref, element.role, element.name, element.nth): element for element in elements}


def _state(element: Element) -> str:
    parts = [f"“{element.value}”"] if element.value else []
    parts += [state for state in element.states if state != "focused"]
    return ", ".join(parts) or "empty"
