"""Pairs of a run: chosen against rejected, with the evidence they came from. Called by app.py."""

from __future__ import annotations

import bisect
import json
from pathlib import Path
from typing import Any

import zstandard

from dpo_driver.core.errors import DataError, StoreError
from dpo_driver.core.records import Preference
from dpo_driver.core.store_files import vault_of
from dpo_driver.dashboard.reader import Reader

PAGE = 100
SHORT = 240  # characters of an answer in a list
Place = tuple[int, int, str]


def page(
    reader: Reader, folder: Path, *, round_number: int | None = None, after: str = "", limit: int = PAGE
) -> dict[str, Any]:
    """Rows behind a key, by round and position: ``{"rows": [...], "total": 40, "rounds": [1, 2], "next": "[1, 99]"}``.

    Raises:
        DataError: a key that is none.
        VaultError: the run is sealed and there is no key.
    """
    places = reader.kept(("pairs", round_number), lambda: _places(reader, round_number))
    rounds = reader.kept(
        "rounds", lambda: [number for (number,) in reader.rows("SELECT DISTINCT round FROM preferences ORDER BY 1")]
    )
    first = bisect.bisect_right(places, (*_key(after), "\U0010ffff")) if after else 0
    shown = places[first : first + max(1, min(limit, PAGE))]
    more = first + len(shown) < len(places)
    vault = vault_of(folder) if shown else None
    rows = []
    for number, position, identity in shown:
        found = _read(reader, number, identity, vault)
        if found is not None:  # the round may have been paired again meanwhile
            rows.append({"round": number, "position": position, **_brief(found)})
    return {"rows": rows, "total": len(places), "rounds": rounds,
            "next": json.dumps(shown[-1][:2]) if more else ""}  # fmt: skip


def one(reader: Reader, folder: Path, round_number: int, identity: str) -> dict[str, Any]:
    """A pair in full: prompt, both answers, evidence.

    Raises:
        DataError: there is none; VaultError: see :func:`page`.
    """
    found = _read(reader, round_number, identity, vault_of(folder))
    if found is None:
        raise DataError(f"there is no pair {identity!r} in round {round_number}", where=str(folder))
    return {
        **_brief(found, None), "round": round_number, "state_hash": found.state_hash, "weight": found.weight,
        "messages": [{"role": each.role, "content": each.content} for each in found.messages],
        "chosen_more": len(found.chosen_more), "rejected_more": len(found.rejected_more), "evidence": found.evidence,
    }  # fmt: skip


def _places(reader: Reader, round_number: int | None) -> list[Place]:
    return [
        (number, position, identity)
        for number, position, identity in reader.rows(
            "SELECT round, position, id FROM preferences WHERE ? IS NULL OR round=? ORDER BY round, position, id",
            (round_number, round_number),
        )
    ]


def _read(reader: Reader, number: int, identity: str, vault: Any) -> Preference | None:
    rows = reader.rows("SELECT body FROM preferences WHERE round=? AND id=?", (number, identity))
    if not rows:
        return None
    body = rows[0][0]
    if vault is not None:
        body = vault.open(body, f"preference/{number}/{identity}".encode())
    try:
        return Preference.model_validate_json(zstandard.decompress(body))
    except (zstandard.ZstdError, ValueError) as error:
        raise StoreError(f"the pair {identity!r} cannot be read: {error}", where=str(reader.path)) from error


def _brief(found: Preference, most: int | None = SHORT) -> dict[str, Any]:
    return {
        "id": found.id, "task": found.task_name, "seed": found.seed, "level": found.level, "source": found.source,
        "role": found.role, "split": found.split, "margin": found.margin,
        "chosen": _short(found.chosen, most), "rejected": _short(found.rejected, most),
    }  # fmt: skip


def _short(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def _key(text: str) -> tuple[int, int]:
    try:
        number, position = json.loads(text)
        return int(number), int(position)
    except (ValueError, TypeError):
        raise DataError("this is no key of a page", where=text[:60]) from None
