"""Preferences and training rows in TRL's columns: conversational or plain, with tools, our metadata beside them.

A preference row is ``{"prompt": [messages], "chosen": [{"role": "assistant", "content": ...}], "rejected": [...],
"metadata": {...}}``; the prompt may be left out where both sides begin with it. A training row has ``prompt`` and
``completion``, or ``messages`` alone. ``tools`` holds function schemas. Texts are kept as they are. Files are JSON
lines, Parquet or folders of ``datasets`` (files.py); the older dialects have their own readers, see readers.py. Called
by the command line and by the other readers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dpo_driver.core.records import Message, Preference, Record, TrainingSample, Turn
from dpo_driver.core.redact import covered
from dpo_driver.policies.encoding import as_turn
from dpo_driver.preferences.collect import confidence_of
from dpo_driver.preferences.decisions import digest
from dpo_driver.preferences.files import read_parts, write_rows
from dpo_driver.preferences.jsonl import Row, RowError, kind_of, require
from dpo_driver.preferences.messages import message_of, offering, parse_messages, parse_prompt, text_of, turns_of

Model = TypeVar("Model", bound=Record)
# Columns of their own; every other field of a record is metadata.
_COLUMNS = frozenset({"messages", "chosen", "rejected", "completion"})
_TRL_COLUMNS = frozenset({*_COLUMNS, "prompt", "tools", "metadata"})
# Columns that change what TRL trains on, and that nothing here would heed.
_NOT_READ = ("images", "image", "chat_template_kwargs")


def export_preferences(path: str | Path, preferences: Iterable[Preference], *, sealed: bool = False) -> int:
    """Write preferences as TRL rows, in the format of the path's suffix (files.write_rows), encrypted if ``sealed``;
    :func:`import_preferences` gives equal records back. Returns the row count."""
    return write_rows(path, map(preference_row, map(covered, preferences)), sealed=sealed)


def import_preferences(path: str | Path) -> list[Preference]:
    """Read TRL preference rows, conversational or plain, with or without prompt, tools and metadata.

    A file's or folder's splits become ``split``: train, and val for the others.

    Raises:
        DataError: names the file and every broken row.
    """
    return _split(path, lambda row: (parse_preference(row),))


def export_samples(path: str | Path, samples: Iterable[TrainingSample], *, sealed: bool = False) -> int:
    """Write training rows in TRL's prompt-completion columns, encrypted if ``sealed``. Returns the row count."""
    return write_rows(path, map(sample_row, map(covered, samples)), sealed=sealed)


def import_samples(path: str | Path) -> list[TrainingSample]:
    """Read prompt-completion or messages rows, conversational or plain; every assistant's message becomes a sample.
    Raises DataError naming file and rows."""
    return _split(path, parse_samples)


def _split(path: str | Path, parse: Callable[[Row], Sequence[Model]]) -> list[Model]:
    """The records of all rows. What a folder says of a row's split goes before what the row says."""
    parts = [(part.split, part.parse(parse)) for part in read_parts(path)]
    rows = [(split, record) for split, parsed in parts for records in parsed for record in records]
    return [record if split is None else record.model_copy(update={"split": split}) for split, record in rows]


def preference_row(preference: Preference) -> Row:
    """One preference as a TRL row.

    Turns after the first stand in ``chosen`` and ``rejected`` where they go on with the same conversation. Turns whose
    prompts were written anew, as agents' are, have no place in TRL's columns and stay in the metadata.
    """
    prompt = preference.messages
    chosen = _conversation(prompt, preference.chosen, preference.chosen_more)
    rejected = _conversation(prompt, preference.rejected, preference.rejected_more)
    apart = chosen is None or rejected is None
    return {
        **_prompt_columns(prompt),
        "chosen": [as_turn(message) for message in chosen or (message_of(preference.chosen),)],
        "rejected": [as_turn(message) for message in rejected or (message_of(preference.rejected),)],
        "metadata": _metadata(preference, frozenset() if apart else frozenset({"chosen_more", "rejected_more"})),
    }


def sample_row(sample: TrainingSample) -> Row:
    """One training sample as a TRL row."""
    completion = [as_turn(message_of(sample.completion))]
    return {**_prompt_columns(sample.messages), "completion": completion, "metadata": _metadata(sample)}


def _prompt_columns(messages: Sequence[Message]) -> Row:
    prompt = [as_turn(message) for message in messages]
    tools = messages[0].tools if messages else ""
    return {"prompt": prompt, "tools": json.loads(tools)} if tools else {"prompt": prompt}


def _conversation(prompt: tuple[Message, ...], text: str, more: Sequence[Turn]) -> tuple[Message, ...] | None:
    """What follows the prompt, if every turn was written below all that had been said; None if not."""
    said: tuple[Message, ...] = ()
    for turn in more:
        now = turn.messages[len(prompt) :]
        before = len(said)
        if turn.messages[: len(prompt)] != prompt or now[:before] != said or len(now) <= before:
            return None
        if now[before].role != "assistant" or text_of(now[before]) != text:
            return None
        if any(message.role == "assistant" for message in now[before + 1 :]):
            return None
        said, text = now, turn.completion
    return (*said, message_of(text))


def _metadata(record: Record, apart: frozenset[str] = frozenset()) -> Row:
    return record.model_dump(mode="json", exclude=set(_COLUMNS | apart))


def parse_preference(row: Row) -> Preference:
    """The preference in a row; RowError says what is wrong.

    Metadata of ours fills the record. Other people's metadata is kept under ``evidence["metadata"]``, other columns
    under ``evidence["columns"]``, and the row then has level "text" and source "import" unless it says otherwise. A
    ``confidence`` from 0 to 1 becomes the weight of a row that has none.
    """
    _heed(row)
    if row.keys() & {"completion", "messages"} and not row.keys() & {"chosen", "rejected"}:
        raise RowError("an SFT row (a prompt and its completion), not a preference with 'chosen' and 'rejected'")
    messages, better, worse = _sides(row)
    chosen, rejected = turns_of("chosen", messages, better), turns_of("rejected", messages, worse)
    if [turn.completion.strip() for turn in chosen] == [turn.completion.strip() for turn in rejected]:
        raise RowError("chosen and rejected are equal")
    first, other = chosen[0].completion, rejected[0].completion
    texts = (turn.completion for turn in (*chosen[1:], *rejected[1:]))
    defaults = {"id": digest(messages, first, other, *texts), "level": "text", "source": "import",
                "chosen_more": chosen[1:], "rejected_more": rejected[1:]}  # fmt: skip
    known, foreign = _split_metadata(row, Preference)
    sure = confidence_of(foreign)
    if sure is not None:
        known.setdefault("weight", sure)
    columns = {key: value for key, value in row.items() if key not in _TRL_COLUMNS and value is not None}
    found = {name: value for name, value in (("metadata", foreign), ("columns", columns)) if value}
    if found:
        evidence = known.get("evidence", {})
        if not isinstance(evidence, dict):
            raise RowError("'metadata.evidence' must be an object")
        known["evidence"] = {**evidence, **found}
    return record_of(Preference, messages=messages, chosen=first, rejected=other, **{**defaults, **known})


def parse_samples(row: Row) -> tuple[TrainingSample, ...]:
    """The training samples in a row, one for each of the assistant's messages, with all that came before as its prompt
    (TRL's ``assistant_only_loss``); RowError says what is wrong. Foreign metadata and columns are not kept."""
    _heed(row)
    if isinstance(row.get("label"), bool):
        raise RowError("an unpaired preference (prompt, completion, label), which is nothing to imitate")
    if "messages" in row and row.get("completion") is None:
        turns = _turns_of_conversation(row)
    else:
        prompt = parse_prompt(require(row, "prompt"), row.get("tools"))
        turns = turns_of("completion", prompt, _answer(row, "completion"))
    known, _ = _split_metadata(row, TrainingSample)
    samples = []
    for number, turn in enumerate(turns, start=1):
        own = {"id": digest(turn.messages, turn.completion), "source": "import", **known}
        if "id" in known and len(turns) > 1:
            own["id"] = f"{known['id']}/{number}"
        samples.append(record_of(TrainingSample, messages=turn.messages, completion=turn.completion, **own))
    return tuple(samples)


def _turns_of_conversation(row: Row) -> tuple[Turn, ...]:
    """A row of messages only. What comes after the assistant's last word teaches nothing."""
    value = require(row, "messages")
    if not isinstance(value, list):
        raise RowError(f"'messages' must be a list of messages, not {kind_of(value)}")
    messages = parse_messages("messages", value)
    spoken = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if not spoken:
        raise RowError("'messages' holds no assistant message to learn from")
    if spoken[0] == 0:
        raise RowError("'messages' begins with the assistant, so there is no prompt")
    messages = offering(messages, row.get("tools"))
    return turns_of("messages", messages[: spoken[0]], messages[spoken[0] : spoken[-1] + 1])


def _sides(row: Row) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """Prompt, and what follows it on either side. A prompt that both sides begin with is taken out of them, as TRL does
    it: where there is no prompt column, or only a text beside whole conversations."""
    prompt, chosen, rejected = row.get("prompt"), require(row, "chosen"), require(row, "rejected")
    whole = all(isinstance(side, list) and side and not _is_answer(side[0]) for side in (chosen, rejected))
    if prompt is not None and (isinstance(prompt, list) or not whole):
        return parse_prompt(prompt, row.get("tools")), _answer(row, "chosen"), _answer(row, "rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        alike = takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False))
        text = "".join(one for one, _ in alike).removesuffix(" ")  # a space belongs to the word after it
        if not text.strip():
            raise RowError("there is no 'prompt', and chosen and rejected do not begin alike")
        sides = [(Message(role="assistant", content=side[len(text) :]),) for side in (chosen, rejected)]
        return parse_prompt(text, row.get("tools")), sides[0], sides[1]
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise RowError("without a 'prompt', chosen and rejected must be two texts or two lists of messages")
    better, worse = parse_messages("chosen", chosen), parse_messages("rejected", rejected)
    shared = 0
    while shared < min(len(better), len(worse)) and better[shared] == worse[shared]:
        shared += 1
    if shared == len(better) == len(worse):
        raise RowError("chosen and rejected are equal")
    if not shared:
        raise RowError("there is no 'prompt', and chosen and rejected do not begin alike")
    return offering(better[:shared], row.get("tools")), better[shared:], worse[shared:]


def _is_answer(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _answer(row: Row, key: str) -> tuple[Message, ...]:
    """An answer column: a text, or messages."""
    value = require(row, key)
    if isinstance(value, str):
        return (Message(role="assistant", content=value),)
    if not isinstance(value, list):
        raise RowError(f"{key!r} must be a text or a list of messages, not {kind_of(value)}")
    return parse_messages(key, value)


def parse_answer(row: Row, key: str) -> str:
    """An answer column that holds one answer: a text or a list with one assistant message; never empty."""
    turns = turns_of(key, (), _answer(row, key))
    if len(turns) > 1:
        raise RowError(f"{key!r} must hold exactly one assistant message")
    return turns[0].completion


def record_of(model: type[Model], **fields: Any) -> Model:
    """A record from its fields; a field that does not fit becomes a RowError that names it."""
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise RowError(f"metadata {name!r}: {first['msg'].lower()}") from None


def _heed(row: Row) -> None:
    """Refuse what would be trained on otherwise than TRL does it."""
    found = next((name for name in _NOT_READ if row.get(name)), None)
    if found is not None:
        raise RowError(f"the column {found!r} is not read here, and the row means something else without it")


def _split_metadata(row: Row, model: type[Record]) -> tuple[Row, Row]:
    metadata = row.get("metadata")
    if metadata is None:
        return {}, {}
    if not isinstance(metadata, dict):
        raise RowError(f"'metadata' must be an object, not {kind_of(metadata)}")
    ours = set(model.model_fields) - _COLUMNS
    return {k: v for k, v in metadata.items() if k in ours}, {k: v for k, v in metadata.items() if k not in ours}
