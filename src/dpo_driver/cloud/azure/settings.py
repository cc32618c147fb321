"""What Azure is asked for: a file such as configs/azure.yaml. No secrets: who may do what, Azure's own sign-in says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dpo_driver.core.config import load_settings
from dpo_driver.core.section import Count, CountOrNone, Section

AzureName = Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]$")]


class WorkspaceSettings(Section):
    """Which workspace; what is empty comes from AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP, AZURE_WORKSPACE."""

    subscription_id: str = ""
    resource_group: str = ""
    name: str = ""


class ComputeSettings(Section):
    """Where the job runs: a cluster of low-priority machines that is made when missing, or ``serverless``."""

    name: str = "dpo-driver-spot"
    size: str = "Standard_NC24ads_A100_v4"
    tier: Literal["low_priority", "dedicated"] = "low_priority"
    most: Count = 1
    idle_seconds: Count = 300


class EndpointSettings(Section):
    """The managed online endpoint and its deployments."""

    name: AzureName = "dpo-driver"
    size: str = "Standard_DS3_v2"
    count: Count = 1
    at_once: Count = 4
    timeout_s: Count = 60


class AzureSettings(Section):
    """Everything about Azure that is not about a run."""

    run: Path = Path("configs/pocket.yaml")  # configuration of the run
    workspace: WorkspaceSettings = WorkspaceSettings()
    compute: ComputeSettings = ComputeSettings()
    experiment: str = "dpo-driver"
    base_image: str = "python:3.11-slim-bookworm"
    torch_index: str = "https://download.pytorch.org/whl/cu128"  # "": what PyPI has
    extras: str = "all,azure,gpu"
    store: str = "azureml://datastores/workspaceblobstore/paths/dpo-driver"  # where runs outlive their machine
    keep_every_s: Count = 60
    timeout_s: CountOrNone = 86_400
    endpoint: EndpointSettings = EndpointSettings()

    @model_validator(mode="after")
    def _a_store(self) -> AzureSettings:
        if not self.store.startswith("azureml://"):
            raise ValueError("store: is no azureml:// address")
        return self


def load_azure(path: Path | None, overrides: Sequence[str] = ()) -> AzureSettings:
    """The settings of a file with ``section.key=value`` overrides; ConfigError as for any configuration."""
    return load_settings(AzureSettings, path, overrides)
