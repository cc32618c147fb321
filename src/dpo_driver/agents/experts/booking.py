"""Experts for picking dates, flights, tickets and dishes. Listed in agents/oracle.py, used by nobody else."""

from __future__ import annotations

import re
from datetime import datetime

from dpo_driver.agents.experts.page import Decision, Lost, Page
from dpo_driver.core.records import Element

_MONTHS = [datetime(2000, month, 1).strftime("%B") for month in range(1, 13)]


def choose_date(page: Page) -> Decision:
    """Select 03/05/2016 as the date and hit submit."""
    return _pick(page, page.nth(1, "textbox"), page.read(r"(\d\d/\d\d/\d{4})")[1]) or page.submit()


def _pick(page: Page, field: Element, date: str) -> Decision | None:
    """The next click towards a date (month/day/year) in a calendar that opens below a field; None when it is there."""
    if field.value == date:
        return None
    shown = next((e for e in page.all() if e.name in _MONTHS), None)
    if shown is None:
        return page.click(field)
    month, day, year = (int(part) for part in date.split("/"))
    ahead = 12 * (year - int(_after(page, shown).name)) + month - 1 - _MONTHS.index(shown.name)
    if ahead:
        return page.click(page.named("Next" if ahead > 0 else "Prev"))
    return page.click(page.named(str(day), "link"))


def _after(page: Page, element: Element) -> Element:
    found = page.all()
    return found[found.index(element) + 1]


def book_flight(page: Page) -> Decision:
    """Book the shortest one-way flight from: Cincinnati, OH to: LEX on 10/16/2016."""
    best, start, end, date = page.read(r"Book the (\w+) one-way flight from: (.*) to: (.*) on ([\d/]+)\.").groups()
    if page.maybe("Search", "button") is None:
        return _buy(page, lowest=True, by_price=best == "cheapest")
    for field, place in ((page.nth(1, "textbox"), start), (page.nth(2, "textbox"), end)):
        if place not in (field.value or "") or "(" not in (field.value or ""):
            offered = [e for e in page.all("item") if place in e.name]
            return page.click(offered[0]) if offered else page.fill(field, place)
    return _pick(page, page.nth(3, "textbox"), date) or page.submit("Search")


def buy_ticket(page: Page) -> Decision:
    """Buy the ticket with the cheapest cost (or the longest duration, and so on)."""
    best, what = page.read(r"the (cheapest|shortest|longest|most expensive) (cost|duration)").groups()
    return _buy(page, lowest=best in {"cheapest", "shortest"}, by_price=what == "cost")


def _buy(page: Page, *, lowest: bool, by_price: bool) -> Decision:
    """Press the button of the offer with the least or the most of something."""
    offers: list[tuple[int, Element]] = []
    minutes = 0
    for element in page.all():
        length = re.fullmatch(r"(\d+)h (\d+)m", element.name)
        price = re.search(r"\$(\d+)$", element.name)
        if length:
            minutes = 60 * int(length[1]) + int(length[2])
        elif price and element.role == "button":
            offers.append((int(price[1]) if by_price else minutes, element))
    if not offers:
        raise Lost("nothing is offered")
    pick = min if lowest else max
    return page.click(pick(offers, key=lambda offer: offer[0])[1])


def order_food(page: Page) -> Decision:
    """Order one of each item: Caesar Salad, Garlic bread. (Or: Order 3 items that are vegan.)"""
    counted = re.search(r"Order (\d+) items that are (.*)", page.goal)
    names = [] if counted else page.read(r"Order one of each item: (.*)")[1].split(", ")
    left = int(counted[1]) if counted else 0
    for name, kinds, quantity, plus in _menu(page):
        if counted and counted[2] in kinds and quantity < left:
            return page.click(plus)
        if counted and counted[2] in kinds:
            return page.submit("Order!")
        if name in names and not quantity:
            return page.click(plus)
    return page.submit("Order!")


def _menu(page: Page) -> list[tuple[str, list[str], int, Element]]:
    """Each dish: name, kinds, how many are ordered, its plus sign."""
    dishes: list[tuple[str, list[str], int, Element]] = []
    name, kinds, quantity = "", list[str](), 0
    for element in page.all():
        if element.name == "+":
            dishes.append((name, kinds, quantity, element))
            name, kinds, quantity = "", [], 0
        elif element.role == "image":
            kinds.append(element.name)
        elif element.name.isdigit():
            quantity = int(element.name)
        elif element.role == "text" and element.name != "-":
            name = element.name
    return dishes
