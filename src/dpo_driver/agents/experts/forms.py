"""Experts for the families that fill in a form and submit it. Listed in agents/oracle.py, used by nobody else."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import TEXT_ROLES, Decision, Lost, Page
from dpo_driver.core.actions import Click


def choose_radio(page: Page) -> Decision:
    """Select aBc and click Submit."""
    radio = page.named(page.read(r"Select (.*) and click Submit")[1], "radio")
    return page.submit() if "checked" in radio.states else page.click(radio)


def tick_checkboxes(page: Page) -> Decision:
    """Select aBc, dE and click Submit. ("Select nothing and click Submit." ticks none.)"""
    names = page.read(r"Select (.*) and click Submit")[1]
    wanted = [] if names == "nothing" else [page.named(name, "checkbox") for name in names.split(", ")]
    for box in page.all("checkbox"):
        if ("checked" in box.states) != any(box.ref == other.ref for other in wanted):
            return page.click(box)
    return page.submit()


def enter_text(page: Page) -> Decision:
    """Enter "Ignacio" into the text field and press Submit."""
    field = page.nth(1, "textbox")
    return page.fill_all([(field, page.read(r'"(.*)"')[1])]) or page.submit()


def enter_text_in_case(page: Page) -> Decision:
    """Type "cHErri" in all upper case letters in the text input and press Submit."""
    text = page.read(r'"(.*)"')[1]
    text = text.upper() if "upper case" in page.goal else text.lower()
    return page.fill_all([(page.nth(1, "textbox"), text)]) or page.submit()


def enter_password(page: Page) -> Decision:
    """Enter the password "x2Ab" into both text fields and press submit."""
    password = page.read(r'"(.*)"')[1]
    fields = [(page.nth(1, "textbox"), password), (page.nth(2, "textbox"), password)]
    return page.fill_all(fields) or page.submit()


def login_user(page: Page) -> Decision:
    """Enter the username "myron" and the password "OT" into the text fields and press login."""
    user, password = page.read(r'username "(.*)" and the password "(.*)" into').groups()
    fields = [(page.nth(1, "textbox"), user), (page.nth(2, "textbox"), password)]
    return page.fill_all(fields) or page.submit("Login")


def login_past_popup(page: Page) -> Decision:
    """The same, but a box that asks "Exit to home page?" may come between."""
    if page.maybe("Cancel", "button") is not None:
        return page.submit("Cancel")
    user, password = page.read(r'username "(.*)" and the password "(.*)" into').groups()
    fields = [(page.nth(1, "textbox"), user), (page.nth(2, "textbox"), password)]
    return page.fill_all(fields) or page.submit("OK")


def choose_from_scroll_list(page: Page) -> Decision:
    """Select Cuba, Peru from the scroll list and click Submit."""
    wanted = page.read(r"Select (.*) from the scroll list and click Submit")[1].split(", ")
    choice = page.nth(1, "combobox", "listbox")
    chosen = (choice.value or "").split(", ")
    return page.submit() if sorted(chosen) == sorted(wanted) else page.select(choice, *wanted)


def choose_from_list(page: Page) -> Decision:
    """Select Cuba from the list and click Submit."""
    wanted = page.read(r"Select (.*) from the list and click Submit")[1]
    choice = page.nth(1, "combobox", "listbox")
    return page.submit() if choice.value == wanted else page.select(choice, wanted)


def enter_date(page: Page) -> Decision:
    """Enter 05/21/2014 as the date and hit submit. (A date field takes 2014-05-21.)"""
    month, day, year = page.read(r"(\d+)/(\d+)/(\d+)").groups()
    return page.fill_all([(page.nth(1, "date", "textbox"), f"{year}-{month}-{day}")]) or page.submit()


def enter_time(page: Page) -> Decision:
    """Enter 5:07 PM as the time and press submit. (A time field takes 17:07.)"""
    hour, minute, half = page.read(r"(\d+):(\d+)\s*([AP]M)").groups()
    text = f"{int(hour) % 12 + 12 * (half == 'PM'):02d}:{minute}"
    return page.fill_all([(page.nth(1, "time", "textbox"), text)]) or page.submit()


def radio_and_number(page: Page) -> Decision:
    """Check the 2nd radio button and enter the number "-7" into the 3rd textbox."""
    radio_number, text, field_number = page.read(
        r'the (\d)\w\w radio button and enter the number "(.*)" into the (\d)\w\w textbox'
    ).groups()
    radio = page.nth(int(radio_number), "radio")
    if "checked" not in radio.states:
        return page.click(radio)
    return page.fill_all([(page.nth(int(field_number), "textbox"), text)]) or page.submit()


def list_and_button(page: Page) -> Decision:
    """Choose Maybe from the dropdown, then click the button labeled "No"."""
    wanted, button = page.read(r'Choose (.*) from the dropdown, then click the button labeled "(.*)"').groups()
    box = page.nth(1, "clickable", "combobox")  # a styled list: a box that opens, then items to click
    if wanted in (box.value or box.name):
        return page.submit(button)
    return page.click(page.maybe(wanted, "item", "option") or box)


def search_movies(page: Page) -> Decision:
    """Search for comedy movies directed by Hall from year 1984."""
    genre, director, year = page.read(r"Search for (.*) movies directed by (.*) from year (\d+)").groups()
    fields = page.all("textbox")
    captions = _captions(page, ("Genre", "Director", "Year", "Released"))
    values = {"Genre": genre, "Director": director, "Year": year, "Released": year}
    if len(fields) != len(captions):
        raise Lost(f"{len(fields)} fields for the captions {captions}")
    wanted = [(field, values[caption]) for field, caption in zip(fields, captions, strict=True)]
    for button in ("Submit", "Search", "Go!"):
        if page.maybe(button, "button", "clickable"):
            return page.fill_all(wanted) or page.submit(button)
    raise Lost("there is no button to search with")


def _captions(page: Page, words: tuple[str, ...]) -> list[str]:
    """Which of the words caption the fields, in page order: from the fields' own names, else from the text around."""
    pattern = re.compile("|".join(words))
    named = [pattern.search(element.name) for element in page.all("textbox")]
    if all(named):
        return [match[0] for match in named if match]
    around = [pattern.search(e.name) for e in page.observation.elements if e.role in {"text", "cell", "label"}]
    return [match[0] for match in around if match]


def use_search_engine(page: Page) -> Decision:
    """Use the textbox to enter "Joye" and press "Search", then find and click the 5th search result."""
    text = page.read(r'enter "(.*)" and press')[1]
    position = int(page.read(r"(\d+)\w\w search result")[1]) - 1
    search = page.named("Search", "button")
    step = page.fill_all([(page.nth(1, "textbox"), text)])
    if step or not page.clicked(search):
        return step or page.click(search)
    wanted_page = str(position // 3 + 1)
    pages = [e for e in page.all("link") if e.name in {"First", "Last", "<", ">", "1", "2", "3"}]
    link = next((e for e in pages if e.name == wanted_page), None)
    if wanted_page != "1" and link is not None and not page.clicked(link):
        return page.click(link)
    results = [e for e in page.all("link") if e not in pages]
    return page.click(results[position % 3])


def complete_item(page: Page) -> Decision:
    """Enter an item that starts with "Ba" and ends with "dos"."""
    field = page.nth(1, *TEXT_ROLES)
    start = page.read(r'starts with "(.*?)"')[1]
    end = re.search(r'ends with "(.*?)"', page.goal)
    offered = [e for e in page.all("item", "option", "menuitem") if e.name.startswith(start)]
    for item in offered:
        if end is None or item.name.endswith(end[1]):
            return page.click(item)
    value = field.value or ""
    # "Peru" both starts with "Peru" and ends with "ru": what was only typed still has to be chosen from the list.
    chosen = len(value) > len(start) or (bool(page.history) and isinstance(page.history[-1].action, Click))
    if value.startswith(start) and (end is None or (chosen and value.endswith(end[1]))):
        return page.submit()
    return page.fill(field, start)


def solve_arithmetic(page: Page) -> Decision:
    """Solve the math problem and type your answer into the textbox. Press submit when done."""
    shown = " ".join(element.name for element in page.observation.elements if element.role != "button")
    found = re.search(r"(\d+)\s*([-+*x×])\s*(\d+)\s*=", shown)
    if found is None:
        raise Lost("no sum is shown")
    left, sign, right = int(found[1]), found[2], int(found[3])
    answer = {"+": left + right, "-": left - right}.get(sign, left * right)
    return page.fill_all([(page.nth(1, "textbox"), str(answer))]) or page.submit()
