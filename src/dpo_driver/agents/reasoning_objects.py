"""What a piece of a reasoning is about, compared with the action that was taken: elements, texts, keys, directions.

Only what can be told apart for sure is held against a text: another element's label or number, a quotation that is
neither label nor text of the action, another key. Labels of one word count when they are quoted or written as on the
page. Called by agents/reasoning_intents.py; must not import policies or environments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dpo_driver.agents.reasoning import targets
from dpo_driver.core.actions import REF_FIELDS, Action
from dpo_driver.core.records import Element, Observation

MOST_LABEL = 80  # characters; what is longer is text
QUOTED = re.compile(r"\"[^\"]{1,200}\"|`[^`]{1,200}`|(?<!\w)'[^']{1,80}'(?!\w)")
_WRITTEN = ("value", "text")
_CUT = re.compile(
    r"[.;:!?](?=\s|$)|,|\b(?:because|since|so|as|which|that|who|whose|before|after|until|till|while|when|where|if|unless"
    r"|but|and|or|for|rather|instead|without|once|then|in order)\b",
    re.IGNORECASE,
)
_TO = re.compile(r"\bto\b", re.IGNORECASE)
_PLACE = re.compile(
    r"\b(?:in|into|inside|on|onto|from|of|next to|under|below|above|beside|within|with|using|at|near|to)\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"\W*(?:it|this|that|them|there|both)\b", re.IGNORECASE)
_REF = re.compile(r"\[(\d+)\]|\b(?:element|ref)\s+#?(\d+)\b", re.IGNORECASE)
_ORDER = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6}
_ORDINAL = re.compile(rf"\b({'|'.join(_ORDER)}|last)\s+(?:\w+\s+){{0,2}}[\"'`]?$", re.IGNORECASE)
_NUMBERED = re.compile(r"^\W{0,3}#(\d+)\b")
_ALSO = re.compile(r"\s*and (?:also )?(?:the )?[\"'`]?$", re.IGNORECASE)
_ALSO_ENDS = re.compile(r"[\"'`]?(?: (?:button|link|field|box|checkbox|option|tab|textbox)s?)?\s*(?:[.,;!?]|$| too\b)")
_NUMBER = re.compile(r"\W*(?:the )?(?:(?:number|answer|value|result|sum|total) )?(-?\d[\d.,:/-]*\d|-?\d)(?![\w-])")
_CODE = re.compile(r"\b(?=[A-Z0-9]*\d)[A-Z0-9]{4,}\b|\b[A-Z]{5,}\b")

# How keys are written, and what actions call them. Words that are labels as often need a capital letter or "key".
KEYS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?:{pattern})(?!\w)(?! (?:button|link|icon|tile|option|item)\b)"), key)
    for pattern, key in (
        (r"\b[Ee]nter|\bENTER|\bReturn|\breturn(?= key)", "enter"),
        (r"\b[Ee]sc(?:ape)?|\bESC", "escape"),
        (r"\bTab|\btab(?= key)", "tab"),
        (r"\bSpace(?:bar)?|\bspace ?bar|\bspace(?= key)", " "),
        (r"\b[Bb]ackspace", "backspace"),
        (r"\bDelete|\bdelete(?= key)", "delete"),
        (r"\bHome|\bhome(?= key)", "home"),
        (r"\bEnd|\bend(?= key)", "end"),
        (r"\b[Pp]age ?[Uu]p", "pageup"),
        (r"\b[Pp]age ?[Dd]own", "pagedown"),
        *(
            (rf"\b[Aa]rrow ?[{way[0]}{way[0].upper()}]{way[1:]}|\b[{way[0]}{way[0].upper()}]{way[1:]}(?: arrow| key)",
             f"arrow{way}")
            for way in ("up", "down", "left", "right")
        ),
    )
)  # fmt: skip
_ONE_KEY = re.compile(r"\b(?:key|letter|digit) [\"'`]?(\w)[\"'`]?(?!\w)|[\"'`](\w)[\"'`]|\b(\w) key\b")
_ALONE = re.compile(r"\W*(\w)(?: (?:now|first|next|again|once))?\W*")


class Mention(NamedTuple):
    """A label in a text: where, which, and whether it is the action's."""

    start: int
    end: int
    label: str
    own: bool


@dataclass(frozen=True)
class Scene:
    """A text beside what was done. ``flat`` is the text, letter for letter as long, with quotations and labels of
    several words blotted out."""

    text: str
    flat: str
    action: Action
    goal: str
    elements: tuple[Element, ...]  # that can be acted on
    own: tuple[Element, ...]  # that the action is about
    own_names: frozenset[str]  # in small letters
    names: tuple[str, ...]  # of all of them, the longest first

    @classmethod
    def of(cls, text: str, observation: Observation, action: Action) -> Scene:
        """``text`` is one line, with straight quotation marks."""
        elements = tuple(element for element in observation.elements if element.ref is not None)
        own = tuple(targets(observation, action)) or tuple(_under(action, elements))
        names = {" ".join(element.name.split()) for element in elements}
        mine = {" ".join(element.name.split()).lower() for element in own}
        if action.kind == "select_option":
            names.update(option for element in own for option in element.options)
            mine.update(option.lower() for option in action.options)
        listed = sorted((n for n in names if 0 < len(n) <= MOST_LABEL and re.search(r"\w", n)), key=len, reverse=True)
        flat = QUOTED.sub(_blot, text)
        for name in listed:
            if re.search(r"\W", name):
                flat = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", _blot, flat, flags=re.IGNORECASE)
        return cls(text, flat, action, observation.goal, elements, own, frozenset(mine - {""}), tuple(listed))

    def span(self, begin: int) -> tuple[int, int]:
        """From the end of a verb to the end of what it is about."""
        cut = _CUT.search(self.flat, begin)
        end = cut.start() if cut else len(self.flat)
        if "drag" not in self.action.kind and self.action.kind != "scroll":
            to = _TO.search(self.flat, begin, end)
            end = to.start() if to else end
        return begin, end

    def differs(self, begin: int, end: int, verb_at: int, about: str) -> str | None:
        """Why the words between two places are about something else than the action; None if they may be about it."""
        problem = self._other_ref(begin, end)
        if problem is None and about == "keys":
            key = self._key(begin, end)
            if key is not None:
                return self._other_key(key) or self._other_place(begin, end)
        if problem is None and about == "text":
            problem = self._other_text(begin, end)
        if problem is None and self.own_names:
            problem = self._other_thing(begin, end, verb_at, about)
        return problem

    def wrong_direction(self, begin: int) -> str | None:
        """Whether a text scrolls another way than the action."""
        found = re.match(r"\W*(?:the page |further |back )?(up|down|left|right)\b", self.flat[begin:], re.IGNORECASE)
        if found is None or self.action.kind != "scroll":
            return None
        way = found[1].lower()
        moved = self.action.delta_y if way in ("up", "down") else self.action.delta_x
        fits = moved > 0 if way in ("down", "right") else moved < 0
        return None if fits else "it scrolled another way"

    # -- elements ------------------------------------------------------------------------------------------------------

    def mentions(self, begin: int, end: int) -> list[Mention]:
        """Labels between two places, in their order; of overlapping ones the longest."""
        taken: list[Mention] = []
        for name in self.names:
            own = name.lower() in self.own_names
            for found in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", self.text[begin:end], re.IGNORECASE):
                start, stop = begin + found.start(), begin + found.end()
                if any(start < each.end and each.start < stop for each in taken):
                    continue
                if own or self._is_named(name, found[0], start, stop):
                    taken.append(Mention(start, stop, name, own))
        return sorted(taken)

    def _is_named(self, name: str, written: str, start: int, stop: int) -> bool:
        """Whether words are meant as a label: "name" in "the name of the film" is not the field "Name"."""
        quoted = self.text[start - 1 : start] in ('"', "'", "`") and self.text[stop : stop + 1] in ('"', "'", "`")
        if len(name) <= 2:
            return quoted or written == name
        return quoted or bool(re.search(r"\W", name)) or written == name or written[0].isupper()

    def _other_thing(self, begin: int, end: int, verb_at: int, about: str) -> str | None:
        pronoun = _PRONOUN.match(self.flat[begin:end])
        if pronoun and about == "thing":
            before = self.mentions(_clause(self.flat, verb_at), verb_at)
            return None if not before or any(each.own for each in before) else _named(before[-1].label)
        place = None if "drag" in self.action.kind or about == "text" else _PLACE.search(self.flat, begin, end)
        stop = place.start() if place else end
        written = {str(getattr(self.action, key, "")).lower() for key in _WRITTEN}
        found = [each for each in self.mentions(begin, stop) if each.own or each.label.lower() not in written]
        if not found:
            return None if about == "text" else self._other_quotation(begin, stop)
        if not found[0].own:
            return _named(found[0].label)
        if "drag" in self.action.kind and not all(each.own for each in found):
            return _named(next(each.label for each in found if not each.own))
        return self._other_of_its_like(found[0]) or self._one_more(end)

    def _other_quotation(self, begin: int, end: int) -> str | None:
        """A quotation that is nothing of the action's."""
        for found in QUOTED.finditer(self.text, begin, end):
            said = found[0][1:-1].lower().strip(" .,!?")
            if said and not any(said in name or name in said for name in self.own_names):
                return "it named something else as the thing to act on"
        return None

    def _other_of_its_like(self, mention: Mention) -> str | None:
        """Another one of several elements with the same label."""
        like = [element for element in self.elements if element.name.lower() == mention.label.lower()]
        target = next((element for element in self.own if element in like), None)
        if len(like) < 2 or target is None:
            return None
        before, after = _ORDINAL.search(self.text[: mention.start]), _NUMBERED.match(self.text[mention.end :])
        if before is None and after is None:
            return None
        said = int(after[1]) if after else _ORDER.get(before[1].lower(), len(like)) if before else 0
        return None if said in (like.index(target) + 1, target.nth) else f'it named another "{mention.label}"'

    def _one_more(self, end: int) -> str | None:
        """ "A and B" where the action is about A alone."""
        for mention in self.mentions(end, min(len(self.text), end + 2 * MOST_LABEL)):
            if mention.own or not _ALSO.match(self.text[end : mention.start]):
                continue
            if _ALSO_ENDS.match(self.text[mention.end :]):
                return f'it named "{mention.label}" as well'
        return None

    def _other_place(self, begin: int, end: int) -> str | None:
        """ "Enter in the field A" where the key goes to B."""
        place = _PLACE.search(self.flat, begin, end)
        found = self.mentions(place.end(), end) if place and self.own_names else []
        return None if not found or found[0].own else _named(found[0].label)

    def _other_ref(self, begin: int, end: int) -> str | None:
        own = {getattr(self.action, key) for key in self.action.arguments if key in REF_FIELDS}
        for one, other in _REF.findall(self.text[begin:end]):
            if own and (one or other) not in own:
                return f"it named element {one or other}"
        return None

    # -- texts and keys ------------------------------------------------------------------------------------------------

    def _other_text(self, begin: int, end: int) -> str | None:
        """Another text than the one that is written."""
        value = next((str(getattr(self.action, key)) for key in _WRITTEN if hasattr(self.action, key)), None)
        if value is None:
            return None
        labels = [(each.start, each.end) for each in self.mentions(begin, end)]
        problem = "it named another text than the one written"
        for found in QUOTED.finditer(self.text, begin, end):
            labelled = any(start <= found.end() and found.start() <= stop for start, stop in labels)
            if not labelled and not _alike(found[0][1:-1], value):
                return problem
        place = re.compile(r"\b(?:into|in|inside|as|with)\b", re.IGNORECASE).search(self.flat, begin, end)
        main = self.text[begin : place.start() if place and place.group().lower() != "with" else end]
        if value.lower() in main.lower():
            return None
        number = _NUMBER.match(main)
        said: list[str] = [number[1]] if number and any(map(str.isdigit, value)) else []
        said += [code for code in _CODE.findall(main) if code.lower() not in self.own_names]
        said += [text for text in re.findall(r"\"([^\"]+)\"", self.goal) if _whole(text, main)]
        wrong = [text for text in said if not _alike(text, value) and text.lower() not in self.own_names]
        return problem if wrong else None

    def _key(self, begin: int, end: int) -> str | None:
        """The key that is named, if one is and no label of the action's says so too."""
        place = re.compile(r"\b(?:in|into|on|while|inside)\b").search(self.flat, begin, end)
        words = self.text[begin : place.start() if place else end]
        pressed = hasattr(self.action, "key")
        for pattern, key in KEYS:
            found = pattern.search(words)
            if found and (pressed or not any(found[0].lower() in name for name in self.own_names)):
                return key
        single = _ONE_KEY.search(words) or (_ALONE.fullmatch(words) if pressed else None)
        if single is None or (not pressed and "key" not in single[0]):
            return None
        said = next(filter(None, single.groups())).lower()
        return None if said in self.own_names and not pressed else said

    def _other_key(self, key: str) -> str | None:
        pressed = str(getattr(self.action, "key", ""))
        last = pressed.rpartition("+")[2] if len(pressed) > 1 else pressed
        last = " " if last.lower() == "space" else last.lower()
        return None if pressed and last == key else "it named a key that is not pressed"


def _named(label: str) -> str:
    return f'it named "{label}" as the thing to act on'


def _under(action: Action, elements: Iterable[Element]) -> Iterator[Element]:
    """Elements under the points of a mouse action."""
    ends = [end for end in ("", "from_", "to_") if hasattr(action, f"{end}x")]
    points = [(getattr(action, f"{end}x"), getattr(action, f"{end}y")) for end in ends]
    for element in elements:
        if element.box is not None:
            left, top, width, height = element.box
            if any(left <= x <= left + width and top <= y <= top + height for x, y in points):
                yield element


def _blot(found: re.Match[str]) -> str:
    return "x" * len(found[0])


def _alike(one: str, other: str) -> bool:
    a, b = one.lower().strip(" .,!?"), other.lower().strip(" .,!?")
    return bool(a) and bool(b) and (a in b or b in a)


def _whole(word: str, text: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def _clause(flat: str, position: int) -> int:
    return max((found.end() for found in re.finditer(r"[.!?;]\s", flat[:position])), default=0)
