"""Comparisons out of a data file: plain text pairs of any agent. Called by cli/label.py.

A row has a prompt (a text or messages) and either ``response_a`` and ``response_b``, or TRL's ``chosen`` and
``rejected``; ``role`` and ``metadata`` may stand beside them. Which response stood where in the file is kept as
evidence and decides nothing: what is "first" follows from the texts alone. Must not know a browser.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dpo_driver.core.records import Comparison
from dpo_driver.label.candidates import mix
from dpo_driver.preferences.decisions import digest
from dpo_driver.preferences.files import Part, read_parts
from dpo_driver.preferences.formats import parse_preference
from dpo_driver.preferences.jsonl import Row, RowError, require

SIDES = ("response_a", "response_b")


def comparisons_in(path: str | Path, *, limit: int | None = None) -> list[Comparison]:
    """The rows of a file as comparisons, in their order; rows with the same texts count once.

    Args:
        path: JSON lines, a JSON list, Parquet, or a folder of ``datasets``.
        limit: how many at most.

    Raises:
        DataError: names the file and every broken row.
    """
    found: dict[str, Comparison] = {}
    for part in read_parts(path):
        for comparison in part.parse(_parser(part)):
            found.setdefault(comparison.id, comparison)
    return list(found.values())[:limit]


def _parser(part: Part) -> Callable[[Row], Comparison]:
    return partial(_comparison, file=part.path.name)


def _comparison(row: Row, file: str) -> Comparison:
    named = dict(zip(SIDES, ("chosen", "rejected"), strict=True))
    if row.keys() & set(SIDES):
        row = {named.get(key, key): value for key, value in row.items()} | {
            named[side]: require(row, side) for side in SIDES
        }
        one_is, other_is = SIDES
    else:
        one_is, other_is = "chosen", "rejected"
    try:
        given = parse_preference(row)
    except RowError as error:
        if "chosen and rejected are equal" in str(error):
            raise RowError("the two responses are equal: there is nothing to compare") from None
        raise
    if given.chosen_more or given.rejected_more:
        raise RowError("several turns: a comparison is of one answer each")
    one, other = sorted((given.chosen, given.rejected))
    identity = digest(given.messages, one, other)
    first, second = (one, other) if mix(identity) % 2 else (other, one)
    placed = {"first": one_is if first == given.chosen else other_is}
    placed["second"] = other_is if placed["first"] == one_is else one_is
    return Comparison(
        id=identity,
        messages=given.messages,
        first=first,
        second=second,
        role=given.role or str(row.get("role") or ""),
        evidence={"file": file, "row": given.id, "stood_as": placed, **given.evidence},
    )
