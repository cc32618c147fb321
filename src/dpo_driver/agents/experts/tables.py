"""Experts for looking things up: in a table, in a contact book. Listed in agents/oracle.py, used by nobody else."""

from __future__ import annotations

from itertools import pairwise

from dpo_driver.agents.experts.page import Decision, Lost, Page


def read_table(page: Page) -> Decision:
    """Enter the value of Color into the text field and press Submit."""
    wanted = page.read(r"the value of (.*) into the text field")[1]
    return page.fill_all([(page.nth(1, "textbox"), _cells(page)[wanted])]) or page.submit()


def read_table_into_form(page: Page) -> Decision:
    """Enter the value that corresponds with each label into the form and submit when done."""
    cells = _cells(page)
    return page.fill_all([(field, cells[field.name.rstrip(":")]) for field in page.all("textbox")]) or page.submit()


def _cells(page: Page) -> dict[str, str]:
    """The table's right column by its left one."""
    names = [element.name for element in page.all("cell")]
    return dict(zip(names[::2], names[1::2], strict=True))


def find_contact(page: Page) -> Decision:
    """Find Sayre in the contact book and click on their address."""
    person, wanted = page.read(r"Find (.*) in the contact book and click on their (\w+)").groups()
    if page.maybe(person, "heading") is None:
        return page.click(page.named(">", "link"))
    elements = page.all()
    for caption, link in pairwise(elements):
        if caption.name == f"{wanted.capitalize()}:" and link.role == "link":
            return page.click(link)
    raise Lost(f"the contact has no {wanted}")
