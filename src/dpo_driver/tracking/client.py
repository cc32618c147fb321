"""Where MLflow's database and artifacts lie, and how it is opened: locally, quietly, without telemetry.

Used by tracker.py, ui.py and registry.py. mlflow is imported inside :func:`open_client` only.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import DriverError

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
SERVER = "DPO_DRIVER_TRACKING_URI"


def tracking_uri(root: str | Path) -> str:
    """``sqlite:///<root>/mlflow.db``, absolute, so that it means the same from every working directory."""
    return f"sqlite:///{Path(root).resolve() / DATABASE}"


def server_uri() -> str:
    """Where numbers are sent instead: ``http://...``, ``azureml://...``; "" for the local database. The registry stays
    local: its moves need more than a tracking server gives."""
    return os.environ.get(SERVER, "")


def offline_environment() -> dict[str, str]:
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def open_client(root: str | Path, server: str = "") -> Any:
    """An ``MlflowClient`` on the root's database, which is created when missing (2 s once, 0.6 s later), or on a
    tracking server; ``azureml://`` needs azureml-mlflow.

    Raises:
        DriverError: MLflow is not installed, or the folder cannot be written.
    """
    for name, value in offline_environment().items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise DriverError(
            f"MLflow cannot be imported: {error}",
            where=sys.executable,
            remedy="pip install 'dpo-driver[tracking]', or set tracking.mlflow=false",
        ) from None
    # Creating the database would otherwise print a page of migrations over the progress bars.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if server:
        return MlflowClient(server)
    root = Path(root)
    try:
        (root / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DriverError(
            f"the tracking folder cannot be made: {error.strerror}", where=str(root), remedy="choose another run_dir"
        ) from error
    return MlflowClient(tracking_uri(root), registry_uri=tracking_uri(root))
