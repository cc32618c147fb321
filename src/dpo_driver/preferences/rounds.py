"""The pairs that a round trains on, noted in the run's preference log before they are stored.

So a change of run.db shows against the log, and a change of the log in its chain. The log goes first: a command that is
killed in between finds its pairs noted already. Called by whoever gives a round its pairs (flywheel/pair.py and
sweep_share.py, ``prefs import``), and by audit.py; must not import environments, agents or torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dpo_driver.core.records import Preference
from dpo_driver.core.redact import covered
from dpo_driver.core.store import RunStore
from dpo_driver.preferences.log import LOG, Head, Kind, PreferenceLog
from dpo_driver.preferences.mix import LOGGED

HEAD = "log_head/{}"  # the fact that notes down the log's head after a round was noted
# A run weighs and splits what it reads from a log; the entry there says who preferred what.
_OF_THE_RUN = ("weight", "split")


def keep(store: RunStore, number: int, rows: Sequence[Preference]) -> Head | None:
    """Make ``rows`` the pairs of a round: note them in the run's log, then store them.

    Returns:
        The log's head; None where there is nothing to note and no log.

    Raises:
        StoreError: the log or run.db cannot be written.
    """
    head = note(store, number, rows)
    store.add_preferences(number, rows)
    if head is not None:
        store.set_fact(HEAD.format(number), {"count": head.count, "hash": head.hash})
    return head


def note(store: RunStore, number: int, rows: Sequence[Preference]) -> Head | None:
    """Append the pairs that do not stand in the log yet and withdraw those of the round that they replace, in one
    commit. Pairs that labels of this very log give are not repeated: the labels are the record."""
    path = store.run_dir / LOG
    before = [row for row in store.preferences(number) if row.source not in LOGGED]
    if not rows and not before and not path.is_file():
        return None
    fresh = {content_of(row): row for row in map(covered, rows)}
    with PreferenceLog(path) as log:
        standing = {content_of(entry.body): entry.seq for entry in log.standing("preference")}
        judged = _comparisons(log, rows)
        missing = [row for content, row in fresh.items() if content not in standing
                   and row.evidence.get("comparison") not in judged]  # fmt: skip
        gone = {content_of(row) for row in before} - fresh.keys()
        if gone:
            gone -= {content_of(row) for other in store.rounds() if other != number for row in store.preferences(other)}
        entries: list[tuple[Kind, dict[str, Any]]] = [
            ("withdrawn", {"seq": standing[content], "why": f"round {number} was paired anew"})
            for content in sorted(gone & standing.keys())
        ]
        entries += [("preference", row.model_dump(mode="json")) for row in missing]
        log.append_all(entries)
        return log.head


def _comparisons(log: PreferenceLog, rows: Iterable[Preference]) -> set[str]:
    """Ids of the log's comparisons, where a row asks for them."""
    if not any("comparison" in row.evidence for row in rows):
        return set()
    return {str(entry.body.get("id")) for entry in log.entries("comparison")}


def content_of(row: Preference | Mapping[str, Any]) -> str:
    """What a pair says, in one text: equal for equal pairs, wherever they are kept."""
    body = row.model_dump(mode="json") if isinstance(row, Preference) else dict(row)
    if body.get("source") in LOGGED:
        for name in _OF_THE_RUN:
            body.pop(name, None)
    return json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
