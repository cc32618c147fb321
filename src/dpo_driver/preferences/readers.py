"""Data files of any format we know, chosen by name or by looking: TRL, DPO-Driver's older rows, the gauntlet's.

Called by the command line (``prefs import``). One reader a format, in its own file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.records import Preference, TrainingSample
from dpo_driver.preferences.files import is_table
from dpo_driver.preferences.formats import import_preferences, import_samples
from dpo_driver.preferences.gauntlet import read_gauntlet_pairs, read_gauntlet_samples
from dpo_driver.preferences.jsonl import Row, RowError, load_object, read_bytes
from dpo_driver.preferences.legacy import is_legacy_text, read_legacy_preferences, read_legacy_samples

Reader = Callable[[str | Path], Any]
# name -> (reader of preferences, reader of training rows)
FORMATS: dict[str, tuple[Reader, Reader]] = {
    "trl": (import_preferences, import_samples),
    "dpo-driver": (read_legacy_preferences, read_legacy_samples),
    "gauntlet": (read_gauntlet_pairs, read_gauntlet_samples),
}
_TRL_KEYS = frozenset({"prompt", "chosen", "rejected", "messages"})
_GAUNTLET_KEYS = frozenset(
    {"obs_text", "chosen_action", "rejected_action", "trajectories", "steps", "preference_pairs"}
)


def read_preferences(path: str | Path, format: str = "auto") -> list[Preference]:
    """Preferences from a file or folder in any format of ``FORMATS``; "auto" looks at the first row.

    Raises:
        DataError: names file and lines. UnknownNameError: no such format.
    """
    rows: list[Preference] = _reader(Path(path), format, 0)(path)
    return rows


def read_samples(path: str | Path, format: str = "auto") -> list[TrainingSample]:
    """Training rows from a file or folder in any format of ``FORMATS``."""
    rows: list[TrainingSample] = _reader(Path(path), format, 1)(path)
    return rows


def _reader(path: Path, format: str, column: int) -> Reader:
    if format == "auto":
        format = detect_format(path)
    if format not in FORMATS:
        raise UnknownNameError("data format", format, [*FORMATS, "auto"])
    return FORMATS[format][column]


def detect_format(path: str | Path) -> str:
    """Which of ``FORMATS`` a file or folder is in: a table is TRL's, another folder, ``obs_text`` or JSON without TRL's
    columns is the gauntlet's; an older dialect in a row without our metadata is DPO-Driver's; everything else is TRL's.
    """
    path = Path(path)
    if is_table(path):
        return "trl"
    if path.is_dir():
        return "gauntlet"
    content = read_bytes(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    row = load_object(content.split(b"\n", 1)[0])
    if content.startswith(b"[") or path.suffix == ".json":
        row = _first_of(content, row)
        if not isinstance(row, dict) or not row.keys() & _TRL_KEYS or row.keys() & _GAUNTLET_KEYS:
            return "gauntlet"
    if isinstance(row, RowError):
        return "trl"
    if "prompt" not in row and row.keys() & _GAUNTLET_KEYS:
        return "gauntlet"
    metadata = row.get("metadata")
    ours = isinstance(metadata, dict) and {"id", "split"} <= metadata.keys()
    texts = [row.get(key) for key in ("completion", "chosen", "rejected")]
    if not ours and any(isinstance(text, str) and is_legacy_text(text) for text in texts):
        return "dpo-driver"
    return "trl"


def _first_of(content: bytes, line: Row | RowError) -> Any:
    """The first row of a JSON file: of its list, of its lines, or the one it is."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return line
    return value[0] if isinstance(value, list) and value else value
