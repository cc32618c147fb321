"""What a run ran on: versions, machine, git state, and every installed distribution. Nothing is imported to find out.

Tracking, the report and the flywheel ask. Standard library only.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "dpo-driver",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "playwright",
    "miniwob",
    "gymnasium",
    "mlflow",
    "pydantic",
    "numpy",
)
GIT_DEADLINE_S = 5.0


def git_state(folder: str | Path = ".") -> dict[str, str]:
    """Commit, branch and whether the work tree differs; empty outside a repository or without git."""

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=GIT_DEADLINE_S, check=True)
        return answer.stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        return {
            "git.commit": commit,
            "git.branch": ask("rev-parse", "--abbrev-ref", "HEAD"),
            "git.dirty": "yes" if ask("status", "--porcelain", "--untracked-files=no") else "no",
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def git_revision(folder: str | Path = ".") -> str:
    """The commit, with ``-dirty`` behind it where the work tree differs; empty outside a repository."""
    state = git_state(folder)
    return state.get("git.commit", "") + ("-dirty" if state.get("git.dirty") == "yes" else "")


def describe_environment(folder: str | Path = ".") -> dict[str, str]:
    """Versions, machine and git state, read without importing any of the packages; the report prints it."""
    facts = {"python": platform.python_version(), "platform": platform.platform(), "cpus": str(os.cpu_count() or 0)}
    for name in PACKAGES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return facts | git_state(folder)


def lock_file() -> str:
    """Every installed distribution as ``name==version``, sorted: what would rebuild this environment."""
    found = {f"{item.metadata['Name']}=={item.version}" for item in metadata.distributions() if item.metadata["Name"]}
    return "\n".join(sorted(found, key=str.lower)) + "\n"
