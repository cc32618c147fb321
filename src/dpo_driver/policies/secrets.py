"""Keys: where they come from, and how they stay out of everything that is written.

A key is read from the environment, else from a ``.env`` file in the working folder, and lives in a :class:`Secret` that
shows itself as dots. What a server answers is scrubbed before it goes into an error. Called by policies/providers.py
and policies/calls.py. Must not import any other layer than core.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from dpo_driver.core.errors import ConfigError

DOTENV = Path(".env")
HIDDEN = "•••"
_LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")
_COMMENT = re.compile(r"\s+#.*$")


class Secret:
    """A key. ``reveal()`` is the only way to see it; it can be neither printed, nor pickled, nor put into JSON."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for a request's header."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(Secret)  # tells nothing

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled")


def scrub(text: str, secrets: Iterable[Secret]) -> str:
    """A text without the keys that it may quote, as they are or as they stand in addresses."""
    for secret in secrets:
        for form in {secret.reveal(), quote(secret.reveal(), safe="")}:
            text = text.replace(form, HIDDEN)
    return text


def surroundings(dotenv: Path | None = DOTENV) -> dict[str, str]:
    """The environment, with what a ``.env`` file adds to it. The file never overrides, and the process's environment is
    left alone: what it starts (browsers, for one) inherits no key."""
    return {**({} if dotenv is None else read_dotenv(dotenv)), **os.environ}


def read_dotenv(path: Path) -> dict[str, str]:
    """``KEY=VALUE`` lines: comments, ``export`` and quotes are understood, other lines are passed over. Nothing where
    there is no file.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the file of keys cannot be read", where=str(path),
                          remedy=f"it is {type(error).__name__}; mend or remove it") from None  # fmt: skip
    found = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            found[match[1]] = _unquoted(match[2])
    return found


def _unquoted(value: str) -> str:
    if value[:1] in ("'", '"'):
        end = value.find(value[0], 1)
        return value[1:end] if end > 0 else value[1:]
    return "" if value.startswith("#") else _COMMENT.sub("", value)


def key_from(names: Sequence[str], environ: Mapping[str, str]) -> Secret | None:
    """The first of these variables that is set to something.

    Raises:
        ConfigError: it holds what no key does; the variable is named, not its content.
    """
    for name in names:
        value = environ.get(name, "").strip()
        if not value:
            continue
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise ConfigError(f"{name} does not hold a key", where="environment or .env",
                              remedy="it has spaces or letters that no key has: copy it again")  # fmt: skip
        return Secret(value)
    return None
