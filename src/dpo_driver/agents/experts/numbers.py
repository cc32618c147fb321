"""Experts for numbers: equations, guesses, sliders, spinners, prices and delays.

Listed in agents/oracle.py, used by nobody else.
"""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, Page
from dpo_driver.core.actions import Noop


def solve_equation(page: Page) -> Decision:
    """Solve for x and type your answer into the textbox. Press Submit when done. (1 + x = 21)"""
    for element in page.observation.elements:
        found = re.fullmatch(r"(x|\d+) ([-+]) (x|\d+) = (\d+)", element.name)
        if found is None:
            continue
        left, sign, right, result = found.groups()
        if sign == "+":
            answer = int(result) - int(right if left == "x" else left)
        else:
            answer = int(result) + int(right) if left == "x" else int(left) - int(result)
        return page.fill_all([(page.nth(1, "textbox"), str(answer))]) or page.submit()
    raise Lost("no equation is shown")


def generate_number(page: Page) -> Decision:
    """Generate a number less than 5 (greater than 3, odd, even), then press submit."""
    shown = next((int(e.name) for e in page.observation.elements if e.name.isdigit()), None)
    if shown is None:
        return page.submit("Generate")
    bound = re.search(r"(less|greater) than (\d+)", page.goal)
    if bound:
        good = shown < int(bound[2]) if bound[1] == "less" else shown > int(bound[2])
    else:
        good = shown % 2 == (1 if "odd" in page.goal else 0)
    return page.submit("Submit" if good else "Generate")


def guess_number(page: Page) -> Decision:
    """Guess the number between 0-9 and press Submit. Use the feedback below to find the right number."""
    low, high = 0, 9
    for seen in [*(step.observation for step in page.history), page.observation]:
        told = " ".join(element.name for element in seen.elements)
        if answer := re.search(r"number is lower than (\d+)", told):
            high = min(high, int(answer[1]) - 1)
        if answer := re.search(r"number is higher than (\d+)", told):
            low = max(low, int(answer[1]) + 1)
    return page.fill_all([(page.nth(1, "number"), str((low + high) // 2))]) or page.submit()


def slider_and_checkbox(page: Page) -> Decision:
    """Select 2 with the slider, click the 1st checkbox, then hit Submit."""
    number, position = page.read(r"Select (-?\d+) with the slider, click the (\d)\w\w checkbox").groups()
    shown = next((int(e.name) for e in page.all("text") if re.fullmatch(r"-?\d+", e.name)), None)
    if shown is None:
        raise Lost("the slider's value is not shown")
    ahead = int(number) - shown
    if ahead:
        # A page is a fifth of the slider, four here; from three on it pays to go by pages.
        key = "Page{}" if abs(ahead) > 2 and abs(shown + (4 if ahead > 0 else -4)) <= 10 else "Arrow{}"
        return page.press(page.nth(1, "slider"), key.format("Up" if ahead > 0 else "Down"))
    box = page.nth(int(position), "checkbox")
    return page.submit() if "checked" in box.states else page.click(box)


def set_spinner(page: Page) -> Decision:
    """Select -7 with the spinner and hit Submit."""
    spinner = page.nth(1, "spinbutton", "textbox")
    return page.fill_all([(spinner, page.read(r"Select (-?\d+) with")[1])]) or page.submit()


def wait_between_buttons(page: Page) -> Decision:
    """Click button ONE, wait 2 seconds, then click button TWO. (The first click takes a tenth of a second itself.)"""
    if not page.history:
        return page.submit("ONE")
    if len(page.history) == 1:
        return "wait", Noop(wait_ms=1000 * int(page.read(r"wait (\d+) seconds?")[1]) - 100)
    return page.submit("TWO")


def buy_stock(page: Page) -> Decision:
    """Buy EFN stock when the price is less than $49.60. (It changes ten times a second, or with every step.)"""
    limit = float(page.read(r"less than \$([\d.]+\d)")[1])
    prices = [float(e.name[1:]) for e in page.observation.elements if re.fullmatch(r"\$[\d.]+", e.name)]
    return page.submit("Buy") if prices and prices[0] <= limit else ("wait", Noop())
