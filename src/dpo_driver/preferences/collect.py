"""A judgement of two answers, written down: ``collect_preference`` for programs, ``judgement`` for rows of a file.

What is kept of a judgement is the comparison and the label: several raters may judge the same two answers, and human.py
then counts their votes. Finished pairs of a file are kept as they are. Called by programs (``from dpo_driver import
collect_preference``) and the command line; must not import environments, agents or torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Comparison, Label, Message, Preference
from dpo_driver.preferences.decisions import digest
from dpo_driver.preferences.human import preferences_from_labels, read_entry
from dpo_driver.preferences.jsonl import Row, RowError, kind_of, require
from dpo_driver.preferences.log import LOG, Entry, Kind, PreferenceLog
from dpo_driver.preferences.messages import parse_messages, parse_prompt, turns_of
from dpo_driver.preferences.mix import KNOWN

DEFAULT_LOG = Path("runs") / LOG  # of text that belongs to no run
Verdict = Literal["a", "b", "tie", "both_bad"]
VERDICTS = ("a", "b", "tie", "both_bad")
_COLUMNS = frozenset({"prompt", "tools", "chosen", "rejected", "response_a", "response_b", "preference", "metadata"})
_OURS = ("role", "source", "rater", "confidence")  # of the metadata; whatever else is there is kept as it is


class Judgement(NamedTuple):
    """Two answers and what one rater said of them."""

    comparison: Comparison
    label: Label


def collect_preference(
    role: str,
    prompt: str | Sequence[Mapping[str, Any] | Message],
    response_a: str,
    response_b: str,
    preference: str,
    metadata: Mapping[str, Any] | None = None,
    *,
    log: str | Path | PreferenceLog | None = None,
) -> Preference | None:
    """Write down which of two answers is better.

        collect_preference("CEO", "Shall we open a second shop?", "Not before the first one earns.", "Well, ...", "a",
                           {"rater": "ann", "confidence": 0.9})

    Equal answers to the same prompt are one comparison, in whichever order they are given, and further raters add
    their votes to it.

    Args:
        role: whose answers they are; ``dpo-driver train dpo --role`` learns one role. Empty for the agent of a run.
        prompt: a text, or the conversation so far as messages with role and content.
        response_a: one answer, shown first.
        response_b: another.
        preference: ``a``, ``b``, ``tie`` or ``both_bad``.
        metadata: ``source`` (default human; who preferred it), ``rater``, ``confidence`` from 0 to 1, and whatever else
            is to be kept with the judgement.
        log: where it is kept; ``runs/preferences.db`` when not given.

    Returns:
        The pair that this judgement gives by itself; None for a tie, for both bad and for confidence 0.

    Raises:
        DataError: a value that cannot be used; nothing was written. StoreError: the log cannot be written.
    """
    messages = prompt if isinstance(prompt, str) else [_plain(message) for message in prompt]
    row = {"prompt": messages, "response_a": response_a, "response_b": response_b, "preference": preference}
    try:
        found = judgement({**row, "metadata": dict(metadata or {})}, role)
        json.dumps(found.label.evidence)
    except (RowError, TypeError) as error:
        raise DataError(str(error), where="collect_preference", remedy="nothing was written") from None
    with nullcontext(log) if isinstance(log, PreferenceLog) else PreferenceLog(log or DEFAULT_LOG) as opened:
        pairs = preferences_from_labels(write(opened, [found]))
    return pairs[0] if pairs else None


def _plain(message: Mapping[str, Any] | Message) -> Mapping[str, Any]:
    return message.model_dump() if isinstance(message, Message) else message


def write(log: PreferenceLog, judgements: Iterable[Judgement]) -> list[Entry]:
    """Append judgements, all or none: each comparison once, and every label."""
    rows: list[tuple[Kind, dict[str, Any]]] = []
    put_up: set[str] = set()
    for comparison, label in judgements:
        if comparison.id not in put_up:
            put_up.add(comparison.id)
            rows.append(("comparison", comparison.model_dump(mode="json")))
        rows.append(("label", label.model_dump(mode="json")))
    return log.append_all(rows)


def write_pairs(log: PreferenceLog, rows: Sequence[Preference]) -> list[Entry]:
    """Append finished pairs that are not there yet, all or none. A source of a name that nobody here has (a dataset's)
    becomes ``import``; the name is kept in the evidence's metadata."""

    def named(row: Preference) -> Preference:
        if row.source in KNOWN:
            return row
        about = {**row.evidence.get("metadata", {}), "source": row.source}
        return row.model_copy(update={"source": "import", "evidence": {**row.evidence, "metadata": about}})

    known = {_key(read_entry(Preference, entry)) for entry in log.standing("preference")}
    fresh = {_key(row): row for row in map(named, rows) if _key(row) not in known}
    return log.append("preference", (row.model_dump(mode="json") for row in fresh.values()))


def _key(row: Preference) -> tuple[str, str, str]:
    return row.id, row.source, row.role


def judgement(row: Row, role: str = "", source: str = "human") -> Judgement:
    """A row as comparison and label.

    Args:
        row: ``{"prompt", "chosen", "rejected", "metadata"}``, or with ``response_a``, ``response_b`` and ``preference``
            in place of chosen and rejected.
        role: of rows whose metadata names none.
        source: likewise.

    Raises:
        RowError: says what is wrong with the row.
    """
    unknown = sorted(set(row) - _COLUMNS)
    if unknown:
        raise RowError(
            f"unknown column {unknown[0]!r}; known: {', '.join(sorted(_COLUMNS))}, and metadata for the rest"
        )
    messages = parse_prompt(require(row, "prompt"), row.get("tools"))
    side_by_side = "preference" in row or "response_a" in row
    keys = ("response_a", "response_b") if side_by_side else ("chosen", "rejected")
    one, other = (_answer(row, key) for key in keys)
    if one.strip() == other.strip():
        raise RowError(f"{keys[0]} and {keys[1]} are equal")
    about = _metadata(row)
    verdict = _verdict(row) if side_by_side else "a"
    # In an order of their own: whoever is asked about the same answers the other way round judges the same comparison.
    swapped = other < one
    first, second = (other, one) if swapped else (one, other)
    preferred = {"a": "second" if swapped else "first", "b": "first" if swapped else "second"}.get(verdict, verdict)
    whose = _text(about, "role", role)
    evidence: dict[str, Any] = {"swapped": swapped} if side_by_side else {}  # chosen and rejected were never shown
    if more := {key: value for key, value in about.items() if key not in _OURS}:
        evidence["metadata"] = more
    identity = digest(messages, whose, first, second)
    comparison = Comparison(id=identity, messages=messages, first=first, second=second, role=whose)
    label = Label(
        comparison=identity,
        preferred=preferred,
        source=_source(_text(about, "source", source)),
        rater=_text(about, "rater", ""),
        confidence=confidence_of(about),
        evidence=evidence,
    )
    return Judgement(comparison, label)


def _answer(row: Row, key: str) -> str:
    value = require(row, key)
    if isinstance(value, str):
        value = [{"role": "assistant", "content": value}]
    if not isinstance(value, list):
        raise RowError(f"{key!r} must be a text or a list with one assistant message, not {kind_of(value)}")
    turns = turns_of(key, (), parse_messages(key, value))
    if len(turns) > 1:
        raise RowError(f"{key!r} holds several assistant messages; whole conversations go in by: prefs import --log")
    return turns[0].completion


def _verdict(row: Row) -> str:
    value = require(row, "preference")
    if value not in VERDICTS:
        raise RowError(f"'preference' must be one of {', '.join(VERDICTS)}, not {value!r}")
    return str(value)


def _metadata(row: Row) -> Row:
    value = row.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RowError(f"'metadata' must be an object, not {kind_of(value)}")
    return value


def _text(about: Row, key: str, default: str) -> str:
    value = about.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise RowError(f"metadata {key!r} must be a text, not {kind_of(value)}")
    return value


def _source(name: str) -> str:
    if name not in KNOWN:
        raise RowError(f"unknown preference source {name!r}; known: {', '.join(KNOWN)}")
    return name


def confidence_of(about: Row) -> float | None:
    """The ``confidence`` of a row's metadata, None where there is none.

    Raises:
        RowError: it is no number from 0 to 1.
    """
    value = about.get("confidence")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RowError(f"metadata 'confidence' must be a number from 0 to 1, not {value!r}")
    return float(value)
