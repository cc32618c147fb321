"""What the audit notices of poisoned pairs and labels, by how they were made: ``python benchmarks/poison.py``.

A toy run is collected and paired for real; labels are made up, by raters who are right with a given chance. Then the
drill of ``dpo-driver prefs audit --drill`` turns shares of each round. A table goes to stdout. Under a minute.
"""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.config import RunConfig
from dpo_driver.core.records import Comparison, Message, Preference
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.collect import make_tasks, roll_out
from dpo_driver.flywheel.context import open_run
from dpo_driver.flywheel.pair import pair
from dpo_driver.label.candidates import comparisons_of
from dpo_driver.preferences.log import PreferenceLog
from dpo_driver.preferences.poison import SHARES, Caught, drill
from dpo_driver.preferences.rounds import keep

FAMILIES = ("press", "login", "wizard")
TEXTS = 200
PROMPT = (Message(role="user", content="Which?"),)
# name, raters, chance that a label is wrong without any poisoning, share of labels that are repeated
PANELS = (("three raters", 3, 0.0, 0.0), ("three raters, 10 % honest errors", 3, 0.1, 0.0), ("two raters", 2, 0.0, 0.0),
          ("one rater", 1, 0.0, 0.0), ("one rater, half repeated", 1, 0.0, 0.5))  # fmt: skip


def collected(folder: Path) -> None:
    """A run on toy pages with pairs of the environment, of rules and of a file."""
    config = RunConfig.model_validate(
        {
            "project": {"run_dir": folder},
            "env": {"name": "toy", "tasks": FAMILIES},
            "collect": {"group_size": 8},
            "tracking": {"mlflow": False},
            "pair": {"sources": ["step", "outcome", "heuristic"], "max_per_state": 20, "max_per_task": 500},
        }
    )
    with open_run(config, console=Console(file=io.StringIO())) as ctx:
        tasks = make_tasks(ctx, "train", dict.fromkeys(FAMILIES, 100))
        roll_out(ctx, "collect/1", "rollouts", tasks, RandomAgent(), group_size=8)
        pair(ctx, 1)
        texts = [Preference(id=f"import-{n}", messages=PROMPT, chosen=f"yes {n}", rejected="no", level="text",
                            source="import") for n in range(TEXTS)]  # fmt: skip
        keep(ctx.store, 2, texts)


def on_pages(store: RunStore, folder: Path) -> list[Caught]:
    """One rater, who is right, on pairs of rollouts of which one succeeded."""
    won = {one.id: one.success for one in store.iterate("collect/1")}
    found = []
    for comparison in comparisons_of(store.iterate("collect/1")):
        sides = {side: won[comparison.evidence[side]["trajectory"]] for side in ("first", "second")}
        if sides["first"] is not sides["second"]:
            found.append((comparison, "first" if sides["first"] else "second"))
    with PreferenceLog(folder / "pages.db") as log:
        log.append("comparison", [comparison.model_dump(mode="json") for comparison, _ in found])
        log.append("label", [_label(comparison.id, right, "ann") for comparison, right in found])
        return [line for line in drill(store, log) if line.what == "labels"]


def on_texts(folder: Path, name: str, raters: int, wrong: float, repeated: float) -> list[Caught]:
    rng = random.Random(name)
    texts = [Comparison(id=f"t{n}", messages=PROMPT, first="yes", second="no") for n in range(TEXTS)]
    labels = [_label(one.id, "second" if rng.random() < wrong else "first", f"rater {n}")
              for one in texts for n in range(raters)]  # fmt: skip
    labels += [{**one, "evidence": {"repeat": True}} for one in labels if rng.random() < repeated]
    with PreferenceLog(folder / f"{name}.db") as log:
        log.append("comparison", [one.model_dump(mode="json") for one in texts])
        log.append("label", labels)
        return drill(None, log)


def _label(comparison: str, preferred: str, rater: str) -> dict[str, Any]:
    return {"comparison": comparison, "preferred": preferred, "source": "human", "rater": rater}


def lines(folder: Path) -> Iterator[tuple[str, Sequence[Caught]]]:
    collected(folder / "run")
    with RunStore(folder / "run", "read") as store:
        pairs = drill(store, None)
        for source in sorted({line.source for line in pairs}):
            yield f"pairs: {source}", [line for line in pairs if line.source == source]
        yield "labels of pages: one rater", on_pages(store, folder)
    for panel in PANELS:
        yield f"labels of text: {panel[0]}", on_texts(folder, *panel)


def main() -> None:
    table = Table(box=None, title="caught of turned (95 % interval), by share that was turned", title_justify="left")
    for heading in ("", "all", *(f"{share:.1%}" for share in SHARES), "doubted before"):
        table.add_column(heading, justify="left" if not heading else "right")
    with tempfile.TemporaryDirectory(prefix="poison-") as folder:
        for name, found in lines(Path(folder)):
            cells = [f"{line.turned - line.missed} of {line.turned} ({line.caught.low:.0%} to {line.caught.high:.0%})"
                     for line in found]  # fmt: skip
            table.add_row(name, str(found[0].total), *cells, str(found[0].before))
    Console(width=220).print(table)


if __name__ == "__main__":
    main()
