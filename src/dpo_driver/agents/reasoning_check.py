"""Whether a reasoning may stand before the action that was taken: pure functions over the text, the page, the action.

A thought that points elsewhere, gives the answer away or invents a code would teach a model just that. Refused is what
names another action as the thing to do (reasoning_intents.py), has fewer than 2 or more than 4 sentences, contains a
call, tells that the action was known, or holds a code that stands nowhere on the page.

Known limits. It reads English only, and the commoner ways to say a thing. It does not see whether a reason is true, nor
whether it names the action at all. A wrong text passes when it is neither quoted, nor in the goal's quotation marks, a
number or a code; another element when its label is not written as on the page. A code half decoded counts as invented,
and so does a word in capitals of six letters or more that the page does not have. What is wrongly refused is asked
again and at worst keeps the expert's thought.

Called by flywheel/annotate.py. Must not import policies or environments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from dpo_driver.agents.reasoning_intents import names_another
from dpo_driver.core.actions import ACTIONS, Action, format_action
from dpo_driver.core.records import Observation, Step

FEWEST, MOST = 2, 4  # sentences
Kind = Literal["sentences", "call", "told", "code", "action"]


class Problem(NamedTuple):
    """Why a reasoning is refused. ``detail`` is for the model that writes the next one; it quotes no code."""

    kind: Kind
    detail: str


def problems(text: str, observation: Observation, action: Action, history: Sequence[Step] = ()) -> tuple[Problem, ...]:
    """All that is wrong with a reasoning; nothing if it may stand.

    Args:
        text: one line, as :func:`reasoning.cleaned` gives it.
        observation: the page on which it was decided.
        action: what was done.
        history: the steps before; what was written there may be spoken of.
    """
    found = []
    count = len(sentences(text))
    if not FEWEST <= count <= MOST:
        found.append(Problem("sentences", f"it had {count} sentences instead of {FEWEST} to {MOST}"))
    if holds_call(text):
        found.append(Problem("call", "it contained an action call"))
    page = page_text(observation)
    if gives_away(text, page):
        found.append(Problem("told", "it spoke of the action as known beforehand"))
    done = [format_action(step.action) for step in history if step.action is not None]
    if strange_codes(text, "\n".join([page, *done, format_action(action)])):
        found.append(Problem("code", "it held a code that is not on the page"))
    other = names_another(text, observation, action)
    if other is not None:
        found.append(Problem("action", other))
    return tuple(found)


def page_text(observation: Observation) -> str:
    """All words that the page shows, and the goal."""
    lines = [observation.goal, observation.title, observation.url, observation.last_error or ""]
    for element in observation.elements:
        lines += [element.role, element.name, element.value or "", *element.options]
    return "\n".join(lines)


# -- sentences ---------------------------------------------------------------------------------------------------------

_ENDS_INSIDE = re.compile(r"""([.!?])(["'])(?=\s+[A-Z]|\s*$)""")
_QUOTED = re.compile(r"\"[^\"]*\"|(?<!\w)'[^']{1,80}'(?!\w)|`[^`]*`")
_SHORT = re.compile(r"\b(?:e\.g|i\.e|etc|vs|Mr|Mrs|Ms|Dr|approx|a\.m|p\.m|No(?=\.\s*\d))\.", re.IGNORECASE)
_END = re.compile(r"[.!?…]+(?=[\s)\]\"']|$)")


def sentences(text: str) -> list[str]:
    """The sentences of a text. Points in numbers, addresses, quotations and the commoner abbreviations end none."""
    text = _ENDS_INSIDE.sub(r"\2\1", text.replace("...", "…"))
    text = _QUOTED.sub(lambda found: re.sub(r"[.!?…]", "_", found[0]), text)
    text = _SHORT.sub(lambda found: found[0].replace(".", "_"), text)
    return [part.strip() for part in _END.split(text) if re.search(r"[^\W\d_]", part)]


# -- calls and what was told -------------------------------------------------------------------------------------------

_NAMES = "|".join(sorted(ACTIONS, key=len, reverse=True))
_CALL = re.compile(rf"\b(?:{_NAMES}|CLICK|TYPE|SELECT|CHECK)(?:\((?!s\))|\s\(\s*[\"'\[])|\baction\s*:", re.IGNORECASE)


def holds_call(text: str) -> bool:
    """Whether a text contains a call such as ``click("3")``, or a line that begins an action."""
    return bool(_CALL.search(text))


_DONE_FOR_ME = "given|provided|supplied|recorded|predetermined|prescribed|annotated|demonstrated|specified|stated"
_THING = "action|decision|move|call|answer|solution"
_TOLD = re.compile(
    rf"""\bas\ (?:was\ |already\ )?(?:given|provided|told|instructed|specified|prescribed)\b
        (?!\ (?:in|on|by|at|under)\b)
    |\b(?:{_DONE_FOR_ME}|ground[- ]truth)\ (?:next\ )?(?:{_THING}|step)\b
    |\b(?:{_THING})\ (?:that\ )?(?:(?:is|was|has\ been|I\ was|I\ am|I\ have\ been)\ )?
        (?:already\ )?(?:given|provided|told|supplied|prescribed|shown\ to\ me|known)\b
    |\bI\ (?:was|am|have\ been|'ve\ been)\ (?:told|given|shown)\ (?:to|what|which|that|the\ (?:{_THING}|next))\b
    |\bthe\ (?:{_THING})\ (?:to\ (?:take|explain|justify)|taken|chosen)\b
    |\bI\ already\ know\ (?:what\ to\ do|which|the\ (?:{_THING}))\b
    |\b(?:this|the)\ prompt\b|\bmy\ instructions\b|\bhindsight\b|\bground\ truth\b""",
    re.IGNORECASE | re.VERBOSE,
)
_WATCHED = re.compile(r"\b(?:expert|demonstrat(?:ion|or)|annotat\w+|trajectory)\b", re.IGNORECASE)


def gives_away(text: str, page: str) -> bool:
    """Whether a text tells that the action was known before. Words that the page has itself are not held against it."""
    watched = {found.lower() for found in _WATCHED.findall(text)}
    return bool(_TOLD.search(text)) or any(word not in page.lower() for word in watched)


# -- codes -------------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[A-Za-z0-9]+")
_MEASURE = re.compile(r"\d+(?:st|nd|rd|th|px|ms|s|x|am|pm|kb|mb|d)", re.IGNORECASE)
_KNOWN = frozenset({"BASE64", "BASE32", "ROT13", "SHA256", "HTML5", "UTF16"})
_SPELLED = re.compile(r"\b[A-Z0-9](?:[ ,\-–·]+[A-Z0-9]\b){4,}")
_GROUPS = re.compile(r"\b[A-Z0-9]{2,}(?:-[A-Z0-9]{2,})+\b")
_LONG = 20


def strange_codes(text: str, known: str) -> list[str]:
    """What looks like a code or a key in a text and is in none of the known texts, however it is grouped or spelled."""
    found = [token for token in _TOKEN.findall(text) if _like_a_code(token)]
    found += [each for pattern in (_SPELLED, _GROUPS) for each in pattern.findall(text)]
    there = _compact(known)
    return [each for each in found if len(_compact(each)) >= 5 and _compact(each) not in there]


def _like_a_code(token: str) -> bool:
    if token.upper() in _KNOWN or _MEASURE.fullmatch(token):
        return False
    letters = sum(map(str.isalpha, token))
    if len(token) >= _LONG:
        return True
    if 0 < letters < len(token):
        return len(token) >= 5
    return len(token) >= 6 and (letters == 0 or token.isupper())


def _compact(text: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", text.upper())
