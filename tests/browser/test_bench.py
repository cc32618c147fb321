"""The benchmark plays real episodes and counts them honestly. How fast they are is for the benchmark to say."""

from __future__ import annotations

import pytest

from dpo_driver.core.errors import UnknownNameError
from dpo_driver.rollout.bench import bench_env

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
