"""The report of a sweep: sweep.json, one HTML file that opens offline, and a table in the terminal.

Called by cli/sweep.py after every point. The page has the look of a run's report (style.css, the same marks) and runs
no script. Must not import torch, playwright or mlflow.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dpo_driver.core.records import PairedDifference
from dpo_driver.report import words
from dpo_driver.report.page import PAGE
from dpo_driver.report.sweep_chart import draw
from dpo_driver.report.sweep_data import SweepReport, SweepRow
from dpo_driver.report.writing import HERE, templates, write_whole

DATA = "sweep.json"
_STYLES = {"base": "bold", "better": "green", "worse": "red", "open": "", "missing": "dim"}


def write_sweep(report: SweepReport, folder: Path) -> Path:
    """Write ``sweep.json`` and ``report.html`` into the sweep's folder; returns the page's path.

    Raises:
        StoreError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps(report.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_whole(folder / DATA, data + "\n")
    return write_whole(folder / PAGE, render_sweep(report))


def render_sweep(report: SweepReport) -> str:
    """The whole HTML document."""
    environment = templates()
    environment.filters |= {"span": span, "url": lambda slug: quote(slug)}
    return environment.get_template("sweep.html.j2").render(
        report=report,
        headline=headline(report),
        findings=findings(report),
        keys=keys(report),
        chart=draw(report),
        page=PAGE,
        times=times(report),
        style=Markup((HERE / "style.css").read_text()),
    )


# -- words -----------------------------------------------------------------------------------------------------------


def keys(report: SweepReport) -> str:
    """The swept keys, the training seed left out: ``dpo.beta and model.lora.r``."""
    return " and ".join(report.base) or "nothing"


def span(difference: PairedDifference | None) -> str:
    """``+1.0 to +5.2``, in points."""
    if difference is None or difference.low is None or difference.high is None:
        return "–"
    return f"{words.points(difference.low)} to {words.points(difference.high)}"


def headline(report: SweepReport) -> str:
    """What the sweep shows, in one sentence that claims no more than the adjusted tests allow."""
    done = [row for row in report.rows if row.done]
    if not done:
        return "Nothing has been measured yet"
    compared = [row for row in done if row.against_base is not None]
    if not compared:
        return f"Only {', '.join(row.label for row in done)} has been measured: nothing to compare yet"
    better = [row for row in compared if row.verdict == "better"]
    if better:
        best = max(better, key=lambda row: (row.against_base and row.against_base.mean) or 0.0)
        return words.verdict(best.against_base, _named(report, best.label), report.base_label).headline
    other = f"{'value' if len(report.base) == 1 else 'combination'} of {keys(report)}"
    if all(row.verdict == "worse" for row in compared):
        return f"Every other {other} is shown to be worse than {report.base_label}"
    return f"No {other} is shown to be better than {report.base_label}"


def findings(report: SweepReport) -> list[str]:
    """A sentence for every row that is shown to differ from the base, and one on the others."""
    found = []
    for row in report.rows:
        if row.verdict in ("better", "worse") and row.against_base is not None:
            kind = f"{words.points(row.against_base.mean)} points ({span(row.against_base)})"
            found.append(f"{_named(report, row.label)} against {report.base_label}: {kind}, adjusted "
                         f"{words.p_value(row.p_holm)}.")  # fmt: skip
    return [*found, *undecided(report)]


def undecided(report: SweepReport) -> list[str]:
    """The rows of which nothing is shown, in one sentence; none if there are none."""
    still = [row.label for row in report.rows if row.verdict == "open"]
    return [f"Not told apart from {report.base_label}: {'; '.join(still)}."] if still else []


def _named(report: SweepReport, text: str) -> str:
    return f"{next(iter(report.base))} {text}" if len(report.base) == 1 else text


# -- the terminal ----------------------------------------------------------------------------------------------------


def print_sweep(report: SweepReport, console: Console) -> None:
    """The table, what it shows, what failed, and where the time went."""
    console.print()
    console.print(Text(f"{report.sweep}: {headline(report)}.", style="bold"))
    console.print(_table(report))
    for sentence in undecided(report):
        console.print(Text(sentence, style="dim"))
    for point in report.failed:
        console.print(Text(f"failed: {point.slug}: {point.reason}", style="red"))
    console.print(Text(times(report), style="dim"))


def times(report: SweepReport) -> str:
    """``21 min 3 s of work; stages that points have in common were done once, which saved 1 h 4 min``."""
    saved = f"; stages that points have in common were done once, which saved {words.duration(report.saved_seconds)}"
    return f"{words.duration(report.seconds)} of work{saved if report.saved_seconds else ''}."


def _table(report: SweepReport) -> Table:
    """Intervals stand below their figures, so that the table fits a terminal of 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("\n".join(report.base))
    base = report.base_label.replace(", ", "\n")
    for name in ("strict", "gain over SFT", f"against {base}" if len(report.base) == 1 else f"against\n{base}"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("time of\na run", justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(*_cells(row), style=_STYLES[row.verdict])
    return table


def _cells(row: SweepRow) -> list[str]:
    """Three lines a cell: figure, interval, what it is counted from."""
    seeds = f"\n{len(row.done)} of {len(row.points)} seeds" if len(row.points) > 1 else ""
    name = row.label.replace(", ", "\n") + seeds
    if not row.done or row.success is None:
        return [name, " or ".join(dict.fromkeys(point.state for point in row.points))]
    return [
        name,
        f"{words.percent(row.success.success)}\n{words.interval(row.success)}\nn = {row.success.n}",
        _difference(row.gain),
        "base" if row.is_base else f"{_difference(row.against_base)}\n{_adjusted(row)}".rstrip(),
        words.duration(row.seconds or 0.0),
    ]


def _adjusted(row: SweepRow) -> str:
    return "" if row.p_holm is None else f"adjusted {words.p_value(row.p_holm)}"


def _difference(found: PairedDifference | None) -> str:
    return f"{words.points(found.mean)}\n{span(found)}" if found is not None else "–"
