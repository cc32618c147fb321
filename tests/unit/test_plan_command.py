"""``dpo-driver plan``: what it prints, what it proposes, and how it says that nothing fits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).resolve().parents[2]
SMALL, LARGE = str(ROOT / "configs" / "qwen3-4b-8gb.yaml"), str(ROOT / "configs" / "qwen3-4b-16gb.yaml")


def test_a_card_that_is_not_here(cli: CommandLine) -> None:
    done = cli("plan", SMALL, "--card", "8GB")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert "Qwen/Qwen3-4B: 4,022.5M parameters, on 8 GB card (7.6 of 8.0 GiB usable)" in text
    assert "LoRA rank 16, 33.03M parameters" in text
    assert text.count(": fits") == 2
    assert "does not fit" not in text


def test_json_is_all_that_is_printed(cli: CommandLine) -> None:
    done = cli(
        "plan", SMALL, "--card", "rtx-4060", "--stage", "dpo", "--prompt", "3000", "--completion", "100", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (stage,) = found["stages"]
    assert found["card"]["name"] == "rtx-4060"
    assert stage["stage"] == "dpo"
    assert stage["trainable"] == 33_030_144
    assert stage["passes"] == [{"trees": 2, "prompt": 3000, "completions": 2, "completion": 100, "times": 4}]
    memory = stage["memory"]
    assert memory["peak"] == max(memory["phases"].values()) + memory["allocator"] + memory["runtime"]
    assert stage["fits"] is True
    assert "proposal" not in stage


def test_what_does_not_fit_gets_settings_that_do(cli: CommandLine) -> None:
    done = cli("plan", LARGE, "--card", "8GB", "--stage", "sft", "--json")
    assert done.returncode == 0, done.stderr
    (stage,) = json.loads(done.stdout)["stages"]
    assert stage["fits"] is False
    changes = stage["proposal"]["changes"]
    assert "model.quantization=nf4" in changes
    assert stage["proposal"]["fits"] is True
    taken = [word for change in changes for word in ("--set", change)]
    again = cli("plan", LARGE, "--card", "8GB", "--stage", "sft", "--json", *taken)
    (stage,) = json.loads(again.stdout)["stages"]
    assert stage["fits"] is True
    shown = cli("plan", LARGE, "--card", "8GB", "--stage", "sft").stdout
    assert "does not fit" in shown
    assert "fits with " + " ".join(f"--set {change}" for change in changes) in shown


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((LARGE, "--card", "1GB"), "nothing fits: sft takes at least"),
        ((SMALL, "--card", "cpu"), "model.quantization nf4 needs a GPU"),
        ((SMALL, "--card", "rtx-9999"), "unknown card 'rtx-9999'"),
        ((SMALL, "--card", "8GB", "--prompt", "6000", "--completion", "512"), "are longer than model.max_length 6144"),
        ((SMALL, "--card", "8GB", "--set", "model.name=nobody/unknown"), "config.json is not on this machine"),
        ((SMALL, "--card", "8GB", "--set", "model.quantisation=nf4"), "did you mean model.quantization?"),
    ],
)
def test_errors_name_a_way_out(cli: CommandLine, arguments: tuple[str, ...], what: str) -> None:
    done = cli("plan", *arguments)
    assert done.returncode == 2, done.stdout
    assert what in done.stderr
    assert "->" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_torch_is_needed_for_a_card_that_is_not_here() -> None:
    code = (
        "import sys; from dpo_driver.core.config import load_config; from dpo_driver.training import planner, cards\n"
        f"c = cards.find_card('8GB'); p = planner.make_plan(planner.job_of(load_config({SMALL!r}), 'sft', c), c)\n"
        "assert p.fits; print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_the_pocket_model_takes_what_the_plan_says() -> None:
    """Measured in a fresh process. Seconds depend on what else runs here; benchmarks/plan.py shows them."""
    cases = ["--case", "pocket/sft", "--case", "qwen3-5M/dpo/full"]
    command = [sys.executable, str(ROOT / "benchmarks" / "plan.py"), *cases, "--steps", "4", "--rounds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=True)
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 2
    for row in rows:
        assert row["peak"]["ratio"] == pytest.approx(1, abs=0.1), row
        assert row["seconds"]["predicted"] > 0
