"""Keys to be pressed in an order while a pad has the focus: reads them, and presses the next one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dpo_driver.agents.experts.page import Decision, Lost, first
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.actions import Press
from dpo_driver.core.records import Element

ACT, KEYS = r"press|strike|play|sound|\bhit\b", r"\bkeys?\b"
BACKWARDS = r"backwards|revers|last (?:one |key )?first|(?:from|beginning with) the last|last to (?:the )?first"
PAD = r"\bpad\b|press keys|strike keys|waits for"
SEPARATORS = r"\s*[,;·|]\s*|\s+then\s+|\s+-\s+"
# How pages write keys -> how an action names them.
NAMES = {
    "↑": "ArrowUp", "↓": "ArrowDown", "←": "ArrowLeft", "→": "ArrowRight",
    "up": "ArrowUp", "down": "ArrowDown", "left": "ArrowLeft", "right": "ArrowRight",
    "space": "Space", "space bar": "Space", "spacebar": "Space", "enter": "Enter", "return": "Enter",
    "home": "Home", "end": "End", "escape": "Escape", "esc": "Escape", "backspace": "Backspace", "delete": "Delete",
}  # fmt: skip


def recognise(page: PuzzlePage) -> float:
    """How sure it is that keys are to be pressed in turn."""
    return 0.9 if _tasks(page) and _keys(page) is not None and _pads(page) else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Press the next key on the pad."""
    keys = _keys(page)
    if keys is None:
        raise Lost("no row of keys is to be seen")
    if any(re.search(BACKWARDS, line, re.IGNORECASE) for line in _tasks(page)):
        keys = keys[::-1]
    pad = first(_pads(page))
    done = _done(page, len(keys))
    if done >= len(keys):
        raise Lost("every key was pressed")
    # The page may not have answered to the last key yet: pressing it again would spoil the row.
    last = page.history[-1] if page.history else None
    if last and isinstance(last.action, Press) and last.observation.state_hash == page.observation.state_hash:
        return page.wait(120)
    return page.press(pad, keys[done])


def _tasks(page: PuzzlePage) -> list[str]:
    """Lines that speak of pressing keys: the instruction, maybe the title."""
    lines = page.text.split("\n")
    return [line for line in lines if all(re.search(words, line, re.IGNORECASE) for words in (ACT, KEYS))]


def _pads(page: PuzzlePage) -> list[Element]:
    return [e for e in page.all("clickable", "textbox", "button", "group") if re.search(PAD, e.name, re.IGNORECASE)]


def _key(text: str) -> str | None:
    """A key as an action names it, or None for what is no key's name."""
    plain = re.sub(r"\b(?:the|arrow|key|letter|digit)\b", " ", text.lower())
    plain = " ".join(plain.split()).strip("\"'.[]")
    if plain in NAMES:
        return NAMES[plain]
    return plain if re.fullmatch(r"[a-z0-9]", plain) else None


def _keys(page: PuzzlePage) -> Sequence[str] | None:
    """The longest row of keys: one to an entry of a list, or several in one line."""
    rows: list[list[str]] = [[]]
    for element in page.observation.elements:
        key = _key(element.name) if element.role in ("listitem", "item", "cell", "text") else None
        if key is not None:
            rows[-1].append(key)
            continue
        rows.append([])
        read = [_key(word) for word in re.split(SEPARATORS, element.name.rpartition(":")[2].strip()) if word]
        if element.ref is None or element.role in ("text", "listitem"):
            rows.append([k for k in read if k is not None] if all(read) else [])
            rows.append([])
    longest = max(rows, key=len)
    return longest if len(longest) > 1 else None


def _done(page: PuzzlePage, count: int) -> int:
    """How many keys the page says are right so far."""
    counted = page.says(rf"(?<!step )\b(?P<done>\d)\s*(?:of|/|out of)\s*{count}\b")
    return int(counted["done"]) if counted else 0
