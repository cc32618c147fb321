"""Values that must not be kept, and what stands for them in a text: ``[secret:shop]``.

``DPO_DRIVER_SECRETS`` lists some: a JSON object ``{"shop": "..."}``, a JSON list, or one value a line. Called by
core/redact.py, which finds others in what was typed, and by environments. Knows texts only.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus
from zipfile import ZIP_DEFLATED, ZipFile

from dpo_driver.core.errors import ConfigError

VARIABLE = "DPO_DRIVER_SECRETS"
INSIDE_WORDS = 6  # characters from which a value is covered inside longer words, too
LEAST_CUT = 4  # characters of a value that a shortened text may still show
PLACEHOLDER = re.compile(r"\[secret:[^\]\s]+\]")
# What names things is left alone: a password "success" must not become a stop reason.
_NAMES = frozenset(
    {"id", "kind", "seq", "source", "rater", "preferred", "comparison", "level", "split", "role", "state_hash",
     "task_id", "trajectory", "stop_reason", "policy_version", "context_policy"}
)  # fmt: skip


@dataclass(frozen=True)
class Secrets:
    """Values and what stands for them: ``Secrets({"hunter2": "[secret:1]"})``. Empty ones are false."""

    values: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.values)

    def __or__(self, other: Secrets) -> Secrets:
        return Secrets({**self.values, **other.values}) if other else self

    def cover(self, text: str) -> str:
        """The text with every value replaced: as it is, escaped in JSON, in an action or in HTML, percent-encoded, and
        cut short before an ellipsis."""
        if not self.values or not text:
            return text
        forms, pattern = _forms(tuple(self.values.items()))
        text = pattern.sub(lambda found: forms[found[0]], text)
        return self._cover_cut(text) if "…" in text else text

    def _cover_cut(self, text: str) -> str:
        pieces = text.split("…")
        for number, piece in enumerate(pieces[:-1]):
            for value, mark in self.values.items():
                lengths = range(min(len(value) - 1, len(piece)), LEAST_CUT - 1, -1)
                length = next((n for n in lengths if piece.endswith(value[:n])), 0)
                if length:
                    pieces[number] = piece[:-length] + mark
                    break
        return "…".join(pieces)

    def cover_json(self, value: Any) -> Any:
        """The same for every text inside a JSON value, but for what names things: ids, kinds, hashes."""
        if not self.values:
            return value
        if isinstance(value, str):
            return self.cover(value)
        if isinstance(value, Mapping):
            return {key: inner if key in _NAMES else self.cover_json(inner) for key, inner in value.items()}
        return [self.cover_json(inner) for inner in value] if isinstance(value, list | tuple) else value

    def reveal(self, text: str) -> str:
        """The text with the values back in place of what stands for them."""
        if "[secret:" not in text:
            return text
        back = {mark: value for value, mark in self.values.items()}
        return PLACEHOLDER.sub(lambda found: back.get(found[0], found[0]), text)

    def cover_zip(self, path: Path) -> None:
        """Write a ZIP file (a trace) anew, without the values in whatever in it is text."""
        if not self.values:
            return
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with ZipFile(path) as source, ZipFile(draft, "w", ZIP_DEFLATED) as target:
                for entry in source.infolist():
                    content = source.read(entry)
                    with suppress(UnicodeDecodeError):  # a picture or a font
                        content = self.cover(content.decode()).encode()
                    target.writestr(entry.filename, content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@lru_cache(maxsize=64)
def _forms(values: tuple[tuple[str, str], ...]) -> tuple[dict[str, str], re.Pattern[str]]:
    """What stands for each way to write a value, and the expression that finds them, longest first."""
    forms: dict[str, str] = {}
    for value, mark in values:
        written = {value, " ".join(value.split()), json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1],
                   quote(value, safe=""), quote_plus(value), html.escape(value), html.escape(value, quote=False),
                   value.replace("\\", "\\\\").replace('"', '\\"')}  # fmt: skip
        for form in written - {""}:
            forms.setdefault(form, mark)
    ordered = sorted(forms, key=len, reverse=True)
    return forms, re.compile("|".join(map(_alone, ordered)))


def _alone(value: str) -> str:
    """A pattern for a value; a short one inside a longer word is another word."""
    found = re.escape(value)
    return found if len(value) >= INSIDE_WORDS else rf"(?<!\w){found}(?!\w)"


def placeholder(name: str) -> str:
    """What stands for a value of that name."""
    return f"[secret:{re.sub(r'[^A-Za-z0-9_.-]+', '-', name) or 'unnamed'}]"


def named(values: Mapping[str, Any]) -> Secrets:
    """Values by their names; lists are taken apart."""
    marks: dict[str, str] = {}
    for name, value in values.items():
        parts = value if isinstance(value, list | tuple) else [value]
        for number, part in enumerate(parts, 1):
            if str(part).strip():
                marks[str(part)] = placeholder(name if len(parts) == 1 else f"{name}.{number}")
    return Secrets(marks)


def known() -> Secrets:
    """Those of ``DPO_DRIVER_SECRETS``.

    Raises:
        ConfigError: it begins like JSON and is none.
    """
    return _read(os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=4)
def _read(written: str) -> Secrets:
    written = written.strip()
    if written[:1] not in ("{", "["):
        return _unnamed(written.splitlines())
    try:
        value = json.loads(written)
    except ValueError:
        raise ConfigError("the secrets are no JSON", where=VARIABLE,
                          remedy='write {"NAME": "VALUE"}, ["VALUE"], or one value a line') from None  # fmt: skip
    return named(value) if isinstance(value, dict) else _unnamed(map(str, value))


def _unnamed(values: Iterable[str]) -> Secrets:
    listed = dict.fromkeys(value.strip() for value in values if value.strip())
    return Secrets({value: placeholder(f"known-{number}") for number, value in enumerate(listed, 1)})
