"""docs/environments.md lists every MiniWoB++ family as the package has it."""

from __future__ import annotations

import re
from pathlib import Path

from dpo_driver.agents.oracle import ORACLES
from dpo_driver.envs.miniwob.tasks import TASKS, find_task

PAGE = Path(__file__).resolve().parents[2] / "docs" / "environments.md"
ROW = re.compile(
    r"^\| `([\w-]+)` \| (?:`([\w/.-]+)`|-) \| (\d+) \| (yes)? ?\| (yes)? ?\| (-|\d+/\d+) \| ([\d.]*) ?\|$", re.MULTILINE
)


# What the best play loses; the page says why of each.
UNFAIR = {"circle-center", "click-pie-nodelay", "find-midpoint", "tic-tac-toe"}


def rows() -> dict[str, re.Match[str]]:
    return {match[1]: match for match in ROW.finditer(PAGE.read_text(encoding="utf-8"))}


def test_every_family_is_listed_with_its_id_and_limits() -> None:
    assert list(rows()) == list(TASKS)
    for name, row in rows().items():
        assert (int(row[3]), bool(row[4])) == (TASKS[name].max_steps, TASKS[name].reload), name
        assert row[2] is None or find_task(row[2]).name == name
    assert sum(row[2] is not None for row in rows().values()) == 125


def test_the_figures_are_of_oracles_that_win() -> None:
    figures = {name: row[6] for name, row in rows().items() if row[6] != "-"}
    assert set(figures) <= set(ORACLES)
    won = [tuple(map(int, figure.split("/"))) for figure in figures.values()]
    assert len(won) == 129
    assert all(n == 50 for _, n in won)
    assert all(strict / n >= 0.9 for name, (strict, n) in zip(figures, won, strict=True) if name not in UNFAIR)
    assert sum(strict == n for strict, n in won) >= 120
