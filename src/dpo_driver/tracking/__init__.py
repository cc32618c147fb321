"""Tracking of runs in MLflow on sqlite: parameters, metrics over time, versions, system metrics, artifacts, and the UI.

The flywheel opens one :class:`Tracker` per run; ``dpo-driver ui`` calls :func:`open_ui`; ``registry.py`` shares
:func:`open_client`. mlflow is imported when the first of them is used, its telemetry is off, and nothing here leaves
the machine. Must not import flywheel, report or cli.
"""

from dpo_driver.tracking.client import open_client, tracking_uri
from dpo_driver.tracking.tracker import Tracker
from dpo_driver.tracking.ui import open_ui, ui_command

__all__ = ["Tracker", "open_client", "open_ui", "tracking_uri", "ui_command"]
