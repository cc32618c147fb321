"""docs/environments.md runs as it is written, and the example shop is trainable: experts, SFT, rollouts, scores."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dpo_driver.browser.wire import free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(2400)]
ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
NAMED = re.compile(r"^(?:# |<!-- )(?P<file>[\w./-]+\.\w+)")


def run(folder: Path, script: str, timeout: float = 1200) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    with (folder / "told.log").open("w+") as log:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(timeout)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.wait(10)
        log.seek(0)
        told = log.read()
    assert code == 0, f"{script}\n{told}"
    return told


def test_the_walk_through_works_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    section = page.partition("### Train on your own site in ten minutes")[2].partition("### A task file")[0]
    blocks = list(BLOCK.finditer(section))
    assert [block["kind"] for block in blocks] == ["html", "yaml", "yaml", "bash", "python", "yaml", "bash"]
    port, commands = free_port(), []
    for block in blocks:
        named = NAMED.match(block["text"])
        if block["kind"] == "bash":
            commands.append(block["text"])
            continue
        assert named is not None, block["text"]
        file = tmp_path / named["file"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block["text"].replace("8790", str(port)), encoding="utf-8")
    (tmp_path / "cafe" / "tasks" / "expert.py").touch()
    told = run(tmp_path, commands[0])
    assert "no success (wrong): reward 0 after 2 steps" in told
    told = run(tmp_path, commands[1])
    for line in ("demonstrations: 12 episodes of the expert", "round 1: collect: 8 rollouts", "evaluate oracle (test)"):
        assert f"✓ {line}" in told, told
    figures = json.loads(run(tmp_path, "dpo-driver report runs/cafe --json 2>/dev/null"))
    assert figures["oracle"]["success"] == 1.0
    assert figures["oracle"]["n"] == figures["sft"]["n"] == 8
    assert figures["sft"]["excluded"] == 0


CONFIG = """
project: {{name: shop}}
env:
  name: website
  folder: {folder}
  base_url: http://127.0.0.1:{port}
  tasks: [orders, settings, returns]
  workers: 2
demos: {{per_task: 4}}
sft: {{learning_rate: 5e-4, num_train_epochs: 2, eval_steps: 10}}
collect: {{episodes_per_task: 4, group_size: 2}}
evaluate: {{episodes_per_task: 4, reference_episodes: 12, choose_per_task: 1, agents: [random, oracle, sft]}}
"""


def test_the_example_shop_is_trainable(tmp_path: Path) -> None:
    text = CONFIG.format(folder=ROOT / "examples" / "shop" / "tasks", port=free_port())
    (tmp_path / "shop.yaml").write_text(text)
    run(tmp_path, "dpo-driver train sft shop.yaml; dpo-driver collect shop.yaml")
    told = run(tmp_path, "dpo-driver evaluate shop.yaml --agent random --agent oracle --agent sft")
    figures = json.loads(run(tmp_path, "dpo-driver report runs/shop --json 2>/dev/null"))
    assert figures["oracle"]["success"] == 1.0, told
    assert figures["random"]["success"] <= 0.25
    assert {figures[agent]["n"] for agent in ("random", "oracle", "sft")} == {12}
    assert all(figures[agent]["excluded"] == 0 for agent in ("random", "oracle", "sft"))


def test_what_a_person_plays_takes_the_place_of_an_expert(tmp_path: Path) -> None:
    """A family without an expert: refused with the command that helps, then demonstrated by hand."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tmp_path / "index.html").write_text("<title>t</title><a href='/yes.html'>Yes</a> <a href='/no.html'>No</a>")
    for name in ("yes", "no"):
        (tmp_path / f"{name}.html").write_text(f"<title>{name}</title><h1>{name}</h1>")
    (tasks / "say.yaml").write_text(
        "goal: Say {word}.\nparameters: {word: ['yes']}\nsuccess: {url: '/{word}.html'}\ndone: {url: '/*.html'}\n"
    )
    serve = "python -m http.server --bind 127.0.0.1 --directory .. {port}"
    (tasks / "site.yaml").write_text(f"name: t\nbase_url: http://127.0.0.1:{free_port()}\nserve: {serve}\n")
    (tmp_path / "t.yaml").write_text(
        "project: {name: t}\nenv: {name: website, folder: tasks, tasks: [say]}\n"
        "sft: {max_steps: 2}\nevaluate: {choose_per_task: 1}\n"
    )
    with pytest.raises(AssertionError, match=r"(?s)nobody demonstrates say.*dpo-driver play say --env website:tasks"):
        run(tmp_path, "dpo-driver train sft t.yaml")
    for seed in (1, 2):
        told = run(tmp_path, f"echo 'click(1)' | dpo-driver play say/{seed} --env website:tasks --save runs/t")
        assert f"demos/t.say/{seed}/0" in told
    told = run(tmp_path, "dpo-driver train sft t.yaml")
    assert "1 families played by hand" in told
    assert "✓ supervised fine-tuning: 2 steps" in told
