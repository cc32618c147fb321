"""What is left of the pairs that the sources found: no doubles, no contradictions, no task or state that drowns others.

Each filter takes preferences in order, keeps that order, and counts what it leaves out by reason. Called by build.py;
works on preferences of any source.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from dpo_driver.core.records import Preference
from dpo_driver.preferences.decisions import UNREADABLE, Refusals, digest


def split_of(task_name: str, seed: int | None, val_fraction: float) -> Literal["train", "val"]:
    """The split of everything that comes from one task and seed: the same in every run, round and process, so no seed
    is ever trained on and validated with."""
    number = int.from_bytes(hashlib.sha256(f"{task_name}/{seed}".encode()).digest()[:8])
    return "val" if number < val_fraction * 2**64 else "train"


def assign_split(rows: Sequence[Preference], val_fraction: float) -> list[Preference]:
    """The rows with ``split`` set by task and seed, and by prompt where no seed belongs to it."""

    def split(row: Preference) -> Literal["train", "val"]:
        place = row.task_name if row.seed is not None else digest(row.messages)
        return split_of(place, row.seed, val_fraction)

    return [row.model_copy(update={"split": split(row)}) for row in rows]


def drop_leaks(rows: Sequence[Preference], refused: Refusals) -> list[Preference]:
    """Without validation rows whose prompt is also trained on: pages repeat between seeds."""
    trained = {digest(row.messages) for row in rows if row.split == "train"}
    kept = [row for row in rows if row.split == "train" or digest(row.messages) not in trained]
    refused["leak"] += len(rows) - len(kept)
    return kept


def decided(row: Preference, side: Literal["chosen", "rejected"]) -> str:
    """The decision behind one side: the action if the evidence names it, otherwise the text itself."""
    witness: Any = row.evidence.get(side)
    action = witness.get("action") if isinstance(witness, dict) else None
    return action if isinstance(action, str) else getattr(row, side)


def is_unreadable(row: Preference) -> bool:
    """The rejected text could not be read as an action."""
    return decided(row, "rejected") == UNREADABLE


def drop_contradictions(rows: Sequence[Preference], refused: Refusals) -> list[Preference]:
    """Of two opposite preferences between the same decisions the one with the larger margin stays; of equals none."""
    margins: dict[tuple[str, str, str], float] = defaultdict(float)
    keys = [(digest(row.messages), decided(row, "chosen"), decided(row, "rejected")) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        margins[key] = max(margins[key], row.margin)
    kept = []
    for (context, chosen, rejected), row in zip(keys, rows, strict=True):
        opposite = margins.get((context, rejected, chosen))
        if opposite is not None and opposite >= margins[context, chosen, rejected]:
            refused["contradiction"] += 1
        else:
            kept.append(row)
    return kept


def dedupe(rows: Sequence[Preference], refused: Refusals) -> list[Preference]:
    """The first of each prompt, chosen and rejected decision; another wording of the same decisions is a double."""
    seen: set[tuple[str, str, str]] = set()
    kept = []
    for row in rows:
        key = (digest(row.messages), decided(row, "chosen"), decided(row, "rejected"))
        if key in seen:
            refused["duplicate"] += 1
        else:
            seen.add(key)
            kept.append(row)
    return kept


def told_apart(rows: Sequence[Preference]) -> list[Preference]:
    """Equal rows under ids of their own: the store keeps one row an id, and a row that comes twice counts twice."""
    seen: Counter[str] = Counter()
    apart = []
    for row in rows:
        seen[row.id] += 1
        apart.append(row if seen[row.id] == 1 else row.model_copy(update={"id": f"{row.id}/{seen[row.id]}"}))
    return apart


def cap_per_state(rows: Sequence[Preference], limit: int, refused: Refusals) -> list[Preference]:
    """At most ``limit`` preferences per prompt, the largest margins first."""
    taken: Counter[str] = Counter()
    kept: set[int] = set()
    for index in sorted(range(len(rows)), key=lambda i: (-rows[i].margin, i)):
        prompt = digest(rows[index].messages)
        taken[prompt] += 1
        if taken[prompt] <= limit:
            kept.add(index)
    refused["state_cap"] += len(rows) - len(kept)
    return [row for index, row in enumerate(rows) if index in kept]


def cap_per_task(rows: Sequence[Preference], limit: int, refused: Refusals) -> list[Preference]:
    """At most ``limit`` preferences per task family, spread over as many seeds as there are: many seeds teach more
    than many samples of one. Text that belongs to no task is not capped."""
    per_seed: Counter[tuple[str, int | None]] = Counter()
    ranks = []
    for index in sorted(range(len(rows)), key=lambda i: (-rows[i].margin, rows[i].id)):
        row = rows[index]
        ranks.append((per_seed[row.task_name, row.seed], -row.margin, row.id, index))
        per_seed[row.task_name, row.seed] += 1
    taken: Counter[str] = Counter()
    kept: set[int] = set()
    for *_, index in sorted(ranks):
        name = rows[index].task_name
        taken[name] += 1
        if taken[name] <= limit or not name:
            kept.add(index)
    refused["task_cap"] += len(rows) - len(kept)
    return [row for index, row in enumerate(rows) if index in kept]


def cap_unreadable(rows: Sequence[Preference], share: float, refused: Refusals) -> list[Preference]:
    """At most ``share`` of what is kept may have an unreadable rejected text; the largest margins stay."""
    unreadable = [index for index, row in enumerate(rows) if is_unreadable(row)]
    readable = len(rows) - len(unreadable)
    # u / (u + readable) <= share; rounding guards 0.1 * 90 / 0.9 against 9.999...
    allowed = len(unreadable) if share >= 1 else int(round(share * readable / (1 - share), 9))
    ordered = sorted(unreadable, key=lambda index: (-rows[index].margin, rows[index].id))
    dropped = set(ordered[allowed:])
    refused["unreadable_cap"] += len(dropped)
    return [row for index, row in enumerate(rows) if index not in dropped]


def spread(rows: Sequence[Preference], count: int, refused: Refusals) -> list[Preference]:
    """At most ``count`` preferences in all: of every family one, then a second one, ..., and within a family one of
    every seed first. Sources are compared with equal numbers of pairs, and none of them by its largest family."""
    per_seed: Counter[tuple[str, int | None]] = Counter()
    within: dict[str, list[tuple[int, float, str, int]]] = defaultdict(list)
    for index in sorted(range(len(rows)), key=lambda i: (-rows[i].margin, rows[i].id)):
        row = rows[index]
        within[row.task_name].append((per_seed[row.task_name, row.seed], -row.margin, row.id, index))
        per_seed[row.task_name, row.seed] += 1
    turns = [(turn, name, entry[-1]) for name, own in within.items() for turn, entry in enumerate(sorted(own))]
    kept = {index for _, _, index in sorted(turns)[:count]}
    refused["beyond"] += len(rows) - len(kept)
    return [row for index, row in enumerate(rows) if index in kept]
