"""Azure's files: what they say, that its own schemas take them, every command of docs/azure.md, and the endpoint."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from dpo_driver.cli.main import app
from dpo_driver.cloud.azure.check import checked
from dpo_driver.cloud.azure.client import workspace
from dpo_driver.cloud.azure.files import deployment_files, job_files
from dpo_driver.cloud.azure.settings import AzureSettings, WorkspaceSettings, load_azure
from dpo_driver.core.config import load_config
from dpo_driver.core.errors import ConfigError
from dpo_driver.policies.loading import load_model, load_tokenizer, save_version
from dpo_driver.serve import azure_score as score
from serve_models import adapter, register

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "azure.md").read_text(encoding="utf-8")
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def test_a_job_goes_on_after_an_eviction_and_says_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "very-secret-words")
    files = job_files(AzureSettings(), load_config(ROOT / "configs" / "pocket.yaml"), tmp_path, ROOT)
    job, compute = read(tmp_path / "job.yml"), read(tmp_path / "compute.yml")
    assert compute["tier"] == "low_priority" and compute["min_instances"] == 0
    kept = "azureml://datastores/workspaceblobstore/paths/dpo-driver/pocket/"
    assert job["outputs"]["kept"] == {"type": "uri_folder", "mode": "rw_mount", "path": kept}
    assert "dpo_driver.cloud.azure.keep --store ${{outputs.kept}}" in job["command"]
    assert "DPO_DRIVER_TRACKING_URI=$MLFLOW_TRACKING_URI" in job["command"]
    assert job["command"].endswith("-- dpo-driver run config.yaml")
    sent = load_config(tmp_path / "code" / "config.yaml")
    assert str(sent.run_dir) == "/var/tmp/dpo-driver/runs/pocket"
    assert (tmp_path / "code" / "src" / "dpo_driver" / "__init__.py").is_file()
    assert not list((tmp_path / "code").rglob("__pycache__")) and not (tmp_path / "code" / ".venv").exists()
    assert "chromium" in (tmp_path / "environment" / "Dockerfile").read_text()
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"very-secret-words" not in everything
    found, version = checked(files)
    assert sorted(found) == ["compute.yml", "environment.yml", "job.yml"] and version


def test_serverless_compute_is_spot_too(tmp_path: Path) -> None:
    settings = AzureSettings.model_validate({"compute": {"name": "serverless"}})
    files = job_files(settings, load_config(ROOT / "configs" / "pocket.yaml"), tmp_path, ROOT)
    job = read(tmp_path / "job.yml")
    assert job["queue_settings"] == {"job_tier": "spot"} and "compute" not in job
    assert job["resources"]["instance_type"] == "Standard_NC24ads_A100_v4"
    assert sorted(checked(files)[0]) == ["environment.yml", "job.yml"]


def test_azures_schema_refuses_what_is_wrong(tmp_path: Path) -> None:
    files = deployment_files(AzureSettings(), tmp_path, model="m:1", base="", slot="blue", traffic={})
    assert sorted(checked(files)[0]) == ["deployment.yml", "endpoint.yml"]
    wrong = read(tmp_path / "deployment.yml") | {"instance_count": "many"}
    (tmp_path / "deployment.yml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(ConfigError, match=r"instance_count.*Not a valid integer") as caught:
        checked(files)
    assert "deployment.yml" in str(caught.value) and "\n{" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["deploy", "m:1", "--traffic", "blue=90", "--traffic", "green=20", "--dry-run"], "adds up to 110 %"),
     (["deploy", "m:1", "--traffic", "blue", "--dry-run"], "is no share"),
     (["submit", "--set", "store=https://x", "--dry-run"], "no azureml:// address"),
     (["submit", "--set", "compute.tear=spot", "--dry-run"], "compute.tier"),
     (["submit", "--project", "/tmp", "--dry-run"], "code is not here"),
     (["register", "nothing", "--dry-run"], "nothing"),
     (["status", "job-1"], "the workspace is not named")],
)  # fmt: skip
def test_bad_input_is_explained(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(ROOT)
    more = [] if arguments[0] == "status" else ["--out", str(tmp_path)]
    more += ["--root", str(tmp_path)] if arguments[0] == "register" else []
    said = CliRunner().invoke(app, ["cloud", "azure", *arguments, *more])
    assert said.exit_code != 0 and words in str(said.exception)


def test_the_workspace_comes_from_the_file_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "group")
    monkeypatch.setenv("AZURE_WORKSPACE", "other")
    found = workspace(WorkspaceSettings(subscription_id="s", name="mine"))
    assert found == {"subscription_id": "s", "resource_group": "group", "name": "mine"}


def test_the_shipped_settings_are_settings() -> None:
    assert load_azure(ROOT / "configs" / "azure.yaml").compute.tier == "low_priority"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a whole model and an adapter on it."""
    root = tmp_path_factory.mktemp("azure") / "runs"
    models = root / "pocket" / "models"
    save_version(load_model("pocket", device="cpu"), load_tokenizer("pocket"), models / "sft")
    adapter(models / "sft", models / "dpo-1", 0)
    for name in ("pocket/sft", "pocket/dpo-1"):
        register(root, name)
    from dpo_driver.registry import Registry

    Registry(root).set_alias("champion", "pocket/sft")
    return root


@pytest.mark.slow
def test_every_command_of_the_page_runs(runs: Path, cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(runs)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("dpo-driver ")]
    assert len(lines) == 11
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if words in (["cloud", "azure", "submit"], ["cloud", "azure", "status", "JOB"]):
            done = cli(*words, *(["--project", str(ROOT)] if words[2] == "submit" else []))
            # They would call Azure: without a workspace they say so and send nothing.
            assert done.returncode == 2 and "the workspace is not named" in done.stderr, done.stderr
            continue
        done = cli(*words, *(["--project", str(ROOT)] if "submit" in words else []), timeout=110)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if "--json" in words and "azure" in words:
            assert json.loads(done.stdout)["checked"] == ["compute.yml", "environment.yml", "job.yml"]
    endpoint, deployment = read(tmp_path / "runs/azure/endpoint.yml"), read(tmp_path / "runs/azure/deployment.yml")
    assert endpoint["auth_mode"] == "key" and deployment["model"] == "azureml:mine:3"
    assert deployment["environment_variables"] == {"DPO_DRIVER_BASE": "Qwen/Qwen3-4B"}
    model = read(tmp_path / "runs/azure/model.yml")
    assert model["name"] == "pocket-sft" and model["tags"]["content_hash"]


def test_the_endpoint_answers_with_the_real_model(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dpo_driver.core.records import Message, Sampling
    from dpo_driver.policies.hf import HFPolicy

    words = "[1] button ok\n[2] link home\ngoal: click ok\n"
    body = json.dumps({"messages": [{"role": "user", "content": words}], "temperature": 0, "max_tokens": 24})
    for name in ("sft", "dpo-1"):
        folder = runs / "pocket" / "models" / name
        shutil.copytree(folder, tmp_path / name / "model")  # Azure puts it one folder down
        monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / name))
        monkeypatch.setenv("DPO_DRIVER_BASE", str(runs / "pocket" / "models" / "sft") if name == "dpo-1" else "")
        score.init()
        how = Sampling(temperature=0.0, max_new_tokens=24)
        expected = HFPolicy(folder, device="cpu").generate([(Message(role="user", content=words),)], [how])[0].text
        answer = score.run(body)
        assert answer["choices"][0]["message"]["content"] == expected and answer["usage"]["completion_tokens"] > 0
    assert score.run("{")["error"]["code"] == "invalid_json"
    assert score.run(json.dumps({"messages": [], "temperature": 9}))["error"]["param"] in ("messages", "temperature")
    stopped = score.run(json.dumps({**json.loads(body), "stop": ["action"]}))
    assert "action" not in stopped["choices"][0]["message"]["content"]
    with pytest.raises(FileNotFoundError, match="no model below"):
        score.find_model(tmp_path / "runs-none")
