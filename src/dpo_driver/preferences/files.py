"""Rows of a data file, whatever it is: JSON lines, a JSON list, Parquet, a folder of Hugging Face's ``datasets``.

Called by formats.py, which knows what the rows mean. The last two need the package ``datasets`` (tables.py) and are
recognised by a file's suffix or a folder's content.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from dpo_driver.core.errors import DataError
from dpo_driver.preferences.jsonl import (
    Row,
    RowError,
    as_object,
    lines_of,
    parse_rows,
    read_bytes,
    write_jsonl,
)

Parsed = TypeVar("Parsed")
Kind = Literal["lines", "table"]
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
# Marks of a folder that `datasets` wrote: one dataset, or a dictionary of splits.
FOLDER_MARKS = ("dataset_dict.json", "state.json")


@dataclass(frozen=True)
class Part:
    """Numbered rows of one file or split. ``split`` is None where only the rows themselves can say it."""

    path: Path
    unit: str  # what a number counts: lines or rows
    rows: Sequence[tuple[str, Row | RowError]]
    split: Literal["train", "val"] | None = None

    def parse(self, parse: Callable[[Row], Parsed]) -> list[Parsed]:
        """A record of every row. DataError names all that are broken."""
        return parse_rows(self.rows, parse, self.path, self.unit)


def read_parts(path: str | Path) -> list[Part]:
    """All rows of a file or folder.

    Raises:
        DataError: it is missing, empty or broken; or it is a table and ``datasets`` is not installed.
    """
    path = Path(path)
    if is_table(path):
        from dpo_driver.preferences.tables import read_tables

        return read_tables(path)
    content = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    if not _is_json_value(content, path):
        return [Part(path, "line", list(lines_of(content)))]
    return [Part(path, "row", [(str(n), as_object(value)) for n, value in enumerate(_values(content, path), start=1)])]


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]], *, sealed: bool = False) -> int:
    """Write rows as the path's suffix says: ``.jsonl`` or ``.json`` lines, ``.parquet``, none for a folder of
    ``datasets``. All or nothing: what was there before stays until the new is whole.

    Args:
        sealed: encrypt the file, see core/vault.py; :func:`read_parts` opens it. A folder cannot be sealed.

    Returns:
        The number of rows.

    Raises:
        DataError: an unknown suffix, a folder that holds something else or is to be sealed, or it cannot be written.
    """
    path = Path(path)
    if path.suffix in JSON_SUFFIXES and not path.is_dir():
        return write_jsonl(path, rows, sealed=sealed)
    if path.suffix not in ("", ".parquet") and not path.is_dir():
        remedy = "end it in .jsonl or .parquet, or give a folder without a suffix"
        raise DataError(f"{path.suffix} is no format that can be written", where=str(path), remedy=remedy)
    from dpo_driver.preferences.tables import write_folder, write_parquet

    if path.suffix == ".parquet" and not path.is_dir():
        return write_parquet(path, list(rows), sealed=sealed)
    if sealed:
        raise DataError("a folder cannot be sealed, and this run is", where=str(path),
                        remedy="give a file that ends in .jsonl or .parquet")  # fmt: skip
    return write_folder(path, list(rows))


def is_table(path: Path) -> bool:
    """Whether this is a Parquet file, or a folder of ``datasets`` or of Parquet files."""
    if path.is_dir():
        return any((path / mark).is_file() for mark in FOLDER_MARKS) or next(path.rglob("*.parquet"), None) is not None
    return path.suffix == ".parquet"


def _is_json_value(content: bytes, path: Path) -> bool:
    """One JSON value over many lines rather than a line for each row."""
    start = content.lstrip()
    if start.startswith(b"[") and path.suffix == ".json":
        return True
    first = start.split(b"\n", 1)[0]
    return path.suffix == ".json" and start.startswith(b"{") and not first.rstrip().endswith(b"}")


def _values(content: bytes, path: Path) -> list[Any]:
    try:
        value = json.loads(content.decode())
    except UnicodeDecodeError:
        raise DataError("not UTF-8", where=str(path)) from None
    except (json.JSONDecodeError, RecursionError) as error:
        where = f"{path}, line {getattr(error, 'lineno', 1)}"
        raise DataError(f"broken JSON: {error}", where=where, remedy="mend the file") from None
    return value if isinstance(value, list) else [value]
