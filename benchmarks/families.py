"""The table of MiniWoB++ families in docs/environments.md, for pasting: ``python benchmarks/families.py FILE...``.

The files are what ``dpo-driver oracles --json`` printed; several are read as one, so families can be played in parts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dpo_driver.envs.miniwob.tasks import TASKS
from inflation import FAMILIES as PARTIAL

# Pages of the package that BrowserGym does not list.
UNLISTED = {"button-delay", "chase-circle", "hover-shape", "moving-items", "simon-says"}

if __name__ == "__main__":
    played = {}
    for path in sys.argv[1:]:
        played |= json.loads(Path(path).read_text(encoding="utf-8"))["tasks"]
    print("| task | BrowserGym id | step limit | loaded anew | partial reward | oracle, strict | its steps |")
    print("|---|---|---|---|---|---|---|")
    for name, spec in TASKS.items():
        row = played.get(name)
        known = "-" if name in UNLISTED else f"`browsergym/miniwob.{name}`"
        marks = ["yes" if given else "" for given in (spec.reload, name in PARTIAL)]
        reached = [f"{row['strict']}/{row['n']}", f"{row['mean_steps']:.1f}"] if row else ["-", ""]
        print(f"| `{name}` | {known} | {spec.max_steps} | {' | '.join(marks)} | {' | '.join(reached)} |")
    perfect = sum(row["strict"] == row["n"] for row in played.values())
    print(f"\n{len(TASKS)} families, {len(played)} with an oracle, {perfect} of them at 100 % strict.", file=sys.stderr)
