"""A form to be filled in from a card of facts: finds for each field the fact that is meant, then sends the form."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element

TASK = (
    r"[^\n]*(?:\bform\b[^\n]*(?:card|facts|details|\bfill|\bhand|\bsend)"
    r"|(?:card|facts|details|fill|write)[^\n]*\bform\b)[^\n]*"
)
SEND = r"send|save|register|registration|hand|submit|seal|deliver|complete|done"
QUOTED = r"[\"“]([^\"”\n]+)[\"”]"
LINE = re.compile(r"(?P<label>[^:–—]{2,40}?)\s*(?::|\s[–—])\s+(?P<value>\S.*)")
# Words that forms use for one thing.
ALIKE = [
    set(words.split())
    for words in (
        "first given forename christian", "last family surname", "town city residence village", "street road",
        "phone telephone mobile", "mail email e-mail electronic", "age years old", "member membership",
        "pet animal", "colour color", "room chamber", "zip postal postcode", "number no no. nr",
    )
]  # fmt: skip
NOISE = {
    "your",
    "the",
    "of",
    "in",
    "and",
    "name",
    "number",
    "no",
    "no.",
    "please",
    "kind",
    "preferred",
    "favourite",
    "address",
}

Fact = tuple[str, str]  # label, value


def recognise(page: PuzzlePage) -> float:
    """How sure it is that facts are to be copied into a form."""
    return 0.9 if page.says(TASK) and len(_fields(page)) > 1 and len(_facts(page)) > 1 else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Fill the next field; set choices and ticks; send."""
    facts = _facts(page)
    wanted = [(field, value) for field in _fields(page) if (value := _meant(field.name, facts)) is not None]
    filling = page.fill_all(wanted)
    if filling is not None:
        return filling
    values = {value.casefold() for _, value in facts}
    for choice in page.all("radio"):
        if choice.name.casefold() in values and "checked" not in choice.states:
            return page.click(choice)
    for tick in page.all("checkbox"):
        told = [value.casefold() for label, value in facts if label.casefold() == tick.name.casefold()]
        if told and told[0] in ("yes", "no") and ("checked" in tick.states) != (told[0] == "yes"):
            return page.click(tick)
    return page.click(_send(page))


def _fields(page: PuzzlePage) -> list[Element]:
    """The fields of the form: those after the task, up to the first button. Others belong to the page around it."""
    code, fields = page.code_field, []
    elements = page.observation.elements
    task = next((i for i, e in enumerate(elements) if re.search(TASK, e.name, re.IGNORECASE)), 0)
    for element in elements[task:]:
        if element.role == "textbox" and element.ref != code.ref:
            fields.append(element)
        elif element.role == "button" and fields:
            break
    return fields


def _send(page: PuzzlePage) -> Element:
    """The first button after the form's last field that speaks of sending."""
    elements = page.observation.elements
    last = max(elements.index(field) for field in _fields(page))
    buttons = [e for e in elements[last:] if e.role == "button" and e.ref is not None]
    named = [e for e in buttons if re.search(SEND, e.name, re.IGNORECASE)]
    if not buttons:
        raise Lost("there is no button to send the form")
    return (named or buttons)[0]


def _facts(page: PuzzlePage) -> Sequence[Fact]:
    """What the cards tell; where the task names one card, what that card tells."""
    cards: dict[str, list[Fact]] = {}
    heading, before = "", ""
    for element in page.observation.elements:
        if element.role == "heading":
            heading = element.name
        elif element.role == "cell":
            if before:
                cards.setdefault(heading, []).append((before, element.name))
            before = "" if before else element.name
            continue
        elif element.role in ("listitem", "text", "item") and (line := LINE.fullmatch(element.name)):
            cards.setdefault(heading, []).append((line["label"], line["value"]))
        before = ""
    said = page.says(TASK) or page.says(rf"[^\n]*card[^\n]*{QUOTED}[^\n]*")
    for name in re.findall(QUOTED, page.text if said is None else said[0]) or re.findall(QUOTED, page.text):
        if name in cards:
            return cards[name]
    return [fact for facts in cards.values() for fact in facts]


def _meant(label: str, facts: Sequence[Fact]) -> str | None:
    """The value of the fact whose label is most like a field's."""
    best = max(facts, key=lambda fact: _likeness(label, fact[0]), default=None)
    return best[1] if best is not None and _likeness(label, best[0]) > 0 else None


def _likeness(one: str, other: str) -> float:
    if one.casefold() == other.casefold():
        return 100.0
    mine, theirs = (_ideas(text) for text in (one, other))
    return 2.0 * len(mine & theirs - NOISE) + 0.1 * len(mine & theirs)


def _ideas(text: str) -> set[str]:
    """The words of a label, one word for all that are alike."""
    words = set(re.findall(r"[\w.-]+", text.casefold()))
    if "address" in words and not words & {"mail", "email", "e-mail"}:
        words.add("street")
    return {min(group) if (group := next((g for g in ALIKE if w in g), None)) else w for w in words}
