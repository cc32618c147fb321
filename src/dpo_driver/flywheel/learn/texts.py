"""A turn of roles that answer in text: pairs from what came of their answers and from judgements, then train and gate.

Every turn trains the role's own model on all pairs so far, against the frozen parent; the gate compares with the role's
champion. Called by loop.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Preference
from dpo_driver.flywheel.inbox import FILE, Inbox
from dpo_driver.flywheel.jobs import Work
from dpo_driver.flywheel.learn.budget import check, spent
from dpo_driver.flywheel.learn.reading import Filter, read
from dpo_driver.flywheel.learn.settings import LearnSettings
from dpo_driver.flywheel.learn.turn import FEW_PAIRS
from dpo_driver.flywheel.roles import align, open_role, prepared, role_config, role_rows
from dpo_driver.preferences import filters
from dpo_driver.preferences.decisions import Refusals
from dpo_driver.preferences.interactions import pairs_of_interactions
from dpo_driver.preferences.log import LOG
from dpo_driver.preferences.mix import human_share, shared


def take_turns(
    root: Path, roles: Sequence[str], settings: LearnSettings, work: Work, keep: Filter | None, console: Console
) -> dict[str, Any]:
    """One job for several roles, one after the other; what one role lacks does not stop the next.

    Returns:
        ``roles``: what came of each, see :func:`dpo_driver.flywheel.roles.align`, or ``error``; ``seen``: by role the
        last row of the inbox that was read.
    """
    found: dict[str, Any] = {}
    seen: dict[str, int] = {}
    for number, role in enumerate(roles):
        work.phase(f"role {role}", number / len(roles))
        try:
            found[role], seen[role] = take_turn(root, role, settings, keep, console)
        except DataError as error:
            # What was read is used up all the same: the same rows would fail again at every look.
            found[role], seen[role] = {"error": str(error)}, last_number(root, role)
            work.say(f"role {role}: {error}")
    return {"roles": found, "seen": seen}


def last_number(root: Path, role: str) -> int:
    """The number of a role's last row in the inbox."""
    if not (root / FILE).is_file():
        return 0
    with Inbox(root) as inbox:
        return inbox.last(role)


def take_turn(
    root: Path, role: str, settings: LearnSettings, keep: Filter | None, console: Console
) -> tuple[dict[str, Any], int]:
    """One role: what came of it, and the number of the last row that was read.

    Raises:
        DataError: there is nothing to learn from. BudgetSpent: no more may be spent.
    """
    about = settings.roles[role]
    config = role_config(role, about.config, about.overrides, out=root / role if about.config is None else None)
    refused: Refusals = Counter()
    rows, upto = role_pairs(root, role, keep, refused)
    rows = prepared(rows, config, refused)
    if settings.human_share is not None:
        rows = filters.told_apart(shared(rows, settings.human_share))
    with open_role(config, role, console) as ctx:
        check(spent(ctx.store), settings.budget)
        warnings = []
        if len(rows) < FEW_PAIRS:
            warnings.append(f"{len(rows)} pairs: under {FEW_PAIRS} gains are small and easily chance")
            ctx.say(f"[yellow]{warnings[-1]}[/yellow]")
        found = align(ctx, rows)
        cost = spent(ctx.store).told(settings.budget.prices)
    return {**found, "warnings": warnings, "human_share": human_share(rows), "cost": cost}, upto


def role_pairs(root: Path, role: str, keep: Filter | None, refused: Refusals) -> tuple[list[Preference], int]:
    """All pairs of a role: of its interactions, and of the preference log where there is one.

    Raises:
        DataError: there are none.
    """
    taken = read(root, role, "training", keep=keep)
    rows = pairs_of_interactions(taken.rows, role)
    if (root / LOG).is_file():
        try:
            rows = [*role_rows(root / LOG, role, refused), *rows]
        except DataError:
            if not rows:
                raise
    if not rows:
        raise DataError(f"nothing can be learned for the role {role!r} yet", where=str(root),
                        remedy="record better answers, ratings or outcomes: record_episode, /v1/feedback")  # fmt: skip
    return rows, taken.upto
