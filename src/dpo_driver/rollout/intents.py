"""What somebody did elsewhere, step by step, acted out here through the public actions.

An :class:`Intent` says what is to be done and to what, in words that do not depend on element numbers: role and name,
a label, a CSS selector, a fingerprint. :class:`IntentAgent` finds the element on the live page, waits a moment where it
is not there yet, and acts; the trajectory of it is like any other and is proven like any other. Made by
rollout/person.py (a person's gestures) and rollout/imports (files of other recorders). Must not import environments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.core.actions import ACTIONS, Action, Click, Goto, Noop, ReportInfeasible
from dpo_driver.core.errors import DataError
from dpo_driver.core.protocols import Environment, Move
from dpo_driver.core.records import Element, Observation, Step, Task, Trajectory
from dpo_driver.rollout.episode import run_episode

MATCH_SCRIPT = files("dpo_driver.browser").joinpath("match.js").read_text(encoding="utf-8")
WAITS_MS = (250.0, 500.0, 1000.0, 2000.0, 4000.0)  # for an element that is not there yet
LAST_WAITS = 3  # of these, for the page's answer to the last thing done

# Roles of the distiller for those of ARIA. What it merges or names otherwise is found by its name alone.
ROLES: dict[str, frozenset[str]] = {
    "textbox": frozenset({"textbox", "textarea", "number", "date", "time"}),
    "searchbox": frozenset({"textbox"}),
    "spinbutton": frozenset({"spinbutton", "number"}),
    "combobox": frozenset({"combobox", "textbox"}),
    "listbox": frozenset({"combobox"}),
    "checkbox": frozenset({"checkbox"}),
    "switch": frozenset({"checkbox"}),
    "button": frozenset({"button", "clickable"}),
    "link": frozenset({"link", "clickable"}),
    "listitem": frozenset({"listitem", "item"}),
    "treeitem": frozenset({"item"}),
    "option": frozenset({"option", "item", "clickable"}),
    "img": frozenset({"image", "clickable"}),
    "cell": frozenset({"cell"}),
    "gridcell": frozenset({"cell", "clickable"}),
    "columnheader": frozenset({"cell"}),
    "rowheader": frozenset({"cell"}),
}
# What holds other things is seldom an element of its own here: it is looked for in the page.
CONTAINERS: dict[str, str] = {
    "article": "article,[role=article]",
    "dialog": "dialog,[role=dialog]",
    "form": "form,[role=form]",
    "grid": "[role=grid]",
    "group": "fieldset,[role=group]",
    "list": "ul,ol,[role=list]",
    "listitem": "li,[role=listitem]",
    "main": "main,[role=main]",
    "navigation": "nav,[role=navigation]",
    "region": "section,[role=region]",
    "row": "tr,[role=row]",
    "table": "table,[role=table]",
    "tabpanel": "[role=tabpanel]",
}
FIELDS = frozenset({"textbox", "textarea", "number", "date", "time", "combobox", "spinbutton", "checkbox", "radio",
                    "slider", "color", "file"})  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One link of a locator. ``by``: "print" (role, name and number of its like, as recorded here), "role" (with a name
    or without), "label" (a field's), "text", "css", "xpath", "holds" (has this text in it), "nth" (-1 is the last)."""

    by: Literal["print", "role", "label", "text", "css", "xpath", "holds", "nth"]
    text: str = ""
    role: str = ""
    exact: bool = False
    pattern: bool = False  # the text is a regular expression
    number: int = 0

    def fits(self, name: str) -> bool:
        """Whether a name is meant by the text, as Playwright has it: in it, whatever its case, unless ``exact``."""
        name, text = _squash(name), self.text if self.pattern else _squash(self.text)
        if self.pattern:
            return re.search(text, name) is not None
        return name == text if self.exact else text.casefold() in name.casefold()


Chain = tuple[Part, ...]


@dataclass(frozen=True)
class Target:
    """An element, in one or several ways that are tried in turn; ``words`` is what the recording calls it."""

    ways: tuple[Chain, ...]
    words: str


@dataclass(frozen=True)
class Intent:
    """One thing to do. ``kind`` is that of an action, or "check", "uncheck", "reload"; ``targets`` are given to the
    action's references in order, ``values`` to its other arguments; ``where`` names file and line. ``copied`` is what
    could be read on the page when it was written into a field: it is not written before it can be read here, too."""

    kind: str
    targets: tuple[Target, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    copied: str = ""


class Page(Protocol):
    """The live page, for what an observation does not tell."""

    async def isolated(self, expression: str) -> Any: ...


def tidy(intents: Sequence[Intent]) -> tuple[Intent, ...]:
    """Without clicks into fields that are then filled: filling takes the focus by itself, and experts do just that."""
    kept: list[Intent] = []
    for intent in intents:
        if intent.kind in ("fill", "type"):
            while kept and kept[-1].kind in ("click", "dblclick") and kept[-1].targets == intent.targets:
                kept.pop()
        kept.append(intent)
    return tuple(kept)


def _squash(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


# -- finding -----------------------------------------------------------------------------------------------------------


async def find(target: Target, observation: Observation, page: Page | None, where: str = "") -> Element | None:
    """The element of a page that is meant; None if it is not there.

    Raises:
        DataError: a selector that is none, or one that needs a page where there is none.
    """
    for chain in target.ways:
        selected, narrowing = chain[0], chain[1:]
        outermost = selected.by not in ("css", "xpath") and not (selected.role in CONTAINERS and narrowing)
        found = None
        if outermost and all(part.by == "nth" for part in narrowing):
            found = _numbered(select(selected, observation.elements), narrowing)
        elif page is not None or chain == target.ways[-1]:
            found = await _on_page(chain, observation, page, where)
        if found is not None:
            return found
    return None


def select(part: Part, elements: Sequence[Element]) -> list[Element]:
    """The elements that a part means, in page order."""
    known = [element for element in elements if element.ref is not None]
    if part.by == "print":
        alike = [e for e in known if (e.role, e.name) == (part.role, part.text)]
        return [e for e in alike if e.nth == part.number] or (alike if len(alike) == 1 else [])
    if part.by == "label":
        fields = [e for e in known if e.role in FIELDS and part.fits(e.name)]
        return fields or [e for e in known if part.fits(e.name)]
    if part.by == "text":
        return [e for e in known if part.fits(e.name)]
    roles = ROLES.get(part.role, frozenset({part.role}))
    of_role = [e for e in known if e.role in roles]
    if not part.text:
        return of_role
    return [e for e in of_role if part.fits(e.name)] or [e for e in known if _squash(e.name) == _squash(part.text)]


def _numbered(found: Sequence[Element], narrowing: Chain) -> Element | None:
    """One of several: the one that is asked for, else one with exactly the name, else the shortest name."""
    if narrowing:
        number = narrowing[-1].number
        return found[number] if -len(found) <= number < len(found) else None
    return min(found, key=lambda element: len(element.name), default=None)


async def _on_page(chain: Chain, observation: Observation, page: Page | None, where: str) -> Element | None:
    """A chain that leads through the page's own structure."""
    if page is None:
        raise DataError("a selector needs a page in a browser", where=where, remedy="choose a task that has one")
    parts = [
        written for place, part in enumerate(chain) for written in _written(part, place < len(chain) - 1, observation)
    ]
    answer = await page.isolated(f"({MATCH_SCRIPT})({json.dumps(parts)})")
    if isinstance(answer, dict):
        raise DataError(f"the selector cannot be used: {answer['error']}", where=where, remedy="mend it in the file")
    shown = {element.ref: element for element in observation.elements if element.ref is not None}
    for refs in answer:
        element = next((shown[ref] for ref in refs if ref in shown), None)
        if element is not None:
            return element
    return None


def _written(part: Part, inner: bool, observation: Observation) -> list[dict[str, Any]]:
    """A part in match.js's words. ``inner``: others follow it."""
    if part.by == "css":
        return [{"css": part.text}]
    if part.by == "xpath":
        return [{"xpath": part.text}]
    if part.by == "nth":
        return [{"nth": part.number}]
    if part.by == "holds":
        return [_holding(part)]
    if inner and part.role in CONTAINERS:
        holds = [_holding(part)] if part.text else []
        return [{"css": CONTAINERS[part.role]}, *holds]
    return [{"refs": [element.ref for element in select(part, observation.elements)]}]


def _holding(part: Part) -> dict[str, Any]:
    """``(?i)`` is Python's way to say what JavaScript says beside the expression."""
    flags = "i" if part.pattern and part.text.startswith("(?i)") else ""
    return {"holds": part.text.removeprefix("(?i)") if flags else part.text, "pattern": part.pattern, "flags": flags}


# -- acting ------------------------------------------------------------------------------------------------------------


class IntentAgent:
    """Acts a list of intents out. One object plays one episode: it remembers which intent is next.

    Args:
        intents: in order.
        name: recorded as the agent.
        profile: prompt profile by name.
        page: gives the live page, for selectors; None: there is none.
    """

    def __init__(
        self,
        intents: Sequence[Intent],
        name: str,
        profile: str = "pocket",
        page: Callable[[], Page | None] | None = None,
    ) -> None:
        self._intents, self._name, self._profile = list(intents), name, get_profile(profile)
        self._page = page or (lambda: None)
        self._at = self._waits = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def policy_version(self) -> str:
        return self._name

    @property
    def context_policy(self) -> str:
        return self._profile.id

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """The next intent as an action; a wait where its element is not there yet; ``report_infeasible`` where it does
        not come, or nothing is left to do.

        Raises:
            DataError: a selector that cannot be used.
        """
        if not history:
            self._at = self._waits = 0
        thought, action = await self._decide(observation, history)
        return Move(
            action=action,
            thought=thought if self._profile.thought else "",
            completion=render_completion(self._profile, thought, action),
            messages=render(self._profile, observation, history),
        )

    async def _decide(self, observation: Observation, history: Sequence[Step]) -> tuple[str, Action]:
        while self._at < len(self._intents):
            intent = self._intents[self._at]
            found = [await find(target, observation, self._page(), intent.where) for target in intent.targets]
            elements = [element for element in found if element is not None]
            missing = next((t.words for t, e in zip(intent.targets, found, strict=True) if not _ready(e)), None)
            if missing is None and intent.copied and not _read(intent.copied, observation, history):
                missing = f"the text {intent.copied!r}"
            if missing is not None:
                return self._wait(
                    WAITS_MS,
                    f"wait for {missing}",
                    f"{missing} is not there{f' ({intent.where})' if intent.where else ''}",
                )
            action = _action(intent, elements, observation)
            self._at, self._waits = self._at + 1, 0
            if action is not None:
                return _thought(action, elements, observation), action
        return self._wait(WAITS_MS[:LAST_WAITS], "wait for the answer", "the recording ends here")

    def _wait(self, waits: Sequence[float], thought: str, last_word: str) -> tuple[str, Action]:
        if self._waits >= len(waits):
            return last_word, ReportInfeasible(reason=last_word)
        self._waits += 1
        return thought, Noop(wait_ms=waits[self._waits - 1])


def _read(text: str, observation: Observation, history: Sequence[Step]) -> bool:
    """Whether a text can be read on the page, or could be earlier."""
    seen = (observation, *(step.observation for step in reversed(history)))
    return any(text in element.name or text in (element.value or "") for one in seen for element in one.elements)


def _ready(element: Element | None) -> bool:
    return element is not None and "disabled" not in element.states


def _action(intent: Intent, elements: Sequence[Element], observation: Observation) -> Action | None:
    """The public action of an intent; None where nothing is left to do."""
    refs = [element.ref or "" for element in elements]
    if intent.kind in ("check", "uncheck"):
        wanted = intent.kind == "check"
        return None if ("checked" in elements[0].states) is wanted else Click(ref=refs[0])
    if intent.kind == "reload":
        return Goto(url=observation.url)
    if intent.kind == "goto":
        return Goto(url=_moved(intent.values["url"], observation.url))
    model = ACTIONS[intent.kind]
    names = [name for name in model.arguments if name in ("ref", "from_ref", "to_ref")]
    action: Action = model(**dict(zip(names, refs, strict=True)), **intent.values)  # type: ignore[assignment]
    return action


def _thought(action: Action, elements: Sequence[Element], observation: Observation) -> str:
    """What experts think as well: the label of what is acted on, or of what lies at the point."""
    if elements:
        return " to ".join(element.label for element in elements)
    named = {name: getattr(action, name) for name in action.arguments}
    ends = ((named.get(f"{end}x"), named.get(f"{end}y")) for end in ("", "from_", "to_"))
    labels = [label for x, y in ends if x is not None and y is not None and (label := _at(observation, x, y))]
    return " to ".join(labels) or action.kind.replace("_", " ")


def _at(observation: Observation, x: float, y: float) -> str:
    """The label of the smallest element with a name at a point; empty where there is none."""
    boxes = ((element.box, element.label) for element in observation.elements if element.box and element.name)
    under = [(width * height, label) for (left, top, width, height), label in boxes
             if left <= x <= left + width and top <= y <= top + height]  # fmt: skip
    return min(under, default=(0.0, ""))[1]


def _moved(url: str, here: str) -> str:
    """An address of the recorded site on the site that is played."""
    now, then = urlsplit(here), urlsplit(url)
    if not now.scheme.startswith("http") or not then.netloc:
        return url
    return urlunsplit((now.scheme, now.netloc, then.path or "/", then.query, then.fragment))


async def act_out(
    intents: Sequence[Intent], task: Task, environment: Environment, *, name: str, profile: str = "pocket"
) -> Trajectory:
    """Play a task by a list of intents. The record is one of public actions, whatever the intents came from.

    Raises:
        DataError: a selector that cannot be used.
    """
    agent = IntentAgent(intents, name, profile, lambda: getattr(environment, "session", None))
    return await run_episode(environment, agent, task)
