"""Experts for copying, finding words, a terminal, a text editor. Listed in agents/oracle.py, used by nobody else."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, Page, first
from dpo_driver.core.actions import Action, Click, KeyboardPress, KeyboardType, Press, Scroll

_NO_LETTERS = re.compile(r"[^a-zA-Z]+")
_STYLES = {"bold": "ql bold", "italics": "ql italic", "underlined": "ql underline"}
# The editor's palette: the plain colour of each name.
_PALETTE = {
    "red": "#e60000",
    "orange": "#ff9900",
    "yellow": "yellow",
    "green": "#008a00",
    "blue": "#0066cc",
    "purple": "#9933ff",
}


def copy_text(page: Page) -> Decision:
    """Copy the text from the 2nd text area below and paste it into the text input, then press Submit."""
    position = re.search(r"(\d)\w\w text area", page.goal)
    source = page.nth(int(position[1]) if position else 1, "textarea")
    return page.fill_all([(page.nth(1, "textbox"), source.value or "")]) or page.submit()


def find_word(page: Page) -> Decision:
    """Find the 2nd word in the paragraph, type that into the textbox and press "Submit"."""
    words = page.nth(1, "text").name.split()
    word = words[int(page.read(r"Find the (\d+)\w\w word")[1]) - 1]
    return page.fill_all([(page.nth(1, "textbox"), _NO_LETTERS.sub("", word))]) or page.submit()


def find_last_word(page: Page) -> Decision:
    """Find the last word in the text area, enter it into the text field and hit Submit."""
    word = (page.nth(1, "textarea").value or "").split()[-1]
    return page.fill_all([(page.nth(1, "textbox"), _NO_LETTERS.sub("", word))]) or page.submit()


def read_bent_letters(page: Page) -> Decision:
    """Type the text below into the text field and press Submit."""
    field = page.nth(1, "textbox")
    letters = "".join(element.name for element in page.all("text"))
    return page.fill_all([(field, letters)]) or page.submit()


def sign_agreement(page: Page) -> Decision:
    """Scroll to the bottom of the textarea, enter the name "Ada" then press "Agree"."""
    asked = re.search(r'enter the name "(.*)" ?then press "(.*)"', page.goal)
    if asked is None:
        return page.submit("Cancel")
    field = page.named("Name", "textbox")
    if "disabled" in field.states:
        return page.nth(1, "textarea").label, Scroll(delta_x=0, delta_y=4000)
    return page.fill_all([(field, asked[1])]) or page.submit(asked[2])


def use_terminal(page: Page) -> Decision:
    """Use the terminal below to delete a file ending with the extension .gif"""
    screen = page.named("terminal")
    shown = [element.name for element in page.observation.elements]
    if not page.clicked(screen):
        return page.click(screen)
    typed = [step.action.text for step in page.history if isinstance(step.action, KeyboardType)]
    last = page.history[-1].action
    if isinstance(last, KeyboardType):
        return screen.label, KeyboardPress(key="Enter")
    if not typed:
        return screen.label, KeyboardType(text="ls")
    listed = shown[shown.index("ls") + 1].split()
    return screen.label, KeyboardType(text=f"rm {_file_to_delete(page, listed)}")


def _file_to_delete(page: Page, files: list[str]) -> str:
    """A file of the wanted kind. The page misjudges a name in which the ending occurs earlier too: those come last."""
    ending = re.search(r"extension \.(\S+)", page.goal)
    if ending is None:
        fitting = [file for file in files if "." not in file]
    else:
        fitting = [file for file in files if file.endswith(f".{ending[1]}")]
        fitting.sort(key=lambda file: file.index(ending[1]) + len(ending[1]) != len(file))
    if not fitting:
        raise Lost("there is no such file")
    return fitting[0]


def style_text(page: Page) -> Decision:
    """Using the text editor, give the text justo. the style bold and press Submit. (Or a colour; or everything.)"""
    editor = first(e for e in page.start.elements if e.role == "textbox")
    steps = _selection(page, editor.ref or "", editor.value or "")
    done = len(page.history)
    if done < len(steps):
        return editor.label, steps[done]
    color = re.search(r"the color (\w+)", page.goal)
    if color is None:
        style = _STYLES[page.read(r"the style (\w+)")[1]]
        return page.submit(style) if done == len(steps) else page.submit()
    if done == len(steps):
        return page.click(page.all()[0])  # the palette's button is the first thing of the toolbar
    if done == len(steps) + 1:
        return page.click(first(e for e in page.all() if e.name.startswith(_PALETTE[color[1]])))
    return page.submit()


def _selection(page: Page, ref: str, text: str) -> list[Action]:
    """The keys that select the text that is asked for, all of it or one word with its punctuation."""
    part = re.search(r"give the text (.*) the (?:style|color)", page.goal)
    if part is None:
        return [Press(ref=ref, key="Control+a")]
    words = text.split()
    before = words.index(part[1])
    keys: list[Action] = [Click(ref=ref), KeyboardPress(key="Control+Home")]
    for word in words[:before]:
        keys.append(KeyboardPress(key="Control+ArrowRight"))  # to the end of the word's letters
        keys += [KeyboardPress(key="ArrowRight")] * (_tail(word) + 1)
    keys.append(KeyboardPress(key="Control+Shift+ArrowRight"))
    keys += [KeyboardPress(key="Shift+ArrowRight")] * _tail(part[1])
    return keys


def _tail(word: str) -> int:
    return len(word) - len(word.rstrip(",.;"))
