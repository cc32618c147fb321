"""Preferences and training rows as JSONL in TRL's columns, conversational, with our metadata beside them.

A preference row is ``{"prompt": [messages], "chosen": [{"role": "assistant", "content": ...}], "rejected": [...],
"metadata": {...}}``, a training row ``{"prompt": [messages], "completion": [...], "metadata": {...}}``. Plain texts are
accepted for every column and texts are kept as they are; the older dialects have their own readers, see readers.py.
Called by the command line and by the other readers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dpo_driver.core.records import Message, Preference, Record, TrainingSample
from dpo_driver.preferences.decisions import digest
from dpo_driver.preferences.jsonl import (
    Row,
    RowError,
    kind_of,
    read_jsonl,
    require,
    write_jsonl,
)

Model = TypeVar("Model", bound=Record)
# Columns of their own; every other field of a record is metadata.
_COLUMNS = frozenset({"messages", "chosen", "rejected", "completion"})


def export_preferences(path: str | Path, preferences: Iterable[Preference]) -> int:
    """Write preferences as TRL rows; :func:`import_preferences` gives equal records back. Returns the row count."""
    return write_jsonl(path, map(preference_row, preferences))


def import_preferences(path: str | Path) -> list[Preference]:
    """Read TRL preference rows, conversational or plain, with or without metadata.

    Raises:
        DataError: names the file and every broken line.
    """
    return read_jsonl(path, parse_preference)


def export_samples(path: str | Path, samples: Iterable[TrainingSample]) -> int:
    """Write training rows in TRL's prompt-completion columns. Returns the row count."""
    return write_jsonl(path, map(sample_row, samples))


def import_samples(path: str | Path) -> list[TrainingSample]:
    """Read prompt-completion rows, conversational or plain. Raises DataError naming file and lines."""
    return read_jsonl(path, parse_sample)


def preference_row(preference: Preference) -> Row:
    """One preference as a TRL row."""
    return {
        "prompt": [_written(message) for message in preference.messages],
        "chosen": _assistant(preference.chosen),
        "rejected": _assistant(preference.rejected),
        "metadata": _metadata(preference),
    }


def sample_row(sample: TrainingSample) -> Row:
    """One training sample as a TRL row."""
    return {
        "prompt": [_written(message) for message in sample.messages],
        "completion": _assistant(sample.completion),
        "metadata": _metadata(sample),
    }


def _metadata(record: Record) -> Row:
    return record.model_dump(mode="json", exclude=set(_COLUMNS))


def _written(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def parse_preference(row: Row) -> Preference:
    """The preference in a row; RowError says what is wrong.

    Metadata of ours fills the record. Other people's metadata is kept under ``evidence["metadata"]``, and the row
    then has level "text" and source "import" unless it says otherwise.
    """
    messages = parse_prompt(require(row, "prompt"))
    chosen, rejected = parse_answer(row, "chosen"), parse_answer(row, "rejected")
    if chosen.strip() == rejected.strip():
        raise RowError("chosen and rejected are equal")
    defaults = {"id": digest(messages, chosen, rejected), "level": "text", "source": "import"}
    known, foreign = _split_metadata(row, Preference)
    if foreign:
        evidence = known.get("evidence", {})
        if not isinstance(evidence, dict):
            raise RowError("'metadata.evidence' must be an object")
        known["evidence"] = {**evidence, "metadata": foreign}
    return record_of(Preference, messages=messages, chosen=chosen, rejected=rejected, **{**defaults, **known})


def parse_sample(row: Row) -> TrainingSample:
    """The training sample in a row; RowError says what is wrong. Foreign metadata is not kept."""
    messages = parse_prompt(require(row, "prompt"))
    completion = parse_answer(row, "completion")
    known, _ = _split_metadata(row, TrainingSample)
    defaults = {"id": digest(messages, completion), "source": "import"}
    return record_of(TrainingSample, messages=messages, completion=completion, **{**defaults, **known})


def record_of(model: type[Model], **fields: Any) -> Model:
    """A record from its fields; a field that does not fit becomes a RowError that names it."""
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise RowError(f"metadata {name!r}: {first['msg'].lower()}") from None


def _split_metadata(row: Row, model: type[Record]) -> tuple[Row, Row]:
    metadata = row.get("metadata")
    if metadata is None:
        return {}, {}
    if not isinstance(metadata, dict):
        raise RowError(f"'metadata' must be an object, not {kind_of(metadata)}")
    ours = set(model.model_fields) - _COLUMNS
    return {k: v for k, v in metadata.items() if k in ours}, {k: v for k, v in metadata.items() if k not in ours}


def parse_prompt(value: Any) -> tuple[Message, ...]:
    """A prompt column: a list of messages, or a text, which becomes one user message."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise RowError(f"'prompt' must be a text or a list of messages, not {kind_of(value)}")
    if not value:
        raise RowError("'prompt' is empty")
    messages = tuple(_message("prompt", item) for item in value)
    if not any(message.content.strip() for message in messages):
        raise RowError("'prompt' is empty")
    return messages


def parse_answer(row: Row, key: str) -> str:
    """An answer column: a text or a list with exactly one assistant message; never empty."""
    value = require(row, key)
    if isinstance(value, list):
        messages = [_message(key, item) for item in value]
        if len(messages) != 1 or messages[0].role != "assistant":
            raise RowError(f"{key!r} must hold exactly one assistant message")
        value = messages[0].content
    if not isinstance(value, str):
        raise RowError(f"{key!r} must be a text or a list with one assistant message, not {kind_of(value)}")
    if not value.strip():
        raise RowError(f"{key!r} is empty")
    return value


def _message(key: str, item: Any) -> Message:
    if not isinstance(item, dict):
        raise RowError(f"{key!r} must hold messages with role and content, not {kind_of(item)}")
    role, content = item.get("role"), item.get("content")
    if role not in ("system", "user", "assistant", "tool"):
        raise RowError(f"{key!r}: a message's role must be system, user, assistant or tool, not {role!r}")
    if not isinstance(content, str):
        raise RowError(f"{key!r}: a message's content must be a text, not {kind_of(content)}")
    return Message(role=role, content=content)
