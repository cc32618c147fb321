"""The MiniWoB++ task families by name: how many steps an agent gets, and which pages must be loaded anew each time.

``make_task("click-button", 7, "test")`` is the task that agents and records speak of. Older ids are read as well:
``browsergym/miniwob.click-test``, ``miniwob.click-test``, ``click-test-v1``. Called by the flywheel, the environment
and the gymnasium face. Must not import the browser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.records import Split, Task


@dataclass(frozen=True)
class TaskSpec:
    """One family. ``max_steps`` is about twice what an expert needs. ``reload``: a restart in place leaves traces of
    the episode before, so its page is loaded again for every episode (about 0.1 s). ``clocked``: the task runs against
    time, so its clock goes on by actions only: 0.1 s for each, or what a noop says (clock.js)."""

    name: str
    max_steps: int
    reload: bool = False
    clocked: bool = False


# All families of the package by step limit.
_FAMILIES = {
    3: """
        click-button click-color click-dialog click-dialog-2 click-link click-shape click-tab click-test
        click-test-2 click-test-transfer click-widget count-shape count-sides focus-text focus-text-2
        grid-coordinate identify-shape simple-algebra unicode-test
    """,
    5: """
        bisect-angle button-delay choose-list circle-center click-button-sequence click-collapsible
        click-collapsible-nodelay click-option click-pie click-pie-nodelay click-tab-2-easy copy-paste copy-paste-2
        drag-box drag-circle drag-single-shape draw-line enter-date enter-text enter-text-2 enter-text-dynamic
        enter-time find-midpoint find-word highlight-text highlight-text-2 read-table resize-textarea right-angle
        simple-arithmetic text-transform visual-addition
    """,
    8: """
        click-menu click-menu-2 click-scroll-list click-tab-2 click-tab-2-hard click-tab-2-medium email-inbox-delete
        email-inbox-important email-inbox-noscroll enter-password form-sequence-2 form-sequence-3 login-user
        login-user-popup navigate-tree odd-or-even phone-book read-table-2 scroll-text scroll-text-2 search-engine
        tic-tac-toe use-autocomplete use-autocomplete-nodelay use-spinner
    """,
    10: """
        drag-items drag-items-grid drag-shapes drag-shapes-2 drag-sort-numbers find-greatest guess-number
        hover-shape use-colorwheel use-colorwheel-2
    """,
    15: """
        choose-date-easy choose-date-medium click-checkboxes click-checkboxes-soft click-checkboxes-transfer
        click-collapsible-2 click-collapsible-2-nodelay click-shades drag-cube email-inbox email-inbox-forward
        email-inbox-forward-nl email-inbox-forward-nl-turk email-inbox-nl-turk email-inbox-reply
        email-inbox-star-reply form-sequence generate-number social-media
    """,
    25: """
        ascending-numbers book-flight book-flight-nodelay buy-ticket choose-date choose-date-nodelay
        click-checkboxes-large daily-calendar draw-circle hot-cold multi-layouts multi-orderings number-checkboxes
        order-food sign-agreement simon-says social-media-all social-media-some terminal text-editor use-slider
    """,
    60: """
        moving-items use-slider-2
    """,
    160: """
        chase-circle stock-market
    """,
}

# Families that a restart in place does not make fresh: widgets that keep their value, scroll positions, animations that
# go on, baskets. Found by comparing fresh pages with restarted ones; tests/browser/test_miniwob.py goes on comparing.
_RELOADED = """
    book-flight book-flight-nodelay choose-date choose-date-easy choose-date-medium choose-date-nodelay click-pie
    click-pie-nodelay drag-cube form-sequence grid-coordinate moving-items order-food scroll-text scroll-text-2
    search-engine simon-says use-autocomplete use-autocomplete-nodelay use-colorwheel use-colorwheel-2 use-slider
    use-slider-2
"""

# Families whose tasks run against time, or show it (the terminal's date and cursor).
_CLOCKED = """
    button-delay chase-circle click-pie hover-shape moving-items simon-says stock-market terminal
"""

TASKS: dict[str, TaskSpec] = {
    name: TaskSpec(name, steps, name in f"{_RELOADED} {_CLOCKED}".split(), name in _CLOCKED.split())
    for name, steps in sorted((name, steps) for steps, names in _FAMILIES.items() for name in names.split())
}

_ALIAS = re.compile(r"^(?:browsergym/)?(?:miniwob[./])?(?P<name>.+?)(?:-v\d+)?$")


def find_task(name: str) -> TaskSpec:
    """The family of a name or alias. UnknownNameError lists close names."""
    match = _ALIAS.match(name)
    spec = TASKS.get(match["name"]) if match else None
    if spec is None:
        raise UnknownNameError("MiniWoB++ task", name, TASKS)
    return spec


def make_task(name: str, seed: int, split: Split = "train") -> Task:
    """``make_task("browsergym/miniwob.click-test", 7).id == "miniwob.click-test/7"``."""
    spec = find_task(name)
    task_id = f"miniwob.{spec.name}/{seed}"
    return Task(id=task_id, env="miniwob", name=spec.name, seed=seed, split=split, max_steps=spec.max_steps)
