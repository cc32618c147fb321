"""Closes what lies over the page: cookie banners, popups, a blocking window with its one true button among false ones.

Stateless: what was tried is read from the history. A window that stands there when a step begins is closed at once. One
that comes later may be left alone until it is in the way: when an element is covered, when a point is aimed at, or when
an action has had no effect. Called by agent.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from dpo_driver.agents.experts.page import Decision
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Action, KeyboardPress, Noop
from dpo_driver.core.records import Element, Observation

BUTTONS = ("button", "link", "clickable", "checkbox")
COVERED = re.compile(r"is covered by (?P<role>\w+)(?: \"(?P<name>[^\"]*)\")?")
CONSENT = re.compile(r"\bcookies?\b|\bconsent|\bprivacy\b|\bcrumbs?\b|\btrack(?:ing|ers)\b", re.IGNORECASE)
NEAR = 6  # elements after or before one, in reading order
# What closes a window, the plainest first. A banner that asks for consent is declined before it is accepted.
WORDS = (
    re.compile(r"^\W*(?:close|dismiss|hide|skip|cancel|exit|leave)\b", re.IGNORECASE),
    re.compile(r"^\W*(?:no\b|not (?:now|today|interested)|maybe later|later\b|never|another time)", re.IGNORECASE),
    re.compile(r"^\W*(?:reject|decline|refuse|deny|only (?:the )?(?:necessary|needed|essential))", re.IGNORECASE),
    re.compile(r"^\s*[x×✕✖✗⨯╳]\s*$", re.IGNORECASE),
    re.compile(
        r"\b(?:close|dismiss|no,? thank|without|back to|continue|go on|return|necessary|essential)", re.IGNORECASE
    ),
    re.compile(
        r"^\W*(?:ok(?:ay)?|got it|understood|i (?:see|understand)|fine|agree|accept|allow|yes)\b", re.IGNORECASE
    ),
)
ESCAPE = "Escape"
NEARLY = 40.0  # pixels: the padding of a banner
Box = tuple[float, float, float, float]
TRIES = 2  # of one button


def close(page: PuzzlePage) -> Decision | None:
    """The next try at a window that was there from the start, or covers what was aimed at; None if there is none, or
    everything was tried."""
    windows = _windows(page.observation)
    at_first = {name for name, _ in _windows(page.start)}
    standing = [window for window in windows if window[0] in at_first]
    if standing:
        return _try(page, *standing[-1])
    covered = COVERED.search(page.observation.last_error or "")
    if covered is None:
        return None
    if windows:
        return _try(page, *windows[-1])
    return _try(page, None, _around(page, covered["name"] or "") or _banner(page) or _beside_target(page))


def clear_the_way(page: PuzzlePage, action: Action) -> Decision | None:
    """The same for a window that came later, or a banner, where the next action would not notice that it is covered."""
    windows = _windows(page.observation)
    points = _points(action)
    for name, inside in reversed(windows):
        if _idle(page) or any(_over(inside[0], point) for point in points):
            return _try(page, name, inside)
    return _try(page, None, _banner(page)) if points else None


def _try(page: PuzzlePage, name: str | None, window: Sequence[Element]) -> Decision | None:
    """Escape first, which real windows obey; then the buttons in turn, the likeliest first."""
    tried = _tried(page, name)
    buttons = [e for e in window if e.ref is not None and e.role in BUTTONS and "disabled" not in e.states]
    said = "" if name is None else " ".join(e.name for e in window if e.role not in BUTTONS)
    order = sorted(buttons, key=lambda e: _rank(e, said))
    for attempt in range(TRIES):
        if name is not None and tried[ESCAPE] <= attempt:
            return "close", KeyboardPress(key=ESCAPE)
        for button in order:
            if tried[button.ref] <= attempt:
                return page.click(button)
    return None


def _rank(button: Element, said: str) -> int:
    """How likely a button closes its window: one that the window's own words name comes first."""
    if len(button.name) > 1 and re.search(rf"[\"“'‘]{re.escape(button.name)}[\"”'’]", said):
        return -1
    return next((rank for rank, pattern in enumerate(WORDS) if pattern.search(button.name)), len(WORDS))


def _closes(element: Element) -> bool:
    return element.ref is not None and element.role in BUTTONS and _rank(element, "") < len(WORDS)


def _tried(page: PuzzlePage, name: str | None) -> Counter[str | None]:
    """How often each element was reached on this step, and Escape pressed while a window of this name was open."""
    tried: Counter[str | None] = Counter()
    after = [*(step.observation for step in page.history[1:]), page.observation]
    for step, then in zip(page.history, after, strict=False):
        if isinstance(step.action, KeyboardPress):
            open_then = [title for title, _ in _windows(step.observation)]
            tried[step.action.key] += name in open_then[-1:]
        elif (ref := getattr(step.action, "ref", None)) is not None and not then.last_error:
            tried[ref] += 1
    return tried


def _windows(observation: Observation) -> list[tuple[str, list[Element]]]:
    """The dialogs, the topmost last: their names, and themselves with what lies in them."""
    elements = observation.elements
    return [
        (element.name, [element, *_inside(element, elements[index + 1 :])])
        for index, element in enumerate(elements)
        if element.role == "dialog"
    ]


def _inside(dialog: Element, after: Sequence[Element]) -> list[Element]:
    """What lies in a dialog's box; all that follows where boxes do not tell."""
    if dialog.box is None:
        return list(after)
    found = []
    for element in after:
        # Running text has no box; it belongs to what stands around it.
        if element.box is not None and not _over(dialog, _middle(element.box)):
            break
        found.append(element)
    return found or list(after)


def _around(page: PuzzlePage, name: str) -> list[Element]:
    """What may close something around the element of that name, which may be cut short and go on with other names."""
    elements = page.observation.elements
    start = name.rstrip("…").strip()
    at = next((i for i, e in enumerate(elements) if start and (e.name or "-").startswith(start)), None)
    if at is None:
        at = next((i for i, e in enumerate(elements) if len(e.name) > 3 and start.startswith(e.name)), None)
    return [] if at is None else _closers_at(page, at)


def _closers_at(page: PuzzlePage, at: int) -> list[Element]:
    """What may close something shortly after an element, else before it; never the button that sends the code off."""
    elements = page.observation.elements
    code = elements.index(page.code_field) if page.all("textbox") else -1
    sends = next((e.ref for e in elements[code + 1 :] if e.role in BUTTONS), None) if code >= 0 else None
    for part in (elements[at : at + NEAR + 1], elements[max(0, at - NEAR) : at]):
        found = [e for e in part if _closes(e) and e.ref != sends]
        if found:
            return found
    return []


def _banner(page: PuzzlePage) -> list[Element]:
    """What closes a banner that asks for consent. It is known by its words; of several, one that lies over the element
    that was aimed at, else the last on the page, for what lies above comes late."""
    aimed = _aimed(page)
    target = aimed.box if aimed is not None else None
    found: list[list[Element]] = []
    for at, element in reversed(list(enumerate(page.observation.elements))):
        if element.role not in BUTTONS and CONSENT.search(element.name):
            closers = _closers_at(page, at)
            if closers and target is not None and any(_beside(e.box, target) for e in (element, *closers)):
                return closers
            found += [closers] if closers else []
    return found[0] if found else []


def _aimed(page: PuzzlePage) -> Element | None:
    """The element that the last action was meant for."""
    ref = getattr(page.history[-1].action, "ref", None) if page.history else None
    return next((e for e in page.observation.elements if e.ref is not None and e.ref == ref), None)


def _beside(box: Box | None, target: Box) -> bool:
    """Whether two boxes lie over each other, or nearly."""
    if box is None:
        return False
    return all(box[i] - NEARLY < target[i] + target[i + 2] and target[i] - NEARLY < box[i] + box[i + 2] for i in (0, 1))


def _beside_target(page: PuzzlePage) -> list[Element]:
    """What may close something after the element that was aimed at, the nearest first."""
    aimed = _aimed(page)
    if aimed is None or aimed.box is None:
        return []
    x, y = _middle(aimed.box)
    found = []
    for element in page.observation.elements[page.observation.elements.index(aimed) + 1 :]:
        if _closes(element) and element.box is not None:
            across, down = _middle(element.box)
            found.append((abs(across - x) + abs(down - y), element))
    return [element for _, element in sorted(found, key=lambda pair: pair[0])]


def _idle(page: PuzzlePage) -> bool:
    """Whether the last action changed nothing."""
    last = page.history[-1] if page.history else None
    waited = last is None or last.action is None or isinstance(last.action, Noop)
    return not waited and last is not None and last.observation.state_hash == page.observation.state_hash


def _points(action: Action) -> list[tuple[float, float]]:
    """Points of the viewport that a mouse action aims at."""
    points = []
    for across, down in (("x", "y"), ("from_x", "from_y"), ("to_x", "to_y")):
        if hasattr(action, across):
            points.append((getattr(action, across), getattr(action, down)))
    return points


def _middle(box: Box) -> tuple[float, float]:
    left, top, width, height = box
    return left + width / 2, top + height / 2


def _over(element: Element, point: tuple[float, float]) -> bool:
    """Whether an element's box holds a point; one without a box may."""
    if element.box is None:
        return True
    left, top, width, height = element.box
    return left <= point[0] <= left + width and top <= point[1] <= top + height
