"""Math: read a formula, a list of operations or a short story, work it out, write the number, press the button beside.

Called by the agent of agents/solver through `recognise` and `solve`; imports nothing of the gauntlet's.
"""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction

from dpo_driver.agents.experts.page import Decision, Lost, first
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element

FORMULA = re.compile(
    r"[(\d][\d\s()+\-*/\u2212\u00d7\u00f7\u00b7]*[+\-*/\u2212\u00d7\u00f7\u00b7][\d\s()+\-*/\u2212\u00d7\u00f7\u00b7]*[\d)]"
)
SIGNS = str.maketrans({"\u2212": "-", "\u00d7": "*", "\u00f7": "/", "\u00b7": "*"})
AROUND = re.compile(r"[=?.\s]|what is|how much is|makes", re.IGNORECASE)
ASKS = re.compile(r"^(?:so )?(?:how (?:many|much)|what|where)\b.*\?$", re.IGNORECASE)
ONES = dict(
    zip(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split(),
        range(20),
        strict=True,
    )
)
TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
NUMBER = re.compile(rf"\d+|\b(?:(?:{'|'.join(TENS)})(?:-(?:{'|'.join(ONES)}))?|{'|'.join(ONES)})\b", re.IGNORECASE)
# The first that a sentence speaks of is what it does.
KINDS = (
    ("times", r"\btimes\b|multipl|\bdoubles?\b|\btriples?\b|fold\b"),
    ("share", r"\bdivid|\bshar(e|es|ed|ing)\b|\bsplits?\b|\bequally\b|\bevenly\b"),
    (
        "loss",
        r"\baway\b|\blos(e|es|t)\b|\bstolen\b|\bsells?\b|\bsold\b|\bless\b|\bfewer\b|subtract|\bminus\b|\bremov|\bdown\b|"
        r"\breduc|\bdrop|\bhands?\b|\bused up\b|\beat|\bspend|\bbreak|\bgives?\b|\bgave\b",
    ),
    (
        "gain",
        r"\bmore\b|\badd|\banother\b|\bgets?\b|\bgift\b|\bbrings?\b|\bfinds?\b|\bbuys?\b|\bwins?\b|\breceiv|\bup\b|\btop\b|"
        r"\bincreas|\bjoin|\bplus\b|\bgains?\b",
    ),
)
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    if len(page.all("textbox", "number", "spinbutton")) < 2 or result(page) is None:
        return 0.0
    return 0.95 if page.says(r"work out|calculat|solve|result|answer|reckon|figure|number|total|sum\b") else 0.6


def solve(page: PuzzlePage) -> Decision:
    """Write the number, then press the button that follows its field."""
    number = result(page)
    if number is None:
        raise Lost("there is nothing to calculate")
    field = _field(page)
    if not page.holds(field, str(number)):
        return page.fill(field, str(number))
    elements = list(page.observation.elements)
    return page.click(first(e for e in elements[elements.index(field) :] if e.role == "button"))


def _field(page: PuzzlePage) -> Element:
    code = page.code_field
    return first(e for e in page.all("textbox", "number", "spinbutton") if e.ref != code.ref)


def result(page: PuzzlePage) -> int | None:
    """What the formula or the sentences on the page come to."""
    lines = page.text.split("\n")
    for line in lines:
        found = FORMULA.search(line)
        if found and not AROUND.sub("", line.replace(found[0], "")):
            return _whole(_value(ast.parse(found[0].translate(SIGNS), mode="eval").body))
    for end, line in enumerate(lines):
        if ASKS.search(line):
            value = _told(lines[:end])
            if value is not None:
                return _whole(value)
    return None


def _value(node: ast.expr) -> Fraction:
    """The value of a formula of whole numbers."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise Lost("the formula has signs that are not known")


def _told(lines: list[str]) -> Fraction | None:
    """What sentences with one number each come to; the last ones are those that do something, before them one that
    only has a number."""
    numbers = [NUMBER.findall(line) for line in lines]
    start = len(lines)
    while start and len(numbers[start - 1]) == 1:
        start -= 1
    # The first sentence says what there is; an instruction before it has no number.
    if len(lines) - start < 2:
        return None
    value = Fraction(_number(numbers[start][0]))
    for line, (written,) in zip(lines[start + 1 :], numbers[start + 1 :], strict=True):
        kind = next((kind for kind, words in KINDS if re.search(words, line, re.IGNORECASE)), None)
        by = _number(written)
        if kind is None or (kind == "share" and by == 0):
            return None
        value = {"times": value * by, "loss": value - by, "gain": value + by}.get(kind, value / by if by else value)
    return value


def _number(written: str) -> int:
    if written.isdigit():
        return int(written)
    tens, _, ones = written.casefold().partition("-")
    return TENS.get(tens, ONES.get(tens, 0)) + ONES.get(ones, 0)


def _whole(value: Fraction) -> int | None:
    return int(value) if value.denominator == 1 else None
