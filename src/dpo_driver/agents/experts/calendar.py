"""The expert for the day's calendar: drags over free half hours. Listed in agents/oracle.py, used by nobody else.

Which half hour lies below the pointer depends on the fonts: with wide ones the page sets its rows one hour too low. So
the expert looks where the event appears that it is drawing, and starts again beside it if that is not the right hour.
"""

from __future__ import annotations

from collections.abc import Iterator

from dpo_driver.agents.experts.page import Decision, Lost, Page
from dpo_driver.core.actions import MouseDown, MouseMove, MouseUp, Scroll
from dpo_driver.core.records import Element

_LENGTHS = {"0.5 hours": 1, "30 mins": 1, "1 hour": 2, "60 mins": 2, "1.5 hours": 3, "90 mins": 3}
_HOUR, _HALF = 41.0, 20.5  # heights in pixels
_START = 64.0  # where the first half hour is scrolled to, and how far from it is well
_NEAR = 30.0
_INSIDE = 5.0  # where a half hour is pressed, below its top
_ACROSS = 33.0  # left of all events, which lie on the half hours
_IN_EVENT = 90.0


def create_event(page: Page) -> Decision:
    """Create a 0.5 hours event named "Food", between 8AM and 12PM."""
    length, name, start, end = page.read(r'Create a (.*) event named "(.*)", between (\w+) and (\w+)').groups()
    field = page.maybe("Event name", "textbox")
    if field is not None:
        return page.fill_all([(field, name)]) or page.submit("Create")
    number = _LENGTHS[length]
    first = page.named(start.lower(), "text")
    top = next(_free(page, first, page.named(end.lower(), "text"), number), None)
    if top is None:
        raise Lost("no time is free")
    return first.label, _drag(page, top, number)


def _drag(page: Page, top: float, number: int) -> Scroll | MouseDown | MouseMove | MouseUp:
    """The next part of drawing an event of ``number`` half hours from ``top`` on."""
    last = page.history[-1].action if page.history else None
    pressed = next((s.action for s in reversed(page.history) if isinstance(s.action, MouseDown)), None)
    if pressed is None:
        if abs(top - _START) > _NEAR:
            return Scroll(delta_x=0, delta_y=top - _START)
        return MouseDown(x=_ACROSS, y=top + _INSIDE)
    if isinstance(last, MouseDown):
        return MouseMove(x=_ACROSS, y=pressed.y + _INSIDE)
    drawn = page.named("New event").box
    assert drawn is not None
    apart = round((drawn[1] - top) / _HOUR) * _HOUR
    if isinstance(last, MouseUp):
        return MouseDown(x=_ACROSS, y=pressed.y - apart)
    if apart:
        return MouseUp(x=_ACROSS, y=pressed.y + _INSIDE)
    if drawn[3] < number * (_HALF - 1):
        return MouseMove(x=_ACROSS, y=pressed.y + _HALF * (number - 1))
    return MouseUp(x=_IN_EVENT, y=drawn[1] + drawn[3] / 2)


def _free(page: Page, first: Element, last: Element, number: int) -> Iterator[float]:
    """Tops of the stretches of so many half hours on which no event lies."""
    begin, end = _top(first), _top(last)
    events = [e.box for e in page.all("text") if e.tag == "div" and e.name != "New event" and e.box is not None]
    for slot in range(round((end - begin) / _HALF) - number + 1):
        top = begin + slot * _HALF
        bottom = top + number * _HALF
        if not any(y < bottom - 2 and top + 2 < y + height for _, y, _, height in events):
            yield top


def _top(element: Element) -> float:
    assert element.box is not None
    return element.box[1]
