"""The gauntlet's commands as a person calls them: smoke, explore, serve."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from dpo_driver.core.records import Observation

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def command(folder: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dpo_driver", "gauntlet", *arguments], cwd=folder, input=typed, capture_output=True,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_smoke_writes_down_what_fifteen_actions_show(tmp_path: Path) -> None:
    done = command(tmp_path, "smoke", "--out", "seen", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["actions"], figures["observations"]) == (15, 16)
    written = [Observation.model_validate_json(f.read_text()) for f in sorted((tmp_path / "seen").glob("*.json"))]
    assert [len(observation.elements) for observation in written] == figures["elements"]
    assert len(list((tmp_path / "seen").glob("*.jpg"))) == 16
    refused = command(tmp_path, "smoke", "--base-url", "http://127.0.0.1:9")
    assert (refused.returncode, "does not answer" in refused.stderr) == (2, True)


def test_a_person_explores_from_the_terminal(tmp_path: Path) -> None:
    typed = 'click("3")\nnonsense\nquit\n'
    done = command(tmp_path, "explore", "--interactive", "--save-snapshots", "kept", "--task", "run-1", typed=typed)
    assert done.returncode == 0, done.stderr
    kept = sorted((tmp_path / "kept").glob("*.json"))
    assert [file.stem for file in kept] == ["000", "001"]
    headings = [e.name for e in Observation.model_validate_json(kept[1].read_text()).elements if e.role == "heading"]
    assert "Step 1 of 30" in headings
    assert "Step 1 of 30" in done.stdout


def test_people_are_served_until_ctrl_c() -> None:
    served = subprocess.Popen([sys.executable, "-m", "dpo_driver", "gauntlet", "serve", "--port", "0"],
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert served.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", served.stdout.readline())
        assert found is not None
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"{found[0]}health", timeout=10
        ) as answer:
            assert answer.read() == b"ok"
        served.send_signal(signal.SIGINT)
        assert served.wait(10) == 0
    finally:
        served.kill()
        served.wait(5)
