"""What a reasoning says is to be done now, and whether that is the action that was taken.

A text is read for *intents*: a verb of acting ("click", "type", "scroll") in a form that means doing ("I click", "let
me click", "click" at a sentence's start), with the words after it up to the clause's end. Denied, conditional and past
ones are none. What is done now must fit the action; duties ("I need to fill both fields"), later steps ("then I press
Enter") and general statements ("Clicking Next opens the form") count only where nothing is done now, and then one that
fits is enough. Called by agents/reasoning_check.py; what an intent is about is compared in reasoning_objects.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dpo_driver.agents.reasoning_objects import Scene
from dpo_driver.core.actions import ACTIONS, Action
from dpo_driver.core.records import Observation

_CLICKS = frozenset({"click", "dblclick", "mouse_click", "mouse_dblclick"})
_KEYS = frozenset({"press", "keyboard_press", "keyboard_down", "keyboard_up"})
_WRITES = frozenset({"fill", "type", "keyboard_type", "keyboard_insert_text"})
_DRAGS = frozenset({"drag_and_drop", "mouse_drag_and_drop", "mouse_down", "mouse_move", "mouse_up"})


class Verb(NamedTuple):
    """A way to say what is done: its forms as patterns, the actions that it can mean, and what stands after it."""

    base: str
    ing: str
    ed: str
    kinds: frozenset[str]
    about: Literal["thing", "text", "keys", "nothing"]


_NOT_LOOKING = r"(?! (?:if|whether|that|how|what|which|for)\b)"
VERBS = (
    Verb(r"double[- ]click(?: on)?", r"double[- ]clicking(?: on)?", r"double[- ]clicked",
         frozenset({"dblclick", "mouse_dblclick"}), "thing"),
    Verb(r"(?:right[- ])?click(?: on)?|tap(?: on)?", r"(?:right[- ])?clicking(?: on)?|tapping(?: on)?",
         r"(?:right[- ])?clicked|tapped", _CLICKS, "thing"),
    Verb(r"(?:press|push|hit)(?: and hold)?(?: on)?", r"(?:pressing|pushing|hitting)(?: on)?", "pressed|pushed|hit",
         _CLICKS | _KEYS | {"mouse_down"}, "keys"),
    Verb(rf"select|choose|pick(?! up)|tick|untick|uncheck|toggle|check{_NOT_LOOKING}",
         rf"selecting|choosing|picking(?! up)|ticking|unticking|unchecking|toggling|checking{_NOT_LOOKING}",
         "selected|chosen|picked|ticked|unticked|unchecked|toggled|checked",
         _CLICKS | _KEYS | {"select_option"}, "thing"),
    Verb(r"(?:type|write|enter|fill)(?: in| out)?|insert|paste",
         r"(?:typing|writing|entering|filling)(?: in| out)?|inserting|pasting", "typed|written|entered|filled|pasted",
         _WRITES, "text"),
    Verb("scroll", "scrolling", "scrolled", frozenset({"scroll", "press", "keyboard_press"}), "nothing"),
    Verb(r"hover(?: over)?|(?:move|point)(?= (?:the |my )?(?:pointer|mouse|cursor))",
         r"hovering(?: over)?|moving(?= (?:the |my )?(?:pointer|mouse|cursor))", "hovered(?: over)?",
         frozenset({"hover", "mouse_move"}), "thing"),
    Verb("drag", "dragging", "dragged", _DRAGS, "thing"),
    Verb("wait|pause", "waiting|pausing", "waited for", frozenset({"noop"}), "nothing"),
    Verb("go back", "going back", "gone back", _CLICKS | _KEYS | {"go_back", "goto", "tab_focus"}, "nothing"),
    Verb("give up", "giving up", "given up", frozenset({"report_infeasible"}), "nothing"),
    Verb("use", "using", "used", frozenset(ACTIONS), "keys"),
    Verb("opt for|go (?:for|with)|settle on", "opting for|going (?:for|with)", "opted for",
         frozenset(ACTIONS), "thing"),
)  # fmt: skip
# These say what comes of it, not what is touched.
_EFFECT = r"submit|confirm|send|close|dismiss|accept|save"
_EFFECTS = _CLICKS | _KEYS | {"tab_close", "send_msg_to_user"}

_ADV = (
    r"(?:(?:now|first|next|therefore|thus|then|simply|just|only|still|also|directly|again|carefully|immediately|finally)"
    r",? )*"
)
_BASE = "|".join(f"(?P<b{number}>{verb.base})" for number, verb in enumerate(VERBS))
_ING = "|".join(f"(?P<g{number}>{verb.ing})" for number, verb in enumerate(VERBS))
_ED = "|".join(f"(?P<p{number}>{verb.ed})" for number, verb in enumerate(VERBS))


def _pattern(lead: str, forms: str) -> re.Pattern[str]:
    return re.compile(rf"{lead}{_ADV}(?:{forms})\b", re.IGNORECASE)


_WILL = r"(?:will |shall |am going to |'m going to |choose to |decide to |try to |proceed to |go ahead and |can now )?"
_AND = _pattern(r"\band (?:so )?", _BASE)  # "I find the button and click it"
_NOW = (
    _pattern(rf"\b(?:I|we)(?:'ll)? {_ADV}{_WILL}", _BASE),
    _pattern(r"\b(?:I|we)(?: am|'m| are|'re| (?:will |'ll )?(?:start|begin) by) ", _ING),
    _pattern(r"\blet(?: me|'s| us) ", _BASE),
    _pattern(r"(?:^|[.!?;:] |\b(?:so|now|therefore|hence|thus),? )(?:please )?", _BASE),
    _pattern(r"\b(?:step|action|move|thing|option|choice|way)\b[^.;,]{0,40}? (?:is|will be) (?:now )?to ", _BASE),
    _pattern(r"\b(?:step|action|move|thing|option|choice|way)\b[^.;,]{0,40}? is ", _ING),
    _pattern(r"\btime to ", _BASE),
    _AND,
)
_DUTY = (
    _pattern(rf"\b(?:I|we) {_ADV}(?:should|must|need to|have to|want to|would like to|can|ought to) ", _BASE),
    _pattern(r"\b(?:I|we)'d (?:like to |rather )?", _BASE),
)
_PASSIVE = _pattern(r"\b(?:must|should|has to|have to|needs? to|is to|are to) (?:now )?be ", _ED)
_LOOSE = (
    _pattern(r"(?:^|[.!?:] )(?:by )?", _ING),
    re.compile(rf"\b(?:I|we)(?:'ll)? {_ADV}{_WILL}(?P<effect>{_EFFECT})\b", re.IGNORECASE),
)

_RIGHT = re.compile(
    r"\bis (?:therefore |thus |clearly |now )?the (?P<right>(?:right|correct|best|only|next) "
    r"(?:one|choice|option|button|link|thing|step))\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?]\s")
_SKIPPED = re.compile(
    r"\b(?:when|once|after|before|until|till|while|whenever|which|where|so that|as soon as|by the time|as|like"
    r"|if|unless|whether|in case)\s+$",
    re.IGNORECASE,
)
_LATER = re.compile(
    r"^\W*(?:then|afterwards?|after|later|finally|lastly|once|when|as soon as|if|in the end)\b"
    r"|\b(?:then|afterwards|later|finally),?\s+$",
    re.IGNORECASE,
)
# What "and click" may go on: somebody acts, and it is not denied.
_GOES_ON = re.compile(r"^(?!.*(?:\bnot\b|\bnever\b|n't\b|\bwould\b)).*\b(?:I|we|me)\b", re.IGNORECASE)
_OWED = re.compile(r"\b(?:should|must|need|have to|want|can|ought)\b", re.IGNORECASE)
_PURPOSE = re.compile(r"\bso\s+$", re.IGNORECASE)


class Intent(NamedTuple):
    """Something that a text says is done."""

    said: str  # the verb as written
    kinds: frozenset[str]
    about: Literal["thing", "text", "keys", "nothing"]
    start: int  # of the verb
    end: int
    now: bool
    before: bool = False  # what it is about stands before it


def names_another(text: str, observation: Observation, action: Action) -> str | None:
    """What a text names as the thing to do, where that is not ``action``; None where it names nothing else.

    Args:
        text: one line, with straight quotation marks.
        observation: the page that the action was chosen on.
        action: what was done.
    """
    scene = Scene.of(text, observation, action)
    verdicts = [(intent, _verdict(intent, scene)) for intent in intents(scene.flat)]
    now = [problem for intent, problem in verdicts if intent.now]
    if now:
        return next((problem for problem in now if problem), None)
    other = [problem for _, problem in verdicts]
    return other[0] if other and all(other) else None


def intents(flat: str) -> Iterator[Intent]:
    """Every intent of a text in which quotations and longer labels are blotted out, so that words in them are none."""
    seen: set[int] = set()
    groups = ((_NOW, True, False), (_DUTY, False, False), ((_PASSIVE, _RIGHT), False, True), (_LOOSE, False, False))
    for patterns, now, before in groups:
        for pattern in patterns:
            for found in pattern.finditer(flat):
                intent = _intent(found, flat, now, before)
                if intent is not None and intent.start not in seen:
                    seen.add(intent.start)
                    yield intent


def _intent(found: re.Match[str], flat: str, now: bool, before: bool) -> Intent | None:
    group = next(name for name, value in found.groupdict().items() if value is not None)
    verb_at = found.start(group)
    begin = max((each.end() for each in _SENTENCE.finditer(flat, 0, verb_at)), default=0)
    lead, within = flat[begin : max(begin, found.start())], flat[max(begin, found.start()) : verb_at]
    clause = re.split(r"[,;:] ", lead)[-1]
    if found.re is _AND and not _GOES_ON.search(clause):
        return None
    now = now and not (found.re is _AND and _OWED.search(clause))
    if _SKIPPED.search(lead) or (_PURPOSE.search(lead) and re.search(r"\bcan\b", within)):
        return None
    if _LATER.search(lead) or _LATER.search(flat[begin:verb_at]) or re.search(r"\b(?:then|finally)\b", within):
        now = False
    if group == "right":
        return Intent(found[group], frozenset(ACTIONS), "thing", found.start(), found.end(), False, True)
    if group == "effect":
        return Intent(found[group], _EFFECTS, "nothing", verb_at, found.end(group), False)
    verb = VERBS[int(group[1:])]
    if verb.kinds == {"noop"} and found.re is _AND:
        now = False  # "I click Start and wait": what comes after it
    return Intent(found[group], verb.kinds, verb.about, verb_at, found.end(group), now, before)


def _verdict(intent: Intent, scene: Scene) -> str | None:
    """Why an intent is not the action; None if it may be it."""
    kind = scene.action.kind
    one_key = kind in _KEYS and len(getattr(scene.action, "key", "")) == 1 and intent.about == "text"
    if kind not in intent.kinds and not one_key:
        return f'it named another kind of action ("{intent.said}")'
    if intent.about == "nothing":
        return scene.wrong_direction(intent.end) if kind == "scroll" else None
    if not intent.before:
        return scene.differs(*scene.span(intent.end), intent.start, intent.about)
    begin = _clause_start(scene.flat, intent.start)
    problem = scene.differs(begin, intent.start, intent.start, "thing")
    if problem is None and intent.about == "text":  # "the field must be filled with ..."
        problem = scene.differs(*scene.span(intent.end), intent.start, "text")
    return problem


def _clause_start(flat: str, position: int) -> int:
    return max((found.end() for found in re.finditer(r"[.!?;,]\s", flat[:position])), default=0)
