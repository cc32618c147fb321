"""Doctor with a real Chromium: it opens a page, and what it says about a missing or broken one is true."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from dpo_driver.browser.chromium import ENVIRONMENT_VARIABLE, find_chromium
from dpo_driver.cli import checks
from dpo_driver.core.errors import DriverError

pytestmark = pytest.mark.browser


def test_chromium_really_opens_a_page() -> None:
    found = checks.check_chromium()
    assert found.status == "ok", found
    assert str(find_chromium()) in found.detail


def test_a_page_without_the_button_is_an_error() -> None:
    found = checks.check_chromium("data:text/html,<title>doctor</title>")
    assert (found.status, bool(found.remedy)) == ("error", True)
    assert "its button was not seen" in found.detail


def test_a_program_that_is_no_browser_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "chromium"
    fake.write_text("#!/bin/sh\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(fake))
    found = checks.check_chromium()
    assert found.status == "error"
    assert f"{fake} does not start" in found.detail
    with pytest.raises(DriverError, match="this machine is not ready: chromium"):
        checks.verify(tmp_path / "runs")


def test_a_missing_browser_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "nowhere"))
    found = checks.check_chromium()
    assert found.status == "error"
    assert found.remedy


def test_doctor_on_this_machine(cli: Callable[..., CompletedProcess[str]]) -> None:
    done = cli("doctor", "--json", timeout=110)
    told = json.loads(done.stdout)
    assert done.returncode == 0, told
    assert told["ok"] is True
    status = {check["name"]: check["status"] for check in told["checks"]}
    assert list(status) == [
        "python", "packages", "torch", "chromium", "sandbox", "shared memory", "sqlite", "memory", "disk",
        "run directory", "mlflow", "api keys",
    ]  # fmt: skip
    assert status["chromium"] == status["torch"] == status["mlflow"] == "ok"


def test_doctor_never_shows_a_key(cli: Callable[..., CompletedProcess[str]]) -> None:
    done = cli("doctor", timeout=110, OPENAI_API_KEY="sk-secret-value")
    assert "OPENAI_API_KEY" in done.stdout
    assert "sk-secret" not in done.stdout + done.stderr
