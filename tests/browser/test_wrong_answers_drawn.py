"""The graders of drawn families refuse what is wrong: each plan here errs on purpose and must not succeed."""

from __future__ import annotations

import pytest

from dpo_driver.agents.experts import games, shapes
from dpo_driver.agents.experts.page import Decision, Page
from dpo_driver.agents.experts.places import center, click_at, drag, shown, wait
from dpo_driver.agents.oracle import ORACLES, Expert, OracleAgent
from dpo_driver.core.actions import Click, MouseClick, MouseDragAndDrop
from dpo_driver.core.records import StopReason, Trajectory
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.pool import rollout_sync

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]
SEEDS = (600, 601)


def another(family: str) -> Expert:
    """Click the same kind of element as the expert, but another one."""

    def plan(page: Page) -> Decision:
        _thought, action = ORACLES[family](page)
        assert isinstance(action, Click)
        right = next(e for e in page.all() if e.ref == action.ref)
        kind = "" if right.role == "button" else right.name.split()[-1]  # a circle for a circle
        others = [e for e in page.all(right.role) if e.ref != right.ref and e.name.endswith(kind)]
        return page.click(others[0])

    return plan


def at_once(page: Page) -> Decision:
    """Submit without having done anything."""
    return page.submit()


def wrong_shape(page: Page) -> Decision:
    """Click one that the expert's description does not fit."""
    fitting = {e.ref for e in shapes.matching(page, page.read(r"Click on a (.*)")[1])}
    return page.click(next(e for e in page.all("clickable") if e.ref not in fitting))


def backwards(page: Page) -> Decision:
    """Drag the shape the other way."""
    if any(isinstance(step.action, MouseDragAndDrop) for step in page.history):
        return page.submit()
    x, y = {"left": (25, 0), "right": (-25, 0), "up": (0, 25), "down": (0, -25)}[page.read(r"(\w+) then")[1]]
    shape = page.nth(1, "image", "clickable")
    at = center(shape)
    return drag(shape.label, at, (at[0] + 2 * x, at[1] + 2 * y))


def across(page: Page) -> Decision:
    """Draw the line crosswise."""
    if page.history:
        return page.submit()
    x, y = center(page.nth(1, "image", "clickable"))
    flat = "horizontal" in page.goal
    return drag("dot", (x, y - 25) if flat else (x - 25, y), (x, y + 25) if flat else (x + 25, y))


def beside(page: Page) -> Decision:
    """Mark a point that halves nothing: one of the angle's own ends."""
    if any(isinstance(step.action, MouseClick) for step in page.history):
        return page.submit()
    return click_at("end", center(shown(page, "black circle")[0]))


def last_first(page: Page) -> Decision:
    """Begin with the greatest number."""
    return page.click(max((e for e in page.all() if e.name.isdigit()), key=lambda e: int(e.name)))


def idle(page: Page) -> Decision:
    """Let the time run out."""
    return wait(5000)


def same_button(page: Page) -> Decision:
    """Push a button that does not blink first, over and over."""
    if not page.history:
        return wait(700)
    lit = games.blinked(page)
    return page.click(next(e for e in page.all("button") if e.ref not in lit[:1]))


WRONG: dict[str, Expert] = {
    "ascending-numbers": last_first,
    "bisect-angle": beside,
    "chase-circle": idle,
    "click-color": another("click-color"),
    "click-shades": at_once,
    "click-shape": wrong_shape,
    "count-shape": another("count-shape"),
    "count-sides": another("count-sides"),
    "drag-box": at_once,
    "drag-circle": backwards,
    "drag-single-shape": backwards,
    "draw-circle": at_once,
    "draw-line": across,
    "grid-coordinate": another("grid-coordinate"),
    "highlight-text": at_once,
    "identify-shape": another("identify-shape"),
    "moving-items": idle,
    "number-checkboxes": at_once,
    "odd-or-even": at_once,
    "resize-textarea": at_once,
    "right-angle": beside,
    "scroll-text-2": at_once,
    "simon-says": same_button,
    "use-colorwheel": at_once,
    "use-slider": at_once,
    "use-slider-2": at_once,
    "visual-addition": at_once,
}


@pytest.fixture(scope="module")
def played() -> list[Trajectory]:
    found: list[Trajectory] = []
    rollout_sync(
        [make_task(family, seed) for family in WRONG for seed in SEEDS],
        OracleAgent(experts=WRONG),
        environments=MiniwobEnvironment.source,
        stage="test",
        on_trajectory=found.append,
        workers=3,
    )
    return found


@pytest.mark.parametrize("family", WRONG)
def test_what_is_wrong_is_refused(family: str, played: list[Trajectory]) -> None:
    mine = [t for t in played if t.task.name == family]
    assert len(mine) == len(SEEDS)
    for trajectory in mine:
        assert trajectory.failure is None
        assert trajectory.stop_reason is StopReason.WRONG
        assert trajectory.success is False
        assert trajectory.reward is not None and trajectory.reward < 0.99
