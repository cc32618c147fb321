"""Parquet files and folders of Hugging Face's ``datasets``, to and from rows of plain JSON values.

Arrow gives every row of a column the same fields and fills what is missing with null; such nulls are taken out again.
What is free in form travels as JSON: tools and metadata as text, tool calls in ``datasets``' own Json type, so that TRL
reads them as they were. Called by files.py; ``datasets`` is imported when something is read or written.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Literal

from dpo_driver.core.errors import DataError
from dpo_driver.core.vault import MAGIC, is_sealed, open_export, seal_export
from dpo_driver.preferences.files import FOLDER_MARKS, Part
from dpo_driver.preferences.jsonl import Row, RowError, write_bytes

REMEDY = "pip install 'dpo-driver[data]'"
# The names that splits have elsewhere, and ours.
SPLITS: Mapping[str, Literal["train", "val"]] = {
    "train": "train", "test": "val", "val": "val", "valid": "val", "validation": "val", "eval": "val", "dev": "val",
}  # fmt: skip
_SHARD = re.compile(r"(?P<split>.+?)[-_.]\d+(-of-\d+)?")
_MESSAGES = ("prompt", "chosen", "rejected", "completion")
_AS_TEXT = ("tools", "metadata")  # columns that are JSON text in a table


def read_tables(path: Path) -> list[Part]:
    """The rows of a Parquet file, of a folder that ``save_to_disk`` wrote, or of a folder of Parquet files.

    Raises:
        DataError: it is missing or damaged, a split has a name that says nothing, or ``datasets`` is not installed.
    """
    datasets = _datasets()
    import pyarrow  # type: ignore[import-untyped]

    if path.is_file():
        return [_part(path, _parquet(path), None)]
    if path.is_dir() and any((path / mark).is_file() for mark in FOLDER_MARKS):
        try:
            saved = datasets.load_from_disk(str(path))
        except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
            raise DataError(f"cannot read: {error}", where=str(path), remedy="save the dataset again") from error
        except IndexError:  # what comes of a split without rows, in `datasets` 5
            raise DataError("a split is empty", where=str(path), remedy="save it without empty splits") from None
        if not isinstance(saved, datasets.DatasetDict):
            return [_part(path, saved.with_format("arrow")[:], None)]
        return [_part(path / name, one.with_format("arrow")[:], _split(name, path)) for name, one in saved.items()]
    files = sorted(path.rglob("*.parquet"))
    if not files:
        raise DataError("no such file", where=str(path), remedy="check the path")
    names = {file: _name_of_split(file) for file in files}
    if not any(name in SPLITS for name in names.values()):
        return [_part(file, _parquet(file), None) for file in files]
    return [_part(file, _parquet(file), _split(name, path)) for file, name in names.items()]


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], *, sealed: bool = False) -> int:
    """One file with all rows, encrypted if ``sealed``. Returns their number. DataError: it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path, temporary):
        if sealed:  # in memory, so that nothing lies on the disk in the clear
            whole = io.BytesIO()
            _dataset(rows, path).to_parquet(whole)
            write_bytes(path, [seal_export(whole.getvalue())])
            return len(rows)
        _dataset(rows, path).to_parquet(str(temporary))
        _sync(temporary)
        temporary.replace(path)
    return len(rows)


def write_folder(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """A ``DatasetDict`` with the splits ``train`` and, where there are rows for validation, ``test``.

    Returns:
        The number of rows.

    Raises:
        DataError: the folder holds something else, there are no rows, or it cannot be written.
    """
    if path.is_dir() and any(path.iterdir()) and not any((path / mark).is_file() for mark in FOLDER_MARKS):
        remedy = "give a new folder, or one that holds a dataset"
        raise DataError("the folder holds something that is no dataset", where=str(path), remedy=remedy)
    if not rows:
        raise DataError("there is nothing to write", where=str(path), remedy="a dataset needs at least one row")
    splits: dict[str, list[Mapping[str, Any]]] = {"train": [], "test": []}
    for row in rows:
        splits["test" if row["metadata"]["split"] == "val" else "train"].append(row)
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    with _writing(path, temporary):
        kept = {name: _dataset(part, path) for name, part in splits.items() if part}
        _datasets().DatasetDict(kept).save_to_disk(str(temporary))
        _sync(*(file for file in temporary.rglob("*") if file.is_file()))
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    return len(rows)


def _dataset(rows: Sequence[Mapping[str, Any]], path: Path) -> Any:
    """Rows with every column spelled out, so that nothing is guessed from the first of them."""
    datasets = _datasets()
    text = datasets.Value("string")
    keys = {key for row in rows for column in _MESSAGES for message in row.get(column) or () for key in message}
    message = {"role": text, "content": text} | {key: text for key in ("name", "tool_call_id") if key in keys}
    if "tool_calls" in keys:
        message["tool_calls"] = datasets.List(datasets.Json())
    columns = {key for row in rows for key in row} or {"prompt", "metadata"}
    ordered = [column for column in (*_MESSAGES, *_AS_TEXT) if column in columns]
    features = {column: text if column in _AS_TEXT else datasets.List(message) for column in ordered}
    flat = [{column: _flat(column, row.get(column), message) for column in features} for row in rows]
    try:
        return datasets.Dataset.from_list(flat, features=datasets.Features(features))
    except UnicodeEncodeError as error:
        what = f"a text holds half a character ({error.object[error.start : error.end]!r}), which tables cannot keep"
        raise DataError(what, where=str(path), remedy="write JSON lines: give a name that ends in .jsonl") from None


def _flat(column: str, value: Any, message: Mapping[str, Any]) -> Any:
    if value is None:
        return None
    if column in _AS_TEXT:
        return json.dumps(value)
    # The Json type would write numbers in its own, shorter way; a text that is JSON already it leaves alone.
    as_text = [{**one, "tool_calls": [json.dumps(call, ensure_ascii=False) for call in one["tool_calls"]]}
               if one.get("tool_calls") else one for one in value]  # fmt: skip
    return [{key: one.get(key) for key in message} for one in as_text]


def _part(path: Path, table: Any, split: Literal["train", "val"] | None) -> Part:
    features = _datasets().Features.from_arrow_schema(table.schema)
    rows = [(str(number), _row(row, features)) for number, row in enumerate(table.to_pylist(), start=1)]
    if not rows:
        raise DataError("the table is empty", where=str(path), remedy="write at least one row")
    return Part(path, "row", rows, split)


def _row(row: Mapping[str, Any], features: Mapping[str, Any]) -> Row | RowError:
    try:
        plain = {name: _plain(value, features[name]) for name, value in row.items() if value is not None}
        for name in _AS_TEXT:
            if isinstance(plain.get(name), str):
                plain[name] = json.loads(plain[name])
    except (TypeError, json.JSONDecodeError) as error:
        return RowError(str(error))
    return plain


def _plain(value: Any, feature: Any) -> Any:
    """An Arrow value as JSON would have it; TypeError for what JSON has no words for."""
    datasets = _datasets()
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(feature, datasets.Json):
        return json.loads(value)
    if isinstance(value, list):
        inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) else None)
        return [_plain(item, inner) for item in value]
    if isinstance(value, dict):
        inner = feature if isinstance(feature, dict) else {}
        return {key: _plain(item, inner.get(key)) for key, item in value.items() if item is not None}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if not isinstance(value, str):
        raise TypeError(f"a value of type {type(value).__name__} cannot be read; leave its column out")
    return value


def _parquet(path: Path) -> Any:
    import pyarrow  # it comes with `datasets`
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with path.open("rb") as file:
            sealed = is_sealed(file.read(len(MAGIC)))
        whole = pyarrow.BufferReader(open_export(path.read_bytes())) if sealed else path
        return pyarrow.parquet.read_table(whole)
    except (OSError, pyarrow.ArrowException) as error:
        what = f"cannot read: {str(error).splitlines()[0]}"
        raise DataError(what, where=str(path), remedy="copy or download it again") from error


def _name_of_split(file: Path) -> str:
    """``train`` for ``train.parquet``, ``train-00000-of-00002.parquet`` and ``train/0000.parquet``."""
    shard = _SHARD.fullmatch(file.stem)
    name = shard["split"] if shard else file.stem
    return file.parent.name if name not in SPLITS and file.parent.name in SPLITS else name


def _split(name: str, folder: Path) -> Literal["train", "val"]:
    if name not in SPLITS:
        what = f"the split {name!r} is neither for training nor for validation"
        remedy = f"read it by itself ({folder / name}), or leave it out; known are {', '.join(SPLITS)}"
        raise DataError(what, where=str(folder), remedy=remedy)
    return SPLITS[name]


def _sync(*files: Path) -> None:
    """To the disk before anything is renamed."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


@contextmanager
def _writing(path: Path, temporary: Path) -> Iterator[None]:
    """Say what goes wrong, and leave nothing half-written."""
    datasets = _datasets()
    quiet = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        remedy = "free some space or choose another path; what was there before is intact"
        raise DataError(f"cannot write: {error.strerror or error}", where=str(path), remedy=remedy) from error
    finally:
        if not quiet:
            datasets.enable_progress_bars()
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError("Parquet files and dataset folders need the package datasets", remedy=REMEDY) from error
    if not hasattr(datasets, "Json"):
        what = f"datasets {datasets.__version__} is too old: 4.7 is the first that can keep tool calls"
        raise DataError(what, remedy=REMEDY)
    return datasets
