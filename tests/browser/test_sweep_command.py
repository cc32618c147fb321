"""A sweep in small, as a user runs it: real Chromium, two runs, one table; and its report in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from dpo_driver.browser.chromium import find_chromium
from dpo_driver.core.store import RunStore

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

CONFIG = """
project: {name: small}
env: {tasks: [click-checkboxes], rollouts: miniwob-batched, workers: 4}
demos: {per_task: 2}
sft: {max_steps: 2, eval_steps: 2}
rounds: 1
collect: {episodes_per_task: 24, group_size: 8, temperature: 1.5}
pair: {max_parse_error_share: 1.0}
dpo: {max_steps: 2, eval_steps: 2, learning_rate: 1e-3}
evaluate: {episodes_per_task: 3, choose_per_task: 2, agents: [sft, dpo]}
tracking: {mlflow: false}
"""


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dpo_driver", "sweep", *arguments]
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The sweep's folder, finished, and what the command said."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "small.yaml").write_text(CONFIG)
    done = sweep(folder, "small.yaml", "--over", "dpo.beta=.05,.1", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "small-sweep", done


def test_it_runs_every_value_and_shares_what_comes_before(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = swept
    figures = json.loads(done.stdout)
    assert figures == json.loads((folder / "sweep.json").read_text())
    assert figures["base"] == {"dpo.beta": 0.1}  # the default, which is in the list
    for row, point in zip(figures["rows"], ("dpo.beta=0.05", "dpo.beta=0.1"), strict=True):
        assert [made["slug"] for made in row["points"]] == [point]
        assert row["success"]["n"] + row["success"]["excluded"] == 3
        assert row["success"]["low"] <= row["success"]["success"] <= row["success"]["high"]
        assert row["gain"]["n"] <= 3 and row["seconds"] > 0
        assert (folder / point / "report.html").is_file()
    assert figures["rows"][0]["against_base"]["n"] <= 3 and figures["rows"][1]["is_base"]
    second = figures["rows"][1]["points"][0]
    assert set(second["shared"]) == {
        "demos", "sft", "evaluate/val/sft", "collect/1", "pair/1", "evaluate/test/sft"
    }  # fmt: skip
    assert 0 < second["shared_seconds"] < second["seconds"]
    assert "6 stages would come out the same and were copied: 6 of dpo.beta=0.05" in done.stderr
    with RunStore(folder / "dpo.beta=0.05", mode="read") as one, RunStore(folder / "dpo.beta=0.1", mode="read") as two:
        assert one.stage_status("sft").facts["version"] == two.stage_status("sft").facts["version"]
        assert one.stage_status("dpo/1").facts["version"] != two.stage_status("dpo/1").facts["version"]
        assert [t.id for t in one.trajectories("collect/1")] == [t.id for t in two.trajectories("collect/1")]


def test_the_same_command_finds_everything_done(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, before = swept
    done = sweep(folder.parents[1], "small.yaml", "--over", "dpo.beta=.05,.1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done before") == 2 and "▸" not in done.stderr
    for text in ("dpo.beta", "0.05", "base", "time of", "which saved"):
        assert text in done.stdout
    rows = json.loads((folder / "sweep.json").read_text())["rows"]
    assert rows == json.loads(before.stdout)["rows"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(find_chromium()), args=["--no-sandbox", "--disable-gpu"], timeout=30_000
        )
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_the_report_opens_offline_and_fits(
    swept: tuple[Path, subprocess.CompletedProcess[str]], chromium: Browser, width: int, scheme: str
) -> None:
    folder, _ = swept
    page = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    ).new_page()
    page.set_default_timeout(10_000)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto((folder / "report.html").as_uri())
    assert wrong == [] and asked == [(folder / "report.html").as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("table").count() == page.locator("svg.chart").count() == 1
    assert page.locator("tbody tr").count() == 2
    # One mark for each value and for its SFT parent, with an interval bar each, drawn inside the picture.
    assert page.locator("circle.mark").count() == page.locator("path.bar").count() == 4
    inside = page.evaluate(
        """() => { const box = document.querySelector('svg.chart').getBoundingClientRect();
        return [...document.querySelectorAll('svg.chart :is(circle, path, text)')].every((e) => {
          const own = e.getBoundingClientRect();
          return own.left >= box.left - 1 && own.right <= box.right + 1
            && own.top >= box.top - 6 && own.bottom <= box.bottom + 6;
        }); }"""
    )
    assert inside
    page.locator("#runs a").first.click()
    assert page.title() == "dpo.beta=0.05 · DPO-Driver"
    page.context.close()
