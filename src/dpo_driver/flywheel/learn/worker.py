"""The process of a background training: ``python -m dpo_driver.flywheel.learn.worker ROOT JOB``. Started by api.py."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from dpo_driver.core.errors import DriverError
from dpo_driver.flywheel.jobs import Cancelled, Jobs


def main(root: str, name: str) -> int:
    """Work on one job; what happens is in its record and its log."""
    jobs = Jobs(root)
    try:
        with jobs.running(name) as work:
            from dpo_driver.flywheel.learn.texts import last_number
            from dpo_driver.flywheel.roles import train_role

            asked = work.job.request
            work.phase("train", 0.05)
            seen = {"seen": {work.job.role: last_number(jobs.root, work.job.role)}}
            found = train_role(
                work.job.role, Path(asked["data"]), model=asked["model"], out=Path(asked["out"]),
                overrides=asked["overrides"], console=Console(width=120),
            )  # fmt: skip
            decision = found["decision"]
            work.end("done" if decision["promoted"] else "refused", message=decision["reasons"][0], result=found | seen)
    except Cancelled:
        return 0
    except (DriverError, KeyboardInterrupt) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
