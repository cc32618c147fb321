"""Files checked by azure-ai-ml's own schemas, without an account. Called by cli/cloud.py."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import ConfigError, DriverError

KINDS = {
    "job.yml": "load_job", "compute.yml": "load_compute", "environment.yml": "load_environment",
    "model.yml": "load_model", "endpoint.yml": "load_online_endpoint", "deployment.yml": "load_online_deployment",
    "serverless.yml": "load_serverless_endpoint",
}  # fmt: skip


def sdk() -> Any:
    """``azure.ai.ml``, quietly.

    Raises:
        DriverError: it is not installed.
    """
    os.environ.setdefault("AZURE_CORE_COLLECT_TELEMETRY", "false")
    for name in ("azure", "azure.ai.ml", "azure.identity"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # pages of "this is an experimental class"
            import azure.ai.ml
    except ImportError as error:
        raise DriverError(f"azure-ai-ml cannot be imported: {error}", where=sys.executable,
                          remedy="pip install 'dpo-driver[azure]'") from None  # fmt: skip
    return azure.ai.ml


def checked(files: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """What the files say, as the SDK's own objects by file name, and the version of the SDK that read them.

    Raises:
        ConfigError: a file is not what the schema asks for.
        DriverError: see :func:`sdk`.
    """
    library, found = sdk(), {}
    for path in files:
        if path.name not in KINDS:
            continue
        read: Callable[[Path], Any] = getattr(library, KINDS[path.name])
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                found[path.name] = one = read(path)
                validate = getattr(one, "_validate", None)
                told = validate() if callable(validate) else None
                problems = getattr(told, "error_messages", None)
        except Exception as error:  # noqa: BLE001  the SDK raises many kinds, none of them public
            raise ConfigError(f"Azure's schema refuses it: {_first(str(error))}", where=str(path)) from None
        if problems:
            raise ConfigError(f"Azure's schema refuses it: {problems}", where=str(path))
    return found, importlib.metadata.version("azure-ai-ml")


def _first(text: str) -> str:
    """What is wrong, without the page around it."""
    told = text.partition("If you are trying to configure")[0].partition("Visit this link")[0].replace("\\n", " ")
    return re.sub(r"[\\\"\s{}]+", " ", told).strip()[:400]
