"""Experts for the inbox families: open the right mail, then star, delete, answer or forward it.

The goal is said in one of some hundred ways; who sent the mail is found among the names that the inbox shows. Listed in
agents/oracle.py, used by nobody else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dpo_driver.agents.experts.page import Decision, Lost, Page

_DELETE = re.compile(r"delet|remove|rid of|trash|throw|don't want|out of my inbox|recycling", re.IGNORECASE)
_QUOTED = re.compile(r'"+([^"]+)"')
# "Forward DEST's email from yesterday to NAME": in these forms the page grades the second name as the sender.
_TURNED = (
    r"^Forward ([\w-]+)'s email from yesterday to ([\w-]+)\.$",
    r"^Find yesterday's emails from ([\w-]+) and forward them to ([\w-]+)\.$",
    r"^Forward all messages from ([\w-]+) to ([\w-]+)\.$",
    r"^Send ([\w-]+) the message from ([\w-]+)\.$",
)
_KNOWN_FORWARD = re.compile(r"^Find the email by (.*) and forward that email to (.*)\.$")


@dataclass(frozen=True)
class Errand:
    """What to do: ``Errand("forward", sender="Ann", to="Bob")``; ``verb`` is star, delete, reply or forward."""

    verb: str
    sender: str
    to: str = ""
    text: str = ""


def handle_mail(page: Page) -> Decision:
    """Find the email by Evy and forward that email to Cathrine."""
    senders = [e.name for e in page.start.elements if e.role == "clickable"]
    errand = understand(page.goal, senders)
    if page.maybe("send reply") is not None:
        return page.fill_all([(page.nth(1, "textarea"), errand.text)]) or page.click(page.named("send reply"))
    if page.maybe("send forward") is not None:
        return page.fill_all([(page.nth(1, "textbox"), errand.to)]) or page.click(page.named("send forward"))
    if page.maybe("close email") is None:
        return page.click(page.named(errand.sender, "clickable"))
    button = {"star": "star", "delete": "trash", "reply": "Reply", "forward": "Forward"}[errand.verb]
    return page.click(page.named(button, "clickable"))


def understand(goal: str, shown: list[str]) -> Errand:
    """The errand that a goal asks for.

    Args:
        goal: the task in words.
        shown: what the inbox shows; senders are among it.

    Raises:
        Lost: no sender is named.
    """
    known = _KNOWN_FORWARD.match(goal)
    if known:
        return Errand("forward", known[1], known[2])
    quoted = _QUOTED.search(goal)
    said = goal.replace(quoted[1], "") if quoted else goal
    names = _named(said, shown)
    if not names:
        raise Lost("no sender of the inbox is named")
    if quoted:
        return Errand("reply", names[0], text=quoted[1].strip())
    if len(names) > 1:
        return _forward(goal, names[0], names[1])
    return Errand("delete" if _DELETE.search(goal) else "star", names[0])


def _named(goal: str, shown: list[str]) -> list[str]:
    """Which of the names the goal says, in its order: as words, else anywhere ("AnswerEvy's email")."""
    unique = list(dict.fromkeys(name for name in shown if re.fullmatch(r"[A-Z][\w'-]*", name)))
    for pattern in (r"(?<![\w-]){}s?(?![\w-])", r"{}"):
        places = {name: re.search(pattern.format(re.escape(name)), goal) for name in unique}
        found = sorted((place.start(), name) for name, place in places.items() if place)
        if found:
            return [name for _, name in found]
    return []


def _forward(goal: str, first: str, second: str) -> Errand:
    """Which of two names is the sender: the one that the mail is said to be from."""
    for pattern in _TURNED:
        turned = re.match(pattern, goal)
        if turned:
            told = [first, second] if pattern.startswith("^Send") else [second, first]
            return Errand("forward", told[0], told[1])
    for pattern in (
        r"(?:from|by) {}(?![\w-])",
        r"(?<![\w-]){} (?:sent|wrote|email|wants (?:his|her))",
        r"(?<![\w-]){}'?s (?:\w+ )?(?:e-?mail|message|mail)",
        r"(?:Ask|Get) {}(?![\w-])",
    ):
        for name, other in ((first, second), (second, first)):
            if re.search(pattern.format(re.escape(name)), goal, re.IGNORECASE):
                return Errand("forward", name, other)
    raise Lost("it is not said whose mail to forward")
