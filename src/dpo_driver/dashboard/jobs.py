"""Jobs below a root, and their logs as they grow. Called by app.py; reads through flywheel/jobs.py, changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpo_driver.core.records import Job
from dpo_driver.flywheel.jobs import Jobs

MOST_LOG = 64 * 1024  # bytes in one answer
MOST_JOBS = 200


def jobs(root: Path) -> list[dict[str, Any]]:
    """All jobs, the newest first; ``seconds`` from start to end where both are known."""
    return [_brief(job) for job in Jobs(root).list()[:MOST_JOBS]]


def one(root: Path, name: str, after: int | None = None) -> dict[str, Any]:
    """A job with what it was asked for, what came of it, and its log from a byte on.

    Args:
        root: folder of runs.
        name: of the job.
        after: ``next`` of the answer before; the last ``MOST_LOG`` bytes when None.

    Raises:
        DataError: there is no such job.
    """
    known = Jobs(root)
    job = known.get(name)
    if after is None:
        path = known.log_file(name)
        after = max(0, path.stat().st_size - MOST_LOG) if path.is_file() else 0
    text, following = known.log(name, max(0, after))
    return {**_brief(job), "request": job.request, "result": job.result, "log": text, "next": following}


def _brief(job: Job) -> dict[str, Any]:
    seconds = job.ended - job.started if job.ended is not None and job.started is not None else None
    return {**job.model_dump(mode="json", exclude={"request", "result", "schema_version"}), "seconds": seconds}
