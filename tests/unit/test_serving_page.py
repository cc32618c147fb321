"""Every command of docs/serving.md and the example, run as they stand against real servers."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dpo_driver.flywheel.inbox import Inbox
from serve_models import adapter, served_root
from serve_process import TOKEN, ServeProcess, serving

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "http://127.0.0.1:8000"
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(name)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_root(tmp_path_factory.mktemp("page") / "runs")


def run(command: list[str], server: ServeProcess, cwd: Path) -> str:
    env = {**os.environ, "DPO_DRIVER_SERVE_TOKEN": TOKEN, "OPENAI_API_KEY": TOKEN, "OPENAI_BASE_URL": server.base_url}
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", commands("dpo-driver serve"))
def test_every_way_to_start_it_starts(root: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = shlex.split(command, comments=True)[2:]
    if "--vllm" not in arguments:
        with serving(root, *arguments) as server:
            assert server.client().models.list().data
        return
    monkeypatch.setenv("DPO_DRIVER_VLLM_KEY", TOKEN)
    with (
        serving(root, "--model", "base=pocket") as behind,
        serving(root, *(each.replace(f"{ADDRESS}/v1", behind.base_url) for each in arguments)) as server,
    ):
        assert {model.id for model in server.client().models.list()} >= {"base", "champion", "pocket/dpo-1"}


@pytest.mark.slow
def test_what_the_page_asks_is_answered(root: Path, tmp_path: Path) -> None:
    sent = commands("curl")
    assert len(sent) == 6
    with serving(root, "--model", "base=pocket") as server:
        adapter(root / "pocket" / "models" / "sft", tmp_path / "runs" / "pocket" / "models" / "dpo-2", 3)
        first = server.client().chat.completions.create(
            model="base", messages=[{"role": "user", "content": "x"}], max_tokens=4
        )
        site = server.base_url.removesuffix("/v1")
        for command in sent:
            here = command.replace(ADDRESS, site).replace("chatcmpl-...", first.id)
            here = here.replace("runs/pocket", str(tmp_path / "runs" / "pocket"))
            said = run(["bash", "-c", here.replace("curl -s", "curl -s --fail-with-body", 1)], server, tmp_path)
            assert '"error"' not in said, said
        code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        assert len(code) == 1
        assert run([sys.executable, "-c", code[0].replace(ADDRESS, site)], server, tmp_path).strip()
        told = run([sys.executable, str(ROOT / "examples" / "openai_client.py")], server, tmp_path)
        assert "models: base, " in told and "pocket/dpo-1 (champion):" in told and "kept as number" in told
    with Inbox(root) as inbox:
        rows = [row for _, row in inbox.since(0)]
    assert [row.id for row in rows if row.role == "support"] == ["my-7"] and len(rows) == 3
