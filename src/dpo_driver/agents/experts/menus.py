"""Experts for menus that open when the pointer is over them. Listed in agents/oracle.py, used by nobody else."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Page

_ICONS = {"disk": "Save", "seek start": "Prev", "stop": "Stop", "play": "Play", "seek end": "Next"}
_ICONS |= {"zoomin": "Zoom In", "zoomout": "Zoom Out"}


def select_in_menu(page: Page) -> Decision:
    """Select Alvera>Terza>Ludovika."""
    *folders, leaf = page.read(r"Select (.*)")[1].split(">")
    for name in reversed(folders):
        item = page.maybe(name, "item", "menuitem")
        if item is None:
            continue
        if "expanded" not in item.states:
            return page.hover(item)
        break
    return page.click(page.named(leaf, "item", "menuitem"))


def select_behind_button(page: Page) -> Decision:
    """Click the "Menu" button, and then find and click on the item labeled "Prev" (or: with the ui icon disk icon)."""
    if page.maybe("Playback", "item", "menuitem") is None:
        return page.submit("Menu")
    labelled = re.search(r'labeled "(.*)"', page.goal)
    wanted = labelled[1] if labelled else _ICONS[page.read(r"ui icon (.*) icon")[1]]
    item = page.maybe(wanted, "item", "menuitem")
    return page.click(item) if item else page.hover(page.named("Playback", "item", "menuitem"))
