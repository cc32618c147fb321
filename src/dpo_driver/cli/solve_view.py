"""How ``dpo-driver solve`` looks: the runs that are going, live on stderr, and its tables. Called by cli/solve.py."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dpo_driver.cli.options import console, results

if TYPE_CHECKING:
    from dpo_driver.rollout.solve import Run, Sight

A_SECOND = 4  # pictures of the progress
MAX_THOUGHT = 60
MAX_ERROR = 70


class Progress:
    """``with Progress(total, steps) as progress: progress.see(sight); progress.done(run)``. Where stderr is no terminal
    it writes a line for each finished run instead."""

    def __init__(self, total: int, steps: int, before: int = 0) -> None:
        self._total, self._steps, self._finished = total, steps, before
        self._going: dict[int, Sight] = {}
        self._solved = self._challenges = 0
        self._began = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if console.is_terminal:
            self._live = Live(self._picture(), console=console, refresh_per_second=A_SECOND, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def see(self, sight: Sight) -> None:
        """A run is about to act."""
        self._going[sight.task.seed] = sight
        if self._live is not None:
            self._live.update(self._picture())

    def done(self, run: Run) -> None:
        """A run has ended."""
        self._going.pop(run.seed, None)
        self._finished += 1
        self._solved += run.solved
        self._challenges += len(run.rows)
        errors = [row for row in run.rows if row["error"] not in (None, "not reached")]
        line = Text(f"seed {run.seed}: {run.solved}/{len(run.rows)} solved in {run.seconds:.1f} s")
        for row in errors:
            line.append(f"; {row['id']} {row['type']}: {_cut(row['error'], MAX_ERROR)}", style="yellow")
        console.print(line, soft_wrap=True)
        if self._live is not None:
            self._live.update(self._picture())

    def _picture(self) -> Group:
        share = f", {self._solved}/{self._challenges} challenges solved" if self._challenges else ""
        head = Text(f"{self._finished}/{self._total} runs{share}, {time.monotonic() - self._began:.0f} s")
        table = Table(box=None, show_header=False, padding=(0, 1))
        for seed, sight in sorted(self._going.items()):
            step = "start" if sight.step is None else f"step {sight.step}/{self._steps}"
            figures = (f"{sight.actions} actions", f"{sight.seconds:.0f} s")
            table.add_row(f"seed {seed}", step, *figures, Text(_cut(sight.last, MAX_THOUGHT), style="dim"))
        return Group(head, table)


def show(found: Mapping[str, Any]) -> None:
    """The figures of one command on stdout."""
    if "by_type" in found:
        results.print(_types(found["by_type"]))
        results.print()
        results.print(_seeds(found["by_seed"]))
    else:
        results.print(_challenges(found["challenges"]))
    results.print()
    results.print(sentence(found["summary"]), soft_wrap=True)


def sentence(summary: Mapping[str, Any]) -> str:
    """The summary in words."""
    runs, tokens = summary["runs"], summary["total_tokens"]
    share = "-" if summary["success_rate"] is None else f"{summary['success_rate']:.1%}"
    parts = [f"{summary['solved']} of {summary['total_challenges']} challenges solved ({share})"]
    if runs["n"] > 1:
        parts.append(
            f"{round(runs['success'] * runs['n'])} of {runs['n']} runs complete "
            f"({runs['low']:.1%} to {runs['high']:.1%}), median {summary['median_seconds_per_run']:.1f} s a run"
        )
    parts.append(f"{summary['total_steps']} actions in {summary['total_elapsed_seconds']:.1f} s")
    if runs["n"] > 1:
        parts.append(f"{summary['wall_seconds']:.1f} s by the clock")
    if tokens["input"] or tokens["output"]:
        cost = "unknown" if summary["cost"] is None else f"${summary['cost']:.4f}"
        parts.append(f"{tokens['input']} tokens read, {tokens['output']} written, cost {cost}")
    if summary["excluded"]:
        parts.append(f"{summary['excluded']} challenges excluded: the world broke")
    return "; ".join(parts)


def _challenges(rows: list[dict[str, Any]]) -> Table:
    table = Table("id", "type", "solved", box=None, header_style="bold")
    for heading in ("actions", "seconds", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("error")
    for row in rows:
        mark = {True: "yes", False: "no", None: "-"}[row["success"]]
        tokens = row["tokens"]["input"] + row["tokens"]["output"]
        figures = (str(row["steps"]), f"{row['elapsed_seconds']:.1f}", str(tokens or ""))
        style = None if row["success"] else "yellow"
        table.add_row(row["id"], row["type"], mark, *figures, _cut(row["error"] or "", MAX_ERROR), style=style)
    return table


def _types(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("type", box=None, header_style="bold")
    for heading in ("n", "solved", "rate", "95 %", "actions", "seconds", "excluded"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows.items():
        rate = "-" if row["success"] is None else f"{row['success']:.1%}"
        interval = "-" if row["low"] is None else f"{row['low']:.1%} to {row['high']:.1%}"
        means = (f"{row['mean_steps']:.1f}", f"{row['mean_seconds']:.2f}")
        style = None if row["success"] == 1 else "yellow"
        table.add_row(name, str(row["n"]), str(row["solved"]), rate, interval, *means, str(row["excluded"]),
                      style=style)  # fmt: skip
    return table


def _seeds(rows: Mapping[int, Mapping[str, Any]]) -> Table:
    table = Table("seed", box=None, header_style="bold")
    for heading in ("solved", "actions", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("error")
    for seed, row in rows.items():
        figures = (f"{row['solved']}/{row['total']}", str(row["steps"]), f"{row['seconds']:.1f}")
        style = None if row["success"] else "yellow"
        table.add_row(str(seed), *figures, _cut(row["error"] or "", MAX_ERROR), style=style)
    return table


def _cut(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
