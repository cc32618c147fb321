"""The report: figures follow from the records, nothing is claimed beyond the interval, nothing gets injected."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from dpo_driver.core.errors import StoreError
from dpo_driver.core.records import Decision, Element, Observation, PairedDifference
from dpo_driver.core.stats import rate
from dpo_driver.core.store import RunStore
from dpo_driver.report import charts, words
from dpo_driver.report.data import AGENTS, collect_report, report_json
from dpo_driver.report.page import render_page, write_report
from dpo_driver.report.pictures import Pictures, image_size
from dpo_driver.report.text import summary
from sample_run import HOSTILE, STAGES, TASKS, evaluation, page, write_sample_run

# 2 x 1 pixels, PNG; and the head of a 40 x 30 JPEG.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000200000001080000000078c5a0770000000b49444154789c6360f80f0001010100"
)
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffc0000b08001e002801011100ffd9")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def screenshot(seen: Observation, moment: str | None) -> bytes:
        return PNG + seen.state_hash.encode() + (moment or "").encode()

    return write_sample_run(tmp_path_factory.mktemp("runs") / "sample", screenshot)


@pytest.fixture
def empty_run(tmp_path: Path) -> Path:
    with RunStore(tmp_path / "fresh") as store:
        store.begin_stage("sft")
    return tmp_path / "fresh"


def gain(mean: float, low: float, high: float, p: float = 0.01) -> PairedDifference:
    return PairedDifference(mean=mean, low=low, high=high, n=1000, wins=1, losses=1, p_mcnemar=p)


# -- the figures -------------------------------------------------------------------------------------------------------


def test_json_keeps_its_contract(run_dir: Path) -> None:
    figures = json.loads(json.dumps(report_json(run_dir)))
    for agent in ("random", "oracle", "base", "sft", "sft_best", "dpo", "control"):
        assert set(figures[agent]) == {"success", "low", "high", "n", "excluded"}
        assert 0 <= figures[agent]["low"] <= figures[agent]["success"] <= figures[agent]["high"] <= 1
        assert figures[agent]["n"] + figures[agent]["excluded"] == 320
    for name in ("gain", "gain_over_control", "gain_over_sft_best", "gain_unsaturated"):
        assert set(figures[name]) == {"mean", "low", "high", "n", "p_mcnemar"}
    assert figures["seconds"]["sft"] == 71.0 and figures["seconds"] == STAGES
    assert set(figures["tasks"]) == set(TASKS)
    assert set(figures["tasks"]["click-link"]) == set(AGENTS) - {"grpo", "memory"}
    found = figures["by_task"]["click-link"]["dpo"]
    assert found["success"] == figures["tasks"]["click-link"]["dpo"] and found["n"] + found["excluded"] == 40
    assert found["low"] < found["success"] < found["high"]
    assert figures["saturated"] == ["click-button"]
    assert figures["missing"] == []


def test_the_figures_are_those_of_the_records(run_dir: Path) -> None:
    with RunStore(run_dir, mode="read") as store:
        report = collect_report(store, run_dir)
        before, after = store.outcomes("evaluate/test/sft"), store.outcomes("evaluate/test/dpo")
    both = [key for key in before if before[key][1] is not None and after[key][1] is not None]
    won = sum(bool(after[key][1]) and not before[key][1] for key in both)
    lost = sum(bool(before[key][1]) and not after[key][1] for key in both)
    assert report.gain is not None
    assert (report.won, report.lost) == (won, lost) == (report.gain.wins, report.gain.losses)
    assert report.gain.mean == pytest.approx((won - lost) / len(both))
    assert report.pair_count == 40 and set(report.pair_stats) == {"1", "2"}


def test_samples_are_spread_over_the_tasks_and_show_what_they_say(run_dir: Path) -> None:
    with RunStore(run_dir, mode="read") as store:
        report = collect_report(store, run_dir, replays=8)
    assert len(report.pairs) == 24 and len({row.task_name for row in report.pairs}) == len(TASKS)
    won = [replay for replay in report.replays if replay.kind == "won"]
    assert len(won) == 8 and len({replay.before.task.name for replay in won}) >= 7
    for replay in report.replays:
        assert replay.before.task.id == replay.after.task.id
        assert (replay.before.success, replay.after.success) == (replay.kind == "lost", replay.kind == "won")


def test_an_unfinished_run_says_what_is_missing(empty_run: Path) -> None:
    figures = report_json(empty_run)
    assert figures["sft"] is None and figures["gain"] is None and figures["seconds"] == {"sft": 0.0}
    assert "the evaluation of dpo" in figures["missing"] and "preference pairs" in figures["missing"]
    html = write_report(empty_run).read_text()
    assert "DPO against its SFT parent has not been measured" in html
    assert "No task has been measured yet" in html


def test_a_broken_fact_is_named(empty_run: Path) -> None:
    with RunStore(empty_run) as store:
        store.set_fact("eval/sft", {"agent": "sft"})
    with pytest.raises(StoreError, match="eval/sft"):
        report_json(empty_run)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a run directory"):
        write_report(tmp_path)


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "kind", "said"),
    [
        (gain(0.183, 0.151, 0.214), "better", "DPO solves 18.3 more of every 100"),
        (gain(-0.05, -0.08, -0.02), "worse", "DPO solves 5.0 fewer of every 100"),
        (gain(0.012, -0.01, 0.034), "open", "No difference between DPO and SFT is shown"),
        (gain(0.01, 0.0, 0.02), "open", "No difference"),
        (None, "missing", "has not been measured"),
        (PairedDifference(mean=None, low=None, high=None, n=0), "missing", "has not been measured"),
    ],
)
def test_only_what_the_interval_allows_is_said(difference: PairedDifference | None, kind: str, said: str) -> None:
    verdict = words.verdict(difference, "DPO", "SFT")
    assert verdict.kind == kind and said in verdict.headline
    if kind == "open":
        assert "contains 0" in verdict.detail and "more" not in verdict.headline and "…" in verdict.figure


def test_numbers_in_words() -> None:
    assert words.percent(0.6344).replace(words.THIN, " ") == "63.4 %"
    assert (words.points(0.183), words.points(-0.004), words.points(0.0002), words.points(None)) == (
        "+18.3",
        "−0.4",
        "±0.0",
        "–",
    )
    assert (
        words.duration(3.21) == "3.2 s" and words.duration(252) == "4 min 12 s" and words.duration(7300) == "2 h 1 min"
    )
    assert words.p_value(0.0004).replace(words.HARD, " ") == "p < 0.001"
    assert words.stop_name("max_steps") == "out of steps" and words.stop_name("browser_lost") == "browser lost"


def test_an_unproven_gain_is_printed_as_unproven_everywhere(tmp_path: Path) -> None:
    run = write_sample_run(tmp_path / "open")
    small = gain(0.012, -0.01, 0.034, p=0.54)
    refusal = Decision(
        promoted=False, candidate="sample/dpo-2", champion="sample/sft", reasons=("interval contains 0",), gain=small
    )
    with RunStore(run) as store:
        store.set_fact("gain", small.model_dump())
        store.set_fact("decision", refusal.model_dump(mode="json"))
    html = write_report(run).read_text()
    headline = re.search(r"<h1>(.*?)</h1>", html)
    assert headline and headline.group(1) == "No difference between DPO and its SFT parent is shown."
    assert "Refused" in html and "Promoted" not in html and "does not replace" in html
    with RunStore(run, mode="read") as store:
        console = Console(width=120, record=True, file=(tmp_path / "out").open("w"))
        console.print(summary(collect_report(store, run)))
    text = console.export_text()
    assert "No difference between DPO and its SFT parent is shown" in text and "refused" in text


def test_the_terminal_summary_fits_80_columns(run_dir: Path, tmp_path: Path) -> None:
    with RunStore(run_dir, mode="read") as store:
        report = collect_report(store, run_dir)
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    console.print(summary(report))
    text = console.export_text()
    assert "…" not in text.split("DPO solves")[0]
    strict = report.agents["dpo"].strict
    assert f"{100 * (strict.success or 0):.1f}" in text and str(strict.n) in text


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def html(run_dir: Path) -> str:
    return write_report(run_dir).read_text()


def test_the_page_is_one_file(html: str) -> None:
    assert len(html) < 5_000_000
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", html)
    assert "@import" not in html and "url(" not in html
    assert "default-src 'none'" in html
    references = set(re.findall(r'<use href="#(\w+)"', html))
    defined = re.findall(r'<image id="(\w+)"', html)
    assert references == set(defined) and len(defined) == len(set(defined)) > 10


def test_content_of_pages_is_escaped(html: str) -> None:
    assert HOSTILE not in html and "<img src=x" not in html
    assert "&lt;script&gt;document.title" in html
    assert html.count("<script>") == 1


def test_every_section_is_there(html: str) -> None:
    for name in ("result", "agents", "tasks", "training", "endings", "pairs", "replays", "made"):
        assert f'<section id="{name}"' in html
    for chart in ("SFT loss", "DPO loss", "Control loss", "Implicit rewards", "Reward margin", "Reward accuracy"):
        assert chart in html
    for text in ("could not be read: no line starts with", "click(&#34;", "What the model saw", "led to success in 80"):
        assert text in html
    assert "the 95 % interval of the paired gain lies above 0" in html
    assert "per_device_train_batch_size: " in html


def test_every_family_has_its_figures_by_agent(run_dir: Path, html: str) -> None:
    with RunStore(run_dir, mode="read") as store:
        report = collect_report(store, run_dir)
    table = html[html.index("Every figure, by family and agent") :].partition("</table>")[0]
    rows = re.findall(r"<tr class.*?</tr>", table, re.DOTALL)
    assert len(rows) == len(TASKS) * len(report.agents)
    dpo = report.agents["dpo"].tasks["navigate-tree"]
    row = next(row for row in rows if "navigate-tree" in row and ">DPO<" in row)
    for text in (words.percent(dpo.success), words.interval(dpo), f">{dpo.n}<", f">{dpo.excluded}<"):
        assert text in row


def test_what_was_held_out_stands_apart(tmp_path: Path) -> None:
    run = write_sample_run(tmp_path / "apart")
    with RunStore(run) as store:
        config = store.get_fact("config")
        group = "evaluate:\n  held_out:\n    skin b: [shop-b]\n    not yet: [other-b]\n"
        assert "  held_out: {}\n" in config
        store.set_fact("config", config.replace("evaluate:\n", group).replace("  held_out: {}\n", ""))
        for agent, won in (("sft", 3), ("dpo", 12)):
            report = evaluation(agent, {("shop-b", seed): seed < won for seed in range(20)})
            report = report.model_copy(update={"tasks": {"shop-b": rate([seed < won for seed in range(20)])}})
            store.set_fact(f"eval_held_out/{agent}", {"skin b": report.model_dump(mode="json")})
        gained = gain(0.45, 0.25, 0.65).model_dump(mode="json")
        store.set_fact("gain_held_out", {"skin b": gained})
    html, figures = write_report(run).read_text(), report_json(run)
    section = html[html.index('<section id="held-out"') :].partition("</section>")[0]
    assert "shop-b" in section and "Not measured yet." in section
    assert words.percent(0.15) in section and words.percent(0.6) in section
    assert "DPO solves 45.0 more of every 100" in section
    assert "shop-b" not in html.partition('<section id="held-out"')[0].partition('id="tasks"')[2]
    assert figures["held_out"]["skin b"]["by_task"]["shop-b"]["dpo"]["n"] == 20
    assert "what was held out: not yet" in figures["missing"] and "shop-b" not in figures["tasks"]
    with RunStore(run, mode="read") as store:
        console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
        console.print(summary(collect_report(store, run)))
    text = console.export_text()
    after = text.partition("Never trained on: skin b")[2]
    assert "15.0" in after and "60.0" in after and "DPO solves 45.0 more" in after


def test_a_lost_screenshot_falls_back_to_a_drawing(run_dir: Path) -> None:
    def gone(sha: str) -> bytes:
        raise StoreError("a blob is missing", where=sha)

    with RunStore(run_dir, mode="read") as store:
        html = render_page(collect_report(store, run_dir), gone)
    assert "<image id=" not in html and html.count("Drawing of the page") > 20


# -- pictures and charts -----------------------------------------------------------------------------------------------


def test_the_outline_fits_a_picture_of_twice_the_size() -> None:
    """MiniWoB++'s task area of 160 x 210 is a picture of 320 x 420."""
    picture = JPEG.replace(bytes.fromhex("001e0028"), (420).to_bytes(2) + (320).to_bytes(2))
    assert image_size(picture) == (320, 420)
    button = Element(ref="1", role="button", name="Go", box=(10, 20, 40, 15))
    observation = Observation(goal="g", elements=(button,), screenshot="a" * 64)
    frame = Pictures(lambda _sha: picture).frame(observation, "1", env="miniwob")
    assert 'viewBox="0 0 160 210"' in frame and 'transform="scale(0.5)"' in frame
    assert 'x="8.0" y="18.0" width="44.0" height="19.0"' in frame
    assert 'transform="scale(1.0)"' in Pictures(lambda _sha: picture).frame(observation, "1", env="website")


def test_image_size() -> None:
    assert image_size(PNG) == (2, 1) and image_size(JPEG) == (40, 30)
    assert image_size(b"GIF89a") is None and image_size(b"\xff\xd8") is None and image_size(b"") is None


def test_pictures_are_embedded_once_and_within_the_budget() -> None:
    seen, _ = page("login-user", 3, 0)
    pictures = Pictures(lambda _sha: PNG + bytes(1000), budget=1500)
    first = pictures.frame(seen.model_copy(update={"screenshot": "a" * 64}), "3")
    again = pictures.frame(seen.model_copy(update={"screenshot": "a" * 64}))
    beyond = pictures.frame(seen.model_copy(update={"screenshot": "b" * 64}))
    assert "Screenshot" in first and 'class="target"' in first and 'class="target"' not in again
    assert "Drawing" in beyond and "Username" in beyond
    assert pictures.definitions().count("<image") == 1


def test_a_drawing_escapes_what_the_page_says() -> None:
    seen, _ = page("click-link", 5, 0)
    drawing = Pictures(lambda _sha: b"").frame(seen)
    assert "<script>" not in drawing and "&lt;script&gt;" in drawing


def test_ticks_are_round_and_span_the_values() -> None:
    assert charts.ticks(0.1, 0.74) == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert charts.ticks(-1.3, 0.4) == [-1.5, -1.0, -0.5, 0.0, 0.5]
    for low, high in ((0.0, 0.0), (5.0, 5.0), (1e-6, 3e-6), (-2e5, 7e5)):
        marks = charts.ticks(low, high)
        assert marks[0] <= low and marks[-1] >= high and 2 <= len(marks) <= 7


def test_smoothing_keeps_straight_lines_straight_and_does_not_lag() -> None:
    line = [(float(x), 3.0 - 0.1 * x) for x in range(50)]
    assert [y for _, y in charts.smooth(line)] == pytest.approx([y for _, y in line])


def test_a_chart_leaves_out_what_is_not_finite_and_does_not_join_rounds() -> None:
    points = [(1.0, 0.7), (2.0, float("nan")), (3.0, 0.6), (4.0, 0.7), (5.0, 0.5)]
    chart = charts.Chart("Loss <b>", "", (charts.Series("training", "dpo", points, edges=(3.0,)),), breaks=(3.0,))
    svg = str(chart.svg)
    assert "nan" not in svg and "&lt;b&gt;" in svg
    assert [len(line.split()) for line in re.findall(r'<polyline[^>]*points="([^"]*)"', svg)] == [2, 2]
    assert "no values" in charts.Chart("x", "", (charts.Series("y", "dpo", [(1.0, float("inf"))]),)).svg
