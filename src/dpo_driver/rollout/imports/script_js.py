"""Playwright's codegen output in JavaScript or TypeScript (test, library), read by a small parser. Nothing runs.

Called by playwright.py. It reads tokens and, of those, calls on pages: names, strings, numbers, regular expressions,
lists and plain objects as arguments. What would need a running program is an error with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.rollout.imports.calls import Call, Expression, NewPage, Opaque, Pattern, Statement
from dpo_driver.rollout.imports.script_py import REMEDY

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)
    |(?P<number>-?\d+(?:\.\d+)?)
    |(?P<name>[A-Za-z_$][\w$]*)
    |(?P<arrow>=>)
    |(?P<sign>[-+*%=<>!&|?:;,.(){}\[\]@^~\#])
    |(?P<regex>/(?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*)
    |(?P<slash>/)""",
    re.VERBOSE | re.DOTALL,
)
_PROGRAM = frozenset({"if", "for", "while", "switch", "try", "do", "throw", "class"})
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "\n": ""}
_ESCAPE = re.compile(r"\\(u\{[0-9a-fA-F]+\}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_CLOSES = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def statements(text: str, name: str) -> Iterator[Statement]:
    """The calls of a script, in order.

    Raises:
        DataError: more than a straight recording; ``name`` and line are named.
    """
    yield from _Script(_tokens(text, name), name).statements()


def snake(name: str) -> str:
    """Playwright's name in Python: ``getByRole`` is ``get_by_role``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: "_" + found[1].lower(), name)


def _tokens(text: str, name: str) -> list[_Token]:
    found: list[_Token] = []
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise DataError(f"{text[at : at + 20]!r} cannot be read", where=f"{name}:{line}", remedy=REMEDY)
        kind = str(match.lastgroup)
        if kind != "space":
            found.append(_Token(kind, match[0], line))
        line += match[0].count("\n")
        at = match.end()
    return found


def _unquoted(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "ux" and len(code) > 1:
            return chr(int(code[1:].strip("{}"), 16))
        return _ESCAPES.get(code, code)

    return _ESCAPE.sub(plain, text[1:-1])


class _Script:
    """A position in the tokens, the names of pages and locators, and promises of pages that are still to open."""

    def __init__(self, tokens: list[_Token], name: str) -> None:
        self._tokens, self._name, self._at = tokens, name, 0
        self._pages = {"page"}
        self._locators: dict[str, Expression] = {}
        self._openings: set[str] = set()

    def statements(self) -> Iterator[Statement]:
        while (token := self._peek()) is not None:
            if token.kind == "name" and token.text == "import":
                self._skip_line(token.line)
            elif token.kind == "name" and token.text in ("const", "let", "var"):
                yield from self._declared()
            elif token.kind == "name" and token.text in _PROGRAM:
                raise self._wrong(token, "is more than a recording")
            elif token.kind == "name" and token.text == "await":
                self._at += 1
                yield from self._awaited()
            elif token.kind == "name" and token.text in self._known and self._sign(1, "."):
                yield self._expression()
            else:
                self._at += 1

    @property
    def _known(self) -> set[str]:
        return {*self._pages, *self._locators, "context", "browser"}

    def _awaited(self) -> Iterator[Statement]:
        token = self._peek()
        if token is None or token.kind != "name" or token.text == "Promise":
            raise self._wrong(token, "is no call on a page")
        if token.text == "expect":
            self._expression()  # assertions are about the page as it was there
            return
        yield self._expression()

    def _declared(self) -> Iterator[Statement]:
        """``const page1 = await page1Promise;``, ``const page = await context.newPage();``, a named locator."""
        line = self._tokens[self._at].line
        self._at += 1
        named = self._peek()
        if named is None or named.kind != "name":
            self._skip_line(line)  # const { chromium } = require('playwright')
            return
        self._at += 1
        if not self._sign(0, "="):
            raise self._wrong(named, "is given no value")
        self._at += 1
        if (token := self._peek()) is not None and token.text == "await":
            self._at += 1
        token = self._peek()
        if token is None or token.kind != "name" or token.text == "require":
            self._skip_line(line)
            return
        if token.text in self._openings:
            self._at += 1
            self._pages.add(named.text)
            yield NewPage(named.text, line)
            return
        expression = self._expression()
        last = expression.calls[-1] if expression.calls else Call("")
        if last.name == "wait_for_event" and last.args[:1] in (("popup",), ("page",)):
            self._openings.add(named.text)
        elif last.name == "new_page":
            self._pages.add(named.text)
            yield Expression(named.text, (Call("new_page", line=line),), line)
        elif last.name not in ("launch", "new_context", "wait_for_event", "launch_persistent_context"):
            self._locators[named.text] = expression

    def _expression(self) -> Expression:
        """A name and the calls on it."""
        root = self._take("name")
        calls: list[Call] = []
        if self._sign(0, "("):  # expect(...), soft(...)
            self._arguments()
        while self._sign(0, "."):
            self._at += 1
            name = self._take("name")
            if self._sign(0, "("):
                args, named = self._arguments()
                calls.append(Call(snake(name.text), args, named, name.line))
            else:
                calls.append(Call(snake(name.text), line=name.line))
        known = self._locators.get(root.text)
        before = known.calls if known else ()
        return Expression(known.root if known else root.text, (*before, *calls), root.line)

    def _arguments(self) -> tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]:
        """Positional arguments, and the entries of an object that comes last."""
        values = self._list(")")
        if values and isinstance(values[-1], dict):
            named = tuple((snake(key), value) for key, value in values[-1].items())
            return tuple(values[:-1]), named
        return tuple(values), ()

    def _list(self, end: str) -> list[Any]:
        self._at += 1
        values: list[Any] = []
        while not self._sign(0, end):
            if self._sign(0, ","):
                self._at += 1
                continue
            values.append(self._value())
        self._at += 1
        return values

    def _value(self) -> Any:
        token = self._peek()
        begin = self._at
        if token is None:
            raise self._wrong(None, "ends too early")
        value: Any = Opaque()
        if token.kind == "string":
            if token.text[0] == "`" and "${" in token.text:
                raise self._wrong(token, "needs a running program")
            value = _unquoted(token.text)
            self._at += 1
        elif token.kind == "number":
            value = float(token.text) if "." in token.text else int(token.text)
            self._at += 1
        elif token.kind == "regex":
            body, _, flags = token.text[1:].rpartition("/")
            value = Pattern(f"(?i){body}" if "i" in flags else body)
            self._at += 1
        elif token.text == "[":
            value = self._list("]")
        elif token.text == "{":
            value = self._object()
        elif token.kind == "name" and token.text in ("true", "false", "null", "undefined"):
            value = {"true": True, "false": False}.get(token.text)
            self._at += 1
        elif token.kind == "name" and token.text in self._known and self._sign(1, "."):
            value = self._expression()
        if not (self._sign(0, ",") or self._sign(0, ")") or self._sign(0, "]") or self._sign(0, "}")):
            self._at = begin
            self._skip_value()  # a function, a sum: only a call that is passed over may have one
            return Opaque()
        return value

    def _object(self) -> dict[str, Any]:
        self._at += 1
        found: dict[str, Any] = {}
        while not self._sign(0, "}"):
            if self._sign(0, ","):
                self._at += 1
                continue
            token = self._peek()
            if token is None or token.kind not in ("name", "string"):
                raise self._wrong(token, "is no key")
            self._at += 1
            key = _unquoted(token.text) if token.kind == "string" else token.text
            if not self._sign(0, ":"):
                raise self._wrong(token, "has no value")
            self._at += 1
            found[key] = self._value()
        self._at += 1
        return found

    def _skip_value(self) -> None:
        """Go to the comma or bracket that ends a value."""
        open_ones: list[str] = []
        while (token := self._peek()) is not None:
            if not open_ones and token.text in (",", ")", "]", "}"):
                return
            if token.text in _CLOSES:
                open_ones.append(_CLOSES[token.text])
            elif open_ones and token.text == open_ones[-1]:
                open_ones.pop()
            self._at += 1
        raise self._wrong(None, "ends too early")

    def _skip_line(self, line: int) -> None:
        """Go past a declaration: to its semicolon, or to the next line."""
        while (token := self._peek()) is not None and token.line == line:
            self._at += 1
            if token.text == ";":
                return

    def _take(self, kind: str) -> _Token:
        token = self._peek()
        if token is None or token.kind != kind:
            raise self._wrong(token, f"stands where a {kind} should")
        self._at += 1
        return token

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _sign(self, ahead: int, text: str) -> bool:
        place = self._at + ahead
        return place < len(self._tokens) and self._tokens[place].text == text and self._tokens[place].kind == "sign"

    def _wrong(self, token: _Token | None, how: str) -> DataError:
        last = self._tokens[-1].line if self._tokens else 1
        text = token.text[:60] if token is not None else "the file"
        return DataError(f"{text!r} {how}", where=f"{self._name}:{token.line if token else last}", remedy=REMEDY)
