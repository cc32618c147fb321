"""Every command of docs/dashboard.md, run as it stands (but for the port), and the benchmark on a small run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dashboard_server import episode, serving
from dpo_driver.core.store import RunStore
from dpo_driver.dashboard.serve import PASSWORD

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("dpo-driver dashboard")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands are run: runs/ with two runs, and configs/."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("pocket", "other"):
        with RunStore(folder / "runs" / name) as store:
            store.add_trajectory("collect/1", episode("collect/1", "login", 1))
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


def test_the_page_shows_all_ways() -> None:
    assert len(COMMANDS) == 6 and f"export {PASSWORD}=" in PAGE


@pytest.mark.parametrize("command", COMMANDS)
def test_every_way_to_start_it_starts(folder: Path, command: str) -> None:
    arguments = shlex.split(command, comments=True)[2:]
    ports = [index + 1 for index, word in enumerate(arguments) if word == "--port"]
    for index in ports:
        arguments[index] = "0"
    needs = bool({"--password", "--host", "--origin"} & set(arguments))
    environment = {PASSWORD: "correct horse battery"} if needs else {}
    with serving(folder, *arguments, **environment) as server:
        port = server.address.rpartition(":")[2]
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, timeout=60) as client:
            assert client.get(server.link.replace(server.address, address)).status_code == 200
            if "--origin" in arguments:  # its cookie is for TLS: a proxy sends it on
                client.headers["Cookie"] = "; ".join(f"{one.name}={one.value}" for one in client.cookies.jar)
            runs = [run["id"] for run in client.get("/api/overview").json()["runs"]]
            assert sorted(runs) == (["pocket"] if "runs/pocket" in arguments else ["other", "pocket"])
            ledger = client.get("/api/ledger").json()
            assert (ledger["prices"] is not None) == ("--prices" in arguments)


def test_the_benchmark_measures_every_list(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "dashboard.py"),
        "--episodes",
        "1500",
        "--steps",
        "50",
        "--times",
        "3",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["episodes"] == 1500 and len(told["lists"]) == 10
    assert all(one["median_ms"] > 0 for one in told["lists"].values())
