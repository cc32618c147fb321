"""A person in a browser window, recorded: what they do becomes intents in the public actions.

:func:`watch` resets an environment to a task, listens while the person plays, and ends with the episode. The intents
are then acted out in a fresh environment (rollout/intents.py): the record is of public actions and of what an agent
sees between them, not of the person's hand. So what the public actions cannot repeat is found out at once. Waits stand
in it only where the page changed by itself. Called by ``dpo-driver collect --agent human``. Must not import
environments.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpo_driver.browser.gestures import Gesture, Gestures
from dpo_driver.browser.observe import Limits
from dpo_driver.browser.session import Session
from dpo_driver.core.actions import Action, Noop, TabFocus
from dpo_driver.core.errors import DriverError, RolloutFailure
from dpo_driver.core.protocols import Environment
from dpo_driver.core.records import StopReason, Task
from dpo_driver.rollout.intents import Intent, Part, Target, tidy

IDLE_S = 1800.0  # without any input: the person has gone
LOOK_S = 2.0  # how soon it is noticed that the window was closed
LATE_S = 0.3
UNLIMITED = 100_000  # steps of the live episode: every look at it counts as one
WAIT_STEP_MS = 50.0
MOST_WAIT_MS = 10_000.0
WAITS_IN_A_ROW = 12  # a page that never rests is not written down frame by frame
STRAIGHT_PX = 12.0  # how far a drag may leave the straight line between its ends
CORNER_PX = 8.0  # the same between the corners of a stroke
Point = tuple[float, float]


@dataclass(frozen=True)
class Played:
    """What a person did and what ended the episode."""

    intents: tuple[Intent, ...]
    stop: StopReason
    reward: float


async def watch(
    environment: Environment, task: Task, limits: Limits, show: Callable[[str], None] = lambda _text: None
) -> Played:
    """Let a person play a task in the environment's own window.

    Args:
        environment: has a ``session``; reset here.
        limits: those of the environment's observations, so that elements are counted alike.
        show: told the goal.

    Raises:
        DriverError: the environment has no page.
        RolloutFailure: the page or the browser broke, the window was closed, or nobody was there.
    """
    observation = await environment.reset(task.model_copy(update={"max_steps": UNLIMITED}))
    session = getattr(environment, "session", None)
    if session is None:
        raise DriverError(f"{task.env} has no page that a person could use", where=task.id)
    doings, reward, idle = Doings(session, time.time()), 0.0, 0.0
    async with Gestures.of(session, limits) as gestures:
        show(observation.goal)
        while idle < IDLE_S:
            gesture = await gestures.next(LOOK_S)
            idle = idle + LOOK_S if gesture is None else 0.0
            for action in doings.add(gesture) if gesture is not None else ():
                outcome = await environment.step(action)
                reward += outcome.reward or 0.0
                if outcome.stop is not None:
                    await _late(gestures, doings)
                    return Played(tidy(doings.intents), outcome.stop, reward)
    raise RolloutFailure(StopReason.CANCELLED, f"nothing was done for {IDLE_S:g} s")


async def _late(gestures: Gestures, doings: Doings) -> None:
    """What had been done when the end was seen, and had not been told yet."""
    while (gesture := await gestures.next(LATE_S)) is not None:
        if gesture.kind not in ("changed", "hover", "closed"):
            doings.add(gesture)


class Doings:
    """Gestures as intents.

    Args:
        session: the live one; which of its tabs it sees is what an agent's would see.
        began: when the person could begin, in seconds since the epoch.
    """

    def __init__(self, session: Session, began: float) -> None:
        self.intents: list[Intent] = []
        self._session, self._last = session, began
        self._turned: tuple[bool, Target | None] = (False, None)  # what the wheel turned last

    def add(self, gesture: Gesture) -> list[Action]:
        """One more gesture. Gives what the live environment is to do: to see the tab that the person sees, and to look
        at what came of it."""
        live: list[Action] = []
        if gesture.kind == "closed":
            self._do("tab_close")
        elif gesture.kind != "changed" or gesture.tab == self._seen:
            if gesture.tab != self._seen:
                self._do("tab_focus", index=gesture.tab)
                live.append(TabFocus(index=gesture.tab))
            getattr(self, f"_{gesture.kind}")(gesture, gesture.told)
            self._last = gesture.at
        return [*live, Noop()]

    @property
    def _seen(self) -> int:
        pages = self._session.tabs.pages
        return pages.index(self._session.page) if self._session.page in pages else 0

    def _do(self, kind: str, *targets: Target, **values: Any) -> None:
        self.intents.append(Intent(kind, targets, values))

    @property
    def _before(self) -> Intent | None:
        return self.intents[-1] if self.intents else None

    def _click(self, _gesture: Gesture, told: Mapping[str, Any]) -> None:
        target = _target(told["target"])
        if target is None or told["picture"]:
            x, y = told["point"]
            self._do("mouse_click", x=x, y=y, button=told["button"])
        else:
            self._do("click", target, button=told["button"], modifiers=tuple(told["modifiers"]))

    def _dblclick(self, _gesture: Gesture, told: Mapping[str, Any]) -> None:
        target = _target(told["target"])
        for _ in range(2):  # the clicks that it consists of
            if self._before is not None and self._before.kind in ("click", "mouse_click"):
                self.intents.pop()
        if target is None or told["picture"]:
            x, y = told["point"]
            self._do("mouse_dblclick", x=x, y=y)
        else:
            self._do("dblclick", target)

    def _drag(self, _gesture: Gesture, told: Mapping[str, Any]) -> None:
        start, end = _target(told["target"]), _target(told["to"])
        path = [(float(x), float(y)) for x, y in told["path"]]
        straight = _bulge(path)[1] <= STRAIGHT_PX
        if straight and start is not None and end is not None and start != end and not told.get("picture"):
            self._do("drag_and_drop", start, end)
        elif straight:
            (x, y), (to_x, to_y) = path[0], path[-1]
            self._do("mouse_drag_and_drop", from_x=x, from_y=y, to_x=to_x, to_y=to_y)
        else:
            first, *between, last = corners(path)
            self._do("mouse_down", x=first[0], y=first[1])
            for x, y in between:
                self._do("mouse_move", x=x, y=y)
            self._do("mouse_up", x=last[0], y=last[1])

    def _fill(self, _gesture: Gesture, told: Mapping[str, Any]) -> None:
        target, value, before = _target(told["target"]), told["value"], told["before"]
        if target is None:
            self._do("keyboard_type", text=value.removeprefix(before or ""))
        elif told["answered"] and before is not None and value.startswith(before):
            self._do("type", target, text=value[len(before) :])  # the page answers to keys
        else:
            if self._before is not None and self._before.kind == "fill" and self._before.targets == (target,):
                self.intents.pop()
            copied = value if told["copied"] else ""
            self.intents.append(Intent("fill", (target,), {"value": value}, copied=copied))

    def _select(self, _gesture: Gesture, told: Mapping[str, Any]) -> None:
        target = _target(told["target"])
        if target is not None:
            self._do("select_option", target, options=tuple(told["options"]))

    def _press(self, _gesture: Gesture, told: Mapping[str, Any]) -> None:
        target = _target(told["target"])
        if target is None:
            self._do("keyboard_press", key=told["key"])
        else:
            self._do("press", target, key=told["key"])

    def _scroll(self, _gesture: Gesture, told: Mapping[str, Any]) -> None:
        over, before = _target(told["over"]), self._before
        dx, dy = float(told["dx"]), float(told["dy"])
        if before is not None and before.kind == "scroll" and (told["inner"], over) == self._turned:
            self.intents.pop()
            dx, dy = dx + before.values["delta_x"], dy + before.values["delta_y"]
        elif over is not None and before != Intent("hover", (over,)):
            self._do("hover", over)  # the wheel turns what lies under the pointer
        elif told["inner"] and over is None:
            self._do("mouse_move", x=told["point"][0], y=told["point"][1])
        self._turned = (told["inner"], over)
        self._do("scroll", delta_x=dx, delta_y=dy)

    def _hover(self, _gesture: Gesture, told: Mapping[str, Any]) -> None:
        target = _target(told["target"])
        if target is not None and self._before != Intent("hover", (target,)):
            self._do("hover", target)

    def _changed(self, gesture: Gesture, told: Mapping[str, Any]) -> None:
        """The page changed by itself: an agent has to wait for it, too. What is only seen for a moment is waited for by
        itself, so that it stands in what the agent has seen."""
        passed = max(WAIT_STEP_MS, WAIT_STEP_MS * math.ceil(1000 * (gesture.at - self._last) / WAIT_STEP_MS))
        waits = [intent.kind for intent in self.intents[-WAITS_IN_A_ROW:]].count("noop")
        before = self._before
        if before is not None and before.kind == "noop" and (not told["gone"] or waits >= WAITS_IN_A_ROW):
            total = before.values["wait_ms"] + passed
            if total <= MOST_WAIT_MS:
                self.intents.pop()
                passed = total
        self._do("noop", wait_ms=min(MOST_WAIT_MS, passed))


def _target(told: Mapping[str, Any] | None) -> Target | None:
    """An element as it was called on the page."""
    if told is None:
        return None
    part = Part("print", told["name"], role=told["role"], number=told["nth"])
    ordinal = f" #{part.number}" if part.number > 1 else ""
    return Target(((part,),), f"{part.role} {part.text}{ordinal}")


def _bulge(path: Sequence[Point]) -> tuple[int, float]:
    """(index, distance) of the point that lies farthest from the line between the ends."""
    (x0, y0), (x1, y1) = path[0], path[-1]
    length = math.hypot(x1 - x0, y1 - y0)
    best = (0, 0.0)
    for index, (x, y) in enumerate(path):
        cross = (x1 - x0) * (y0 - y) - (x0 - x) * (y1 - y0)
        away = abs(cross) / length if length else math.hypot(x - x0, y - y0)
        best = max(best, (index, away), key=lambda one: one[1])
    return best


def corners(path: Sequence[Point]) -> list[Point]:
    """The fewest points of a stroke from which it strays no farther than a few pixels (Douglas and Peucker 1973)."""
    index, away = _bulge(path)
    if away <= CORNER_PX or len(path) < 3:
        return [path[0], path[-1]]
    return [*corners(path[: index + 1])[:-1], *corners(path[index:])]
