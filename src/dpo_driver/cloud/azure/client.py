"""Calls to Azure itself. Not run against an account yet. Called by cli/cloud.py, never on a dry run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpo_driver.cloud.azure.check import checked, sdk
from dpo_driver.cloud.azure.settings import WorkspaceSettings
from dpo_driver.core.errors import ConfigError, DriverError

VARIABLES = {"subscription_id": "AZURE_SUBSCRIPTION_ID", "resource_group": "AZURE_RESOURCE_GROUP",
             "name": "AZURE_WORKSPACE"}  # fmt: skip


def workspace(settings: WorkspaceSettings) -> dict[str, str]:
    """Which workspace is meant.

    Raises:
        ConfigError: something is named neither in the file nor in the environment.
    """
    found = {key: getattr(settings, key) or os.environ.get(variable, "") for key, variable in VARIABLES.items()}
    lacking = [f"workspace.{key} or {VARIABLES[key]}" for key, value in found.items() if not value]
    if lacking:
        raise ConfigError("the workspace is not named", remedy=f"give {', '.join(lacking)}; or look first: --dry-run")
    return found


class Azure:
    """A workspace, signed in to by what ``DefaultAzureCredential`` finds: the CLI, a managed identity, variables."""

    def __init__(self, settings: WorkspaceSettings) -> None:
        place = workspace(settings)
        library = sdk()
        from azure.identity import DefaultAzureCredential

        self._client = library.MLClient(DefaultAzureCredential(), place["subscription_id"], place["resource_group"],
                                        place["name"])  # fmt: skip

    def submit(self, files: list[Path]) -> dict[str, Any]:
        """Make compute and environment where they are missing, and start the job."""
        found, _ = checked(files)
        with _told():
            if "compute.yml" in found:
                self._client.compute.begin_create_or_update(found["compute.yml"]).result()
            self._client.environments.create_or_update(found["environment.yml"])
            job = self._client.jobs.create_or_update(found["job.yml"])
        return {"job": job.name, "status": job.status, "studio": job.studio_url}

    def status(self, name: str) -> dict[str, Any]:
        """How a job goes."""
        with _told():
            job = self._client.jobs.get(name)
        return {"job": job.name, "status": job.status, "studio": job.studio_url}

    def register(self, files: list[Path]) -> dict[str, Any]:
        """A model version in the workspace."""
        found, _ = checked(files)
        with _told():
            model = self._client.models.create_or_update(found["model.yml"])
        return {"model": model.name, "version": model.version}

    def deploy(self, files: list[Path], traffic: dict[str, int]) -> dict[str, Any]:
        """Endpoint, deployment, and last of all the traffic: a deployment that fails gets none."""
        found, _ = checked(files)
        with _told():
            if "serverless.yml" in found:
                made = self._client.serverless_endpoints.begin_create_or_update(found["serverless.yml"]).result()
                return {"endpoint": made.name, "url": made.scoring_uri}
            endpoint, deployment = found["endpoint.yml"], found["deployment.yml"]
            endpoint.traffic = {}
            made = self._client.online_endpoints.begin_create_or_update(endpoint).result()
            self._client.online_deployments.begin_create_or_update(deployment).result()
            made.traffic = traffic or {deployment.name: 100}
            made = self._client.online_endpoints.begin_create_or_update(made).result()
        return {"endpoint": made.name, "deployment": deployment.name, "traffic": made.traffic, "url": made.scoring_uri}


@contextmanager
def _told() -> Iterator[None]:
    """Azure's many errors as one of ours."""
    try:
        yield
    except DriverError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DriverError(f"Azure refuses: {first[:300]}", where=type(error).__name__,
                          remedy="signed in? az login; or look at the files first: --dry-run") from error  # fmt: skip
