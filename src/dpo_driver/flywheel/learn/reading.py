"""Reading what agents did: through the content filter, with a note of who read what, and why.

The notes are ``<root>/access.jsonl``, a line a reading, only ever appended to. Called by texts.py, turn.py and api.py.
"""

from __future__ import annotations

import getpass
import importlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dpo_driver.core.errors import ConfigError
from dpo_driver.core.records import Interaction
from dpo_driver.flywheel.inbox import FILE, Inbox

ACCESS_LOG = "access.jsonl"
PAGE = 1000
Filter = Callable[[Interaction], Interaction | None]


@dataclass(frozen=True)
class Read:
    """What was read. ``upto`` is the number of the last row, ``withheld`` how many the filter kept back."""

    rows: tuple[Interaction, ...]
    upto: int
    withheld: int


def read(root: Path, role: str, purpose: str, *, after: int = 0, keep: Filter | None = None) -> Read:
    """All interactions of a role behind a number, as far as the filter lets them through.

    A row that the filter fails on is kept back as well: what cannot be checked is not trained on.

    Raises:
        StoreError: the inbox cannot be read, or the reading cannot be noted: then nothing is handed out.
    """
    found: list[Interaction] = []
    seen, last = 0, after
    if (root / FILE).is_file():
        with Inbox(root) as inbox:
            while rows := inbox.since(last, role=role, limit=PAGE):
                last = rows[-1][0]
                seen += len(rows)
                found += [kept for _, row in rows if (kept := _kept(keep, row)) is not None]
    if seen:
        _note(root, {"role": role, "purpose": purpose, "after": after, "upto": last, "read": seen,
                     "withheld": seen - len(found)})  # fmt: skip
    return Read(tuple(found), last, seen - len(found))


def content_filter(name: str) -> Filter | None:
    """The function that ``package.module:function`` names; None for "".

    Raises:
        ConfigError: there is none.
    """
    if not name:
        return None
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the content filter cannot be loaded: {error}", where=f"filter: {name}",
                          remedy="is the package installed, or its folder on PYTHONPATH?") from None  # fmt: skip
    if not callable(found):
        raise ConfigError("the content filter is no function", where=f"filter: {name}")
    return found


def _kept(keep: Filter | None, row: Interaction) -> Interaction | None:
    if keep is None:
        return row
    try:
        return keep(row)
    except Exception:  # noqa: BLE001  whatever somebody's own function raises: the row stays out
        return None


def _note(root: Path, what: dict[str, object]) -> None:
    from dpo_driver.core.errors import StoreError

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this number
        user = str(os.getuid())
    line = json.dumps({"at": round(time.time(), 3), "user": user, "pid": os.getpid(), **what}) + "\n"
    try:
        file = os.open(root / ACCESS_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())  # one write: lines of several processes do not mix
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise StoreError(f"the reading cannot be noted: {error}", where=str(root / ACCESS_LOG)) from error
