"""The figures of a sweep's table, worked out by hand: training seeds taken together, comparisons with the base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpo_driver.core.stats import paired_difference, rate, wilson
from dpo_driver.flywheel.sweep_plan import Plan, State
from dpo_driver.report.sweep import findings, headline, render_sweep, write_sweep
from dpo_driver.report.sweep_data import SweepReport, collect_sweep
from dpo_driver.report.sweep_stats import holm, pooled_difference, pooled_rate
from sample_sweep import first, played, small_plan

# Success by (family, page, training seed) on four pages under two trainings.
WEAK = {("f", 1, 0): True, ("f", 1, 1): True, ("f", 2, 0): False, ("f", 2, 1): False,
        ("f", 3, 0): False, ("f", 3, 1): True, ("f", 4, 0): False, ("f", 4, 1): False}  # fmt: skip
STRONG = {("f", 1, 0): True, ("f", 1, 1): True, ("f", 2, 0): True, ("f", 2, 1): True,
          ("f", 3, 0): True, ("f", 3, 1): True, ("f", 4, 0): False, ("f", 4, 1): True}  # fmt: skip


def test_success_over_training_seeds_is_worth_fewer_episodes_than_there_are() -> None:
    found = pooled_rate(WEAK)
    assert (found.success, found.n) == (3 / 8, 8)
    # Residuals of the pages: 2 - .75, 0 - .75, 1 - .75, 0 - .75; their squares add up to 2.75, so the eight episodes
    # are worth .375 * .625 * 8 * 8 / 2.75 = 5.4545 independent ones. Wilson's interval for 3/8 of so many:
    assert found.low == pytest.approx(0.11118, abs=2e-5)
    assert found.high == pytest.approx(0.74212, abs=2e-5)


def test_trainings_that_always_agree_are_worth_one_episode_a_page() -> None:
    agreed = {("f", page, seed): page <= 3 for page in range(10) for seed in (0, 1, 2)}
    found = pooled_rate(agreed)
    assert (found.n, found.success) == (30, 0.4)
    assert (found.low, found.high) == pytest.approx(wilson(4, 10))
    every = pooled_rate({("f", page, seed): True for page in range(10) for seed in (0, 1)})
    assert (every.low, every.high) == pytest.approx(wilson(10, 10))


def test_one_training_seed_gives_what_the_rest_of_the_package_gives() -> None:
    a = {("f" if page < 30 else "g", page, 5): page % 3 == 0 for page in range(60)}
    b = {key: key[1] % 2 == 0 for key in a} | {("f", 4, 5): None}
    assert pooled_rate(b) == rate(b.values())
    assert pooled_difference(a, b) == paired_difference(a, b)


def test_differences_over_training_seeds_count_pages() -> None:
    found = pooled_difference(WEAK, STRONG)
    # Page by page, both trainings together: 0, +2, +1, +1 of 8 pairs.
    assert (found.mean, found.n, found.wins, found.losses) == (0.5, 8, 3, 0)
    assert found.p_mcnemar == 0.25  # three pages one way: 2 * (1/2) ** 3
    assert found.low is not None and found.high is not None and 0 <= found.low < 0.5 < found.high <= 1
    lost = pooled_difference(WEAK, {**STRONG, ("f", 2, 0): None, ("f", 2, 1): None})
    assert (lost.mean, lost.n, lost.wins) == (2 / 6, 6, 2)  # what the world took from one side counts on neither


def test_trainings_that_repeat_each_other_add_no_certainty() -> None:
    one_a = {("f", page, 0): page < 40 for page in range(100)}
    one_b = {("f", page, 0): page < 30 or page >= 75 for page in range(100)}  # 25 won, 10 lost
    three_a, three_b = ({(f, page, seed): won for (f, page, _), won in one.items() for seed in (0, 1, 2)}
                        for one in (one_a, one_b))  # fmt: skip
    one, three = pooled_difference(one_a, one_b), pooled_difference(three_a, three_b)
    assert (three.mean, three.wins, three.losses, three.p_mcnemar) == (one.mean, 25, 10, one.p_mcnemar)
    assert one.low is not None and one.high is not None
    assert (three.low, three.high) == pytest.approx((one.low, one.high), abs=0.011)  # one page is 0.01


def test_equal_outcomes_still_have_an_interval() -> None:
    found = pooled_difference(WEAK, WEAK)
    assert (found.mean, found.p_mcnemar) == (0.0, 1.0)
    # z^2 / (4 pages + z^2) = 3.8415 / 7.8415 on either side
    assert (found.low, found.high) == pytest.approx((-0.48989, 0.48989), abs=1e-4)


def test_p_values_are_adjusted_for_how_many_there_are() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


# -- the table -------------------------------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path: Path) -> tuple[Plan, SweepReport]:
    """Beta .1 (the base), .2, .4 and .8 under training seeds 0 and 1; .4 got worse and of .8 one run failed."""
    plan = small_plan(tmp_path, "dpo.beta=.1,.2,.4,.8", "project.seed=0,1", overrides=("env.tasks=[press]",))
    states = {}
    solved = {0.1: (20, 22), 0.2: (30, 28), 0.4: (10, 12), 0.8: (21, None)}
    for point in plan.points:
        count = solved[point.values["dpo.beta"]][point.seed]
        if count is None:
            states[point.slug] = State("failed", "DataError: no <b>pairs</b>")
        else:
            played(point, {"sft": first(10), "dpo": first(count)})
            states[point.slug] = State("done")
    return plan, collect_sweep(plan, states)


def test_rows_are_taken_together_over_training_seeds(report: tuple[Plan, SweepReport]) -> None:
    _, found = report
    base, better, worse, half = found.rows
    assert [row.label for row in found.rows] == ["0.1", "0.2", "0.4", "0.8"]
    assert [row.is_base for row in found.rows] == [True, False, False, False]
    assert base.success is not None and (base.success.success, base.success.n) == (42 / 80, 80)
    assert base.gain is not None and (base.gain.mean, base.gain.n) == (22 / 80, 80)
    # On pages 20 to 27 the base failed under seed 0 and .2 won; under seed 1 on pages 22 to 27; and pages 28, 29 with
    # seed 0: ten pages better, none worse.
    assert better.against_base is not None
    assert (better.against_base.mean, better.against_base.wins, better.against_base.losses) == (16 / 80, 10, 0)
    assert better.against_base.p_mcnemar == 2 / 2**10
    # Worse: seed 0 loses pages 10 to 19, seed 1 pages 12 to 21, twelve pages.
    assert worse.against_base is not None
    assert (worse.against_base.mean, worse.against_base.losses) == (-20 / 80, 12)
    # Holm over three rows: .4 has the smallest p (2 / 4096) times 3, .2 the next (2 / 1024) times 2.
    assert worse.p_holm == pytest.approx(3 * 2 / 2**12)
    assert better.p_holm == pytest.approx(2 * 2 / 2**10)
    assert [row.verdict for row in found.rows] == ["base", "better", "worse", "open"]
    # Of .8 only seed 0 was done: it is compared with the base's seed 0, one page better.
    assert half.against_base is not None and (half.against_base.mean, half.against_base.n) == (1 / 40, 40)
    assert [point.state for point in half.points] == ["done", "failed"]
    assert base.points[1].success is not None and base.points[1].success.success == 22 / 40


def test_the_words_claim_what_the_figures_allow(report: tuple[Plan, SweepReport]) -> None:
    _, found = report
    assert headline(found) == "dpo.beta 0.2 solves 20.0 more of every 100 held-out episodes than 0.1"
    said = findings(found)
    assert said[0].startswith("dpo.beta 0.2 against 0.1: +20.0 points (")
    assert said[1].startswith("dpo.beta 0.4 against 0.1: −25.0 points (")
    assert said[2] == "Not told apart from 0.1: 0.8."
    rows = tuple(row for row in found.rows if row.verdict != "better")
    assert headline(found.model_copy(update={"rows": rows})) == "No value of dpo.beta is shown to be better than 0.1"
    rows = (found.rows[0], found.rows[2])
    assert headline(found.model_copy(update={"rows": rows})) == (
        "Every other value of dpo.beta is shown to be worse than 0.1"
    )


def test_a_difference_that_the_number_of_rows_may_explain_is_not_called_one(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "dpo.beta=.1,.2,.4,.8", overrides=("env.tasks=[press]",))
    for point, count in zip(plan.points, (20, 27, 20, 20), strict=True):
        played(point, {"sft": first(10), "dpo": first(count)})
    row = collect_sweep(plan, {point.slug: State("done") for point in plan.points}).rows[1]
    assert row.against_base is not None and row.against_base.low is not None
    assert row.against_base.low > 0 and row.against_base.p_mcnemar == 2 / 2**7  # alone: 0.016
    assert row.p_holm == pytest.approx(6 / 2**7)  # of three: 0.047, still seen
    assert row.verdict == "better"
    played(plan.points[1], {"dpo": first(26)})  # six pages: 0.031 alone, 0.094 of three
    row = collect_sweep(plan, {point.slug: State("done") for point in plan.points}).rows[1]
    assert row.p_holm == pytest.approx(6 / 2**6) and row.verdict == "open"


def test_failures_of_the_world_are_left_out_and_counted(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "dpo.beta=.1,.2", overrides=("env.tasks=[press]",))
    played(plan.points[0], {"sft": first(10), "dpo": first(20)})
    played(plan.points[1], {"sft": first(10), "dpo": first(20) | {0: None, 39: None}})
    row = collect_sweep(plan, {point.slug: State("done") for point in plan.points}).rows[1]
    assert row.success is not None and (row.success.n, row.success.excluded) == (38, 2)
    assert row.against_base is not None and (row.against_base.n, row.against_base.mean) == (38, 0.0)


def test_the_page_is_one_safe_file_and_the_data_reads_back(tmp_path: Path, report: tuple[Plan, SweepReport]) -> None:
    _, found = report
    page = write_sweep(found, tmp_path / "out")
    html = page.read_text(encoding="utf-8")
    assert html == render_sweep(found)
    assert "<script" not in html and "http:" not in html and "https:" not in html
    assert "no &lt;b&gt;pairs&lt;/b&gt;" in html and "<b>pairs</b>" not in html
    assert html.count("<table") == 1 and html.count("<svg") == 1
    assert html.count('class="mark dpo"') == 4 and html.count('class="mark hollow sft"') == 4
    assert html.count('class="thread') == 2  # numbers are joined by a line, names are not
    assert html.count('class="one dpo"') == 6  # .8 has one training, which is the row itself
    assert 'href="dpo.beta%3D0.1%2Cproject.seed%3D0/report.html"' in html
    data = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert SweepReport.model_validate_json(json.dumps(data)) == found


def test_nothing_measured_is_said_so(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "dpo.beta=.1,.2")
    found = collect_sweep(plan, {point.slug: State() for point in plan.points})
    assert headline(found) == "Nothing has been measured yet"
    assert "not finished yet" in render_sweep(found)


def test_names_are_no_scale(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "dpo.loss_type=sigmoid,ipo", "rounds=1,2", overrides=("env.tasks=[press]",))
    for point in plan.points:
        played(point, {"sft": first(10), "dpo": first(20)})
    found = collect_sweep(plan, {point.slug: State("done") for point in plan.points})
    html = render_sweep(found)
    assert [row.label for row in found.rows][:2] == ["loss_type sigmoid, rounds 1", "loss_type sigmoid, rounds 2"]
    assert "polyline" not in html.partition("<body>")[2]
    assert "rounds 1</li>" in html and "rounds 2</li>" in html  # a line for each value of the other key
    assert html.count('class="mark dpo"') == html.count('class="mark control"') == 2
