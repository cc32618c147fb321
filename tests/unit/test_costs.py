"""Estimates by hand: prices times time, and FLOPs of DPO, PPO and GRPO."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpo_driver.cli.main import app
from dpo_driver.cloud.costs import Workload, compare, estimate, flops
from dpo_driver.core.errors import ConfigError, UnknownNameError
from dpo_driver.core.prices import Machine, Prices, load_prices

ROOT = Path(__file__).resolve().parents[2]
TABLE = Prices(machines={"gpu": Machine(hour=4.0, spot_hour=1.0, tflops=1e-12 / 0.5, reached=0.5),
                         "cpu": Machine(hour=0.5)})  # fmt: skip
SMALL = Workload(parameters=10, prompts=3, prompt_tokens=8, completion_tokens=1, epochs=2, group=4, ppo_epochs=2,
                 reward_parameters=5)  # fmt: skip


def test_money_is_time_times_price() -> None:
    found = estimate(TABLE, "gpu", 5400, count=2)
    assert (found["cost"], found["currency"], found["estimate"]) == (12.0, "EUR", True)
    assert estimate(TABLE, "gpu", 5400, spot=True)["cost"] == 1.5
    with pytest.raises(UnknownNameError, match=r"(?s)machine 'tpu'.*gpu"):
        estimate(TABLE, "tpu", 1)
    with pytest.raises(UnknownNameError, match="machine with a spot price 'cpu'"):
        estimate(TABLE, "cpu", 1, spot=True)


def test_flops_by_hand() -> None:
    found = flops(SMALL)
    # 3 prompts in 2 epochs: 6. A pair with its prompt: 8 + 2 = 10 tokens; a group: 8 + 4 = 12; one rollout: 9.
    assert found["dpo"].learning == 6 * 10 * 10 * 6
    assert found["dpo"].reference == 2 * 10 * 10 * 3  # once, then kept
    assert (found["grpo"].generation, found["grpo"].reference, found["grpo"].learning) == (
        2 * 10 * 12 * 6, 2 * 10 * 12 * 6, 6 * 10 * 12 * 6)  # fmt: skip
    ppo = found["ppo"]
    assert (ppo.generation, ppo.reference, ppo.reward) == (2 * 10 * 9 * 6, 2 * 10 * 9 * 6, 2 * 5 * 9 * 6)
    assert ppo.learning == 6 * 10 * 9 * 6 * 2 and ppo.value == ppo.generation + ppo.learning
    apart = flops(SMALL.model_copy(update={"shared_prompts": False}))
    assert apart["dpo"].learning == 6 * 10 * 18 * 6 and apart["ppo"] == ppo
    assert apart["grpo"].learning == 6 * 10 * 36 * 6


def test_a_comparison_in_hours_and_money() -> None:
    rows = {row["algorithm"]: row for row in compare(SMALL, TABLE, "gpu")["rows"]}
    # The machine does one operation a second: DPO's 4,200 take 1.167 h, at 4 an hour.
    assert rows["dpo"]["flops"] == 3600 + 600 and rows["dpo"]["against_dpo"] == 1
    assert (rows["dpo"]["hours"], rows["dpo"]["cost"]) == (1.167, 4.6667)
    assert "hours" not in compare(SMALL, TABLE, "cpu")["rows"][0]  # nobody said how fast it is
    with pytest.raises(UnknownNameError):
        compare(SMALL, TABLE, "tpu")


def test_the_example_table_and_the_commands(tmp_path: Path) -> None:
    prices = ROOT / "configs" / "prices.example.yaml"
    assert load_prices(prices).machines["one-gpu"].hour == 4.0
    run = CliRunner()
    said = run.invoke(app, ["cost", "estimate", "one-gpu", "--prices", str(prices), "--hours", "6", "--spot", "--json"])
    assert json.loads(said.stdout)["cost"] == 6.0
    said = run.invoke(app, ["cost", "compare", "--json"])
    found = {row["algorithm"]: row["against_dpo"] for row in json.loads(said.stdout)["rows"]}
    assert json.loads(said.stdout)["estimate"] is True and found == {"dpo": 1.0, "ppo": 6.48, "grpo": 1.54}
    wrong = tmp_path / "prices.yaml"
    wrong.write_text("machines: {gpu: {our: 3}}\n")
    with pytest.raises(ConfigError, match="our"):
        load_prices(wrong)
