"""The loop for programs: start a training, ask how it goes, whether another is due, and say what came of an answer.

    from dpo_driver import train_dpo_adapter, get_training_status

    job = train_dpo_adapter("support", "pocket", "rows.jsonl", "runs/support")
    get_training_status(job)["state"]

Trainings run in processes of their own and outlive the caller. Handed on by ``dpo_driver`` itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import ConfigError, DataError
from dpo_driver.core.records import Interaction
from dpo_driver.flywheel.inbox import DEFAULT_ROOT, Inbox
from dpo_driver.flywheel.jobs import Jobs
from dpo_driver.flywheel.learn.due import due
from dpo_driver.flywheel.learn.settings import DueSettings

KIND = "dpo"


def train_dpo_adapter(
    agent_role: str, base_adapter_path: str | Path, preference_data_path: str | Path, output_dir: str | Path, *,
    root: str | Path = DEFAULT_ROOT, overrides: tuple[str, ...] = (),
) -> str:  # fmt: skip
    """Train a role's model on preferences, in the background. The same call again takes up a job whose process died.

    Args:
        agent_role: such as "support". Its trainings wait for each other.
        base_adapter_path: what is improved and compared with: a model's or adapter's folder, a hub id, "pocket", or a
            registered version.
        preference_data_path: pairs in any known format, or a preference log.
        output_dir: the role's run directory.
        root: folder of the jobs.
        overrides: of the configuration, such as ``dpo.num_train_epochs=1``.

    Returns:
        The job's id.

    Raises:
        ConfigError: no role was named. DataError: there is no such data. StoreError: the job cannot be kept.
    """
    if not agent_role.strip() or "," in agent_role:
        raise ConfigError(f"{agent_role!r} is no name for a role", remedy="use letters and digits, such as support")
    if not Path(preference_data_path).exists():
        raise DataError("there is no such data", where=str(preference_data_path),
                        remedy="export some: get_preference_data_path, or dpo-driver prefs export")  # fmt: skip
    jobs = Jobs(root)
    request = {
        "model": str(base_adapter_path), "data": str(Path(preference_data_path).resolve()),
        "out": str(Path(output_dir).resolve()), "overrides": list(overrides),
    }  # fmt: skip
    job = jobs.waiting(agent_role, KIND, request) or jobs.add(agent_role, KIND, request)
    if job.state == "running":
        return job.id
    command = [sys.executable, "-m", "dpo_driver.flywheel.learn.worker", str(jobs.root.resolve()), job.id]
    with jobs.log_file(job.id).open("a") as log:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    return job.id


def get_training_status(job_id: str, *, root: str | Path = DEFAULT_ROOT) -> dict[str, Any]:
    """A job's record as JSON: state, phase, progress from 0 to 1, message, error, result. DataError: no such job."""
    return Jobs(root).get(job_id).model_dump(mode="json")


def get_dpo_status(agent_role: str, *, root: str | Path = DEFAULT_ROOT) -> dict[str, Any]:
    """Where a role stands: its champion, its last job, what is under way, and what is new since the last turn."""
    from dpo_driver.registry import Registry

    jobs = [job for job in Jobs(root).list() if agent_role in job.role.split(",")]
    looked = due(Path(root), agent_role, DueSettings())
    last = next((job for job in jobs if job.state not in ("queued", "running")), None)
    champion = Registry(root).aliases().get(f"{agent_role}@champion") if (Path(root) / "mlflow.db").is_file() else None
    return {
        "role": agent_role,
        "champion": champion,
        "last": last.model_dump(mode="json") if last else None,
        "under_way": [job.id for job in jobs if job.state in ("queued", "running")],
        "due": looked.due,
        "why": looked.reason,
        "new": looked.new,
    }


def should_run_dpo_training(
    agent_role: str, *, least_pairs: int = DueSettings().pairs, root: str | Path = DEFAULT_ROOT
) -> bool:
    """Whether a turn is due: enough new pairs, or answers that succeed less often than they did."""
    return due(Path(root), agent_role, DueSettings(pairs=least_pairs)).due


def get_preference_data_path(agent_role: str, *, root: str | Path = DEFAULT_ROOT) -> Path:
    """All pairs of a role as a JSON Lines file, written anew: ``<root>/preferences/<role>.jsonl``.

    Raises:
        DataError: there are none yet.
    """
    from dpo_driver.flywheel.learn.texts import role_pairs
    from dpo_driver.preferences.formats import export_preferences

    rows, _ = role_pairs(Path(root), agent_role, None, Counter())
    path = Path(root) / "preferences" / f"{agent_role}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    export_preferences(path, rows)
    return path


def record_feedback(
    episode: str, *, rating: float | None = None, preferred: str = "", success: bool | None = None,
    root: str | Path = DEFAULT_ROOT,
) -> int:  # fmt: skip
    """Say later what came of an episode that was recorded: its own row stays, and another one says more.

    Args:
        episode: its id.
        rating: from -1 to 1.
        preferred: an answer that would have been better.
        success: what came of it.
        root: folder of the inbox.

    Returns:
        The new row's number.

    Raises:
        DataError: there is no such episode, or nothing is said of it.
    """
    if rating is None and not preferred and success is None:
        raise DataError("there is nothing to record", where=episode, remedy="give rating, preferred or success")
    with Inbox(root) as inbox:
        known = inbox.get(episode)
        if known is None:
            raise DataError(f"there is no episode {episode!r}", where=str(inbox.path))
        values = known.model_dump() | {
            "id": f"{episode}-{uuid.uuid4().hex[:8]}", "at": time.time(), "rating": rating, "preferred": preferred,
            "success": success, "reward": None, "metadata": {**known.metadata, "episode": episode},
        }  # fmt: skip
        return inbox.append(Interaction.model_validate(values))
