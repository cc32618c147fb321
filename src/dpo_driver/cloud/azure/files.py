"""The files that Azure ML is given: job, compute, environment, model, endpoint, deployment. They hold no secrets.

Called by cli/cloud.py; knows no SDK.
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from dpo_driver.cloud.azure.settings import AzureSettings
from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import ConfigError
from dpo_driver.core.records import ModelVersion

SCHEMAS = "https://azuremlschemas.azureedge.net/latest"
ENVIRONMENT = "dpo-driver"
CONFIG, CODE = "config.yaml", "code"
RUNS = "/var/tmp/dpo-driver/runs"  # the same path on every machine: the registry names folders in full
SERVERLESS = "serverless"
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".git", ".venv", "runs", "node_modules", ".pytest_cache")
SOURCES = ("src", "pyproject.toml", "README.md", "LICENSE")


def job_files(settings: AzureSettings, run: RunConfig, folder: Path, project: Path) -> list[Path]:
    """Everything that a job needs, in a folder.

    Args:
        settings: see settings.py.
        run: configuration of the run; it becomes a file beside the code.
        folder: where they are written; what is there of the same name is replaced.
        project: the checkout whose code is sent.

    Raises:
        ConfigError: that is no checkout of this project.
    """
    if not (project / "pyproject.toml").is_file():
        raise ConfigError("the project's code is not here", where=str(project),
                          remedy="run it from a checkout, or name one: --project DIR")  # fmt: skip
    code = folder / CODE
    shutil.rmtree(code, ignore_errors=True)
    code.mkdir(parents=True)
    for name in SOURCES:
        source = project / name
        if source.is_dir():
            shutil.copytree(source, code / name, ignore=IGNORED)
        elif source.is_file():
            shutil.copyfile(source, code / name)
    name = run.project.name
    here = run.model_copy(update={"project": run.project.model_copy(update={"run_dir": Path(RUNS) / name})})
    (code / CONFIG).write_text(here.resolved_yaml(), encoding="utf-8")
    written = [_write(folder / "job.yml", _job(settings, name)), *environment_files(settings, folder)]
    if settings.compute.name != SERVERLESS:
        written.append(_write(folder / "compute.yml", _compute(settings)))
    return [*written, code / CONFIG]


def environment_files(settings: AzureSettings, folder: Path) -> list[Path]:
    """The image: Debian's Chromium, this project's packages, a torch for the machine's GPU."""
    context = folder / "environment"
    context.mkdir(parents=True, exist_ok=True)
    index = f" --extra-index-url {settings.torch_index}" if settings.torch_index else ""
    requirement = f"dpo-driver[{settings.extras}] @ file:///opt/dpo-driver" if settings.extras else "/opt/dpo-driver"
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(
        f"FROM {settings.base_image}\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core git "
        "&& rm -rf /var/lib/apt/lists/*\n"
        "COPY project /opt/dpo-driver\n"
        f"RUN pip install --no-cache-dir{index} '{requirement}' azureml-inference-server-http\n"
        "ENV DPO_DRIVER_CHROMIUM=/usr/bin/chromium PYTHONUNBUFFERED=1\n",
        encoding="utf-8",
    )
    code = folder / CODE
    if code.is_dir():
        shutil.rmtree(context / "project", ignore_errors=True)
        shutil.copytree(code, context / "project", ignore=shutil.ignore_patterns(CONFIG))
    body = {"$schema": f"{SCHEMAS}/environment.schema.json", "name": ENVIRONMENT, "build": {"path": "environment"},
            "description": "DPO-Driver with Chromium"}  # fmt: skip
    return [_write(folder / "environment.yml", body), dockerfile]


def model_file(version: ModelVersion, folder: Path) -> Path:
    """A registered version as a model of the workspace; its lineage goes into tags."""
    tags = {
        "dpo_driver": version.name,
        "version": str(version.version),
        "content_hash": version.content_hash,
        "parent": version.parent or "",
        "algorithm": version.algorithm,
        "base_model": version.base_model,
    }
    body = {
        "$schema": f"{SCHEMAS}/model.schema.json",
        "name": azure_name(version.name),
        "type": "custom_model",
        "path": version.path,
        "tags": tags,
        "description": f"{version.algorithm} on {version.base_model}",
    }
    return _write(folder / "model.yml", body)


def deployment_files(
    settings: AzureSettings, folder: Path, *, model: str, base: str, slot: str, traffic: dict[str, int]
) -> list[Path]:
    """A managed online endpoint, and one deployment of it that answers with a model or an adapter.

    Args:
        settings, folder: as above.
        model: of the workspace, ``name:version`` or ``name@latest``.
        base: hub id or folder of the model that an adapter sits on; "" for whole models.
        slot: name of the deployment, such as ``blue``.
        traffic: percent by deployment; together 100, or empty for the first one.

    Raises:
        ConfigError: the shares are no percentages.
    """
    if traffic and (sum(traffic.values()) != 100 or min(traffic.values()) < 0):
        raise ConfigError(f"the traffic adds up to {sum(traffic.values())} %", where="--traffic",
                          remedy="write --traffic blue=90 --traffic green=10")  # fmt: skip
    about = settings.endpoint
    code = folder / "score"
    code.mkdir(parents=True, exist_ok=True)
    score = code / "score.py"
    score.write_text((resources.files("dpo_driver.serve") / "azure_score.py").read_text(encoding="utf-8"), "utf-8")
    endpoint: dict[str, Any] = {
        "$schema": f"{SCHEMAS}/managedOnlineEndpoint.schema.json", "name": about.name, "auth_mode": "key",
        **({"traffic": traffic} if traffic else {}),
    }  # fmt: skip
    deployment = {
        "$schema": f"{SCHEMAS}/managedOnlineDeployment.schema.json", "name": slot, "endpoint_name": about.name,
        "model": f"azureml:{model}", "environment": f"azureml:{ENVIRONMENT}@latest",
        "code_configuration": {"code": "score", "scoring_script": "score.py"},
        "environment_variables": {"DPO_DRIVER_BASE": base} if base else {},
        "instance_type": about.size, "instance_count": about.count,
        "request_settings": {"request_timeout_ms": 1000 * about.timeout_s,
                             "max_concurrent_requests_per_instance": about.at_once},
        "liveness_probe": {"initial_delay": 300, "period": 30, "timeout": 10, "failure_threshold": 10},
    }  # fmt: skip
    return [_write(folder / "endpoint.yml", endpoint), _write(folder / "deployment.yml", deployment), score]


def serverless_file(name: str, model_id: str, folder: Path) -> Path:
    """A serverless endpoint: billed by token, for models of Azure's catalogue."""
    body = {"$schema": f"{SCHEMAS}/serverlessEndpoint.schema.json", "name": name, "model_id": model_id}
    return _write(folder / "serverless.yml", body)


def azure_name(name: str) -> str:
    """``pocket/dpo-1`` as Azure allows it."""
    return name.replace("/", "-")


def _job(settings: AzureSettings, name: str) -> dict[str, Any]:
    resume = f"python -m dpo_driver.cloud.azure.keep --store ${{{{outputs.kept}}}} --runs {RUNS}"
    work = f"{resume} --every {settings.keep_every_s} -- dpo-driver run {CONFIG}"
    serverless = settings.compute.name == SERVERLESS
    body: dict[str, Any] = {
        "$schema": f"{SCHEMAS}/commandJob.schema.json", "type": "command", "display_name": f"dpo-driver-{name}",
        "experiment_name": settings.experiment, "code": CODE,
        # The workspace's own tracking address is MLFLOW_TRACKING_URI inside a job.
        "command": f"pip install --no-deps . && DPO_DRIVER_TRACKING_URI=$MLFLOW_TRACKING_URI {work}",
        "outputs": {"kept": {"type": "uri_folder", "mode": "rw_mount", "path": f"{settings.store}/{name}/"}},
        "tags": {"dpo_driver_run": name},
    }  # fmt: skip
    body["environment"] = f"azureml:{ENVIRONMENT}@latest"
    if settings.timeout_s:
        body["limits"] = {"timeout": settings.timeout_s}
    if serverless:
        body["resources"] = {"instance_type": settings.compute.size, "instance_count": 1}
        tier = "spot" if settings.compute.tier == "low_priority" else "standard"
        body["queue_settings"] = {"job_tier": tier}
    else:
        body["compute"] = f"azureml:{settings.compute.name}"
    return body


def _compute(settings: AzureSettings) -> dict[str, Any]:
    about = settings.compute
    return {"$schema": f"{SCHEMAS}/amlCompute.schema.json", "name": about.name, "type": "amlcompute",
            "size": about.size, "tier": about.tier, "min_instances": 0, "max_instances": about.most,
            "idle_time_before_scale_down": about.idle_seconds}  # fmt: skip


def _write(path: Path, body: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(yaml.safe_dump(body, sort_keys=False, width=120), encoding="utf-8")
    temporary.replace(path)
    return path
