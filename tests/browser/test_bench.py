"""The benchmark plays real episodes and counts them honestly. How fast they are is for the benchmark to say."""

from __future__ import annotations

import pytest

from dpo_driver.core.errors import UnknownNameError
from dpo_driver.rollout.bench import bench_env
from dpo_driver.rollout.bench_profile import profile_env

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]


def test_the_oracle_is_right_every_time() -> None:
    figures = bench_env("click-button", seconds=1.0, workers=2)
    assert figures["correct"] == figures["total"] > 5
    assert figures["stop_reasons"] == {"success": figures["total"]}
    assert figures["episodes_per_second"] == pytest.approx(figures["total"] / figures["seconds"], rel=0.02)
    assert figures["seconds"] >= 1.0


def test_an_unknown_task_starts_no_browser() -> None:
    with pytest.raises(UnknownNameError, match="click-button"):
        bench_env("click-buton", seconds=1.0, workers=1)


def test_tasks_and_worker_counts_are_rows_and_totals() -> None:
    figures = bench_env(["click-button", "enter-text"], workers=[1, 2], episodes=4)
    assert [(row["task"], row["workers"], row["total"]) for row in figures["rows"]] == [
        ("click-button", 1, 4),
        ("enter-text", 1, 4),
        ("click-button", 2, 4),
        ("enter-text", 2, 4),
    ]
    assert figures["correct"] == figures["total"] == 16
    for whole, count in zip(figures["by_workers"], (1, 2), strict=True):
        parts = [row for row in figures["rows"] if row["workers"] == count]
        assert whole["seconds"] == pytest.approx(sum(row["seconds"] for row in parts), abs=0.02)
        assert whole["episodes_per_second"] == pytest.approx(8 / whole["seconds"], rel=0.1)
        assert whole["steps_per_second"] == pytest.approx(1.5 * whole["episodes_per_second"], rel=0.01)
    assert figures["episodes_per_second"] == max(whole["episodes_per_second"] for whole in figures["by_workers"])


def test_an_unknown_engine_starts_no_browser() -> None:
    with pytest.raises(UnknownNameError, match="trusted"):
        bench_env("click-button", seconds=1.0, engine="trustd")


def test_the_profile_adds_up() -> None:
    figures = profile_env("click-button", rounds=20)
    assert figures["correct"] == figures["total"] == 20 and figures["steps"] == 1.0
    parts = dict(figures["parts_ms"])
    assert parts.pop("sum") == pytest.approx(sum(parts.values()), abs=0.01)
    assert set(parts) == {"pointer aside", "start", "observe", "records", "decide", "act", "read", "observe again"}
    # Nothing that plays the page is faster than the page, nor a call faster than the way there and back.
    assert 0 < figures["floor_ms"] < figures["episode_ms"]
    assert figures["times_floor"] == pytest.approx(figures["episode_ms"] / figures["floor_ms"], rel=0.1)
    assert 0 < figures["round_trip_ms"] < parts["act"]
    assert figures["distiller_ms"] > 0
