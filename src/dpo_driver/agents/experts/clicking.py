"""Experts for the families that are solved by clicking. Listed in agents/oracle.py, used by nobody else."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, Page

_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
_WIDGETS = {"text": "textbox", "textarea": "textarea", "radio": "radio", "checkbox": "checkbox", "button": "button"}


def click_button(page: Page) -> Decision:
    """Click on the "yes" button."""
    return page.click(page.named(page.read(r'"(.*)"')[1], "button"))


def click_only_button(page: Page) -> Decision:
    """Click the button."""
    return page.click(page.nth(1, "button"))


def click_numbered_button(page: Page) -> Decision:
    """Click button ONE."""
    return page.click(page.named(page.read(r"button (\w+)")[1], "button"))


def click_button_sequence(page: Page) -> Decision:
    """Click button ONE, then click button TWO."""
    buttons = [page.named(name, "button") for name in re.findall(r"button (\w+)", page.goal)]
    for button in buttons:
        if not page.clicked(button) or (page.observation.last_error and button.ref == _last_ref(page)):
            return page.click(button)
    raise Lost("every button of the sequence was clicked")


def _last_ref(page: Page) -> str | None:
    return getattr(page.history[-1].action, "ref", None) if page.history else None


def click_link(page: Page) -> Decision:
    """Click on the link "felis,"."""
    return page.click(page.named(page.read(r'link "(.*)"')[1], "link", "clickable"))


def close_dialog(page: Page) -> Decision:
    """Close the dialog box by clicking the "x"."""
    return page.click(page.maybe("Close", "button") or page.nth(1, "button"))


def click_dialog_button(page: Page) -> Decision:
    """Click the button in the dialog box labeled "OK"."""
    name = page.read(r'labeled "(.*)"')[1]
    return page.click(page.named("Close" if name == "x" else name, "button"))


def click_widget(page: Page) -> Decision:
    """Click on a "textarea" widget."""
    return page.click(page.nth(1, _WIDGETS[page.read(r'"(\w+)" widget')[1]]))


def focus_text(page: Page) -> Decision:
    """Focus into the textbox."""
    return page.click(page.nth(1, "textbox"))


def focus_nth_text(page: Page) -> Decision:
    """Focus into the 2nd input textbox."""
    return page.click(page.nth(int(page.read(_ORDINAL.pattern)[1]), "textbox"))


def click_tab(page: Page) -> Decision:
    """Click on Tab #2."""
    return page.click(page.named(page.read(r"(Tab #\d)")[1], "tab", "link"))


def find_link_behind_tabs(page: Page) -> Decision:
    """Switch between the tabs (or expand the sections) to find and click on the link "elit"."""
    link = page.maybe(page.read(r'link "(.*)"')[1], "link", "clickable")
    if link is not None:
        return page.click(link)
    for tab in page.all("tab"):
        if not page.clicked(tab) and not {"selected", "expanded"} & set(tab.states):
            return page.click(tab)
    raise Lost("the link is behind no tab")


def navigate_tree(page: Page) -> Decision:
    """Navigate through the file tree. Find and click on the folder or file named "Deena"."""
    target = page.maybe(page.read(r'named "(.*)"')[1])
    if target is not None:
        return page.click(target)
    for item in page.all():
        if "collapsed" in item.states and not page.clicked(item):
            return page.click(item)
    raise Lost("no folder is left to open")


def expand_and_submit(page: Page) -> Decision:
    """Expand the section below and click submit."""
    section = page.nth(1, "tab")
    if not page.clicked(section):
        return page.click(section)
    return page.submit()
