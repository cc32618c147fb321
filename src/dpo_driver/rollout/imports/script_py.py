"""Playwright's codegen output in Python (library, asynchronous library, pytest), read with :mod:`ast`. Nothing runs.

Called by playwright.py. Only what codegen writes is understood: straight lines of calls, ``with page.expect_popup()``,
and the functions around them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.rollout.imports.calls import Call, Expression, NewPage, Opaque, Pattern, Statement

REMEDY = "keep to what codegen writes: one call after the other, without if, for and functions of your own"


def statements(text: str, name: str) -> Iterator[Statement]:
    """The calls of a script, in order.

    Raises:
        DataError: no Python, or more than a straight recording; ``name`` and line are named.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise DataError(f"no Python: {getattr(error, 'msg', error)}", where=f"{name}:{line or 1}") from None
    yield from _Script(name).body(tree.body)


class _Script:
    """One file: which names are functions of it, locators, or pages that are still to open."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._functions: set[str] = set()
        self._locators: dict[str, Expression] = {}
        self._openings: set[str] = set()

    def body(self, nodes: Sequence[ast.stmt]) -> Iterator[Statement]:
        for node in nodes:
            yield from self._statement(node)

    def _statement(self, node: ast.stmt) -> Iterator[Statement]:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Return() | ast.Expr(value=ast.Constant()):
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._functions.add(node.name)
                yield from self.body(node.body)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    if _called(item.context_expr) == "expect_popup" and isinstance(item.optional_vars, ast.Name):
                        self._openings.add(item.optional_vars.id)
                yield from self.body(node.body)
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                yield from self._assigned(target, _awaited(value), node.lineno)
            case ast.Expr(value=value):
                yield from self._done(_awaited(value))
            case _:
                raise self._wrong(node, "is more than a recording")

    def _assigned(self, target: str, value: ast.expr, line: int) -> Iterator[Statement]:
        if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id in self._openings:
            yield NewPage(target, line)  # page1 = page1_info.value
            return
        expression = self._expression(value)
        last = expression.calls[-1].name if expression.calls else ""
        if last == "new_page":
            yield Expression(target, (Call("new_page", line=line),), line)
        elif last in ("launch", "new_context", "launch_persistent_context"):
            return
        else:
            self._locators[target] = expression

    def _done(self, value: ast.expr) -> Iterator[Statement]:
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in self._functions:
            return  # its body has been read where it stands
        if _root(value) in ("expect", "asyncio", "sys"):
            return  # assertions are about the page as it was there
        yield self._expression(value)

    def _expression(self, node: ast.expr) -> Expression:
        """``page.locator("#a").first.click()`` as calls; a locator that has a name is put in its place."""
        calls: list[Call] = []
        at = _awaited(node)
        while not isinstance(at, ast.Name):
            if isinstance(at, ast.Call) and isinstance(at.func, ast.Attribute):
                args = tuple(self._value(argument) for argument in at.args)
                named = tuple((str(keyword.arg), self._value(keyword.value)) for keyword in at.keywords)
                # A chain over several lines begins where its first line is; each call is where its name is.
                calls.append(Call(at.func.attr, args, named, at.func.end_lineno or at.lineno))
                at = _awaited(at.func.value)
            elif isinstance(at, ast.Attribute):
                calls.append(Call(at.attr, line=at.end_lineno or at.lineno))
                at = _awaited(at.value)
            else:
                raise self._wrong(node, "is no call on a page")
        known = self._locators.get(at.id)
        before = known.calls if known else ()
        return Expression(known.root if known else at.id, (*before, *reversed(calls)), node.lineno)

    def _value(self, node: ast.expr) -> Any:
        node = _awaited(node)
        if isinstance(node, ast.Call) and _called(node) == "compile" and node.args:
            text = self._value(node.args[0])
            flags = ast.unparse(node.args[1]) if len(node.args) > 1 else ""
            return Pattern(f"(?i){text}" if "IGNORECASE" in flags or flags.endswith(".I") else str(text))
        if isinstance(node, ast.Lambda):
            return Opaque()
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError):
            return self._expression(node)

    def _wrong(self, node: ast.AST, how: str) -> DataError:
        line = getattr(node, "lineno", 1)
        text = ast.unparse(node).splitlines()[0][:80]
        return DataError(f"{text!r} {how}", where=f"{self._name}:{line}", remedy=REMEDY)


def _awaited(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Await) else node


def _called(node: ast.expr) -> str:
    """The last name of a call: ``expect_popup`` of ``page.expect_popup()``."""
    func = node.func if isinstance(node, ast.Call) else node
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""


def _root(node: ast.expr) -> str:
    """The first name of a chain."""
    at: ast.AST = node
    while not isinstance(at, ast.Name):
        if isinstance(at, ast.Call):
            at = at.func
        elif isinstance(at, ast.Attribute | ast.Await):
            at = at.value
        else:
            return ""
    return at.id
