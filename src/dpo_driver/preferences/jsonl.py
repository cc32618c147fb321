"""JSON lines, read strictly and written safely: every broken line is named, and no reader ever sees half a file.

Called by files.py, legacy.py and gauntlet.py. A row parser raises :class:`RowError`; the file and the line are added
here, so that one message lists all that is wrong with a file. Knows no record type.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from dpo_driver.core.errors import DataError
from dpo_driver.core.vault import open_export, seal_export

MAX_LISTED = 20

Row = dict[str, Any]
Parsed = TypeVar("Parsed")


class RowError(ValueError):
    """What is wrong with one row, in words; the place is added by the reader."""


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]], *, sealed: bool = False) -> int:
    """Write one JSON object a line, UTF-8, all or nothing: temporary file, fsync, rename.

    Args:
        sealed: encrypt the file, see core/vault.py; :func:`read_bytes` opens it.

    Returns:
        The number of rows.

    Raises:
        DataError: the file cannot be written; what was there before is intact. VaultError: there is no key.
    """
    count = 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        for row in rows:
            count += 1
            yield _line(row)

    write_bytes(path, [seal_export(b"".join(lines()))] if sealed else lines())
    return count


def write_bytes(path: str | Path, pieces: Iterable[bytes]) -> None:
    """Write a file from its pieces, all or nothing. DataError: it cannot be written."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        remedy = "free some space or choose another path; what was there before is intact"
        raise DataError(f"cannot write: {error.strerror or error}", where=str(target), remedy=remedy) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:  # a lone surrogate from some page: only an escape can carry it
        return (json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n").encode()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Path) -> bytes:
    """The file's content, opened if it is sealed; DataError when it cannot be read or holds nothing, VaultError when
    there is no key or another one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), remedy="check the path") from None
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror or error}", where=str(path)) from error
    content = open_export(content)
    if not content.strip():
        raise DataError("the file is empty", where=str(path), remedy="write at least one row")
    return content


def read_jsonl(path: str | Path, parse: Callable[[Row], Parsed]) -> list[Parsed]:
    """Read a file of JSON objects, one a line; blank lines are passed over.

    Args:
        path: a UTF-8 file.
        parse: gives the record of a row or raises RowError.

    Raises:
        DataError: the file is missing or empty, or any line is broken; the message lists the first broken ones with
            their line numbers, and no row is returned.
    """
    path = Path(path)
    return parse_rows(lines_of(read_bytes(path)), parse, path)


def parse_rows(
    rows: Iterable[tuple[str, Row | RowError]], parse: Callable[[Row], Parsed], path: Path, unit: str = "line"
) -> list[Parsed]:
    """Parse numbered rows, collecting every error before complaining about any."""
    parsed: list[Parsed] = []
    errors: list[tuple[str, str]] = []
    for number, row in rows:
        if isinstance(row, RowError):
            errors.append((number, str(row)))
            continue
        try:
            parsed.append(parse(row))
        except RowError as error:
            errors.append((number, str(error)))
    if errors:
        raise _complaint(path, unit, errors)
    return parsed


def _complaint(path: Path, unit: str, errors: list[tuple[str, str]]) -> DataError:
    number, first = errors[0]
    if len(errors) == 1:
        return DataError(first, where=f"{path}, {unit} {number}", remedy="mend or remove this row; nothing was read")
    numbers = ", ".join(number for number, _ in errors[:MAX_LISTED])
    listed = [f"{unit} {number}: {text}" for number, text in errors[:MAX_LISTED]]
    if len(errors) > MAX_LISTED:
        numbers += ", ..."
        listed.append(f"... and {len(errors) - MAX_LISTED} more")
    remedy = "\n     ".join(["mend or remove these rows; nothing was read:", *listed])
    return DataError(f"{len(errors)} broken rows", where=f"{path}, {unit}s {numbers}", remedy=remedy)


def lines_of(content: bytes) -> Iterator[tuple[str, Row | RowError]]:
    """The JSON objects of a file's content with their line numbers; blank lines are passed over."""
    # Split on newlines only: str.splitlines would also cut at U+2028 inside a string.
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if raw.strip():
            yield str(number), load_object(raw)


def load_object(raw: bytes) -> Row | RowError:
    """One JSON object from its bytes, or what is wrong with it."""
    try:
        value = json.loads(raw.decode())
    except UnicodeDecodeError:
        return RowError("not UTF-8")
    except (json.JSONDecodeError, RecursionError) as error:
        return RowError(f"broken JSON: {error}")
    return as_object(value)


def as_object(value: Any) -> Row | RowError:
    """The value if it is a JSON object, otherwise the error that says so."""
    return value if isinstance(value, dict) else RowError(f"a JSON object is needed, not {kind_of(value)}")


def kind_of(value: Any) -> str:
    """What a JSON value is, for messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def require(row: Row, key: str) -> Any:
    """The value under a key; RowError with the keys that are there when it is missing."""
    if key not in row:
        raise RowError(f"missing key {key!r}; the row has {', '.join(map(repr, sorted(row))) or 'no keys'}")
    return row[key]


def require_text(row: Row, key: str) -> str:
    """A text under a key that holds more than white space."""
    value = require(row, key)
    if not isinstance(value, str):
        raise RowError(f"{key!r} must be a text, not {kind_of(value)}")
    if not value.strip():
        raise RowError(f"{key!r} is empty")
    return value
